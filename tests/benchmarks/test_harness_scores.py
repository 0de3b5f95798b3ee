"""The ten benchmarks beside lm-evaluation-harness: the same questions on both sides, and equal scores."""

import dataclasses
import json

import jax
import pytest
from tiny import WORDS, model  # noqa: F401, a fixture

pytest.importorskip("lm_eval")

import harness_scores  # noqa: E402

from modjax.eval import BENCHMARKS  # noqa: E402
from modjax.eval.benchmarks.records import Record  # noqa: E402
from modjax.model import Model  # noqa: E402
from modjax.models.decoder import Decoder  # noqa: E402

RECORDS = {
    "piqa": {"goal": "drive a nail", "sol1": "Use a hammer.", "sol2": "Use a feather.", "label": 0},
    "boolq": {"query": "Passage: Is it?\nQuestion: Q\nQuestion: is water wet?", "choices": ["no", "yes"], "gold": 1},
    "winogrande": {"context_options": ["the blanket", "the bed"], "continuation": "was dry.", "gold": 1},
    "hellaswag": {"ctx": "Sailing: A boat leaves. the crew", "endings": ["sets sails.", "eats them."], "label": 1},
    "arc_easy": {"query": "Question: what is red", "choices": ["cat", "dog", "bird"], "gold": 2},
    "arc_challenge": {"query": "what is blue", "choices": ["cat", "dog bird"], "gold": 0},
    "openbookqa": {"query": "the bird is", "choices": ["red", "blue cat", "one", "two"], "gold": 1},
}


def test_every_benchmark_with_choices_has_an_original_form():
    assert set(harness_scores.ORIGINAL) == {name for name, one in BENCHMARKS.items() if one.answering is None}


@pytest.mark.parametrize("name", RECORDS)
def test_the_original_form_asks_the_same(name):
    def asked(fields):
        record = Record(fields, "here", "")
        return next(form for form in BENCHMARKS[name].forms if set(form.keys) <= set(record)).question(record)

    assert asked(harness_scores.ORIGINAL[name](RECORDS[name])) == asked(RECORDS[name])


@pytest.fixture(scope="module")
def sides(model, tmp_path_factory):  # noqa: F811
    config = dataclasses.replace(model.config, context=256, tied=False)
    longer = Model("tiny", Decoder.init(config, jax.random.key(0)), model.tokenizer)
    return harness_scores.Sides(longer, tmp_path_factory.mktemp("sides"))


def test_a_stopped_run_finds_its_model(sides):
    assert harness_scores.Sides(sides.model, sides.folder).peer.max_length == sides.peer.max_length == 256


@pytest.mark.parametrize("name", ["arc_easy", "winogrande"])
def test_lm_evals_own_task_has_the_same_scores(sides, name, tmp_path):
    (tmp_path / f"{name}.jsonl").write_text((json.dumps(RECORDS[name]) + "\n") * 3)
    found = sides.choices(name, tmp_path, 2)
    assert found["questions"] == 2 and found["modjax"] == found["lm_eval"] and set(found["alike"].values()) == {1.0}


def test_answers_to_the_same_prompts_are_equal(sides, tmp_path):
    (tmp_path / "bbh").mkdir()
    examples = [{"input": f"is {word} red", "target": "no"} for word in WORDS[:7]]
    (tmp_path / "bbh" / "navigate.json").write_text(json.dumps({"examples": examples}))
    found = sides.answers("bbh", tmp_path, 2)
    assert found["questions"] == 2 and found["alike"] == {"answers": 1.0} and found["modjax"] == found["lm_eval"]
