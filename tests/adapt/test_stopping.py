"""Early stopping by the Rouge-L of answers to validation prompts (arXiv 2405.11157), whatever a member is."""

import dataclasses
import functools

import pytest

from modjax.adapt import cat, lora, poly
from modjax.data.tasks import Tasks
from modjax.errors import InputError
from modjax.eval import Sample, evaluate
from modjax.experts.library import Library
from modjax.routing import oracle
from modjax.train import metrics
from modjax.train.full import train_full
from modjax.train.poly import train_poly

# Of a rate that rises to the end: the first steps change little, the last ones much.
RUN = {"steps": 12, "batch": 2, "length": 32, "learning_rate": 0.02, "warmup": 1.0, "dropout": 0.0, "progress": False}
STOP = {"evaluate_every": 2, "patience": 6, "stop_by": "rouge_l", "max_new_tokens": 6}
SITES = {"sites": ("attn.q", "mlp.down"), "rank": 2, "alpha": 8.0}
TRAINED = {
    "lora": {},
    "tied": {"sites": ("attn.q", "attn.k"), "tie": (("attn.q", "attn.k"),)},
    "shared_a": {"shared_a": True},
}
MIXED = {
    "poly": functools.partial(poly, weights_rate=5.0),
    "poly_z": functools.partial(poly, weights_rate=5.0, weights_only=True),
    "mhr": functools.partial(poly, weights_rate=5.0, heads=4, retrieved={"copy": ("c", "a"), "sort": ("b", "c")}),
    "cat": functools.partial(cat, groups={"copy": ("copy",), "sort": ("sort",)}),
}


@pytest.fixture
def adapt(word_model, library, tmp_path):
    """adapt(name, tasks): (the adapted experts, {task: its Rouge-L at each validation})."""
    factors = {site: lora.factors for site, lora in library.loras.items()}
    loud = Library.from_arrays(factors, library.names, 4 * library.scale)  # so that weights alone change answers

    def run(name, tasks, **settings):
        settings = RUN | STOP | {"workdir": tmp_path} | settings
        if name in TRAINED:
            found = lora(word_model, tasks, **(SITES | TRAINED[name] | settings))
        else:
            found = MIXED[name](word_model, loud, tasks, **settings)
        lines = [line for line in metrics.read(tmp_path / "metrics.jsonl") if line["kind"] == "validation"]
        return found, {task: [line["rouge_l"][task] for line in lines] for task in tasks}

    return run


def answered_at_first(adapt, word_model, name, tasks):
    """The same tasks, validated on what is answered before anything is learned."""
    start, _ = adapt(name, tasks, learning_rate=0.0, steps=1, evaluate_every=0, patience=0, workdir=None)

    def of(task):
        examples = task.split("validation")
        prompts = [example.source for example in examples]
        answers = word_model.generate(prompts, start[task.name], max_new_tokens=6)
        told = (dataclasses.replace(one, target=answer) for one, answer in zip(examples, answers, strict=True))
        return dataclasses.replace(task, examples=(*task.split("train"), *told))

    return Tasks(of(task) for task in tasks.values())


@pytest.mark.parametrize("name", [*TRAINED, *MIXED])
def test_each_member_keeps_what_answers_best(adapt, word_model, new_tasks, name):
    tasks = answered_at_first(adapt, word_model, name, new_tasks)
    found, measured = adapt(name, tasks)
    sample, settings = Sample(0, "validation", length=32), {"max_new_tokens": 6, "progress": False}
    scores = evaluate(word_model, tasks, found, oracle(found), sample, **settings)
    for info in found.infos:
        measure, best = info.scores[-1]
        assert measure == "validation_rouge_l" and best == pytest.approx(max(measured[info.name]), abs=1e-6)
        assert scores[info.name]["rouge_l"] == pytest.approx(best, abs=1e-6)
    assert all(values[-1] < max(values) for values in measured.values()), "what is learned was to change the answers"


def test_answers_that_get_no_better_end_a_run(adapt, new_tasks):
    _, measured = adapt("lora", new_tasks, learning_rate=0.0, patience=2)
    assert {name: len(values) for name, values in measured.items()} == {"copy": 3, "sort": 3}


@pytest.mark.parametrize("train", [train_poly, train_full])
def test_what_is_no_expert_a_member_is_told_before_the_first_step(word_model, word_tasks, train, tmp_path):
    with pytest.raises(InputError, match="stop_by='rouge_l': .* expected stop_by='loss'"):
        train(word_model, word_tasks, workdir=tmp_path / "job", **(RUN | STOP))
    assert not (tmp_path / "job").exists()


def test_prompts_without_room_for_answers_are_named(adapt, word_model, new_tasks):
    room = word_model.config.context - 4
    with pytest.raises(InputError, match=r"task 'copy', validation example \d has \d tokens and max_new_tokens=60, to"):
        adapt("lora", new_tasks, max_new_tokens=room)
