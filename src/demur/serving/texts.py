"""The text of an answer while it grows: what has left is never taken back, and no character is invented.

Tokens come in their order, each once it is final. Bytes are put together and decoded as one text, so a character that
is split over tokens leaves when it is whole. What may be the beginning of a stop string waits until it is none. So the
parts that left, put together, are the whole text.
"""

from __future__ import annotations

import codecs
from collections.abc import Container, Mapping, Sequence
from typing import Literal

Finish = Literal["stop", "length"]


class Text:
    """One answer's text. ``pieces`` are the bytes of tokens, ``unseen`` the special ones, which are left out; ``ends``
    end an answer. It is cut before the first of ``stops``, and after ``most`` tokens.

    ``tokens`` counts those that were read, an end among them. ``finish`` says why it is over: ``stop`` at an end or a
    stop string, ``length`` at ``most``; None while it may go on.
    """

    def __init__(
        self,
        pieces: Mapping[int, bytes],
        unseen: Container[int],
        ends: Container[int],
        stops: Sequence[str] = (),
        most: int | None = None,
    ) -> None:
        self.pieces, self.unseen, self.ends = pieces, unseen, ends
        self.stops, self.most = tuple(stops), most
        self.tokens = 0
        self.finish: Finish | None = None
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._text, self._left = "", 0  # all that was decoded, and how many characters of it have left
        self._longest = max(map(len, self.stops), default=1)

    @property
    def so_far(self) -> str:
        """What has left."""
        return self._text[: self._left]

    def feed(self, tokens: Sequence[int]) -> str:
        """Reads tokens that are final, and gives the text that leaves by them. -1 is a place that nothing was written
        in: bytes on its two sides are never put together.
        """
        for token in tokens:
            if self.finish is not None:
                break
            if token < 0:
                self._add(self._decoder.decode(b"", final=True))
                self._decoder.reset()
                continue
            self.tokens += 1
            if token in self.ends:
                self._close("stop")
                break
            if token not in self.unseen:
                self._add(self._decoder.decode(self.pieces[token]))
            if self.finish is None and self.most is not None and self.tokens >= self.most:
                self._close("length")
        return self._out()

    def close(self) -> str:
        """No token follows: the rest of the text."""
        if self.finish is None:
            self._close("length")
        return self._out()

    def _close(self, finish: Finish) -> None:
        self._add(self._decoder.decode(b"", final=True))
        self.finish = self.finish or finish  # the last bytes may complete a stop string

    def _add(self, more: str) -> None:
        if not more or self.finish is not None:
            return
        begin = max(self._left, len(self._text) - self._longest + 1)
        self._text += more
        found = [at for stop in self.stops if (at := self._text.find(stop, begin)) >= 0]
        if found:
            self._text, self.finish = self._text[: min(found)], "stop"

    def _out(self) -> str:
        upto = len(self._text) if self.finish is not None else len(self._text) - self._may_be_a_stop()
        out, self._left = self._text[self._left : upto], max(upto, self._left)
        return out

    def _may_be_a_stop(self) -> int:
        """How many characters at the end may be the beginning of a stop string."""
        for n in range(min(self._longest - 1, len(self._text) - self._left), 0, -1):
            if any(stop.startswith(self._text[-n:]) for stop in self.stops if len(stop) > n):
                return n
        return 0
