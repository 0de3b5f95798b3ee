"""Token ids of examples on disk, by content, so that no examples are tokenised twice on a machine."""

import contextlib
import os
import pathlib
import tempfile
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from modjax import digest
from modjax.data.inputs import Reader
from modjax.data.tasks import Task
from modjax.data.template import QUESTION, render
from modjax.data.tokenize import Encoded
from modjax.errors import InputError

FORM = 1  # of the files; a change in how examples become tokens needs another number
VARIABLE = "MODJAX_TOKEN_CACHE"


def folder(environment: Mapping[str, str] = os.environ) -> pathlib.Path | None:
    """Where token ids are kept: the folder that MODJAX_TOKEN_CACHE names, or `modjax/tokens` in the user's cache.

    None, for MODJAX_TOKEN_CACHE=false and for a user without a home, keeps nothing.
    """
    named = environment.get(VARIABLE, "")
    if named.lower() in ("false", "0", "off"):
        return None
    if named:
        return pathlib.Path(named)
    try:
        root = environment.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
    except RuntimeError:
        return None
    return pathlib.Path(root) / "modjax" / "tokens"


class TokenCache:
    """The kept token ids of a model's tokenizer.

    A file belongs to all that its tokens are made of: the tokenizer with its chat template and what that writes today,
    the model's vocabulary and context, the versions of the libraries, the task's content, and the settings. A file that
    is damaged, or cannot be written, is as none. A file is written elsewhere and then moved to its place, so processes
    may share the folder.
    """

    def __init__(self, model: Reader):
        self.folder = folder()
        texts = _rules(model.tokenizer) if self.folder else None
        if texts is None:
            self.folder = None
        else:
            self.made_of = digest.of_json([FORM, _versions(), texts, model.config.V, model.config.reach])

    def get(self, task: Task, settings: Mapping[str, Any], make: Callable[[], list[Encoded]]) -> list[Encoded]:
        """The encoded examples of a task, read from the cache or else made and kept there.

        Args:
          settings: plain data: which examples, and all that decides on their tokens besides the model and the task.
        """
        if self.folder is None:
            return make()
        path = self.folder / f"{digest.of_json([self.made_of, task.fingerprint, settings])}.safetensors"
        found = _read(path)
        if found is None:
            found = make()
            _write(path, found)
        return found


def _versions() -> list[str]:
    import tokenizers
    import transformers

    return [transformers.__version__, tokenizers.__version__]


def _rules(words) -> list[Any] | None:
    """All that decides on the tokens of a text; None if it is not known.

    A tokenizer in Python does not tell its rules. A chat template may write the date, so what it makes of a question
    today is one of them; one that refuses the question is not known.
    """
    if getattr(words, "backend_tokenizer", None) is None:
        return None
    try:
        today = render(words, [QUESTION]) if words.chat_template else ""
    except InputError:
        return None
    return [words.backend_tokenizer.to_str(), str(words.special_tokens_map), words.chat_template, today]


def _read(path) -> list[Encoded] | None:
    try:
        held = load_file(path)
    except (OSError, SafetensorError):
        return None
    tokens = np.split(held["tokens"], held["ends"][:-1])
    return [Encoded(own, int(n_prompt)) for own, n_prompt in zip(tokens, held["n_prompts"], strict=True)]


def _write(path, encoded) -> None:
    lengths = [len(one.tokens) for one in encoded]
    held = {
        "tokens": np.concatenate([one.tokens for one in encoded]),
        "ends": np.cumsum(lengths),
        "n_prompts": np.array([one.n_prompt for one in encoded], np.int32),
    }
    with contextlib.suppress(OSError):  # a full disk, a folder of another user
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent) as folder:
            draft = pathlib.Path(folder) / path.name
            draft.write_bytes(save(held))
            os.replace(draft, path)
