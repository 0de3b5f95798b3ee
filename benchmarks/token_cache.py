"""Seconds to make rows for training and samples for evaluation, with and without kept token ids.

    python benchmarks/token_cache.py --tasks=FOLDER --only='core*' --out=benchmarks/results/NAME.json

Everything is made twice: with an empty folder of kept token ids, and again with what was left there. Both times give
the same bytes. What is left to do the second time is the packing of rows.
"""

import os
import pathlib
import tempfile
from typing import Any, NamedTuple

import measuring

import modjax
from modjax.data import token_cache
from modjax.eval.sample import Sample, prepared
from modjax.models import local
from modjax.models.config import ModelConfig
from modjax.train.examples import member_rows
from modjax.train.recipe import Recipe
from modjax.train.settings import Settings

PACKAGES = ("numpy", "tokenizers", "transformers")


class Words(NamedTuple):
    """A model without weights."""

    name: str
    tokenizer: Any
    config: ModelConfig


def jobs(model: Words, tasks: modjax.data.Tasks, length: int):
    """{name: a function that makes the rows of one expert per task, or the samples of all tasks}"""
    settings = Settings(length=length, too_long="truncate")
    sample = Sample(length=length, too_long="truncate")
    groups = {name: (name,) for name in tasks}
    return {
        "training rows": lambda: member_rows(model, tasks, groups, Recipe, settings, "train").own,
        "samples": lambda: [one.encoded for one in prepared(model, tasks, sample)],
    }


def compared(model: Words, tasks: modjax.data.Tasks, length: int) -> dict:
    """Seconds of each job with an empty folder and with a full one, and whether both give the same bytes."""
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        os.environ[token_cache.VARIABLE] = folder
        for name, run in jobs(model, tasks, length).items():
            (empty, first), (full, second) = measuring.timed(run), measuring.timed(run)
            found[name] = {"empty": empty, "full": full, "same_bytes": _bytes(first) == _bytes(second)}
        found["kept_bytes"] = sum(file.stat().st_size for file in pathlib.Path(folder).iterdir())
    return found


def _bytes(made) -> list[bytes]:
    parts = made.values() if isinstance(made, dict) else made
    return [field.tobytes() for part in parts for field in part if hasattr(field, "tobytes")]


def arguments(argv: list[str] | None = None):
    parser = measuring.parser(__doc__, repeats=None)
    parser.add_argument("--model", default=local.EMBEDDED, help="the model of the tokenizer")
    parser.add_argument("--tasks", default="open48", help="a source of tasks")
    parser.add_argument("--only", default="*", help="a pattern of their names, families or groups")
    parser.add_argument("--length", type=int, default=1024, help="tokens of a row")
    args = parser.parse_args(argv)
    return args if not args.small else parser.parse_args([*(argv or []), "--tasks=open48", "--only=words_p*"])


def main() -> None:
    args = arguments()
    tasks = modjax.data.load(args.tasks, only=[args.only])
    model = Words(args.model, local.tokenizer(args.model), local.config(args.model))
    examples = {split: sum(task.sizes[split] for task in tasks.values()) for split in ("train", "test")}
    figures = {"tasks": len(tasks), "examples": examples, **compared(model, tasks, args.length)}
    measuring.report(figures, PACKAGES, args.out)


if __name__ == "__main__":
    main()
