"""Bits, files and memory: what knows nothing of studies.

Imports: errors alone.
To add a helper that two rooms need, a module of one purpose; pure where it can be.
"""
