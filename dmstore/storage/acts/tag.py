"""Tags: names for committed bases, which vacuum then keeps."""

from __future__ import annotations

import uuid

from dmstore import provenance
from dmstore.errors import ExistsError, FormatError, IncompleteError
from dmstore.schema.documents import dump_document, load_document
from dmstore.schema.names import check_name
from dmstore.schema.typed_documents import TagDocument
from dmstore.storage.acts.compact import require_exclusive
from dmstore.storage.table import log, protocol
from dmstore.storage.table.protocol import Children, Delete, Steps
from dmstore.storage.table.table import Table


def create(table: Table, name: str) -> TagDocument:
    """Tag the base in force.

    Returns
    -------
    dict
        The tag: ``name``, ``version``, ``base``, ``runs``, ``content_id``.

    Raises
    ------
    InputError
        If the name is not allowed.
    ExistsError
        If the tag exists; tags never move.
    IncompleteError
        If there is no base yet, or another took its place at the same moment.
    """
    check_name(name, "tag")
    return table.run(create_steps(table.prefix, name))


def create_steps(prefix: str, name: str) -> Steps[TagDocument]:
    """What tagging does; see :func:`create`."""
    taken = {other.removesuffix(".json").lower() for other in (yield Children(f"{prefix}tags/"))}
    manifest = yield from log.newest_steps(prefix)
    if manifest.base is None:
        msg = f"tag {name!r}: there is no base yet; run 'dmstore compact' first"
        raise IncompleteError(msg)
    yield from require_exclusive(prefix)
    tag: TagDocument = {
        "name": name,
        "version": manifest.version,
        "base": manifest.base.path,
        "runs": manifest.base.runs,
        "content_id": manifest.base.content_id,
        "token": uuid.uuid4().hex,
        "created": provenance.utc_now(),
    }
    where = f"{prefix}tags/{name}.json"
    made = name.lower() not in taken and (
        yield from protocol.create(where, dump_document("tag", tag))
    )
    if not made:
        msg = f"tag {name!r} exists; tags never move, choose another name"
        raise ExistsError(msg)
    # While the base is in force, every vacuum that could take it later sees the tag before: once it is
    # not, one may have decided by a listing of tags that is as old as that.
    newest = yield from log.newest_steps(prefix)
    if newest.base is None or newest.base.path != manifest.base.path:
        yield Delete(where)
        msg = f"tag {name!r}: the runs were compacted at the same moment; run the command again"
        raise IncompleteError(msg)
    return tag


def read_all(table: Table) -> list[TagDocument]:
    """All tags, by name."""
    names = [
        name for name in table.objects.children(f"{table.prefix}tags/") if name.endswith(".json")
    ]
    tags = []
    for name in names:
        where = f"{table.prefix}tags/{name}"
        document = load_document("tag", table.objects.get(where), where)
        if f"{document['name']}.json" != name:
            msg = f"{where}: says that it is tag {document['name'][:40]!a}, so it does not belong here; remove it"
            raise FormatError(msg)
        tags.append(document)
    return tags
