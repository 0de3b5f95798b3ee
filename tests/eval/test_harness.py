"""lm-eval's tasks on modjax's model: the scores of lm-eval's own model of transformers on the same weights."""

import ast
import copy
import dataclasses
import importlib
import inspect
import json
import pathlib
import sys

import numpy as np
import pytest
import tokenizers
import yaml
from tiny import WORDS, library, model  # noqa: F401, fixtures

from modjax import routing
from modjax.errors import InputError

lm_eval = pytest.importorskip("lm_eval")

from lm_eval.api.instance import Instance  # noqa: E402
from lm_eval.models.huggingface import HFLM  # noqa: E402
from lm_eval.tasks import TaskManager  # noqa: E402

from modjax.eval.harness import Harness  # noqa: E402

QUESTIONS = [
    {"query": "what is the red cat", "choices": ["blue", "no", "blue dog bird"], "gold": 1},
    {"query": "what is two", "choices": ["three", "cat cat", "yes"], "gold": 0},
    {"query": "is the bird green", "choices": ["yes", "no no", "what"], "gold": 0},
    {"query": "the dog is", "choices": ["red", "green one", "two"], "gold": 2},
]
TEXTS = [{"text": " ".join(np.random.default_rng(n).choice(WORDS, n))} for n in (3, 70, 150)]
PROMPTS = [{"query": "what is the red", "answer": "yes"}, {"query": "one two three cat", "answer": "no"}]
TASKS = {
    "choices": {
        "output_type": "multiple_choice",
        "doc_to_text": "{{query}}",
        "doc_to_target": "{{gold}}",
        "doc_to_choice": "{{choices}}",
        "metric_list": [{"metric": "acc"}, {"metric": "acc_norm"}],
    },
    "texts": {
        "output_type": "loglikelihood_rolling",
        "doc_to_text": "",
        "doc_to_target": "{{text}}",
        "metric_list": [{"metric": "word_perplexity"}, {"metric": "bits_per_byte"}],
    },
    "answers": {
        "output_type": "generate_until",
        "doc_to_text": "{{query}}",
        "doc_to_target": "{{answer}}",
        "generation_kwargs": {"until": ["cat", "\n"], "max_gen_toks": 12, "do_sample": False},
        "metric_list": [{"metric": "exact_match"}],
    },
}
ROWS = {"choices": QUESTIONS, "texts": TEXTS, "answers": PROMPTS}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Task files of lm-eval, each with a JSON-lines file of its examples."""
    folder = tmp_path_factory.mktemp("tasks")
    for name, task in TASKS.items():
        path = folder / f"{name}.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in ROWS[name]))
        own = {
            "task": f"tiny_{name}",
            "dataset_path": "json",
            "dataset_kwargs": {"data_files": {"test": str(path), "train": str(path)}},
            "test_split": "test",
            "fewshot_split": "train",
            **task,
        }
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(own))
    return folder


@pytest.fixture(scope="module")
def evaluated(folder, tmp_path_factory):
    """evaluated(lm, ...): lm-eval's results of a model on these tasks."""
    manager = TaskManager(include_path=str(folder), include_defaults=False)
    cache = tmp_path_factory.mktemp("datasets")

    def run(lm, names=tuple(TASKS), **settings):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("datasets.config.HF_DATASETS_CACHE", cache)
            tasks = [f"tiny_{name}" for name in names]
            return lm_eval.simple_evaluate(lm, tasks=tasks, task_manager=manager, bootstrap_iters=0, **settings)

    return run


@pytest.fixture(scope="module")
def torch_model(model, tmp_path_factory):  # noqa: F811
    """lm-eval's own model of transformers, of the exported weights."""
    path = tmp_path_factory.mktemp("export") / "model"
    model.save(path)
    return HFLM(str(path), device="cpu", dtype="float32", batch_size=2)


@pytest.fixture(scope="module")
def harness(model):  # noqa: F811
    return Harness(model, progress=False)


def numbers(results):
    """{task: {metric: value}} without standard errors."""
    return {
        task: {key: value for key, value in own.items() if isinstance(value, float) and "stderr" not in key}
        for task, own in results["results"].items()
    }


@pytest.fixture(scope="module")
def results(evaluated, harness):
    return evaluated(harness)


def test_local_tasks_score_as_by_lm_evals_own_model(evaluated, results, torch_model):
    expected = evaluated(torch_model)
    assert set(numbers(results)) == {f"tiny_{name}" for name in TASKS}
    for task, own in numbers(expected).items():
        assert own.keys() == numbers(results)[task].keys() != set()
        for metric, value in own.items():
            np.testing.assert_allclose(numbers(results)[task][metric], value, rtol=1e-5, err_msg=f"{task} {metric}")
    for task, samples in expected["samples"].items():
        for own, other in zip(results["samples"][task], samples, strict=True):
            assert own["arguments"] == other["arguments"]
            for got, wanted in zip(own["resps"], other["resps"], strict=True):
                compared(got, wanted)


def compared(got, wanted):
    """Answers are equal; likelihoods are, to rounding."""
    for one, other in zip(np.ravel(got).tolist(), np.ravel(wanted).tolist(), strict=True):
        if isinstance(other, float):
            np.testing.assert_allclose(one, other, rtol=1e-5)
        else:
            assert one == other


def test_few_shot_prompts_too(evaluated, harness, torch_model):
    settings = {"names": ("choices",), "num_fewshot": 2, "limit": 3}
    found, expected = (numbers(evaluated(lm, **settings)) for lm in (harness, torch_model))
    assert found == expected


def asked(*arguments, kind="loglikelihood"):
    return [Instance(kind, {}, own, number) for number, own in enumerate(arguments)]


LONG = " ".join(WORDS * 6)
PAIRS = [
    ("what is the ", "red"),  # the space goes to the continuation
    ("what is the", " red"),
    ("", "red cat"),
    ("", "<end> red"),
    (LONG, " cat dog bird"),
    (f"what {LONG}", f" is {LONG[:200]}"),
]


def test_pairs_are_encoded_and_cut_as_by_lm_evals_own_model(harness, torch_model):
    found = harness.loglikelihood(asked(*PAIRS))
    compared(found, torch_model.loglikelihood(asked(*PAIRS)))
    assert found[0] == found[1]


def test_a_tokenizer_that_puts_a_beginning_before_texts(model, tmp_path):  # noqa: F811
    """Once, also before texts that have it; scores are those of lm-eval's own model."""
    words = copy.deepcopy(model.tokenizer)
    words.bos_token = "<end>"
    words.backend_tokenizer.post_processor = tokenizers.processors.TemplateProcessing(
        single="<end> $A", special_tokens=[("<end>", words.eos_token_id)]
    )
    beginning = dataclasses.replace(model, tokenizer=words)
    beginning.save(tmp_path / "model")
    both = Harness(beginning, progress=False), HFLM(str(tmp_path / "model"), device="cpu", dtype="float32")
    assert both[0].tok_encode("<end> red") == both[0].tok_encode("red") == [1, 2]
    pairs = [*PAIRS, ("<end> what is", " red")]
    compared(*(lm.loglikelihood(asked(*pairs)) for lm in both))
    compared(*(lm.loglikelihood_rolling(asked(("red cat dog",), ("<end> red cat",), (LONG,))) for lm in both))
    prompts = asked(("what is", {"until": ["bird"], "max_gen_toks": 9}), kind="generate_until")
    compared(*(lm.generate_until(prompts) for lm in both))


def test_answers_that_are_greedy_are_told(harness):
    (answer,) = harness.generate_until(asked(("what is the", {"max_gen_toks": 3, "until": []}), kind="generate_until"))
    ((_, greedy), (_, other)) = harness.loglikelihood(asked(("what is the", f" {answer}"), ("what is the", " <unk>")))
    assert greedy and not other


def test_a_long_context_leaves_room_for_the_answer(harness, torch_model):
    requests = asked(*[(LONG, {"until": ["bird"], "max_gen_toks": n}) for n in (5, 20)], kind="generate_until")
    assert harness.generate_until(requests) == torch_model.generate_until(requests)


def test_scores_do_not_depend_on_the_batch(evaluated, results, model):  # noqa: F811
    one = numbers(evaluated(Harness(model, batch=1, progress=False)))
    for task, own in numbers(results).items():
        for metric, value in own.items():
            np.testing.assert_allclose(one[task][metric], value, rtol=1e-6)


def test_a_routed_library_is_what_is_scored(model, library, harness):  # noqa: F811
    router = routing.arrow(library, top_k=2)
    routed = Harness(model, library, router, progress=False)
    found = routed.loglikelihood(asked(("what is the", " red cat"), ("what is the", " dog")))
    tokens = model.tokenizer.encode("what is the red cat")
    logits_TV = np.asarray(model.logits([tokens], library, router)[0], np.float64)
    log_TV = logits_TV - np.log(np.exp(logits_TV).sum(axis=1, keepdims=True))
    np.testing.assert_allclose(found[0][0], sum(log_TV[at - 1, tokens[at]] for at in (3, 4)), rtol=1e-5)
    base = harness.loglikelihood(asked(("what is the", " red cat"), ("what is the", " dog")))
    assert not np.allclose([nats for nats, _ in found], [nats for nats, _ in base], rtol=1e-3)
    assert routed.get_model_info()["experts"] == ["a", "b", "c"] and routed.get_model_info()["router"] == "Arrow"


def test_sampled_answers_are_those_of_the_seed(model, harness):  # noqa: F811
    how = {"do_sample": True, "temperature": 3.0, "top_p": 0.9, "max_gen_toks": 8, "until": []}
    requests = asked(*[("what is the", how)] * 3, kind="generate_until")
    first = harness.generate_until(requests)
    assert len(set(first)) > 1 and first == harness.generate_until(requests)
    assert first != Harness(model, seed=1, progress=False).generate_until(requests)


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ({"num_beams": 4}, "num_beams: no such setting of generation_kwargs; expected one of do_sample"),
        ({"max_gen_toks": 64}, "max_gen_toks=64; expected less than 64, the tokens that the model may read"),
    ],
)
def test_what_it_cannot_generate_is_refused(harness, how, words):
    with pytest.raises(InputError, match=words):
        harness.generate_until(asked(("what", how), kind="generate_until"))


def test_a_continuation_without_tokens_is_refused(harness):
    with pytest.raises(InputError, match="request 0: its continuation has 0 tokens; expected 1 to 64"):
        harness.loglikelihood(asked(("what", "")))


def test_conversations_go_through_the_chat_template(model, harness):  # noqa: F811
    with pytest.raises(InputError, match="tiny: the tokenizer has no chat template"):
        harness.apply_chat_template([{"role": "user", "content": "what"}])
    words = copy.deepcopy(model.tokenizer)
    words.chat_template = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}"
    words.chat_template += "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }} {% endfor %}"
    words.chat_template += "{% if add_generation_prompt %}model: {% endif %}"
    talking = Harness(dataclasses.replace(model, tokenizer=words), progress=False)
    talk = [{"role": "user", "content": "what is"}, {"role": "assistant", "content": "red"}]
    assert talking.apply_chat_template(talk[:1]) == "user: what is model: "
    assert talking.apply_chat_template(talk, add_generation_prompt=False) == "user: what is assistant: red"
    system = {"role": "system", "content": "be"}
    assert talking.apply_chat_template([system, *talk[:1]]) == "user: what is model: "
    assert talking.chat_template(True) == words.chat_template and talking.tokenizer_name == "tiny"


def test_it_has_a_name_for_lm_eval(evaluated, model, library, results, tmp_path):  # noqa: F811
    model.save(tmp_path / "model")
    library.save(tmp_path / "library")
    given = {"pretrained": str(tmp_path / "model"), "progress": False}
    by_name = numbers(evaluated("modjax", ("choices",), model_args=given, batch_size=4))
    assert by_name["tiny_choices"] == pytest.approx(numbers(results)["tiny_choices"])
    text = f"pretrained={tmp_path / 'model'},library={tmp_path / 'library'},router=arrow"
    assert type(Harness.create_from_arg_string(text).router).__name__ == "Arrow"
    assert Harness.create_from_arg_obj(given, {"batch_size": "auto"}).batch == 32
    for wrong, words in (
        ({"device": "cpu"}, "no pretrained among the arguments"),
        (given | {"router": "arrow"}, "router='arrow' without a library"),
        (
            given | {"library": tmp_path / "library", "router": "centroid"},
            "router='centroid' needs more than a library",
        ),
        (given | {"library": tmp_path / "library", "router": "aro"}, "router='aro'; did you mean 'arrow'"),
        (given | {"dtype": "float32"}, "dtype: no such setting of model_args"),
    ):
        with pytest.raises(InputError, match=words):
            Harness.create_from_arg_obj(wrong)


def test_the_oracle_needs_choices(model, library):  # noqa: F811
    with pytest.raises(InputError, match="router: the oracle needs the expert of each prompt"):
        Harness(model, library, routing.oracle(library))


def test_answers_are_kept_as_soon_as_they_are_there(evaluated, model, results, tmp_path, monkeypatch):  # noqa: F811
    """A run that was killed reads them again."""
    first = Harness(model, progress=False)
    settings = {"names": ("choices", "answers"), "use_cache": str(tmp_path / "kept")}
    monkeypatch.setattr(first, "generate_until", killed)
    with pytest.raises(KeyboardInterrupt):
        evaluated(first, **settings)
    again = Harness(model, progress=False)
    monkeypatch.setattr(again, "_loglikelihood_tokens", killed)
    found = numbers(evaluated(again, **settings))
    for task in found:
        assert found[task] == pytest.approx(numbers(results)[task])


def killed(*_, **__):
    raise KeyboardInterrupt


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    monkeypatch.delitem(sys.modules, "modjax.eval.harness")
    with pytest.raises(
        InputError, match=r"^modjax.eval.harness needs lm-eval; install it with `pip install modjax\[eval"
    ):
        importlib.import_module("modjax.eval.harness")


def test_nothing_else_imports_it_before_it_is_needed():
    own = pathlib.Path(inspect.getfile(Harness))
    for path in own.parents[1].rglob("*.py"):
        if path != own:
            tops = [node for node in ast.parse(path.read_text()).body if isinstance(node, ast.Import | ast.ImportFrom)]
            names = {f"{getattr(node, 'module', '')}.{alias.name}" for node in tops for alias in node.names}
            assert not [name for name in names if "lm_eval" in name or name == "modjax.eval.harness"], path
