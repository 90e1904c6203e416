"""How two algorithms differ: ModelDiff, kept in a study, and effects of changed inputs.

Imports: analysis.geometry, study.
To add a result of a comparison, in ``modeldiff.py`` and ``store_schemas/comparison.group.json``.
"""
