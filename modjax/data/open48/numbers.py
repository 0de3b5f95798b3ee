"""Numbers: sums, comparisons and number words, answered by "The answer is 42."."""

import functools

from modjax.data.open48.recipe import recipe
from modjax.data.open48.vocabulary import TENS, UNITS

task = functools.partial(recipe, "numbers", answer="The answer is {}.")


def in_words(number: int) -> str:
    """A number from 0 to 999 in English words: "three hundred and forty-two"."""
    if number < 20:
        return UNITS[number]
    if number < 100:
        return TENS[number // 10] + (f"-{UNITS[number % 10]}" if number % 10 else "")
    rest = f" and {in_words(number % 100)}" if number % 100 else ""
    return f"{UNITS[number // 100]} hundred{rest}"


@task("What is {} plus {}?", "Add {} and {}.", "{} + {} = ?")
def total(rng):
    one, other = rng.randint(2, 60), rng.randint(2, 39)
    return str(one), str(other), str(one + other)


@task("What is {} minus {}?", "Compute {} less {}.", "{} - {} = ?")
def difference(rng):
    other, one = sorted(rng.sample(range(1, 80), 2))
    return str(one), str(other), str(one - other)


@task("Which is larger, {} or {}?", "Give the greater of {} and {}.", "Pick the bigger number: {}, {}")
def larger(rng):
    one, other = rng.sample(range(1, 1000), 2)
    return str(one), str(other), str(max(one, other))


@task(
    "Which is smaller, {} or {}?",
    "Give the lesser of {} and {}.",
    "Pick the lowest number: {}, {}",
    held_out=True,
)
def smaller(rng):
    one, other = rng.sample(range(1, 1000), 2)
    return str(one), str(other), str(min(one, other))


@task("Write {} in digits.", "Which number is {}?", "Turn the words into a number: {}")
def from_words(rng):
    number = rng.randint(11, 999)
    return in_words(number), str(number)


@task("Round {} down to a multiple of ten.", "Make the last digit of {} a zero.", "Cut {} down to full tens.")
def tens(rng):
    number = rng.randint(11, 999)
    return str(number), str(number - number % 10)


RECIPES = (total, difference, larger, smaller, from_words, tens)
