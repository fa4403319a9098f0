"""One clock for a crowd, by what its clips heard."""
