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

    At the start it drops the lines of all steps after `done`, so that a resumed run writes each step once.
    """

    def __init__(self, folder: pathlib.Path | None, names: Sequence[str], done: int):
        self.names, self._tags = names, _tags(names)
        self._file = None
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
            path = folder / "metrics.jsonl"
            kept = [line for line in read(path) if line["step"] <= done]
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

    def write(self, kind: str, step: int, values: Mapping[str, Any]) -> None:
        """Appends the line {"kind", "step", metric: {expert: number}}; values: {metric: vector over experts}."""
        if self._file is None:
            return
        line = {"kind": kind, "step": step}
        for key, vector in values.items():
            line[key] = {}
            for name, tag, number in zip(self.names, self._tags, np.asarray(vector).tolist(), strict=True):
                line[key][name] = round(number, 6) if math.isfinite(number) else None  # JSON has no NaN
                self._board.add_scalar(f"{kind}_{key}/{tag}", number, step)
        self._file.write(json.dumps(line) + "\n")
        self._file.flush()


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
