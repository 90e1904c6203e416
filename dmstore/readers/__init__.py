"""Readers of files that hold runs: one source a file."""
