"""The client of HTTP origins: OSTree repositories behind a URL, at full speed."""
