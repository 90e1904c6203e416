"""Does `compare` claim differences where there are none, and does it find those that there are? Known truth, simulated.

`direction` and `differs`: share of pairs of algorithms with the same truth of which a direction, or a direction or group of
targets, is called beyond chance at a false discovery rate of 5 %. `single`: share of z-values of directions beyond
1.645, and `group` of p-values of groups up to .05 (5 % is right). `similarity`: mean error of the noise-free similarity over
all targets; `covers` and `covers target`: share of 95 % intervals that hold the truth. With a planted direction, `found`:
share of pairs in which a direction with a cosine of at least .5 to it is beyond chance; `detectable`: energy that the
comparison itself says it would have shown in 80 %, beside the energy that was planted.
"""

from __future__ import annotations

from typing import Any

from benchmarks.simulated import NULLS, Condition, rates
from dmstore.core.threads import blas_threads

PLANTED = (0.15, 0.2, 0.25, 0.35)


def run(size: str = "small") -> dict[str, Any]:
    studies = {"small": 10, "medium": 100, "paper": 200}[size]
    result: dict[str, Any] = {}
    lines = []
    with blas_threads(1):
        for name, condition in NULLS.items():
            row = rates(condition, studies)
            result |= {f"{name}: {key}": row[key] for key in ("direction", "differs")}
            lines.append([name, *(f"{value:.3f}" for value in row.values())])
        columns = [*row]
        planted = []
        for effect in PLANTED:
            row = rates(Condition(), studies, effect)
            result[f"planted {effect}: found"] = row["found"]
            planted.append([effect, *(f"{row[k]:.4f}" for k in ("energy", "detectable", "found"))])
    head = f"| same truth | {' | '.join(columns)} |"
    table = "\n".join([head, *(f"| {' | '.join(map(str, line))} |" for line in lines)])
    power = "\n".join(f"| {' | '.join(map(str, line))} |" for line in planted)
    return {**result, "table": f"\n{table}", "power_table": f"\n{power}"}
