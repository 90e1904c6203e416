"""The only statement of names, documents and groups, read from ``store_schemas/``.

Imports: core.
To add a document or a group, its file in ``store_schemas/``, its page by ``python docs/tables.py --write``, a
document's type by ``python docs/typed_documents.py --write``.
"""
