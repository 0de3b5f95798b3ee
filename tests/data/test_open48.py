"""The embedded tasks: 48 in 8 families, the same in every process, with correct answers."""

import datetime
import hashlib
import json
import re

import pytest

from modjax.data import open48
from modjax.data.open48 import facts, vocabulary
from modjax.data.open48.numbers import in_words
from modjax.errors import InputError


@pytest.fixture(scope="module")
def tasks():
    return open48.tasks()


def test_there_are_48_tasks_in_8_families_of_which_8_tasks_are_held_out(tasks):
    assert len(tasks) == 48
    assert len(set(tasks.families)) == 8
    assert len(tasks.held_out) == 8


def test_held_out_are_one_whole_family_and_five_siblings_of_training_tasks(tasks):
    trained = set(tasks.training.families)
    alone = [task.name for task in tasks.held_out.values() if task.family not in trained]
    assert alone == ["editing_capitals", "editing_replaced", "editing_word_order"]
    siblings = [task.family for task in tasks.held_out.values() if task.family in trained]
    assert len(siblings) == len(set(siblings)) == 5


def test_every_task_has_enough_examples_in_every_split(tasks):
    for task in tasks.values():
        assert 60 <= len(task) <= 300, task.name
        assert len(task.split("train")) >= 45, task.name
        assert len(task.split("validation")) >= 4 and len(task.split("test")) >= 4, task.name


def test_no_two_examples_of_a_task_ask_the_same(tasks):
    for recipe in open48.RECIPES:
        asked = [_blanks(recipe, example.source) for example in tasks[recipe.name]]
        assert len(set(asked)) == len(asked), recipe.name


def _blanks(recipe, source):
    """The values in the blanks of a source, whichever wording it has."""
    for wording in recipe.wordings:
        pattern = re.escape(wording).replace(r"\{\}", "(.+)")
        if match := re.fullmatch(pattern, source):
            return match.groups()
    raise AssertionError(f"{recipe.name}: {source!r} is of none of the wordings")


def test_each_task_is_worded_in_at_least_three_ways_with_the_same_blanks(tasks):
    for recipe in open48.RECIPES:
        assert len(set(recipe.wordings)) >= 3, recipe.name
        assert len({wording.count("{}") for wording in recipe.wordings}) == 1, recipe.name
        openings = {wording.split("{}")[0] for wording in recipe.wordings}
        seen = {o for o in openings for example in tasks[recipe.name] if example.source.startswith(o)}
        assert seen == openings, recipe.name


def test_prompts_and_answers_are_short_and_clean(tasks):
    for task in tasks.values():
        assert task.definition and "{}" not in task.definition
        for example in task:
            for text in (example.source, example.target):
                assert text == text.strip() and "  " not in text, (task.name, text)
            assert len(example.source.split()) <= 30 and len(example.target.split()) <= 14, example


def test_the_same_seed_gives_the_same_tasks_and_another_seed_others(tasks):
    assert dict(open48.tasks(0)) == dict(tasks)
    assert open48.tasks(1)["numbers_total"] != tasks["numbers_total"]


@pytest.mark.parametrize(
    ("name", "digest"),
    [
        ("lists_backwards", "cfac470163a07979"),
        ("numbers_from_words", "bcbd3f153e6e89d3"),
        ("records_settings", "2cbf8400c66522f8"),
        ("checks_rising", "047e162daa34133a"),
    ],
)
def test_tasks_without_package_facts_are_pinned(name, digest):
    """If you change these tasks on purpose, say so: results before and after cannot be compared."""
    recipe = next(recipe for recipe in open48.RECIPES if recipe.name == name)
    lines = "\n".join(f"{e.source}\t{e.target}\t{e.split}" for e in recipe.build(0))
    assert hashlib.sha256(lines.encode()).hexdigest()[:16] == digest


def test_a_missing_package_is_named_with_the_command_that_installs_it(monkeypatch):
    def refuse(name, *args):
        raise ModuleNotFoundError(name)

    monkeypatch.setattr("importlib.import_module", refuse)
    with pytest.raises(InputError, match=r"'babel', which is not installed; run: pip install 'modjax\[demo\]'"):
        facts.date_in_words(datetime.date(2021, 3, 5), "fr")


@pytest.mark.parametrize(("task", "language"), [("from_english", "%B %d, %Y"), ("from_slashes", "%d/%m/%Y")])
def test_dates_agree_with_the_standard_library(tasks, task, language):
    for example in tasks[f"dates_{task}"]:
        date = datetime.date.fromisoformat(example.target)
        written = re.sub(r" 0(\d)", r" \1", date.strftime(language))
        assert written in example.source


def test_the_next_day_is_one_day_later(tasks):
    for example in tasks["dates_next_day"]:
        (before,) = re.findall(r"\d{4}-\d\d-\d\d", example.source)
        later = datetime.date.fromisoformat(example.target) - datetime.date.fromisoformat(before)
        assert later == datetime.timedelta(days=1)


def test_months_are_read_in_french_and_spanish(tasks):
    for example in tasks["dates_from_french"]:
        assert ("août" in example.source) == (example.target[5:7] == "08")
    for example in tasks["dates_from_spanish"]:
        assert ("enero" in example.source) == (example.target[5:7] == "01")


@pytest.mark.parametrize(
    ("tag", "forms"),
    [
        ("NNS", {"wolf": "wolves", "child": "children", "city": "cities", "potato": "potatoes"}),
        ("VBD", {"sing": "sang", "stop": "stopped", "try": "tried", "teach": "taught"}),
        ("VBN", {"write": "written", "eat": "eaten", "walk": "walked"}),
        ("VBG", {"run": "running", "make": "making", "tie": "tying"}),
        ("VBZ", {"catch": "catches", "carry": "carries", "play": "plays"}),
        ("JJR", {"big": "bigger", "happy": "happier", "wide": "wider"}),
        ("JJS", {"hot": "hottest", "early": "earliest", "late": "latest"}),
    ],
)
def test_inflected_forms(tag, forms):
    assert {word: facts.inflection(word, tag) for word in forms} == forms


def test_vocabulary_repeats_no_word():
    for words in (vocabulary.NOUNS, vocabulary.VERBS, vocabulary.ADJECTIVES, vocabulary.NAMES):
        assert len(set(words)) == len(words)


def test_facts_about_countries():
    by_code = {country.code: country for country in facts.countries()}
    france, japan, brazil = by_code["FR"], by_code["JP"], by_code["BR"]
    assert (france.capital, france.continent, france.language) == ("Paris", "Europe", "French")
    assert (japan.capital, japan.currency, japan.calling_code) == ("Tokyo", "Japanese Yen", "81")
    assert brazil.language == "Portuguese" and by_code["GM"].name == "the Gambia"
    assert by_code["IL"].capital is None and "TW" not in by_code
    where = {city.name: city.country for city in facts.cities()}
    assert where["Lagos"] == "Nigeria" and where["London"] == "the United Kingdom"
    assert len(where) == len(facts.cities())


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (11, "eleven"),
        (40, "forty"),
        (58, "fifty-eight"),
        (300, "three hundred"),
        (905, "nine hundred and five"),
    ],
)
def test_numbers_in_words(number, words):
    assert in_words(number) == words


def test_arithmetic_is_right(tasks):
    for name, operation in (
        ("total", int.__add__),
        ("difference", int.__sub__),
        ("larger", max),
        ("smaller", min),
    ):
        for example in tasks[f"numbers_{name}"]:
            one, other = map(int, re.findall(r"\d+", example.source))
            assert example.target == f"The answer is {operation(one, other)}."


def test_lists_answer_in_brackets_with_words_of_the_question(tasks):
    for task in tasks.values():
        if task.family == "lists":
            for example in task:
                words = re.fullmatch(r"\[(.+)\]", example.target)[1].split(", ")
                assert len(words) >= 2 and all(word in example.source for word in words)


def test_records_answer_in_json_and_name_their_keys(tasks):
    for task in tasks.values():
        if task.family == "records":
            for example in task:
                record = json.loads(example.target)
                assert task.name == "records_settings" or all(key in task.definition for key in record)


def test_checks_say_yes_as_often_as_no(tasks):
    for task in tasks.values():
        if task.family == "checks":
            yes = sum(example.target == "Yes" for example in task)
            assert {example.target for example in task} == {"Yes", "No"}
            assert yes / len(task) == pytest.approx(0.5, abs=0.08), task.name
