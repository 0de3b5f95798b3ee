"""Reader and writer of PEFT adapter folders: adapter_config.json and the weights, one expert each.

The tensors determine which modules have factors, the config their ranks and scales. An adapter that was read is written
with its original config if that still describes it, else with a new one, which names modules by their paths where their
last part is not enough.
"""

import json
import os
import pathlib
import re
import warnings
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
import safetensors.numpy

from modjax import arguments
from modjax.errors import InputError
from modjax.experts import names, peft_config, weights_file
from modjax.experts.adapter import Adapter, Update, alpha_of
from modjax.experts.info import DTYPES, ExpertInfo
from modjax.experts.peft_config import PeftConfig
from modjax.experts.places import check_inside, family_of, paths, places
from modjax.experts.weights_file import WEIGHTS, Stored
from modjax.files import os_errors, read_json_object
from modjax.models.families.multimodal import MULTIMODAL

CONFIG = "adapter_config.json"
PREFIX = "base_model.model."
IN_TRAINING = ".lora_velora_embed"  # ends the names of tensors that are used in training alone: for VeLoRA's gradients


class Opened(NamedTuple):
    """An adapter folder whose config and tensor names have been read."""

    folder: pathlib.Path
    name: str
    config: PeftConfig
    kept: str  # its settings as JSON, for ExpertInfo.peft
    file: pathlib.Path  # of its weights
    tensors: dict[str, dict[str, Stored]]  # {module: {"A": [R, I], "B": [O, R]}}


def read(folders: str | os.PathLike | Iterable[str | os.PathLike]) -> list[Adapter]:
    """Reads the adapters of these folders; each is named after its folder, see `modjax.experts.names`.

    Args:
      folders: one or more. PEFT saves several adapters of one model as a folder with subfolders, and all of them are
        read; the adapter at the root is named "default", as in PEFT, if there are subfolders with others.

    Raises InputError naming file and key for adapters with more than LoRA factors of linear maps, for invalid settings,
    for weights that are not finite, and for adapters to different model families. Warns about unknown settings.
    """
    folders = arguments.paths("folders", folders)
    found = [one for folder in folders for one in _adapters(pathlib.Path(os.path.abspath(folder)))]
    if not found:
        raise InputError("no adapters to read; expected at least one adapter folder")
    called = names.of_paths([path for _, path in found])
    opened = [open_adapter(folder, name) for (folder, _), name in zip(found, called, strict=True)]
    family = family_of({one.file: one.tensors for one in opened})
    return [adapter_of(one, family) for one in opened]


def _adapters(folder):
    """(folder, path that names the expert) of the adapter at the root and of those in its subfolders."""
    with os_errors(folder, "read"):
        if folder.is_file():
            raise InputError(f"{folder}: is a file; expected the folder of an adapter, with {CONFIG} and its weights")
        inner = [path.parent for path in sorted(folder.glob(f"*/{CONFIG}"))]
        alone = not (folder / CONFIG).exists()
    if alone:
        return [(path, path) for path in inner] or [(folder, folder)]
    # Checkpoints of a trainer are earlier states of the adapter at the root.
    inner = [path for path in inner if not re.fullmatch(r"checkpoint-\d+", path.name)]
    return [(folder, folder / "default" if inner else folder), *((path, path) for path in inner)]


def open_adapter(folder: pathlib.Path, name: str) -> Opened:
    """Reads the config and tensor names of one adapter. Raises InputError for what LoRA factors cannot represent."""
    config = read_json_object(folder / CONFIG)
    parsed = peft_config.parse(config, str(folder / CONFIG))
    file = weights_file.find(folder)
    opened = Opened(folder, name, parsed, peft_config.kept(config), file, _pairs(file))
    if strange := [module for module in opened.tensors if not parsed.selects(module)]:
        warnings.warn(
            f"{folder / CONFIG}: target_modules does not select {strange[0]}{_and_more(strange)}, which have factors; "
            "PEFT would ignore them, modjax uses them",
            stacklevel=2,
        )
    return opened


def _and_more(names):
    return f" and {len(names) - 1} more" if len(names) > 1 else ""


def _pairs(file):
    pairs: dict[str, dict[str, Stored]] = {}
    for key, tensor in weights_file.read(file).items():
        if key.endswith(IN_TRAINING):
            continue
        found = re.fullmatch(re.escape(PREFIX) + r"(.+)\.lora_([AB])\.weight", key)
        if not found:
            check_inside(_module(key), file)
            raise InputError(
                f"{file}: {key!r} is not a LoRA factor; expected {PREFIX}MODULE.lora_A.weight or lora_B.weight"
            )
        pairs.setdefault(found[1], {})[found[2]] = tensor
    for module, pair in pairs.items():
        if set(pair) != {"A", "B"}:
            raise InputError(f"{file}: {PREFIX}{module} has only lora_{', '.join(pair)}; expected lora_A and lora_B")
    if not pairs:
        raise InputError(f"{file}: has no tensors; expected LoRA factors")
    return pairs


def _module(key):
    """The path of the module that a tensor belongs to, as in PREFIX + MODULE.weight or MODULE.lora_embedding_A."""
    return re.sub(
        r"(\.(weight|base_layer|lora_embedding_[AB]|modules_to_save|default))+$", "", key.removeprefix(PREFIX)
    )


def adapter_of(opened: Opened, family: str) -> Adapter:
    """Reads the tensors of an adapter to a model of this family, whose module names it has."""
    found = places(family, opened.tensors, opened.file)
    updates: dict[str, dict[int, Update]] = {site: {} for site, _ in found.values()}
    for module, (site, layer) in found.items():
        updates[site][layer] = _update(opened, module, opened.tensors[module])
    kinds = {tensor.dtype for pair in opened.tensors.values() for tensor in pair.values()}
    # A file with several dtypes is written in float32, which represents all of them.
    dtype = kinds.pop() if len(kinds) == 1 else "float32"
    info = ExpertInfo(opened.name, (opened.name,), 0, 0.0, opened.config.base, family, dtype=dtype, peft=opened.kept)
    return Adapter(info, updates)


def _update(opened, module, pair):
    rank = opened.config.rank_of(module)
    arrays = {}
    for side, tensor in pair.items():
        key = f"{PREFIX}{module}.lora_{side}.weight"
        if tensor.dtype not in DTYPES:
            raise InputError(f"{opened.file}: {key!r} has dtype {tensor.dtype}; expected {', '.join(DTYPES)}")
        if len(tensor.shape) != 2 or tensor.shape["AB".index(side)] != rank or 0 in tensor.shape:
            expected = f"({rank}, input width)" if side == "A" else f"(output width, {rank})"
            raise InputError(
                f"{opened.file}: {key!r} has shape {tensor.shape}; expected {expected}: {CONFIG} gives rank {rank}"
            )
        arrays[side] = tensor.read()
        if not np.isfinite(arrays[side].astype(np.float32)).all():
            raise InputError(f"{opened.file}: {key!r} holds NaN or infinite values")
    return Update(arrays["A"], arrays["B"].T, opened.config.scale_of(module))


def write(adapter: Adapter, folder: pathlib.Path, layers: int) -> None:
    """Writes one adapter to a model of L layers as a new folder, in the dtype of its factors."""
    modules = _modules(adapter)
    tensors = {}
    for module, one in modules.items():
        tensors[f"{PREFIX}{module}.lora_A.weight"] = one.a
        tensors[f"{PREFIX}{module}.lora_B.weight"] = np.ascontiguousarray(one.b.T)
    folder.mkdir(parents=True)
    safetensors.numpy.save_file(dict(sorted(tensors.items())), folder / WEIGHTS, {"format": "pt"})
    # Without sort_keys, which would also sort the patterns: PEFT tries them in order.
    config = dict(sorted(_config(adapter, modules, layers).items()))
    (folder / CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def _modules(adapter) -> dict[str, Update]:
    known = paths(adapter.info.family)
    for site in adapter.updates:
        if site not in known:
            raise InputError(
                f"expert {adapter.info.name!r}: a {adapter.info.family!r} model has no module for site {site!r}; "
                f"expected one of {', '.join(known)}"
            )
    return {known[site].format(i=layer): one for (site, layer), one in adapter.modules.items()}


def _config(adapter, modules, layers) -> dict[str, Any]:
    common = {
        "alpha_pattern": {},
        "base_model_name_or_path": adapter.info.base,
        "bias": "none",
        "fan_in_fan_out": adapter.info.family == "gpt2",
        "inference_mode": True,
        "lora_dropout": 0.0,
        "peft_type": "LORA",
        "rank_pattern": {},
        "task_type": "CAUSAL_LM",
        "use_dora": False,
        "use_rslora": False,
    }
    as_read = common | json.loads(adapter.info.peft or "{}")
    if adapter.info.peft and _describes(as_read, modules, f"expert {adapter.info.name!r}: {CONFIG}"):
        return as_read
    return common | _by_path(adapter, modules, layers)


def _describes(config, modules: Mapping[str, Update], where) -> bool:
    """Whether an adapter with this config has, in PEFT, factors for all these modules with these ranks and scales."""
    parsed = peft_config.parse(config, where)
    return parsed.targets is not None and all(
        parsed.selects(module)
        and parsed.rank_of(module) == len(one.a)
        and np.float32(parsed.scale_of(module)) == np.float32(one.scale)
        for module, one in modules.items()
    )


def _by_path(adapter, modules, layers):
    rank = adapter.rank
    alpha = alpha_of(adapter.scale, rank)
    others = {m: one for m, one in modules.items() if np.float32(alpha / len(one.a)) != np.float32(one.scale)}
    return {
        "r": rank,
        "lora_alpha": _whole(alpha),
        "rank_pattern": {module: len(one.a) for module, one in modules.items() if len(one.a) != rank},
        "alpha_pattern": {module: _whole(alpha_of(one.scale, len(one.a))) for module, one in others.items()},
        "target_modules": _targets(adapter, modules, layers),
    }


def _whole(alpha):
    return int(alpha) if alpha == int(alpha) else alpha


def _targets(adapter, modules, layers):
    """Names that select exactly these modules: the last part of the path where that is enough, else the path.

    It is not enough in a multimodal model, whose vision part may have modules of the same names.
    """
    if adapter.info.family in MULTIMODAL:
        return sorted(modules)
    every = {path.format(i=i) for path in paths(adapter.info.family).values() for i in range(layers)}
    others = {module.rpartition(".")[2] for module in every - set(modules)}
    names = {module: module.rpartition(".")[2] for module in modules}
    return sorted({module if name in others else name for module, name in names.items()})
