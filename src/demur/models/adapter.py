"""What all adapters share: a network, its tokenizer, how it is spoken to, and what it offers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field, replace
from typing import Any, ClassVar, Self

import torch

from demur.models.chat import Chat, canvas_of
from demur.models.network import KVCache, stop_ids
from demur.models.unchanged import remember_copy
from demur.models.vocabulary import token_bytes
from demur.types import OFFERS, Canvas, DemurError, Identity, Kind, Layer, Need, Prompt


@dataclass(frozen=True, eq=False)
class Adapter(ABC):
    """A model behind the protocol :class:`demur.types.Model`, without its passes.

    ``system``: a system prompt for every prompt that brings none. ``layers``: whose states a pass returns.
    ``response``: how long answers are by default, where the configuration says so (``response_length``).
    ``notes``: what its files ask for and nothing here does.
    """

    net: Any
    tokenizer: Any
    identity: Identity
    _: KW_ONLY
    system: str | None = None
    layers: tuple[Layer, ...] = ("last",)
    preferred: str = ""
    response: int | None = None
    template_args: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    USUAL_LENGTH: ClassVar[int] = 128

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        """A copy, also one in another process, is looked at as the original is."""
        self.__dict__.update(state)
        remember_copy(self)

    @property
    @abstractmethod
    def kind(self) -> Kind:
        """How the model writes."""

    def __repr__(self) -> str:
        """In one short line, for a notebook: neither the network nor the vocabulary nor the system prompt."""
        place = f"{self.identity.dtype} on {self.device}"
        return f"{type(self).__name__}({self.name!r}, {self.kind}, {place}, sampler={self.preferred!r})"

    @property
    def name(self) -> str:
        """How the user named the model."""
        return self.identity.model

    @property
    def offers(self) -> frozenset[Need]:
        """What the model can do."""
        return OFFERS[self.kind] | ({Need.CHAT} if self.chat.template is not None else set())

    @property
    def device(self) -> torch.device:
        """Where ids go."""
        device: torch.device = self.net.device
        return device

    @property
    def config(self) -> Any:
        """The configuration of the part that writes text."""
        return self.net.config.get_text_config(decoder=True)

    @property
    def stop_ids(self) -> tuple[int, ...]:
        """The tokens that end a response, sorted."""
        return stop_ids(self.net, self.tokenizer)

    @property
    @abstractmethod
    def fill_id(self) -> int:
        """The token that is written into open places."""

    @property
    def chat(self) -> Chat:
        """How the model is spoken to."""
        return Chat(self.tokenizer, self.system, self.template_args)

    def default_length(self, steps: int = 32) -> int:
        """How many places a response has where nobody says it: what the configuration says, else 128."""
        return self.response or self.USUAL_LENGTH

    def watching(self, *layers: Layer, own: bool = True) -> Self:
        """The same model, whose passes return the states of ``layers`` (none named: nothing is captured)."""
        return replace(self, layers=layers)

    def canvas(self, prompts: Sequence[Prompt], length: int) -> Canvas:
        """Prompts in the chat template, each followed by ``length`` open places. Errors: :meth:`Chat.encode`."""
        context = getattr(self.config, "max_position_embeddings", None)
        rows = self.chat.encode(prompts, length=length, context=context, stops=self.stop_ids)
        return self.canvas_of(rows, length)

    def canvas_of(
        self, rows: Sequence[Sequence[int]], length: int, holes: Sequence[Sequence[int]] | None = None
    ) -> Canvas:
        """Token rows, each followed by ``length`` open places; ``holes`` opens places inside the rows as well. Raises
        for a token that the network does not know.
        """
        known = int(self.net.get_input_embeddings().num_embeddings)
        strange = next((token for row in rows for token in row if not 0 <= token < known), None)
        if strange is not None:
            raise DemurError(
                f"token {strange}, and an embedding of {known} rows",
                "a tokenizer and weights of one model",
                "take the tokenizer that belongs to the weights, or give the embedding a row for each of its tokens",
            )
        return canvas_of(rows, length, fill=self.fill_id, device=self.device, holes=holes)

    def pieces(self, ids: Sequence[int]) -> tuple[dict[int, bytes], frozenset[int]]:
        """The bytes of tokens, and which of them are special."""
        return token_bytes(self.tokenizer, ids)

    def new_cache(self) -> KVCache:
        """An empty cache for one generation."""
        return KVCache(self.net)
