"""A study and its parts: examples, plans, algorithms, their runs and results, as labelled data.

Imports: storage and below.
To add a part, a module with plain functions on storage; ``study.py`` alone puts parts together.
"""
