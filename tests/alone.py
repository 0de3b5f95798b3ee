"""Routers of every kind, examples that share tokens, and what the model makes of each one alone, as slow references."""

import jax
import jax.numpy as jnp
import numpy as np

from modjax.data.tokenize import Encoded
from modjax.routing import Context, PromptRows, arrow, logo, oracle, pooled, routed, uniform
from modjax.routing.poly import Poly

LENGTH = 32  # of the rows of one example; attention is causal, so the padding after it is not read


def _poly(library):
    weights_KHE = np.random.default_rng(3).random((2, 2, 3))
    return Poly(jnp.broadcast_to(jnp.float32(weights_KHE), (2, 2, 2, 3)), ("b", "d"))


MAKERS = {
    "base": lambda library: None,
    "arrow": lambda library: arrow(library, top_k=2),
    "uniform": uniform,
    "oracle": oracle,
    "poly": _poly,
    "pooled": lambda library: pooled(library, top_k=2),
    "logo": lambda library: logo(library, top_k=2),
}


def choices_of(name, n):
    """The choice of each of n examples, for the routers that need one; Poly's may be none, -1."""
    return [i % 3 - (name == "poly") for i in range(n)] if name in ("oracle", "poly") else None


def questions(n=4, answers=3, seed=0, words=16):
    """Each question has several answers, and all begin with one instruction; two examples are equal."""
    rng = np.random.default_rng(seed)
    instruction, found = rng.integers(2, words, 9), []
    for _ in range(n):
        prompt = np.concatenate([instruction, rng.integers(2, words, rng.integers(1, 7))])
        for _ in range(answers):
            answer = rng.integers(1, words, rng.integers(1, 6))
            found.append(Encoded(np.int32([*prompt, *answer]), len(prompt)))
    return [*found, found[0]]


@jax.jit
def _logits(decoder, bound, context, prompts, tokens_BT):
    return decoder.logits(decoder(tokens_BT, **routed(decoder, bound, prompts, context)))


def logits_alone(model, bound, prompt, tokens, choice):
    """float64[T, V] of a prompt and its answer in one row."""
    context = Context(None if choice is None else np.int32([choice]))
    row = np.pad(tokens, (0, LENGTH - len(tokens)))[None]
    return np.float64(_logits(model.params, bound, context, PromptRows.one_each([prompt], 1, LENGTH), row)[0])


def loss_alone(model, bound, one, choice=None):
    logits_TV = logits_alone(model, bound, one.tokens[: one.n_prompt], one.tokens, choice)
    at = np.arange(one.n_prompt, len(one.tokens))
    return (np.log(np.exp(logits_TV[at - 1]).sum(-1)) - logits_TV[at - 1, one.tokens[at]]).sum()


def greedy_alone(model, bound, prompt, n_tokens, choice=None):
    """The most likely tokens one after another, everything read again for each."""
    tokens = list(prompt)
    for _ in range(n_tokens):
        tokens.append(int(logits_alone(model, bound, prompt, tokens, choice)[len(tokens) - 1].argmax()))
    return tokens[len(prompt) :]
