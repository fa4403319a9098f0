"""Nobody recognisable, nothing told that need not be, and anybody can leave."""
