"""Tokenizers of transformers, rebuilt from the metadata of a GGUF file."""

from __future__ import annotations

import pathlib
import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from modjax.errors import InputError
from modjax.files import is_number, is_text, is_whole, list_of
from modjax.models.gguf_config import ARCHITECTURE
from modjax.models.gguf_file import header

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerBase

TOKENS, TYPES, SCORES, MERGES = (f"tokenizer.ggml.{name}" for name in ("tokens", "token_type", "scores", "merges"))
PRE, TEMPLATE = "tokenizer.ggml.pre", "tokenizer.chat_template"
# {key: (whether a value fits, what is expected)}
FIT = {
    TOKENS: (list_of(is_text), "a list of strings"),
    MERGES: (list_of(lambda value: is_text(value) and " " in value), "a list of pairs of tokens, with a space between"),
    SCORES: (list_of(is_number), "a list of finite numbers"),
    TYPES: (list_of(is_whole), "a list of whole numbers"),
    PRE: (is_text, "a string"),
    TEMPLATE: (is_text, "a string"),
}
NORMAL, CONTROL, USER_DEFINED = 1, 3, 4  # types of tokens; text of the last two is never split
ROLES = {
    "bos": "tokenizer.ggml.bos_token_id",
    "eos": "tokenizer.ggml.eos_token_id",
    "unk": "tokenizer.ggml.unknown_token_id",
    "pad": "tokenizer.ggml.padding_token_id",
}
SPACE = "\u2581"  # stands for a space in the tokens of SentencePiece

_CONTRACTED = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_END = r"|\s*[\r\n]+|\s+(?!\S)|\s+"
_DIGIT = r"\p{N}"


def _words(digits: str) -> str:
    """The pattern of the tokenizers after cl100k."""
    return rf"{_CONTRACTED}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|{digits}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*{_END}"


def _cased_words(digits: str, tail: str = "") -> str:
    """The pattern of the tokenizers after o200k, which also splits where an upper-case letter follows."""
    lead = r"[^\r\n\p{L}\p{N}]?"
    cased = f"{lead}{_UPPER}*{_LOWER}+{tail}|{lead}{_UPPER}+{_LOWER}*{tail}"
    return rf"{cased}|{digits}| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*{_END}"


class Split(NamedTuple):
    """How text is split before byte-level BPE."""

    pattern: str = ""  # applied before, or in place of, the pattern of GPT-2
    gpt2: bool = True  # the pattern of GPT-2 is applied
    whole: bool = False  # a word of the vocabulary is one token, whatever the merges say
    begins: bool = False  # a text begins with the beginning-of-sequence token, unless the file says otherwise


_GPT2, _DIGITS = Split(), Split(_DIGIT)
_CL100K, _QWEN = Split(_words(r"\p{N}{1,3}"), gpt2=False), Split(_words(_DIGIT), gpt2=False)
_LLAMA3 = _CL100K._replace(whole=True, begins=True)
# {tokenizer.ggml.pre: Split}
SPLITS = {
    # The tokenizer of "smollm" also splits digits, which matters only after several spaces or line ends; like
    # transformers, modjax reads its GGUF files without.
    **dict.fromkeys(("default", "gpt-2", "phi-2", "olmo", "mpt", "jais", "smollm"), _GPT2),
    **dict.fromkeys(("starcoder", "refact", "command-r", "codeshell"), _DIGITS),
    **dict.fromkeys(("llama3", "llama-v3", "llama-bpe", "falcon3", "pixtral"), _LLAMA3),
    **dict.fromkeys(("dbrx", "smaug-bpe"), _CL100K),
    **dict.fromkeys(("qwen2", "stablelm2", "deepseek-r1-qwen"), _QWEN),
    "gpt-4o": Split(_cased_words(r"\p{N}{1,3}", f"{_CONTRACTED}?"), gpt2=False),
    "tekken": Split(_cased_words(_DIGIT), gpt2=False, whole=True, begins=True),
}


def read(path: str | pathlib.Path) -> PreTrainedTokenizerBase | None:
    """The tokenizer in a GGUF file, with its special tokens and chat template; None, with a warning, for other kinds.

    Read are byte-level BPE ("gpt2"), split as `tokenizer.ggml.pre` names, and the BPE of SentencePiece ("llama").
    """
    return built(header(path).metadata, path)


def built(metadata: Mapping[str, Any], path: str | pathlib.Path) -> PreTrainedTokenizerBase | None:
    """The tokenizer in the metadata of a file; see `read`. Raises InputError naming the key for unusable values."""
    kind = metadata.get("tokenizer.ggml.model")
    read = {"gpt2": MERGES, "llama": SCORES}  # what these tokenizers need besides the tokens
    needed = read.get(kind) if isinstance(kind, str) else None
    missing = [key for key in (TOKENS, needed) if key not in metadata]
    if missing:
        found = f"the metadata has no {missing[0]!r}" if needed else f"tokenizer.ggml.model is {kind!r}"
        warnings.warn(
            f"{path}: {found}; modjax reads the tokenizers {' and '.join(map(repr, read))}. The model is loaded "
            "without one and takes token ids alone",
            stacklevel=3,
        )
        return None
    for key, (fits, expected) in FIT.items():
        if key in metadata and not fits(metadata[key]):
            raise InputError(f"{path}: {key} is {metadata[key]!r:.80}; expected {expected}")
    named = {role: _token(metadata, key, path) for role, key in ROLES.items() if key in metadata}
    split = _split(metadata, path) if kind == "gpt2" else Split(begins=True)
    try:
        backend = _byte_level(metadata, split) if kind == "gpt2" else _sentencepiece(metadata, named.get("unk"))
    except Exception as error:  # tokenizers raises no narrower class
        raise InputError(f"{path}: its tokenizer cannot be built ({' '.join(str(error).split())})") from error
    _add_special(backend, metadata)
    _add_ends(backend, metadata, named, split.begins)
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        chat_template=metadata.get(TEMPLATE),
        model_max_length=metadata.get(f"{metadata.get(ARCHITECTURE)}.context_length"),
        clean_up_tokenization_spaces=False,
        **{f"{role}_token": token for role, token in named.items()},
    )


def _token(metadata: Mapping[str, Any], key: str, path) -> str:
    found, tokens = metadata[key], metadata[TOKENS]
    if not isinstance(found, int) or not 0 <= found < len(tokens):
        raise InputError(f"{path}: {key} is {found!r}; expected an id from 0 to {len(tokens) - 1}, that of a token")
    return tokens[found]


def _split(metadata: Mapping[str, Any], path) -> Split:
    name = metadata.get(PRE, "default")
    if name not in SPLITS:
        warnings.warn(
            f"{path}: {PRE} is {name!r}, which modjax does not know; text is split as by GPT-2, which may give other "
            "tokens than the model was trained on",
            stacklevel=3,
        )
    return SPLITS.get(name, _GPT2)


def _byte_level(metadata: Mapping[str, Any], split: Split) -> Tokenizer:
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers

    merges = [tuple(merge.split(" ", 1)) for merge in metadata[MERGES]]
    backend = Tokenizer(models.BPE(vocab=_vocabulary(metadata), merges=merges, ignore_merges=split.whole))
    first = [pre_tokenizers.Split(Regex(split.pattern), "isolated")] if split.pattern else []
    last = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=split.gpt2)
    backend.pre_tokenizer = pre_tokenizers.Sequence([*first, last])
    backend.decoder = decoders.ByteLevel()
    return backend


def _sentencepiece(metadata: Mapping[str, Any], unknown: str | None) -> Tokenizer:
    """SentencePiece's BPE joins the neighbours whose joint token has the highest score; bytes stand in for the rest."""
    from tokenizers import Tokenizer, decoders, models, normalizers

    vocabulary = _vocabulary(metadata)
    prefixed = metadata.get("tokenizer.ggml.add_space_prefix", True)
    backend = Tokenizer(
        models.BPE(
            vocab=vocabulary,
            merges=_merges(metadata, vocabulary),
            unk_token=unknown,
            fuse_unk=True,
            byte_fallback=True,
        )
    )
    prefix, strip = ([normalizers.Prepend(SPACE)], [decoders.Strip(" ", 1, 0)]) if prefixed else ([], [])
    backend.normalizer = normalizers.Sequence([*prefix, normalizers.Replace(" ", SPACE)])
    parts = [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    backend.decoder = decoders.Sequence([*parts, *strip])
    return backend


def _merges(metadata: Mapping[str, Any], vocabulary: Mapping[str, int]) -> list[tuple[str, str]]:
    """The pairs of tokens that form another one, those with the highest score first."""
    found = []
    types = metadata.get(TYPES) or [NORMAL] * len(vocabulary)
    for token, score, kind in zip(metadata[TOKENS], metadata[SCORES], types, strict=False):
        parts = ((token[:at], token[at:]) for at in range(1, len(token))) if kind == NORMAL else ()
        found += [
            (-score, vocabulary[token], *pair) for pair in parts if pair[0] in vocabulary and pair[1] in vocabulary
        ]
    return [(left, right) for *_, left, right in sorted(found)]


def _vocabulary(metadata: Mapping[str, Any]) -> dict[str, int]:
    return {token: i for i, token in enumerate(metadata[TOKENS])}


def _add_special(backend: Tokenizer, metadata: Mapping[str, Any]) -> None:
    """Makes the tokenizer find the tokens that stand in a text as they are."""
    from tokenizers import AddedToken

    typed = zip(metadata[TOKENS], metadata.get(TYPES, ()), strict=False)
    whole = [(token, kind == CONTROL) for token, kind in typed if kind in (CONTROL, USER_DEFINED)]
    backend.add_tokens([AddedToken(token, normalized=False, special=special) for token, special in whole])


def _add_ends(backend: Tokenizer, metadata: Mapping[str, Any], named: Mapping[str, str], begins: bool) -> None:
    """Makes the tokenizer add the beginning and the end of a sequence, where the file asks for them."""
    from tokenizers import processors

    asked = {
        role: metadata.get(f"tokenizer.ggml.add_{role}_token", how) for role, how in (("bos", begins), ("eos", False))
    }
    first, last = ([f"{named[role]}:0"] if asked[role] and role in named else [] for role in ("bos", "eos"))
    if first or last:
        ids = [(named[role], metadata[ROLES[role]]) for role in ("bos", "eos") if role in named]
        backend.post_processor = processors.TemplateProcessing(single=[*first, "$A:0", *last], special_tokens=ids)
