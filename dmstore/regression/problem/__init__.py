"""What a fit is of: designs, outputs as moments, parameters, and the arrays that it fills.

Imports: regression.kernels and core.
To add a parameter, a field of ``Parameters``, its option in ``cli/fit.py`` and its line in ``docs/explanation/fit.md``.
"""
