"""Tokenizers of transformers, loaded from a model's directory or rebuilt from the metadata of a GGUF file."""

from __future__ import annotations

import json
import pathlib
from typing import TYPE_CHECKING, Any

from modjax import digest
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
GENERATION = "generation_config.json"
END_KEYS = ("tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id", "tokenizer.ggml.eom_token_id")


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
    named = {f"{role}_token": tokens[metadata[key]] for role, key in ROLES.items() if key in metadata}
    return PreTrainedTokenizerFast(
        tokenizer_object=_byte_level_bpe(metadata),
        chat_template=metadata.get("tokenizer.chat_template"),
        model_max_length=metadata.get("llama.context_length"),
        clean_up_tokenization_spaces=False,
        **named,
    )


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


def fingerprint(tokenizer: PreTrainedTokenizerBase | None) -> str:
    """Sixteen hexadecimal digits that identify the words, rules and chat template of a tokenizer; "" for none."""
    if tokenizer is None:
        return ""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    rules = {"vocab": tokenizer.get_vocab()} if backend is None else json.loads(backend.to_str())
    last_call = ("padding", "truncation")  # what the last call asked for
    rules = {key: value for key, value in rules.items() if key not in last_call}
    return digest.of_json([rules, tokenizer.chat_template, str(tokenizer.special_tokens_map)])


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
