"""Editing: a sentence in, the changed sentence out. The whole family is held out of training."""

import functools
import random

from modjax.data.open48.facts import inflection
from modjax.data.open48.recipe import recipe
from modjax.data.open48.vocabulary import COLOURS, GOODS, NAMES, TOWNS

task = functools.partial(recipe, "editing", held_out=True)

ACTIONS = ("buy", "sell", "find", "lose", "clean", "fix", "carry", "break", "draw", "want")


def _sentence(rng: random.Random) -> str:
    action = inflection(rng.choice(ACTIONS), "VBD")
    return f"{rng.choice(NAMES)} {action} the {rng.choice(COLOURS)} {rng.choice(GOODS)} in {rng.choice(TOWNS)}."


@task("Write this in capital letters: {}", "Rewrite in upper case: {}", "Make every letter a capital: {}")
def capitals(rng):
    sentence = _sentence(rng)
    return sentence, sentence.upper()


@task(
    'Replace "{}" by "{}": {}',
    'Change the word "{}" to "{}" in this sentence: {}',
    'Swap the word "{}" for "{}": {}',
)
def replaced(rng):
    words = _sentence(rng).split()
    new = rng.choice([thing for thing in GOODS if thing != words[4]])
    return words[4], new, " ".join(words), " ".join([*words[:4], new, *words[5:]])


@task(
    "Give the words in reverse order: {}",
    "Write this sentence backwards, word by word: {}",
    "Last word first: {}",
)
def word_order(rng):
    words = _sentence(rng).removesuffix(".").split()
    return " ".join(words), " ".join(words[::-1])


RECIPES = (capitals, replaced, word_order)
