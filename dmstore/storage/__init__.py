"""The store protocol: objects, tables of rows, what is done to them, and published copies.

Writers never coordinate. A batch of finished runs is one immutable object with a unique name (a
*segment*); a compactor writes all rows into a new *base* and commits it by creating the next log entry,
which only one can do. Nothing is ever overwritten.

Imports: schema and core.
To add a kind of storage, see ``objects``; an act on a table, see ``acts``.
"""
