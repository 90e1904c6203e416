"""Published copies, which are read-only: their index, archives, buckets and web servers.

Imports: storage.objects, schema, core.
To add a place to read them from, a class of ``IndexedObjects``.
"""
