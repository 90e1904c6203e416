"""Compiled kernels: counts, products and coordinate descent on arrays; numba is imported here alone.

Imports: core.
To add a kernel, a function under ``compiled.njit`` with a test against NumPy.
"""
