"""The JSON files that state the arrays and documents of the store format, and nothing else.

Imports: nothing.
To add a kind, a ``*.document.json`` or ``*.group.json``, its table in ``docs/reference/format.md``, a document's type
(``docs/typed_documents.py``), and the format version.
"""
