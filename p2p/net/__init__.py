"""How bytes move between neighbours: identity, TLS, discovery."""
