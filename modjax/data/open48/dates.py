"""Dates: every answer is a date in ISO form, 2021-03-05."""

import datetime
import functools
import random

from modjax.data.open48 import facts
from modjax.data.open48.recipe import recipe
from modjax.data.open48.vocabulary import GOODS, NAMES, TOWNS

task = functools.partial(recipe, "dates")

FIRST = datetime.date(1950, 1, 1).toordinal()
LAST = datetime.date(2049, 12, 31).toordinal()


def _date(rng: random.Random) -> datetime.date:
    return datetime.date.fromordinal(rng.randint(FIRST, LAST))


@task(
    "Write this date as year-month-day: {}",
    "Turn the date into ISO form: {}",
    "Give the date {} in the form YYYY-MM-DD.",
)
def from_english(rng):
    date = _date(rng)
    return facts.date_in_words(date, "en"), date.isoformat()


@task(
    "Write this French date as year-month-day: {}",
    "Turn the date from French into ISO form: {}",
    "Give the French date {} in the form YYYY-MM-DD.",
)
def from_french(rng):
    date = _date(rng)
    return facts.date_in_words(date, "fr"), date.isoformat()


@task(
    "Write this Spanish date as year-month-day: {}",
    "Turn the date from Spanish into ISO form: {}",
    "Give the Spanish date {} in the form YYYY-MM-DD.",
    held_out=True,
)
def from_spanish(rng):
    date = _date(rng)
    return facts.date_in_words(date, "es"), date.isoformat()


@task(
    "Rewrite the date {} (day/month/year) as year-month-day.",
    "Put this day/month/year date into ISO form: {}",
    "The date {} has the day first. Give it as YYYY-MM-DD.",
)
def from_slashes(rng):
    date = _date(rng)
    return f"{date:%d/%m}/{date.year}", date.isoformat()


@task("Which date comes right after {}?", "What is the day after {}?", "Give the date one day later than {}.")
def next_day(rng):
    date = _date(rng)
    return date.isoformat(), (date + datetime.timedelta(days=1)).isoformat()


@task(
    "Which date is earlier, {} or {}?",
    "Of the dates {} and {}, which came first?",
    "Give the earlier of these dates: {}, {}",
)
def earlier(rng):
    days = rng.sample(range(FIRST, LAST + 1), 2)
    one, other = (datetime.date.fromordinal(day).isoformat() for day in days)
    return one, other, min(one, other)


@task(
    "Find the date in this sentence: {}",
    "When did this happen? {}",
    "Give the date named in the text: {}",
)
def in_sentence(rng):
    date = _date(rng)
    name, thing, town = rng.choice(NAMES), rng.choice(GOODS), rng.choice(TOWNS)
    written = facts.date_in_words(date, "en")
    sentence = rng.choice(
        (
            f"On {written}, {name} moved to {town}.",
            f"{name} bought a {thing} in {town} on {written}.",
            f"The {thing} was sold on {written} by {name}.",
        )
    )
    return sentence, date.isoformat()


RECIPES = (from_english, from_french, from_spanish, from_slashes, next_day, earlier, in_sentence)
