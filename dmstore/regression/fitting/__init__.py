"""A fit as a whole: runs in groups, stages, passes within memory, blocks that land one by one, clusters.

Imports: regression.solvers, study and below.
To add a stage, its runs in ``stages.py`` and what it does in ``solvers/lasso.py``.
"""
