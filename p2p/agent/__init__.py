"""The half that faces the network: what to fetch, from whom, and what became of it."""
