"""Export of a decoder as a Hugging Face checkpoint: config.json, safetensors files and the tokenizer.

transformers' AutoModelForCausalLM, vLLM and `modjax.load` can load it. Of a multimodal model, whose text decoder alone
is read, it holds the text decoder, as a model of the text's own family. Tensors are converted one at a time, by the
inverse of the conversions that loading uses, so the host holds one tensor in addition to the decoder.
"""

from __future__ import annotations

import dataclasses
import os
import pathlib
import shutil
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from modjax import arguments
from modjax.errors import InputError
from modjax.files import os_errors, read_json_object, replaceable, write_json
from modjax.models import safetensors_file
from modjax.models.config import ModelConfig
from modjax.models.decoder import Decoder
from modjax.models.families import FAMILIES
from modjax.models.families.multimodal import MULTIMODAL
from modjax.models.hf import INDEX, SINGLE
from modjax.models.hf_names import rows
from modjax.models.tokenizer import GENERATION
from modjax.models.weights import Transform, leaves

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

SHARD_BYTES = 5 * 10**9
FORMATS = {"float32": "F32", "float16": "F16", "bfloat16": "BF16"}
# Files of a checkpoint, besides weights and config, that are valid for other weights of the same model too.
BESIDE = ("tokenizer*", "vocab.*", "merges.txt", "*_tokens*.json", "chat_template*", GENERATION)
BUILT = ("llama", "qwen2", "qwen3")  # families whose config.json can be built from a ModelConfig


@dataclasses.dataclass(frozen=True)
class Piece:
    """One tensor to write."""

    leaf: jax.Array
    layer: int | None  # None: the whole leaf
    transform: Transform

    @property
    def shape(self) -> tuple[int, ...]:
        return self.transform.shape(self.leaf.shape if self.layer is None else self.leaf.shape[1:])

    def array(self, config: ModelConfig, dtype: Any) -> np.ndarray:
        found = np.asarray(self.leaf if self.layer is None else self.leaf[self.layer])
        with np.errstate(over="ignore"):
            return self.transform.undo(found, config).astype(dtype)


def write(
    decoder: Decoder,
    path: str | os.PathLike,
    like: str | os.PathLike | Mapping[str, Any] | None = None,
    tokenizer: PreTrainedTokenizerBase | None = None,
    ends: Sequence[int] = (),
    dtype: Any = None,
    shard_bytes: int = SHARD_BYTES,
) -> None:
    """Writes a checkpoint directory, under a temporary name until it is complete.

    Args:
      path: a new or an empty folder.
      like: where config.json comes from: a checkpoint directory, whose tokenizer files are copied too, or the content
        of a config.json. By default it is built from the decoder's config, which works for llama, qwen2 and qwen3.
      tokenizer, ends: a tokenizer, and the ids of the tokens that end a turn, to write unless `like` is a directory.
      dtype: float32, float16 or bfloat16; by default that of the weights.
      shard_bytes: largest size of the weights in one file; only a single tensor may exceed it.

    Raises InputError for a folder that is not empty, a quantised decoder, a `like` of another model, and values that
    are not finite or become infinite in the dtype.
    """
    path, dtype = arguments.path("path", path), _dtype(decoder, dtype)
    with os_errors(path, "written"):
        target = replaceable(path)
        if target.exists() and any(target.iterdir()):
            raise InputError(f"{path}: exists; expected a new or an empty folder")
    folder = None if like is None or isinstance(like, Mapping) else arguments.path("like", like)
    described = _described(decoder.config, like, folder) | {"torch_dtype": dtype.name}
    config = dataclasses.replace(decoder.config, family=described["model_type"])
    described = {"architectures": [_architecture(config.family)]} | described
    described.pop("dtype", None)  # newer name of torch_dtype; every version of transformers reads the older one
    if tokenizer is not None and folder is None:
        ids = {key: getattr(tokenizer, key) for key in ("bos_token_id", "eos_token_id", "pad_token_id")}
        described = ids | described
    pieces = _pieces(decoder, config)
    draft = target.with_name(target.name + ".writing")
    shutil.rmtree(draft, ignore_errors=True)
    with os_errors(path, "written"):
        draft.mkdir(parents=True)
        write_json(draft / "config.json", described)
        _write_tokenizer(draft, folder, tokenizer, ends)
        _write_shards(draft, pieces, config, dtype, shard_bytes)
        os.replace(draft, target)


def _dtype(decoder: Decoder, dtype: Any) -> np.dtype:
    return arguments.dtype("dtype", decoder.embed[...].dtype if dtype is None else dtype, FORMATS)


def _described(config: ModelConfig, like, folder) -> dict[str, Any]:
    if like is None:
        return hf_config(config)
    described, where = (like, "like") if folder is None else (read_json_object(folder / "config.json"), str(folder))
    described = {**described, "tie_word_embeddings": config.tied}
    if ModelConfig.from_hf(described, where) != config:
        raise InputError(f"{where}: describes another model than the decoder to write")
    return MULTIMODAL[config.family].text(described, where) if config.family in MULTIMODAL else described


def hf_config(config: ModelConfig) -> dict[str, Any]:
    """The config.json of a llama, qwen2 or qwen3 decoder. Raises InputError for a config that it cannot express."""
    if config.family not in BUILT:
        raise InputError(f"cannot build config.json for family {config.family!r}; pass like=CHECKPOINT_DIR to copy it")
    family = FAMILIES[config.family]
    found = {"model_type": config.family}
    found |= {key: getattr(config, letter) for letter, key in family.sizes.items()}
    found |= {key: getattr(config, field) for field, (_, key) in family.keys.items()}
    found |= {"hidden_act": config.activation, "rope_theta": config.rope_theta}
    if scaling := config.rope_scaling:
        found["rope_scaling"] = {
            "rope_type": scaling.kind,
            "factor": scaling.factor,
            "original_max_position_embeddings": scaling.original or config.context,
        }
        if scaling.kind == "longrope":
            long_and_short = {"long_factor": list(scaling.long), "short_factor": list(scaling.short)}
            found["rope_scaling"] |= long_and_short | {"attention_factor": scaling.magnitude}
    if ModelConfig.from_hf(found, "config.json") != config:
        raise InputError(f"cannot build config.json for {config}; pass like=CHECKPOINT_DIR to copy it")
    return found


def _architecture(family: str) -> str:
    """The class that transformers has for a model_type."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    return MODEL_FOR_CAUSAL_LM_MAPPING_NAMES[family]


def _pieces(decoder: Decoder, config: ModelConfig) -> dict[str, Piece]:
    """{name of a tensor: Piece}, in the order of the decoder's leaves."""
    table, found = rows(config), {}
    for path, leaf in leaves(decoder).items():
        if path not in table:
            raise InputError(f"{path}: quantised weights cannot be written; load the model without quantize=")
        row = table[path]
        for layer in range(leaf.shape[0]) if path.startswith("blocks.") else (None,):
            found[row.source.format(i=layer)] = Piece(leaf, layer, row.transform)
    return found


def _write_tokenizer(draft: pathlib.Path, folder, tokenizer, ends) -> None:
    if folder is not None:
        for file in {file for pattern in BESIDE for file in folder.glob(pattern) if file.is_file()}:
            shutil.copyfile(file, draft / file.name)
        return
    if tokenizer is not None:
        tokenizer.save_pretrained(draft)
    if ends:
        write_json(draft / GENERATION, {"eos_token_id": list(ends)})


def _write_shards(draft: pathlib.Path, pieces: dict[str, Piece], config, dtype, shard_bytes) -> None:
    def array(name):
        found = pieces[name].array(config, dtype)
        if not np.isfinite(found).all():
            raise InputError(f"{name}: holds values that are not finite in {dtype.name}")
        return found

    shards = list(_shards({name: piece.shape for name, piece in pieces.items()}, shard_bytes // dtype.itemsize))
    files = (
        [SINGLE]
        if len(shards) == 1
        else [f"model-{i + 1:05}-of-{len(shards):05}.safetensors" for i in range(len(shards))]
    )
    sizes = [
        safetensors_file.write(draft / file, shapes, FORMATS[dtype.name], array)
        for file, shapes in zip(files, shards, strict=True)
    ]
    if len(shards) > 1:
        holder = {name: file for file, shapes in zip(files, shards, strict=True) for name in shapes}
        write_json(draft / INDEX, {"metadata": {"total_size": sum(sizes)}, "weight_map": holder})


def _shards(shapes: dict[str, tuple[int, ...]], most: int) -> Iterator[dict[str, tuple[int, ...]]]:
    """The tensors in order, in shards of at most `most` elements or of a single larger tensor."""
    shard, held = {}, 0
    for name, shape in shapes.items():
        size = int(np.prod(shape))
        if shard and held + size > most:
            yield shard
            shard, held = {}, 0
        shard[name] = shape
        held += size
    yield shard
