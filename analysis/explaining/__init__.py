"""What explains a direction: annotations of targets and of train units that go with it, how surely, and in one line.

Imports: analysis.experiment, study.
To add a measure, in ``association.py``; where it is taken, in ``scores.py``; what is said of it, in ``lines.py``.
"""
