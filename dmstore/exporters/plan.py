"""What a worker without dmstore needs to know: the plan as one JSON file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dmstore.schema.documents import dump_document
from dmstore.schema.typed_documents import WorkerDocument
from dmstore.study import plan
from dmstore.study.study import Study


def write(path: Path, study: Study, algorithm: str) -> int:
    """Write the plan of an algorithm for ``dmstore_writer.py``; a new file.

    Returns
    -------
    int
        Runs planned; 0 for foreign sampling, whose masks are made elsewhere.
    """
    opened = study.algorithm(algorithm)
    sizes = opened.table.sizes
    independent = opened.document["masks"] == "independent"
    document: WorkerDocument = {
        "study": study.uuid,
        "algorithm": algorithm,
        "sampling": opened.document["sampling"],
        "seed": study.seed,
        "key": plan.mask_key(study.seed, algorithm if independent else None),
        "alpha": opened.alpha,
        "train": opened.train,
        "blocks": [block.document() for block in opened.blocks],
        "stored": _ranges(np.sort(opened.table.view().run)) if opened.planned else [],
        "outputs": {
            spec.name: {"dtype": spec.dtype, "shape": [sizes[dim] for dim in spec.dims[1:]]}
            for spec in opened.table.spec.outputs()
        },
    }
    path.write_bytes(dump_document("worker", document))
    return opened.planned_count


def _ranges(run: NDArray[np.int64]) -> list[list[int]]:
    """Sorted ids as ranges: first id, and the first id after."""
    if not len(run):
        return []
    breaks = np.flatnonzero(np.diff(run) != 1)
    first, last = run[np.r_[0, breaks + 1]], run[np.r_[breaks, len(run) - 1]]
    return [[int(a), int(b) + 1] for a, b in zip(first, last, strict=True)]
