"""Solvers: from sufficient statistics of a block of targets to certified weights.

Imports: regression.problem and below.
To add a solver, a module with ``fit_block`` and its name in ``problem/solver_names.py``; ``tests/regression/test_solvers.py`` holds it to hard designs.
"""
