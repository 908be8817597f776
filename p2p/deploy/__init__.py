"""From a verified commit to a running system, and back to the one before."""
