"""The oracles in ``tests/oracle`` are importable from the property tests as ``oracle.…``, and what
draws configs as ``benchmarks.…``."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parent))
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
