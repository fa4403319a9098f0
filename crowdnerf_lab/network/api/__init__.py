"""What every route of the service shares: who calls, what it may, what went wrong; events, health, and what runs."""
