"""Early stopping by the Rouge-L of answers to validation prompts (arXiv 2405.11157), whatever a member is."""

import functools

import pytest

from modjax.adapt import lora, poly
from modjax.errors import InputError
from modjax.eval import Method, evaluate
from modjax.routing import oracle
from modjax.train import metrics
from modjax.train.full import train_full
from modjax.train.poly import train_poly

RUN = {"steps": 12, "batch": 2, "length": 32, "learning_rate": 0.05, "dropout": 0.0, "progress": False}
STOP = {"evaluate_every": 2, "patience": 2, "stop_by": "rouge_l", "max_new_tokens": 6}
ADAPTED = {
    "lora": functools.partial(lora, sites=("attn.q", "mlp.down"), rank=2, alpha=8.0),
    "tied": functools.partial(lora, sites=("attn.q", "attn.k"), tie=(("attn.q", "attn.k"),), rank=2),
    "shared_a": functools.partial(lora, sites=("attn.q", "mlp.down"), shared_a=True, rank=2, alpha=8.0),
    "poly": poly,
    "poly_z": functools.partial(poly, weights_only=True),
    "mhr": functools.partial(poly, heads=4, retrieved={"copy": ("c", "a"), "sort": ("b", "c")}),
}


@pytest.fixture
def adapt(word_model, library, new_tasks, tmp_path):
    """adapt(name): (what one of ADAPTED gives, {task: its Rouge-L at each validation})."""

    def run(name, tasks=new_tasks, **settings):
        given = (library,) if name in ("poly", "poly_z", "mhr") else ()
        found = ADAPTED[name](word_model, *given, tasks, workdir=tmp_path, **(RUN | STOP | settings))
        lines = [line for line in metrics.read(tmp_path / "metrics.jsonl") if line["kind"] == "validation"]
        return found, {task: [line["rouge_l"][task] for line in lines] for task in tasks}

    return run


@pytest.mark.parametrize("name", ADAPTED)
def test_each_member_keeps_what_answers_best(adapt, word_model, new_tasks, name):
    found, measured = adapt(name)
    sample = {"examples": 0, "split": "validation", "length": 32, "max_new_tokens": 6, "progress": False}
    scores, _ = evaluate(word_model, Method(name, found, oracle(found)), new_tasks, **sample)
    for info in found.infos:
        ((measure, best),) = info.scores
        assert measure == "validation_rouge_l" and best == pytest.approx(max(measured[info.name]), abs=1e-6)
        assert scores[info.name].rouge_l == pytest.approx(best, abs=1e-6)
    changed = any(len(set(values)) > 1 for values in measured.values())
    assert changed or name in ("poly_z", "mhr"), "nothing to choose from"  # weights of random experts change no answer


def test_answers_that_get_no_better_end_a_run(adapt):
    _, measured = adapt("lora", learning_rate=0.0)
    assert {name: len(values) for name, values in measured.items()} == {"copy": 3, "sort": 3}


@pytest.mark.parametrize("train", [train_poly, train_full])
def test_what_is_no_expert_a_member_is_told_before_the_first_step(word_model, word_tasks, train, tmp_path):
    with pytest.raises(InputError, match="stop_by='rouge_l': .* expected stop_by='loss'"):
        train(word_model, word_tasks, workdir=tmp_path / "job", **(RUN | STOP))
    assert not (tmp_path / "job").exists()


def test_prompts_without_room_for_answers_are_named(adapt, word_model):
    room = word_model.config.context - 4
    with pytest.raises(InputError, match=r"task 'copy': a validation prompt has \d+ tokens; .* max_new_tokens=\d+"):
        adapt("lora", max_new_tokens=room)
