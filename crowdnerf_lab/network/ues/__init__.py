"""What a UE does beside the service: connections, downloads, choices, and crowds of UEs."""
