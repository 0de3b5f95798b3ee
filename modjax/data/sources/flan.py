"""FLAN v2 as the MBC and Arrow paper (arXiv 2405.11157) prepared it, from the data set chiayewken/flan-v2.

Of its 264 tasks from P3, Flan 2021 and chain of thought, 256 are left without those of evaluation benchmarks. At most
10,000 examples of each are drawn, as `Dataset.shuffle(42)` orders them; a split goes by the place in that order:
of 10,000 there are 7,984 for training, 1,019 for validation and 997 for testing. In names `: / - .` become `_`.
"""

import re
import unicodedata
from collections.abc import Mapping
from typing import Any

ID = "chiayewken/flan-v2"
COLUMNS = {"source": "source", "target": "target", "task": "task_name"}
SETTINGS: dict[str, Any] = {
    "most": 10_000,
    "seed": 42,
    "where": {"task_source": ("P3", "Flan2021", "CoT")},
    "columns": COLUMNS,
}

# What the names of the benchmarks are in small letters and digits alone, wherever they stand in the name of a task.
EVALUATED = ("ai2arc", "arcchallenge", "arceasy", "boolq", "cotqascii", "hellaswag", "obqa", "openbookqa", "piqa")
EVALUATED += ("physicaliqa", "winogrande")
SHORT = re.compile(r"arc[ce]?\d*")  # whole names, because others may contain these letters


def settings(given: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of `dataset`; `given` may name local files in the same form, change others, and add to `where`."""
    place, where = {} if given.get("files") else {"id": ID}, given.get("where")
    added = {"where": {**SETTINGS["where"], **where}} if isinstance(where, Mapping) else {}
    return {**place, **SETTINGS, **given, **added}


def training_name(name: str) -> str | None:
    """The cleaned name of a task; None for one of an evaluation benchmark."""
    return None if is_evaluated(name) else re.sub("[:/.-]", "_", name)


def is_evaluated(name: str) -> bool:
    """Whether a task is of one of the benchmarks that the paper evaluates on, however its name is spelled."""
    letters = "".join(filter(str.isalnum, unicodedata.normalize("NFKC", name).casefold()))
    return any(one in letters for one in EVALUATED) or SHORT.fullmatch(letters) is not None
