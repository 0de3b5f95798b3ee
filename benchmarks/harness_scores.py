"""The ten zero-shot benchmarks beside lm-evaluation-harness with transformers, on the same questions and weights.

    python benchmarks/harness_scores.py --data=DIR --workdir=workdir/harness --out=benchmarks/results/NAME.json

DIR has a file or folder for each benchmark, as docs/benchmarks.md says; records with choices are in its shorter forms.
Of the seven benchmarks with choices, lm-eval runs its own tasks, with its own prompts, on the first questions of the
file. Its prompts of the other three are different ones, so there its model continues the prompts of modjax, and modjax
judges both answers. A run that was stopped goes on. It needs `pip install -e '.[bench,eval]'`.
"""

import functools
import itertools
import json
import os
import pathlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import lm_eval
import measuring
import numpy as np
import torch
import yaml
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager

import modjax
from modjax.data.jsonl import read_json_lines
from modjax.eval import BENCHMARKS, BenchmarkSettings
from modjax.eval.benchmarks import records, scoring
from modjax.models import local
from modjax.studies.stages import Stages

PACKAGES = ("flax", "numpy", "torch", "transformers", "lm_eval")
METRICS = ("acc", "acc_norm")


def _lettered(record):
    """The choices of a record as AI2 writes them."""
    letters = records.LETTERS[: len(record["choices"])]
    return {"choices": {"text": record["choices"], "label": list(letters)}, "answerKey": letters[record["gold"]]}


def _arc(record):
    return {"question": record["query"].removeprefix("Question: "), **_lettered(record)}


def _openbookqa(record):
    return {"question_stem": record["query"], **_lettered(record)}


def _boolq(record):
    passage, _, question = record["query"].removeprefix("Passage: ").rpartition("\nQuestion: ")
    return {"passage": passage, "question": question.removesuffix("?"), "label": record["gold"]}


def _hellaswag(record):
    activity, _, context = record["ctx"].partition(": ")
    before, stop, last = context.rpartition(". ")
    first, second = (f"{before}{stop}".rstrip(), last) if last[:1].islower() else (context, "")
    ending = {key: record[key] for key in ("endings", "label")}
    return {"activity_label": activity, "ctx_a": first, "ctx_b": second, **ending}


def _winogrande(record):
    options = record["context_options"]
    before = os.path.commonprefix(options)
    parts = {f"option{number}": option.removeprefix(before) for number, option in enumerate(options, start=1)}
    return {"sentence": f"{before}_ {record['continuation']}", "answer": str(record["gold"] + 1), **parts}


# A record with choices in the form that lm-eval's own task reads.
ORIGINAL: dict[str, Callable[[Mapping[str, Any]], dict]] = {
    "piqa": dict,
    "boolq": _boolq,
    "winogrande": _winogrande,
    "hellaswag": _hellaswag,
    "arc_easy": _arc,
    "arc_challenge": _arc,
    "openbookqa": _openbookqa,
}


class Sides:
    """A model, and lm-eval's model of transformers with the same weights; the folder is for the files of both."""

    def __init__(self, model: modjax.Model, folder: pathlib.Path):
        self.model, self.folder = model, folder
        path = folder / f"model-{model.content['weights']}"
        if not path.exists():
            model.save(path)
        torch.set_num_threads(measuring.cores())
        self.peer = HFLM(str(path), device="cpu", dtype="float32", batch_size=8)
        self.manager = TaskManager()

    def choices(self, name: str, data: pathlib.Path, questions: int) -> dict:
        """The metrics of both sides on the first questions of a file, and the share of equal verdicts."""
        rows = [row for row, _ in itertools.islice(read_json_lines(records.locate(data, name)), questions)]
        found = modjax.eval.benchmark(self.model, name, self._written(f"{name}.jsonl", rows), progress=False)
        expected = self._by_lm_eval(name, map(ORIGINAL[name], rows))
        return {
            "questions": found.examples,
            "modjax": {metric: found[metric] for metric in expected},
            "lm_eval": {metric: float(own.mean()) for metric, own in expected.items()},
            "alike": {metric: float((found.values[metric] == own).mean()) for metric, own in expected.items()},
        }

    def answers(self, name: str, data: pathlib.Path, questions: int) -> dict:
        """The headline of both sides on some questions, of BBH of each task, and the share of equal answers."""
        own, path = BENCHMARKS[name], records.locate(data, name)
        settings = BenchmarkSettings(examples=questions, execute=True)
        found = modjax.eval.benchmark(self.model, name, path, progress=False, examples=questions, execute=True)
        asked = own.sample(own.questions(path), questions, settings.seed)
        how = {"until": list(own.answering.stop), "max_gen_toks": own.answering.max_new_tokens, "do_sample": False}
        requests = [Instance("generate_until", {}, (one.prompt, how), i) for i, one in enumerate(asked)]
        answers = self.peer.generate_until(requests, disable_tqdm=True)
        values, _ = scoring.judged(own, asked, answers, settings)
        alike = [one.strip() == other.strip() for one, other in zip(found.answers, answers, strict=True)]
        return {
            "questions": found.examples,
            "modjax": {own.metric: found.headline},
            "lm_eval": {own.metric: float(values[own.metric].mean())},
            "alike": {"answers": float(np.mean(alike))},
        }

    def _by_lm_eval(self, name: str, rows: Iterable[dict]) -> dict[str, np.ndarray]:
        """{metric: 1 where lm-eval's own task finds the answer right, else 0}."""
        data = str(self._written(f"{name}-original.jsonl", rows))
        files = {
            "data_files": {split: data for split in ("train", "validation", "test")},
            "cache_dir": str(self.folder),
        }
        own = {"include": str(self.manager.task_index[name].yaml_path), "task": f"{name}_local"}
        task = self.folder / f"{name}.yaml"
        task.write_text(yaml.safe_dump(own | {"dataset_path": "json", "dataset_name": None, "dataset_kwargs": files}))
        results = lm_eval.simple_evaluate(self.peer, tasks=[str(task)], task_manager=self.manager, bootstrap_iters=0)
        samples = results["samples"][f"{name}_local"]
        return {metric: np.asarray([one[metric] for one in samples]) for metric in METRICS if metric in samples[0]}

    def _written(self, name: str, rows: Iterable[dict]) -> pathlib.Path:
        path = self.folder / name
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return path


def compared(sides: Sides, data: pathlib.Path, questions: int, answers: int, per_task: int) -> dict[str, dict]:
    """{benchmark: the figures of both sides}; the folder keeps what is done."""
    stages, found = Stages(sides.folder), {}
    numbers = dict.fromkeys(ORIGINAL, questions) | {"bbh": per_task}
    for name in BENCHMARKS:
        run, number = sides.choices if name in ORIGINAL else sides.answers, numbers.get(name, answers)
        made_of = {"model": sides.model.content, "questions": number, "data": str(data)}
        found[name] = stages.current(name, made_of, functools.partial(run, name, data, number))
    return {name: {key: value for key, value in one.items() if key != "made_of"} for name, one in found.items()}


def arguments(argv: list[str] | None = None):
    parser = measuring.parser(__doc__, repeats=None)
    parser.add_argument("--data", type=pathlib.Path, required=True, help="folder of the benchmarks' files")
    parser.add_argument("--workdir", type=pathlib.Path, default="workdir/harness", help="folder of what is done")
    parser.add_argument("--model", default=local.EMBEDDED)
    parser.add_argument("--questions", type=int, default=200, help="of each benchmark with choices")
    parser.add_argument("--answers", type=int, default=20, help="questions of HumanEval and of MBPP")
    parser.add_argument("--per-task", type=int, default=1, help="questions of each task of BBH")
    return parser.parse_args(argv)


def main() -> None:
    args = arguments()
    args.workdir.mkdir(parents=True, exist_ok=True)
    numbers = (4, 1, 1) if args.small else (args.questions, args.answers, args.per_task)
    sides = Sides(modjax.load(args.model), args.workdir)
    measuring.report({"benchmarks": compared(sides, args.data, *numbers)}, PACKAGES, args.out)


if __name__ == "__main__":
    main()
