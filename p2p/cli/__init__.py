"""The commands people type: thin shells around the other packages."""
