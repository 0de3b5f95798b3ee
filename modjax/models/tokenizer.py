"""Tokenizers of transformers, loaded from a model's directory or rebuilt from the metadata of a GGUF file."""

from __future__ import annotations

import pathlib
import re
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from modjax.errors import InputError
from modjax.files import read_json_object
from modjax.models.gguf import header

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "tokenizer_config.json")
CONTROL, USER_DEFINED = 3, 4  # GGUF token types of text that is never split into several tokens
ROLES = {
    "bos": "tokenizer.ggml.bos_token_id",
    "eos": "tokenizer.ggml.eos_token_id",
    "unk": "tokenizer.ggml.unknown_token_id",
    "pad": "tokenizer.ggml.padding_token_id",
}
GENERATION, CONFIG = "generation_config.json", "config.json"
END_KEYS = ("tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id", "tokenizer.ggml.eom_token_id")

UNUSED = re.compile(r"[<\[].*(unused|reserved|placeholder|extra|dummy|pad).*[>\]]$", re.IGNORECASE)
SHOWN = 5  # most tokens named in one message


def from_directory(path: str | pathlib.Path) -> PreTrainedTokenizerBase | None:
    """The tokenizer in a checkpoint's directory; None if there is none."""
    if not any((pathlib.Path(path) / name).is_file() for name in FILES):
        return None
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(path, local_files_only=True)
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"{path}: its tokenizer cannot be read ({error})") from error


def from_gguf(path: str | pathlib.Path) -> PreTrainedTokenizerBase:
    """The byte-level BPE tokenizer in a GGUF file, with its special tokens and chat template.

    Token ids equal those of transformers' AutoTokenizer.from_pretrained(directory, gguf_file=...), which also splits
    text by the GPT-2 pattern and ignores `tokenizer.ggml.pre`.
    Raises InputError for another kind of tokenizer and for a missing list of tokens or merges.
    """
    metadata = header(path).metadata
    kind = metadata.get("tokenizer.ggml.model")
    if kind != "gpt2":
        raise InputError(f"{path}: tokenizer.ggml.model is {kind!r}; supported is 'gpt2' (byte-level BPE)")
    for key in ("tokenizer.ggml.tokens", "tokenizer.ggml.merges"):
        if key not in metadata:
            raise InputError(f"{path}: the metadata has no {key!r}")
    from transformers import PreTrainedTokenizerFast

    tokens = metadata["tokenizer.ggml.tokens"]
    named = {f"{role}_token": tokens[_id(metadata, key, path)] for role, key in ROLES.items() if key in metadata}
    return PreTrainedTokenizerFast(
        tokenizer_object=_byte_level_bpe(metadata),
        chat_template=metadata.get("tokenizer.chat_template"),
        model_max_length=metadata.get("llama.context_length"),
        clean_up_tokenization_spaces=False,
        **named,
    )


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


def _id(metadata: dict[str, Any], key: str, path) -> int:
    found, size = metadata[key], len(metadata["tokenizer.ggml.tokens"])
    if not 0 <= found < size:
        raise InputError(f"{path}: {key} is {found}; expected an id from 0 to {size - 1}, that of a token")
    return found


def _byte_level_bpe(metadata: dict[str, Any]):
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors

    tokens = metadata["tokenizer.ggml.tokens"]
    types = metadata.get("tokenizer.ggml.token_type", [])
    merges = [tuple(merge.split(" ", 1)) for merge in metadata["tokenizer.ggml.merges"]]
    tokenizer = Tokenizer(models.BPE(vocab={token: i for i, token in enumerate(tokens)}, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    whole = [(token, kind) for token, kind in zip(tokens, types, strict=False) if kind in (CONTROL, USER_DEFINED)]
    tokenizer.add_tokens([AddedToken(token, normalized=False, special=kind == CONTROL) for token, kind in whole])
    if metadata.get("tokenizer.ggml.add_bos_token") and ROLES["bos"] in metadata:
        bos = metadata[ROLES["bos"]]
        template = [f"{tokens[bos]}:0", "$A:0"]
        tokenizer.post_processor = processors.TemplateProcessing(single=template, special_tokens=[(tokens[bos], bos)])
    return tokenizer
