"""A study as a whole: status, compaction, verification, vacuum, retraction, and what a storage guarantees.

Imports: study and below.
To add a check, in ``verification.py`` for stored data, in ``doctor.py`` for a storage.
"""
