"""Where objects live: files, buckets, memory, each with the few operations of ``objects.Objects``.

Imports: schema and core.
To add a kind of storage, a class with these operations, tried by ``tests/storage/test_buckets.py``; and its URL in ``storage/location.py``.
"""
