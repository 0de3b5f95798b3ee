"""Records: the information in a text as a JSON object, with the keys that the question names."""

import functools
import json
import random

from modjax.data.open48.facts import inflection
from modjax.data.open48.recipe import recipe
from modjax.data.open48.vocabulary import COLOURS, GOODS, NAMES, TOWNS, WEEKDAYS

task = functools.partial(recipe, "records")


def _portrait(rng: random.Random) -> tuple[str, dict]:
    """A sentence about a person, and the facts in it."""
    person = {"name": rng.choice(NAMES), "age": rng.randint(18, 90), "city": rng.choice(TOWNS)}
    sentence = rng.choice(
        (
            "{name} is {age} years old and lives in {city}.",
            "{name} from {city} is {age}.",
            "In {city} lives {name}, {age}.",
        )
    )
    return sentence.format(**person), person


@task(
    "Write as JSON with name, age and city: {}",
    "Who is this? Answer in JSON (name, age, city): {}",
    "Extract name, age and city as JSON: {}",
)
def person(rng):
    sentence, person = _portrait(rng)
    return sentence, json.dumps(person)


@task(
    "Write the city as JSON: {}",
    "Where is this? Answer in JSON (city): {}",
    "Extract the city as JSON: {}",
    held_out=True,
)
def city(rng):
    sentence, person = _portrait(rng)
    return sentence, json.dumps({"city": person["city"]})


@task(
    "Write the order as JSON with item and count: {}",
    "What is ordered? Answer in JSON (item, count): {}",
    "Extract item and count as JSON: {}",
)
def order(rng):
    item, count = rng.choice(GOODS), rng.randint(2, 60)
    many = f"{count} {inflection(item, 'NNS')}"
    ask = rng.choice(("Please send {} to {}.", "We need {}, says {}.", "I would like {}, wrote {}."))
    return ask.format(many, rng.choice(NAMES)), json.dumps({"item": item, "count": count})


@task(
    "Write as JSON with item, colour and price: {}",
    "Turn the price tag into JSON (item, colour, price): {}",
    "Extract item, colour and price as JSON: {}",
)
def price(rng):
    tag = {"item": rng.choice(GOODS), "colour": rng.choice(COLOURS), "price": rng.randint(2, 99)}
    text = rng.choice(("The {colour} {item} costs ${price}.", "${price} for one {colour} {item}"))
    return text.format(**tag), json.dumps(tag)


@task(
    "Write the meeting as JSON with day and time: {}",
    "When do they meet? Answer in JSON (day, time): {}",
    "Extract day and time as JSON: {}",
)
def meeting(rng):
    day, time = rng.choice(WEEKDAYS), f"{rng.randint(8, 19):02}:{rng.choice((0, 15, 30, 45)):02}"
    text = rng.choice(("{0} meets {1} on {2} at {3}.", "On {2} at {3}, {0} will see {1}.", "{0} and {1}: {2}, {3}"))
    return text.format(*rng.sample(NAMES, 2), day, time), json.dumps({"day": day, "time": time})


@task(
    "Write these settings as JSON: {}",
    "Turn the pairs into JSON: {}",
    "Convert from key=value to JSON: {}",
)
def settings(rng):
    keys = rng.sample(("city", "colour", "day", "item", "name"), rng.randint(2, 3))
    choices = {"city": TOWNS, "colour": COLOURS, "day": WEEKDAYS, "item": GOODS, "name": NAMES}
    pairs = {key: rng.choice(choices[key]) for key in keys}
    return "; ".join(f"{key}={value}" for key, value in pairs.items()), json.dumps(pairs)


RECIPES = (person, city, order, price, meeting, settings)
