"""Streaming: the text of one answer, piece by piece, while its tokens are still being sampled."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from typing import Any

BYTE = re.compile(r"<0x[0-9A-F]{2}>")  # a byte-fallback token: one byte of a character
PARTIAL = "\N{REPLACEMENT CHARACTER}"  # a character with missing bytes decodes to this


class Answer:
    """Takes tokens as they are sampled and returns the text that no later token can change.

    The pieces joined are the text of the answer, however the tokens were grouped into calls: all text before the first
    end token and before the stop string that is completed first.

    Args:
      tokenizer: a transformers tokenizer; text is decoded without clean_up_tokenization_spaces.
      ends: ids of the tokens that end a turn.
      stops: strings that end the answer, even if they span tokens; they and the text after them are left out.
    """

    def __init__(self, tokenizer: Any, ends: Collection[int] = (), stops: Sequence[str] = ()):
        self.tokenizer, self.ends, self.stops = tokenizer, frozenset(ends), tuple(stops)
        self.tokens: list[int] = []
        self.text = ""  # all text returned so far
        self.over = False

    def push(self, tokens: Iterable[int]) -> str:
        """The text that has become final with these tokens; "" once the answer is over."""
        if self.over:
            return ""
        for token in map(int, tokens):
            if token in self.ends:
                return self.finish()
            self.tokens.append(token)
        return self._give(self._complete_characters(), final=False)

    def finish(self) -> str:
        """The last piece of text; to be called when no more tokens follow."""
        if self.over:
            return ""
        piece = self._give(self._decode(self.tokens), final=True)
        self.over = True
        return piece

    def _give(self, text, final):
        """The new part of `text`, up to a stop string and, unless final, up to what may become one."""
        found = _first_complete(text, self.stops, len(self.text))
        if found is not None:
            self.over = True
            text = text[:found]
        elif not final:
            text = text[: len(text) - _partial_stop(text, self.stops)]
        piece = text[len(self.text) :]
        self.text += piece
        return piece

    def _complete_characters(self):
        """The text of the tokens so far, without a last character that lacks bytes.

        With byte fallback a missing byte changes how the whole run of bytes before it decodes, so the run is left out.
        """
        n_tokens = len(self.tokens)
        while n_tokens and BYTE.fullmatch(self.tokenizer.convert_ids_to_tokens(self.tokens[n_tokens - 1]) or ""):
            n_tokens -= 1
        return self._decode(self.tokens[:n_tokens]).rstrip(PARTIAL)

    def _decode(self, tokens):
        return self.tokenizer.decode(tokens, clean_up_tokenization_spaces=False) if tokens else ""


def _first_complete(text: str, stops: Sequence[str], start: int) -> int | None:
    """Start of the stop string that ends first, the longest one if several end there; None if there is none."""
    at = {stop: text.find(stop, start) for stop in stops}
    ends = [(place + len(stop), place) for stop, place in at.items() if place >= 0]
    return min(ends)[1] if ends else None


def _partial_stop(text: str, stops: Sequence[str]) -> int:
    """Number of characters at the end of the text that may be the beginning of a stop string."""
    return max((n for stop in stops for n in range(1, len(stop)) if text.endswith(stop[:n])), default=0)
