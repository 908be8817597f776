"""`p2p doctor`: what keeps updates from coming, each with one remedy."""
