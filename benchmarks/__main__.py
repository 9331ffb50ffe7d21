"""``python -m benchmarks [NAME ...] [--json]``: measure, print, exit 1 where a limit is missed."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from importlib import import_module

from benchmarks.measurement import Measurement, print_measurement

NAMES = (
    "block",
    "dram",
    "pseudo_channels",
    "memory",
    "startup",
    "oracle",
    "export",
    "fast",
    "sweep",
    "serve",
    "laws",
)


def main() -> int:
    """Run the benchmarks that are named, or all."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(NAMES)}")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    options = parser.parse_args()
    for name in options.names:
        if name not in NAMES:
            parser.error(f"no benchmark {name!r}; there are {', '.join(NAMES)}")
    found: list[Measurement] = []
    for name in options.names or NAMES:
        for one in import_module(f"benchmarks.{name}").measure():
            found.append(one)
            if not options.json:
                print_measurement(one)
    if options.json:
        rows = [asdict(one) | {"ratio": one.ratio, "met": one.met} for one in found]
        print(json.dumps({"measurements": rows}, indent=1))
    return 0 if all(one.met for one in found) else 1


if __name__ == "__main__":
    sys.exit(main())
