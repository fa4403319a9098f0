"""crowdnerf_lab: from a crowd's phones to a view on any device."""
