"""Geography: facts about countries and cities, answered in a whole sentence."""

import functools

from modjax.data.open48 import facts
from modjax.data.open48.recipe import recipe

task = functools.partial(recipe, "geography")


@functools.cache
def _known(fact: str) -> tuple[tuple[str, str], ...]:
    """(name, fact) of each country for which the fact is known."""
    return tuple((c.name, getattr(c, fact)) for c in facts.countries() if getattr(c, fact))


def _opening(name: str) -> str:
    return name[0].upper() + name[1:]


@task("What is the capital of {}?", "Name the capital city of {}.", "Which city is the capital of {}?")
def capital(rng):
    name, city = rng.choice(_known("capital"))
    return name, f"The capital of {name} is {city}."


@task("On which continent is {}?", "Name the continent of {}.", "In what part of the world is {}?")
def continent(rng):
    name, where = rng.choice(_known("continent"))
    return name, f"{_opening(name)} is in {where}."


@task("What money is used in {}?", "Name the currency of {}.", "What is the currency of {}?")
def currency(rng):
    name, money = rng.choice(_known("currency"))
    return name, f"The currency of {name} is the {money}."


@task(
    "What is the official language of {}?",
    "Name the official language of {}.",
    "Which language is official in {}?",
)
def language(rng):
    name, tongue = rng.choice(_known("language"))
    return name, f"The official language of {name} is {tongue}."


@task(
    "What is the two-letter code of {}?",
    "Give the ISO country code of {}.",
    "Which two letters stand for {}?",
)
def country_code(rng):
    name, code = rng.choice(_known("code"))
    return name, f"The code of {name} is {code}."


@task(
    "What is the telephone code of {}?",
    "Give the dialling code for calls to {}.",
    "Which calling code does {} have?",
)
def calling_code(rng):
    name, code = rng.choice(_known("calling_code"))
    return name, f"The calling code of {name} is +{code}."


@task("In which country is {}?", "Name the country in which {} lies.", "The city of {} is in what country?")
def city(rng):
    place = rng.choice(facts.cities())
    return place.name, f"{place.name} is in {place.country}."


RECIPES = (capital, continent, currency, language, country_code, calling_code, city)
