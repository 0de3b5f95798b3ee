"""Greedy continuations of prompts, with the white space that they begin with."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from modjax import generation
from modjax.eval.method import Method
from modjax.generation import Request
from modjax.model import Model


class Continued:
    """A tokenizer for texts that go on: at the beginning of a text, that of Llama or Mistral drops a space.

    Code that is indented by four spaces would have three, and not run.
    """

    def __init__(self, tokenizer: Any):
        self.tokenizer = tokenizer
        self.before = tokenizer("a", add_special_tokens=False)["input_ids"]
        self.length = len(tokenizer.decode(self.before, clean_up_tokenization_spaces=False))
        self.convert_ids_to_tokens = tokenizer.convert_ids_to_tokens

    def decode(self, tokens: Sequence[int], **settings: Any) -> str:
        """The text of tokens that follow others."""
        return self.tokenizer.decode([*self.before, *tokens], **settings)[self.length :]


def continuations(
    model: Model, method: Method, prompts: Sequence[np.ndarray], choices: Sequence[int] | None, request: Request
) -> list[str]:
    """The text that follows each prompt, given as token ids, int32[n], up to a stop string or the end of the text."""
    generator, answers = model.generator(method.library, method.router), [""] * len(prompts)
    generator = generator._replace(tokenizer=Continued(model.tokenizer))
    for piece in generation.pieces(generator, prompts, choices, request):
        answers[piece.prompt] += piece.text
    return answers
