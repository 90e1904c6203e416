"""The runs as what they are, a randomised experiment: unbiased effects of train units on outputs, with errors.

Pure functions on :class:`dmstore.analysis.experiment.arms.Arm`; ``reading.py`` makes these of a study's runs.
Imports: regression, study and below.
To add a statistic, in ``measure.py`` if it needs the outputs, in ``inference.py`` if it needs estimates alone.
"""
