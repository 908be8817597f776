"""Whom we believe: signatures, keys, and the rules a new head must pass."""
