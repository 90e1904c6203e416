"""Figures and pages that show fits and comparisons.

Imports: analysis.comparison, analysis.evaluation and below.
To add a figure, a function in ``plot.py`` from a dataset to axes, looked at in ``tests/analysis``.
"""
