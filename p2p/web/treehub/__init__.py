"""TreeHub: a server of its interface, its store, and pushing to one."""
