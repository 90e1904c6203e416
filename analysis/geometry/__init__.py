"""Datamodels as vectors: unit rows, residuals, principal components, cosines, influence. Pure functions.

Imports: nothing but errors and regression.
To add a quantity, a function from labelled arrays to labelled arrays with its equation, tested against NumPy.
"""
