"""Where the phones were: structure from motion, georegistration, calibration."""
