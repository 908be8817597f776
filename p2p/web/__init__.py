"""HTTP faces: the origin's client, the TreeHub-compatible server, pushing to one."""
