"""Checks: questions answered by Yes or No, about equally often."""

import functools
import random

from modjax.data.open48 import facts
from modjax.data.open48.recipe import recipe
from modjax.data.open48.vocabulary import NOUNS

task = functools.partial(recipe, "checks")


def _toss(rng: random.Random) -> bool:
    return rng.random() < 0.5


def _answer(truth: bool) -> str:
    return "Yes" if truth else "No"


@task("Is {} an even number?", "Can {} be divided by two?", "Is the number {} even?")
def even(rng):
    number = rng.randint(10, 999)
    return str(number), _answer(number % 2 == 0)


@task('Is "{}" in this list: {}?', 'Does "{}" appear among {}?', 'Look for "{}" in {}. Is it there?')
def member(rng):
    absent, *words = rng.sample(NOUNS, 5)
    present = _toss(rng)
    return rng.choice(words) if present else absent, ", ".join(words), _answer(present)


@task(
    'Does "{}" begin with the letter {}?',
    'Is the first letter of "{}" the letter {}?',
    'Does the word "{}" start with {}?',
)
def initial(rng):
    word, other = rng.sample(NOUNS, 2)
    letter = word[0] if _toss(rng) else other[0]
    return word, letter, _answer(letter == word[0])


@task("Is {} less than {}?", "Does {} come before {} in counting?", "Is {} a smaller number than {}?")
def less(rng):
    one, other = rng.sample(range(1, 1000), 2)
    return str(one), str(other), _answer(one < other)


@task("Are these numbers in rising order: {}?", "Does each number exceed the last: {}?", "Is this sorted: {}?")
def rising(rng):
    numbers = sorted(rng.sample(range(1, 100), 4))
    if not _toss(rng):
        one, other = rng.sample(range(4), 2)
        numbers[one], numbers[other] = numbers[other], numbers[one]
    return ", ".join(map(str, numbers)), _answer(numbers == sorted(numbers))


@task("Is {} in {}?", "Is the city of {} part of {}?", "Would you find {} in {}?")
def located(rng):
    city, other = rng.sample(facts.cities(), 2)
    country = city.country if _toss(rng) else other.country
    return city.name, country, _answer(country == city.country)


RECIPES = (even, member, initial, less, rising, located)
