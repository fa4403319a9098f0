"""Clips: reading them as phones make them, and the frames worth keeping."""
