"""HTTP faces of the program."""
