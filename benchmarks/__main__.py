"""``python -m benchmarks NAME [--json]``."""

from __future__ import annotations

import argparse
import importlib
import json
import resource

NAMES = (
    *("startup", "commit", "overhead", "bulk", "columns", "opening", "compaction", "importing"),
    *("size", "fit", "solvers", "store"),
)

FUNCTIONS = {"overhead": ("commit", "overhead"), "store": ("table", "run")}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("name", choices=NAMES)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    arguments = parser.parse_args()
    module, function = FUNCTIONS.get(arguments.name, (arguments.name, "run"))
    result = getattr(importlib.import_module(f"benchmarks.{module}"), function)()
    result["peak_gb"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6, 3)
    if arguments.json:
        print(json.dumps(result))
    else:
        for key, value in result.items():
            print(f"{key}: {value:.4g}" if isinstance(value, float) else f"{key}: {value}")


if __name__ == "__main__":
    main()
