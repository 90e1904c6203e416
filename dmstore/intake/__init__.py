"""Runs on their way into a study: where their sources are, what becomes of their rows, and studies made of them.

Imports: readers, study and below.
To add nothing here for a new format: that is a reader. What becomes of rows is decided in ``judging.py`` alone.
"""
