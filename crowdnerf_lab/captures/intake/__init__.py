"""What strangers send, taken in: limits, sandboxes, journal."""
