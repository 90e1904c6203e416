"""What is done to a table as a whole: compact, fill, tag, retract, vacuum, verify.

Imports: storage.table and below.
To add an act, steps in a module of its own, and its kinds of interleaving in ``tests/storage/test_protocol.py``.
"""
