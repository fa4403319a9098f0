"""Network inference: views rendered in processes, shared, cached, in time or refused."""
