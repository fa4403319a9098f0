"""Links between UEs and the network, and where the time from a request to its pixels goes."""
