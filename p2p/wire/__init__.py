"""What peers say: typed messages and one sans-IO Connection; see docs/protocol.md."""
