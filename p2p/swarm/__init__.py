"""What to ask of whom: a sans-IO, deterministic scheduler; see docs/swarm.md."""
