"""The tokenizer in a model's directory, and the tokens that end a turn."""

from __future__ import annotations

import codecs
import contextlib
import json
import pathlib
import re
import shutil
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from modjax import digest
from modjax.errors import InputError
from modjax.files import read_json_object
from modjax.models.gguf_file import header

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "tokenizer_config.json")
TEXTS = (".json", ".jinja", ".txt")  # suffixes of the files that transformers reads as text
GENERATION, CONFIG = "generation_config.json", "config.json"
END_KEYS = ("tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id", "tokenizer.ggml.eom_token_id")

UNUSED = re.compile(r"[<\[].*(unused|reserved|placeholder|extra|dummy|pad).*[>\]]$", re.IGNORECASE)
SHOWN = 5  # most tokens named in one message


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

    A directory lists them in generation_config.json and in config.json (`eos_token_id`, one id or a list), a GGUF file
    in its metadata. They are in addition to the end-of-sequence token of the tokenizer.
    Raises InputError for ids that are not whole numbers.
    """
    path = pathlib.Path(path)
    if path.is_file():
        metadata = header(path).metadata
        return tuple(dict.fromkeys(int(metadata[key]) for key in END_KEYS if key in metadata))
    files = [path / name for name in (GENERATION, CONFIG) if (path / name).is_file()]
    return tuple(dict.fromkeys(one for file in files for one in _listed_ends(file)))


def _listed_ends(file: pathlib.Path) -> list[int]:
    content = read_json_object(file)
    inner = content.get("text_config")  # of a checkpoint that reads images too
    found = (content if not isinstance(inner, dict) else inner | content).get("eos_token_id")
    ids = found if isinstance(found, list) else [] if found is None else [found]
    if any(isinstance(one, bool) or not isinstance(one, int) for one in ids):
        raise InputError(f"{file}: eos_token_id is {found!r}; expected a token id or a list of them")
    return ids


def check(words: PreTrainedTokenizerBase | None, ends: Sequence[int], rows: int, where: str) -> None:
    """Compares a tokenizer and the ids of end tokens with an embedding of `rows` rows.

    Warns of end tokens, and of added or unused tokens, that have no row: text with such a token is refused when it is
    read. Raises InputError for other tokens without a row, because the tokenizer is then that of another model.
    """
    if outside := [one for one in ends if not 0 <= one < rows]:
        warnings.warn(
            f"{where}: eos_token_id {', '.join(map(str, outside))}: expected ids from 0 to {rows - 1}, the rows of the "
            "embedding; no answer can end there",
            stacklevel=3,
        )
    beyond = sorted((i, token) for token, i in words.get_vocab().items() if i >= rows) if words is not None else []
    if not beyond:
        return
    shown = ", ".join(f"{token!r} ({i})" for i, token in beyond[:SHOWN]) + ", ..." * (len(beyond) > SHOWN)
    found = f"{where}: the tokenizer has tokens without a row in the embedding of {rows} rows: {shown}"
    if not all(i in words.added_tokens_decoder or UNUSED.match(token) for i, token in beyond):
        raise InputError(f"{found}; expected the model's own tokenizer")
    warnings.warn(f"{found}; text with one of them is refused when it is read", stacklevel=3)


def fingerprint(tokenizer: PreTrainedTokenizerBase | None) -> str:
    """Sixteen hexadecimal digits that identify the words, rules and chat template of a tokenizer; "" for none."""
    if tokenizer is None:
        return ""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    rules = {"vocab": tokenizer.get_vocab()} if backend is None else json.loads(backend.to_str())
    last_call = ("padding", "truncation")  # what the last call asked for
    rules = {key: value for key, value in rules.items() if key not in last_call}
    return digest.of_json([rules, tokenizer.chat_template, str(tokenizer.special_tokens_map)])


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
