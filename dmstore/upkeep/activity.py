"""What happens in a study at the moment: how fast runs come in, from where, and when all will be there."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dmstore.storage.table import segment
from dmstore.storage.table.table import Table
from dmstore.study import claims, failures
from dmstore.study.study import Study

WINDOW = 900.0


def activity(study: Study, algorithm: str, *, window: float = WINDOW) -> dict[str, Any]:
    """What became of an algorithm's runs lately. Nothing is read but small columns of new segments.

    Parameters
    ----------
    study : Study
    algorithm : str
    window : float
        How far back to look, in seconds, by the clocks of the workers and of this host.

    Returns
    -------
    dict
        ``planned`` (None of a foreign algorithm), ``stored``, ``pending`` and ``failed`` runs; ``rate``, runs an hour that
        were finished in the window (None while all that were came in at one moment); ``seconds_left`` at that rate (None where that is not known);
        ``hosts``, of each that finished runs lately how many, the last one's ``time`` (milliseconds since 1970)
        and the ``claims`` of workers there; ``last_failure``, its run, error, time and host, or None.

    Raises
    ------
    NotFoundError
        If the study has no algorithm of this name.
    """
    opened = study.algorithm(algorithm)
    run = opened.table.view().run
    missing = opened.missing(run)
    failed = failures.failed(study.objects, opened.prefix, missing)
    pending = len(missing) - len(failed)
    now = time.time() * 1000
    times, hosts = _finished(opened.table, now - 1000 * window)
    # How long the first ones took is not known, and a batch of runs comes in at once: the later ones are counted, from the
    # moment at which the first were there.
    first = int(times.min()) if len(times) else 0
    later = int((times > first).sum())
    rate = later / max((now - first) / 1000, 1.0) * 3600 if later else None
    holding = claims.workers(study.objects, opened.prefix)
    last = failures.read(study.objects, opened.prefix, opened.uuid, failed.tolist(), 1)
    return {
        "planned": opened.planned_count if opened.planned else None,
        "stored": len(run),
        "pending": pending,
        "failed": len(failed),
        "rate": rate,
        "seconds_left": pending / rate * 3600 if rate else (0.0 if not pending else None),
        "hosts": {
            host: {
                "runs": int((hosts == host).sum()),
                "time": int(times[hosts == host].max()) if (hosts == host).any() else None,
                "claims": holding.get(host, 0),
            }
            for host in sorted({*hosts.tolist(), *holding})
        },
        "last_failure": {k: last[0][k] for k in ("run", "error", "time", "host")} if last else None,
    }


def _finished(table: Table, since: float) -> tuple[NDArray[np.int64], NDArray[np.str_]]:
    """Time and host of the runs that were finished since a moment; compaction leaves their segments for a while."""
    times, hosts = [np.empty(0, dtype=np.int64)], [np.empty(0, dtype=np.str_)]
    for name in reversed(table.segment_names()):
        # A segment is written after its runs.
        if int(name.rpartition("/")[2].partition("-")[0]) < since:
            break
        try:
            info = segment.read_info(table.objects, name, table.identity)
            shapes = table.shapes(["time", "host"], len(info))
            columns = segment.read_segment(table.objects, name, shapes)
        except FileNotFoundError:
            # A vacuum took it.
            continue
        recent = columns["time"] >= since
        times.append(columns["time"][recent])
        hosts.append(columns["host"][recent].astype(np.str_))
    return np.concatenate(times), np.concatenate(hosts)
