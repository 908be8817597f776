"""An HTTP server: for TreeHub, the local API, and what else answers requests."""
