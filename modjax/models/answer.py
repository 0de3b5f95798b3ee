"""The text of one answer, piece by piece, while its tokens are still being drawn."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from typing import Any

BYTE = re.compile(r"<0x[0-9A-F]{2}>")  # a token of tokenizers with byte fallback: a part of a character
PARTIAL = "\N{REPLACEMENT CHARACTER}"  # what a character whose bytes are not all there decodes to


class Answer:
    """Takes tokens as they come and gives the text that no later token can change.

    The pieces of an answer, joined, are its text, in however many portions the tokens came: what precedes the first
    end token and the stop string that is complete first.

    Args:
      tokenizer: a transformers tokenizer; its text is left untidied (no clean_up_tokenization_spaces).
      ends: the tokens that end a turn.
      stops: strings that end an answer, even across tokens; neither they nor what follows are part of it.
    """

    def __init__(self, tokenizer: Any, ends: Collection[int] = (), stops: Sequence[str] = ()):
        self.tokenizer, self.ends, self.stops = tokenizer, frozenset(ends), tuple(stops)
        self.tokens: list[int] = []
        self.text = ""  # all that was given so far
        self.over = False

    def push(self, tokens: Iterable[int]) -> str:
        """The piece that these tokens make certain; "" once the answer is over."""
        if self.over:
            return ""
        for token in map(int, tokens):
            if token in self.ends:
                return self.finish()
            self.tokens.append(token)
        return self._give(self._certain(), final=False)

    def finish(self) -> str:
        """The last piece: no token will follow."""
        if self.over:
            return ""
        piece = self._give(self._decode(self.tokens), final=True)
        self.over = True
        return piece

    def _give(self, text, final):
        """What of `text` is new, short of a stop string and, unless final, of what may become one."""
        found = _first_complete(text, self.stops, len(self.text))
        if found is not None:
            self.over = True
            text = text[:found]
        elif not final:
            text = text[: len(text) - _begun(text, self.stops)]
        piece = text[len(self.text) :]
        self.text += piece
        return piece

    def _certain(self):
        """The text of the tokens so far without characters that lack bytes.

        With byte fallback one missing byte changes how all the bytes before it decode, so their whole run waits.
        """
        n_tokens = len(self.tokens)
        while n_tokens and BYTE.fullmatch(self.tokenizer.convert_ids_to_tokens(self.tokens[n_tokens - 1]) or ""):
            n_tokens -= 1
        return self._decode(self.tokens[:n_tokens]).rstrip(PARTIAL)

    def _decode(self, tokens):
        return self.tokenizer.decode(tokens, clean_up_tokenization_spaces=False) if tokens else ""


def _first_complete(text: str, stops: Sequence[str], start: int) -> int | None:
    """Where the stop string begins that ends first, the longest of several that end there; None without one."""
    at = {stop: text.find(stop, start) for stop in stops}
    ends = [(place + len(stop), place) for stop, place in at.items() if place >= 0]
    return min(ends)[1] if ends else None


def _begun(text: str, stops: Sequence[str]) -> int:
    """How many of the last characters may be the beginning of a stop string."""
    return max((n for stop in stops for n in range(1, len(stop)) if text.endswith(stop[:n])), default=0)
