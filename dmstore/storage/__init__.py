"""The store protocol: objects, segments, tables, compaction, vacuum, verification.

Writers never coordinate. A batch of finished runs is one immutable object with a unique name
(a *segment*); a compactor writes all rows into a new *base* and commits it by creating the next
log entry, which only one can do. Nothing is ever overwritten.
"""
