"""A table: segments, bases and the log that commits them, read as one pinned view.

Imports: storage.objects, schema, core.
To add an operation of the protocol, a dataclass in ``protocol.py`` and its twin in ``tests/support/simulation.py``.
"""
