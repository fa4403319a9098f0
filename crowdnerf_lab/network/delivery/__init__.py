"""One object to many receivers: broadcast with a fountain code, repair over unicast, and peers."""
