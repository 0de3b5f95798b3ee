"""The tokenizer in a model's directory, and the tokens that end a turn."""

from __future__ import annotations

import codecs
import contextlib
import pathlib
import shutil
import tempfile
from collections.abc import Iterator
from typing import TYPE_CHECKING

from modjax.errors import InputError
from modjax.files import read_json_object
from modjax.models.gguf_file import header

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "tokenizer_config.json")
TEXTS = (".json", ".jinja", ".txt")  # suffixes of the files that transformers reads as text
GENERATION = "generation_config.json"
END_KEYS = ("tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id", "tokenizer.ggml.eom_token_id")


def from_directory(path: str | pathlib.Path) -> PreTrainedTokenizerBase | None:
    """The tokenizer in a checkpoint's directory; None if there is none. Raises InputError if it cannot be read."""
    path = pathlib.Path(path)
    if not any((path / name).is_file() for name in FILES):
        return None
    from transformers import AutoTokenizer

    try:
        with _without_marks(path) as clean:
            return AutoTokenizer.from_pretrained(clean, local_files_only=True)
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        for file in sorted(path.glob("*.json")):
            read_json_object(file)  # a file that is no JSON object is named
        raise InputError(f"{path}: its tokenizer cannot be read ({type(error).__name__}: {error})") from error


def ends(path: str | pathlib.Path) -> tuple[int, ...]:
    """Ids of the tokens that end a turn, as listed in the checkpoint; () if it lists none.

    A directory lists them in generation_config.json (`eos_token_id`, one id or a list), a GGUF file in its metadata.
    They are in addition to the end-of-sequence token of the tokenizer.
    Raises InputError for ids that are not whole numbers.
    """
    path = pathlib.Path(path)
    if path.is_file():
        metadata = header(path).metadata
        return tuple(dict.fromkeys(int(metadata[key]) for key in END_KEYS if key in metadata))
    file = path / GENERATION
    found = read_json_object(file).get("eos_token_id") if file.is_file() else None
    ids = found if isinstance(found, list) else [] if found is None else [found]
    if any(isinstance(one, bool) or not isinstance(one, int) for one in ids):
        raise InputError(f"{file}: eos_token_id is {found!r}; expected a token id or a list of them")
    return tuple(ids)


@contextlib.contextmanager
def _without_marks(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """The directory; if texts in it begin with a byte order mark, which transformers refuses, a copy without them."""
    texts = [file for file in path.iterdir() if file.suffix in TEXTS and file.is_file()]
    if not any(map(_marked, texts)):
        yield path
        return
    with tempfile.TemporaryDirectory() as folder:
        clean = pathlib.Path(folder)
        for file in texts:
            (clean / file.name).write_bytes(file.read_bytes().removeprefix(codecs.BOM_UTF8))
        for file in path.glob("*.model"):
            shutil.copy(file, clean)
        yield clean


def _marked(file: pathlib.Path) -> bool:
    with file.open("rb") as opened:
        return opened.read(len(codecs.BOM_UTF8)) == codecs.BOM_UTF8
