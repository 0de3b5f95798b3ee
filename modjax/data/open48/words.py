"""Words: inflected forms, each answered by one lower-case word."""

import functools

from modjax.data.open48.facts import inflection
from modjax.data.open48.recipe import recipe
from modjax.data.open48.vocabulary import ADJECTIVES, NOUNS, VERBS

task = functools.partial(recipe, "words")


@task('What is the plural of "{}"?', 'Give the plural of the noun "{}".', "One {}, two ...? Give the noun.")
def plural(rng):
    noun = rng.choice(NOUNS)
    return noun, inflection(noun, "NNS")


@task('What is the past tense of "{}"?', 'Put the verb "{}" into the past.', "Today I {}, yesterday I ...?")
def past(rng):
    verb = rng.choice(VERBS)
    return verb, inflection(verb, "VBD")


@task(
    'What is the past participle of "{}"?',
    'Give the past participle of the verb "{}".',
    'Fill in the verb "{}": they have ...',
)
def participle(rng):
    verb = rng.choice(VERBS)
    return verb, inflection(verb, "VBN")


@task('What is the -ing form of "{}"?', 'Give the present participle of "{}".', "I {}, so now I am ...?")
def gerund(rng):
    verb = rng.choice(VERBS)
    return verb, inflection(verb, "VBG")


@task(
    'What is the third person singular of "{}"?',
    'Change the verb "{}" to go with "she".',
    "I {}, but she ...?",
)
def third_person(rng):
    verb = rng.choice(VERBS)
    return verb, inflection(verb, "VBZ")


@task(
    'What is the comparative of "{}"?',
    'Give the form of "{}" that compares two things.',
    "This one is {}, but that one is even ...?",
)
def comparative(rng):
    adjective = rng.choice(ADJECTIVES)
    return adjective, inflection(adjective, "JJR")


@task(
    'What is the superlative of "{}"?',
    'Give the form of "{}" for the top of a group.',
    "These are {}, but this one is the ... of all?",
    held_out=True,
)
def superlative(rng):
    adjective = rng.choice(ADJECTIVES)
    return adjective, inflection(adjective, "JJS")


RECIPES = (plural, past, participle, gerund, third_person, comparative, superlative)
