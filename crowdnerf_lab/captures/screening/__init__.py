"""Which photos help: what is measured on them, the checks, the report."""
