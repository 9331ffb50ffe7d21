"""Write approved outputs anew: ``python -m tests.approved --update [CASE ...]``.

Without ``--update`` the cases are run and what moved is shown. ``CASE`` is the name of a case or
the beginning of names. Say in the commit why an output moved.
"""

from __future__ import annotations

import argparse
import sys
import time
from importlib.util import find_spec
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from approving import difference
from cases import all_cases, expected_file


def main() -> int:
    """Run the cases that were asked for; the exit code is 1 where one moved."""
    parser = argparse.ArgumentParser(prog="python -m tests.approved", description=__doc__)
    parser.add_argument("--update", action="store_true", help="write what was found")
    parser.add_argument("--times", action="store_true", help="print what each case took")
    parser.add_argument("cases", nargs="*", metavar="CASE")
    asked = parser.parse_args()
    moved = 0
    for case in all_cases():
        if asked.cases and not any(case.name.startswith(each) for each in asked.cases):
            continue
        if not all(find_spec(each) for each in case.needs):
            print(f"{case.name}: skipped, needs {', '.join(case.needs)}", file=sys.stderr)
            continue
        start = time.process_time()
        try:
            text = case.text()
        except Exception as error:
            print(f"{case.name}: {type(error).__name__}: {error}", file=sys.stderr)
            moved += 1
            continue
        if asked.times:
            print(f"{time.process_time() - start:7.2f} s {len(text):8} {case.name}")
        told = difference(case.name, text)
        if not told:
            continue
        moved += 1
        if asked.update:
            path = expected_file(case.name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
            print(f"written: {case.name}")
        else:
            print(told)
    return int(moved > 0 and not asked.update)


if __name__ == "__main__":
    sys.exit(main())
