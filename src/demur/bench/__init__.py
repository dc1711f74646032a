"""What demur costs on a machine: the bare way, capture, a guard and replay side by side (``demur bench MODEL``)."""

from demur.bench.cases import Case, Found, bench
from demur.bench.machine import machine
from demur.bench.measure import Compared, Took, in_turns
from demur.bench.sheet import as_json, as_markdown

__all__ = ["Case", "Compared", "Found", "Took", "as_json", "as_markdown", "bench", "in_turns", "machine"]
