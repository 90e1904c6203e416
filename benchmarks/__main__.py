"""``python -m benchmarks NAME [--json]``."""

from __future__ import annotations

import argparse
import importlib
import json
import resource

NAMES = (
    *(
        "startup",
        "commit",
        "overhead",
        "bulk",
        "columns",
        "opening",
        "compaction",
        "importing",
        "loaders",
    ),
    *(
        "size",
        "fit",
        "regression",
        "solvers",
        "units",
        "gram",
        "ranks",
        "calibration",
        "captions",
        "contrasts",
        "differences",
        "peers",
    ),
    *("growth", "store", "comparison", "study-comparison", "training"),
)

FUNCTIONS = {
    "overhead": ("commit", "overhead"),
    "store": ("table", "run"),
    "study-comparison": ("study_comparison", "run"),
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("name", choices=NAMES)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument(
        "--size",
        help="regression, peers: small, waterbirds, cifar10 or living17; units, calibration, captions, contrasts, differences, study-comparison: small, medium or paper; comparison: small, medium, paper or living17; training: small is heads alone",
    )
    parser.add_argument(
        "--store", help="regression, study-comparison: a directory to keep the store in"
    )
    parser.add_argument("--memory", help="regression: bound of the fit, such as 8GB")
    parser.add_argument("--targets", help="regression: so many targets alone")
    parser.add_argument(
        "--halves",
        action="store_const",
        const="halves",
        help="regression: fit both halves of the masks too",
    )
    parser.add_argument(
        "--peer", help="peers: only this one; comparison: modeldiff at any size, or none"
    )
    parser.add_argument(
        "--python", help="peers, comparison: an interpreter that has them installed"
    )
    arguments = parser.parse_args()
    options = {
        key: value
        for key in ("size", "store", "memory", "targets", "peer", "python", "halves")
        if (value := getattr(arguments, key)) is not None
    }
    module, function = FUNCTIONS.get(arguments.name, (arguments.name, "run"))
    result = getattr(importlib.import_module(f"benchmarks.{module}"), function)(**options)
    own = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6, 3)
    result = {"peak_gb": own, **result}
    if arguments.json:
        print(json.dumps(result))
    else:
        for key, value in result.items():
            print(f"{key}: {value:.4g}" if isinstance(value, float) else f"{key}: {value}")


if __name__ == "__main__":
    main()
