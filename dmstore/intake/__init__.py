"""Runs on their way into a study: sources taken block by block, workers' files, whole studies.

Imports: readers, study and below.
To add nothing here for a new format: that is a reader. What becomes of rows is decided here.
"""
