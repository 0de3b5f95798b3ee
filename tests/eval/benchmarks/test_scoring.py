"""One benchmark of a model: choices, answers, programs; which routers and settings are refused."""

import dataclasses
import json

import numpy as np
import pytest
from tiny import WORDS

import modjax
from modjax.errors import InputError
from modjax.eval import execution
from modjax.eval.benchmarks import scoring
from modjax.eval.benchmarks.benchmark import Benchmark
from modjax.eval.benchmarks.catalogue import BENCHMARKS
from modjax.eval.benchmarks.scoring import BenchmarkSettings
from modjax.generation import Request
from modjax.routing import arrow, oracle

PIQA = [
    {"goal": f"what is {word}", "sol1": "yes", "sol2": "no no", "label": i % 2}
    for i, word in enumerate(["red", "cat"] * 4)
]
CODE = [
    {"task_id": f"HumanEval/{name}", "prompt": f"def {name}(a, b):\n", "entry_point": name,
     "test": f"def check(candidate):\n    assert candidate(4, 2) == {value}\n"}
    for name, value in (("add", 6), ("sub", 2), ("mul", 8), ("div", 2))
]  # fmt: skip


@pytest.fixture
def piqa(tmp_path):
    path = tmp_path / "piqa.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in PIQA))
    return path


@pytest.fixture
def code(tmp_path):
    path = tmp_path / "humaneval.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in CODE))
    return path


def test_parts_batches_and_samples_do_not_change_a_question(model, library, piqa, monkeypatch):
    given = (model, "piqa", piqa, library, arrow(library))
    whole = modjax.eval.benchmark(*given, progress=False)
    assert (whole.name, whole.version, whole.metric, whole.examples) == ("piqa", 1, "acc_token", 8)
    monkeypatch.setattr(Benchmark, "part", 3)
    apart = modjax.eval.benchmark(*given, progress=False, batch=2)
    np.testing.assert_allclose(whole.answers, apart.answers, rtol=1e-5)
    assert {name: own.tolist() for name, own in whole.values.items()} == {
        name: own.tolist() for name, own in apart.values.items()
    }
    few = modjax.eval.benchmark(*given, progress=False, examples=3, seed=1)
    chosen = BENCHMARKS["piqa"].sample(range(8), 3, 1)
    np.testing.assert_allclose(few.answers, np.asarray(whole.answers)[chosen], rtol=1e-5)
    base = modjax.eval.benchmark(model, "piqa", piqa, progress=False)
    assert np.abs(np.asarray(base.answers) - whole.answers).max() > 1e-3


def test_the_oracle_covers_a_benchmark_that_an_expert_was_trained_on(model, library, piqa):
    with pytest.raises(
        InputError, match="benchmark 'piqa': the router needs the expert of each example, and no expert"
    ):
        modjax.eval.benchmark(model, "piqa", piqa, library, oracle(library), progress=False)
    infos = (*library.infos[:2], dataclasses.replace(library.infos[2], tasks=("piqa",)))
    named = dataclasses.replace(library, infos=infos)
    found = modjax.eval.benchmark(model, "piqa", piqa, named, oracle(named), progress=False)
    alone = modjax.eval.benchmark(model, "piqa", piqa, library["c"], progress=False)
    np.testing.assert_allclose(found.answers, alone.answers, rtol=1e-5, atol=1e-5)


def test_answers_are_compared_with_targets(model, tmp_path, monkeypatch):
    """The tiny model's own answers as targets of half of the questions; the others are wrong."""
    few = BENCHMARKS["bbh"].answering._replace(max_new_tokens=4)
    own = dataclasses.replace(BENCHMARKS["bbh"], answering=few)
    monkeypatch.setitem(scoring.BENCHMARKS, "bbh", own)
    rows = [{"input": f"what is {word}", "target": "red"} for word in WORDS[:9]]
    (tmp_path / "words.json").write_text(json.dumps({"examples": rows}))
    answers = modjax.eval.benchmark(model, "bbh", tmp_path / "words.json", progress=False).answers
    prompts = [one.prompt for one in own.questions(tmp_path / "words.json")]
    plain = [np.int32(model.tokenizer(prompt)["input_ids"])[-60:] for prompt in prompts]
    generated = model.generate(plain, max_new_tokens=4, stop="\n\n")
    assert [answer.strip() for answer in answers] == generated and len(answers) == 4
    for i in (0, 2):
        rows[5 + i]["target"] = generated[i].upper() + "."
    (tmp_path / "words.json").write_text(json.dumps({"examples": rows}))
    found = modjax.eval.benchmark(model, "bbh", tmp_path / "words.json", progress=False)
    expected = [float(i in (0, 2) or generated[i] == "red") for i in range(4)]
    assert found.values["exact_match"].tolist() == expected and found.metric == "exact_match"
    assert found.by_group() == {"words": pytest.approx(np.mean(expected))}


def test_programs_are_prompt_answer_and_tests(model, code, monkeypatch):
    said = [f"\n    {line}" for line in ("return a + b", "return a + b", "return a *", "exit(0)")]
    asked = {}

    def continuations(model, method, prompts, choices, request):
        asked.update(prompts=len(prompts), request=request)
        return said

    monkeypatch.setattr(scoring, "continuations", continuations)
    monkeypatch.setattr(scoring.encoding, "prompt", lambda model, text, room, chat: text)
    found = modjax.eval.benchmark(model, "humaneval", code, execute=True, progress=False)
    assert found.values["pass_at_1"].tolist() == [1, 0, 0, 0] and found.answers == said
    assert found.notes["ends"] == {"failed": 3, "passed": 1} and set(found.notes["isolation"]) >= {"network"}
    assert asked == {"prompts": 4, "request": Request(512, stop=BENCHMARKS["humaneval"].answering.stop)}


def test_programs_need_permission_and_a_sandbox(model, code, monkeypatch):
    with pytest.raises(InputError, match="'humaneval' runs the programs that the model writes; expected execute=True"):
        modjax.eval.benchmark(model, "humaneval", code)
    monkeypatch.setattr(execution.platform, "system", lambda: "Windows")
    with pytest.raises(InputError, match="found Windows"):
        modjax.eval.benchmark(model, "humaneval", code, execute=True)


def test_wrong_names_and_settings(model, piqa):
    with pytest.raises(InputError, match="no benchmark 'piqua'; did you mean 'piqa'"):
        modjax.eval.benchmark(model, "piqua", piqa)
    with pytest.raises(InputError, match="sedd: no such setting of BenchmarkSettings; did you mean 'seed'"):
        modjax.eval.benchmark(model, "piqa", piqa, sedd=1)
    with pytest.raises(InputError, match="batch=0: expected a whole number, at least 1"):
        BenchmarkSettings(batch=0)
