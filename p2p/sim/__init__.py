"""A virtual site under virtual time, with the production scheduler in each device."""
