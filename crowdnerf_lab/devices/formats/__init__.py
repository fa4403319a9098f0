"""Forms in which a light field's graph is stored: float16, int8, int4, throughout or for the weights alone."""
