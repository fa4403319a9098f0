"""What is measured: `python -m benchmarks.NAME [--json]` prints a table with its conditions; never a timed test."""
