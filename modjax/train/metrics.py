"""Metrics on disk: one JSON line per logged step, and the same numbers for TensorBoard."""

import json
import math
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from modjax.files import read_text, safe_name, split_lines


class MetricsLog:
    """Appends to `metrics.jsonl` and `tensorboard/` in a folder; without a folder it writes nothing.

    At the start it drops the lines of all steps of the run after `done`, so that a resumed run writes each step once.
    """

    def __init__(self, folder: pathlib.Path | None, names: Sequence[str], done: int):
        self._tags = dict(zip(names, _tags(names), strict=True))
        self._file = None
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
            path = folder / "metrics.jsonl"
            kept = [line for line in read(path) if line["global_step"] <= done]
            draft = folder / "metrics.jsonl.writing"
            draft.write_text("".join(json.dumps(line) + "\n" for line in kept))
            os.replace(draft, path)
            from tensorboardX import SummaryWriter  # here, because it imports torch if that is installed

            self._file = path.open("a")
            self._board = SummaryWriter(str(folder / "tensorboard"), purge_step=done + 1)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self._file:
            self._file.close()
            self._board.close()

    def write(self, kind: str, global_step: int, steps: Mapping[str, int], values: Mapping[str, Any]) -> None:
        """Appends {"kind", "global_step", "step", metric: {expert: number}} for each step that experts are at.

        Args:
          global_step: steps of the run.
          steps: {expert: its own step}, in the order of the values.
          values: {metric: vector over these experts}.
        """
        if self._file is None:
            return
        values = {key: np.asarray(vector).tolist() for key, vector in values.items()}
        for step in sorted(set(steps.values())):
            line = {"kind": kind, "global_step": global_step, "step": step}
            at = [(place, name) for place, (name, own) in enumerate(steps.items()) if own == step]
            for key, vector in values.items():
                line[key] = {name: self._number(f"{kind}_{key}", name, vector[place], step) for place, name in at}
            self._file.write(json.dumps(line) + "\n")
        self._file.flush()

    def _number(self, key, name, number, step):
        self._board.add_scalar(f"{key}/{self._tags[name]}", number, step)
        return round(number, 6) if math.isfinite(number) else None  # JSON has no NaN


def _tags(names: Sequence[str]) -> list[str]:
    """Names for TensorBoard, which replaces some characters and would so give several experts one curve."""
    tags: list[str] = []
    for name in names:
        tags.append(safe_name(name, tags))
    return tags


def read(path: str | pathlib.Path) -> list[dict]:
    """The lines of a metrics file, without a last line that is incomplete; none if there is no file."""
    path = pathlib.Path(path)
    lines = []
    for text in split_lines(read_text(path)) if path.exists() else []:
        try:
            lines.append(json.loads(text))
        except json.JSONDecodeError:
            break
    return lines
