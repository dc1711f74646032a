"""GGUF files: the header is read whole, the weights go tensor by tensor into a native class.

transformers translates names and permutations; what its translation leaves out is set or refused here: scaled
rotary embeddings, factors by dimension, scales and caps, tokens that end a turn, files in several parts. A tensor that
is missing or left over is an error.

``header`` reads, ``config`` and ``tokenizer`` translate, ``excerpt`` and ``folder`` keep what they made, ``blocks``
unpack numbers, ``weights`` put them into the net.
"""

from demur.models.gguf.folder import described
from demur.models.gguf.header import Header, Place, opened
from demur.models.gguf.tokenizer import odd_text, stops
from demur.models.gguf.weights import native_net

__all__ = ["Header", "Place", "described", "native_net", "odd_text", "opened", "stops"]
