"""From contributions to versions while the event runs."""
