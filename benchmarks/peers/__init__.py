"""Other people's trainers on the same photos: run as programs of their own and judged by our metrics."""
