"""The writer that is copied to where dmstore cannot be installed."""
