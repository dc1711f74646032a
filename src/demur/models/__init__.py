"""Models behind thin adapters. :func:`load` is the one door; nothing here runs remote code or reads a pickle."""

from demur.models.adapter import Adapter
from demur.models.bidirectional import Bidirectional
from demur.models.causal import Causal
from demur.models.chat import canvas_of
from demur.models.families import BUILT_IN, FAMILIES, Family
from demur.models.loading import DTYPES, best_device, load
from demur.models.locate import cache_dir, family_at, hub_is_reachable, organism_path, smollm2_path
from demur.models.network import KVCache
from demur.models.renoising import Renoising

__all__ = [
    "BUILT_IN",
    "DTYPES",
    "FAMILIES",
    "Adapter",
    "Bidirectional",
    "Causal",
    "Family",
    "KVCache",
    "Renoising",
    "best_device",
    "cache_dir",
    "canvas_of",
    "family_at",
    "hub_is_reachable",
    "load",
    "organism_path",
    "smollm2_path",
]
