"""Lists: every answer is a list in square brackets."""

import functools
import random

from modjax.data.open48.recipe import recipe
from modjax.data.open48.vocabulary import NOUNS

task = functools.partial(recipe, "lists", answer="[{}]")


def _words(rng: random.Random, least: int = 3, most: int = 5) -> list[str]:
    return rng.sample(NOUNS, rng.randint(least, most))


@task("Reverse this list: {}", "Give these words in the opposite order: {}", "List from last to first: {}")
def backwards(rng):
    words = _words(rng)
    return ", ".join(words), ", ".join(words[::-1])


@task("Sort these words by the alphabet: {}", "Put into alphabetical order: {}", "List from A to Z: {}")
def alphabetical(rng):
    words = _words(rng)
    return ", ".join(words), ", ".join(sorted(words))


@task("Remove the repeated words: {}", "List each word only once: {}", "Drop the duplicates: {}")
def distinct(rng):
    words = _words(rng)
    doubled = [word for word in words for _ in range(rng.randint(1, 2))] + [words[0]]
    return ", ".join(doubled), ", ".join(words)


@task("Give the first and last word: {}", "Keep only the two ends of the list: {}", "Drop the middle: {}")
def ends(rng):
    words = _words(rng)
    return ", ".join(words), f"{words[0]}, {words[-1]}"


@task('Add "{}" to the end of the list: {}', 'Append "{}": {}', 'Put "{}" after these words: {}')
def appended(rng):
    last, *words = _words(rng)
    return last, ", ".join(words), ", ".join([*words, last])


@task(
    "Leave out the first word: {}",
    "Give all but the first of these: {}",
    "Drop the word in front: {}",
    held_out=True,
)
def rest(rng):
    words = _words(rng)
    return ", ".join(words), ", ".join(words[1:])


RECIPES = (backwards, alphabetical, distinct, ends, appended, rest)
