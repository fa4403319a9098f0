"""Models for UEs over HTTP: versions, selection, downloads in ranges, deltas, what browsers run."""
