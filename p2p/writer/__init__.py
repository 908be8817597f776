"""The privileged half: verifies everything again, stages it and publishes it."""
