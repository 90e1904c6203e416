"""How well datamodels and scores predict runs that nothing was fitted on, and what more runs would bring.

Imports: analysis.geometry, regression, readers, study.
To add a method to judge, in ``benchmark.py``; a figure of agreement, in ``rank_statistics.py``; what JSON needs of figures is in ``plain_numbers.py``.
"""
