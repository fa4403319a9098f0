"""What the lab makes of what a crowd sends: calibration, screening, ingest, synchronisation, faces."""
