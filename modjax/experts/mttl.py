"""Reader of experts of mttl (github.com/microsoft/mttl), the code of the MBC and Arrow paper; nothing is unpickled.

mttl stores an expert in files written by torch.save, in one of three forms:

    folder of a library   NAME.meta, information about the expert, and NAME.ckpt, its weights only
    dump of an expert     {"expert_info": information, "expert_weights": weights}
    training checkpoint   {"hyper_parameters": settings, "state_dict": weights, with names after "model."}

Weights are {MODULE.lora_a: [I, R], MODULE.lora_b: [R, O]}, the scale is lora_alpha / R.
"""

import math
import os
import pathlib
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np

from modjax import arguments
from modjax.errors import InputError
from modjax.experts import inert, names
from modjax.experts.adapter import Adapter, Update
from modjax.experts.info import ExpertInfo
from modjax.experts.places import family_of, places
from modjax.experts.torch_file import STORAGES, TorchFile
from modjax.files import os_errors

INFO, WEIGHTS = ".meta", ".ckpt"


class Opened(NamedTuple):
    """An expert whose tensors are not read yet."""

    file: TorchFile
    info: Any  # information about the expert: a dict or a Record, or something else in a damaged file
    settings: tuple[Any, ...]  # objects to search for its LoRA settings, in order
    pairs: dict[str, dict[str, inert.Tensor]]  # {module: {"lora_a": [I, R], "lora_b": [R, O]}}


def read(paths: str | os.PathLike | Iterable[str | os.PathLike]) -> list[Adapter]:
    """Reads the experts of these paths; those of a folder are sorted by name.

    An expert whose file holds no name is named after the file, see `modjax.experts.names`.

    Args:
      paths: folders of mttl libraries, checkpoint files, or both.

    Experts that mttl marks as deleted are skipped.

    Raises InputError naming file and key for files that are not in the current format of torch.save, for experts with
    more than LoRA factors, and for weights that are not finite or belong to different model families.
    """
    opened = [expert for path in arguments.paths("paths", paths) for expert in _open(path)]
    if not opened:
        raise InputError("no experts to read; expected at least one expert that is not deleted")
    family = family_of({one.file.path: one.pairs for one in opened})
    found = names.of_paths([pathlib.Path(os.path.abspath(one.file.path)).with_suffix("") for one in opened])
    return [_adapter(one, family, name) for one, name in zip(opened, found, strict=True)]


def _open(path) -> list[Opened]:
    with os_errors(path, "read"):
        folder = path.is_dir()
    if not folder:
        info = path.with_suffix(INFO)
        return [_with_info(info) if path.suffix == WEIGHTS and info.exists() else _dump(TorchFile(path))]
    infos = sorted(path.glob(f"*{INFO}"))
    if not infos:
        raise InputError(
            f"{path}: holds no NAME{INFO}; expected a folder of mttl experts, NAME{INFO} and NAME{WEIGHTS}"
        )
    return [expert for expert in map(_with_info, infos) if expert is not None]


def _with_info(path) -> Opened | None:
    info = TorchFile(path).content
    if _get(info, "expert_deleted"):
        return None
    file = TorchFile(path.with_suffix(WEIGHTS))
    return Opened(file, info, _settings(info), _pairs(file, file.content))


def _dump(file) -> Opened:
    content = file.content
    info, hyper = _get(content, "expert_info") or {}, _get(content, "hyper_parameters")
    if hyper is None and _get(content, "expert_weights") is None:
        raise InputError(
            f"{file.path}: has neither expert_weights nor hyper_parameters; "
            f"a file of weights alone needs NAME{INFO} in the same folder"
        )
    if hyper is None:
        return Opened(file, info, _settings(info), _pairs(file, _get(content, "expert_weights")))
    weights = _get(content, "state_dict") or _get(content, "module")
    stripped = {_stripped(key): tensor for key, tensor in _mapping(file, weights).items()}
    defaults = {"expert_name": _get(hyper, "expert_name"), "expert_task_name": _get(hyper, "finetune_task_name")}
    names = {key: _get(info, key) or default for key, default in defaults.items()}
    return Opened(
        file, names | {"expert_model": _get(hyper, "model")}, (*_settings(info), hyper), _pairs(file, stripped)
    )


def _stripped(key):
    return key.replace("model.", "", 1) if isinstance(key, str) else key


def _settings(info):
    return tuple(found for key in ("expert_config", "training_config") if (found := _get(info, key)) is not None)


def _get(holder, key):
    return holder.get(key) if isinstance(holder, dict | inert.Record) else None


def _mapping(file, weights) -> Mapping[str, Any]:
    if not isinstance(weights, dict) or not weights:
        raise InputError(
            f"{file.path}: its weights are a {type(weights).__name__}; expected a non-empty dict of tensors"
        )
    return weights


def _pairs(file, weights):
    pairs: dict[str, dict[str, inert.Tensor]] = {}
    for key, tensor in _mapping(file, weights).items():
        module, _, side = key.rpartition(".") if isinstance(key, str) else ("", "", "")
        if side not in ("lora_a", "lora_b") or not isinstance(tensor, inert.Tensor):
            raise InputError(f"{file.path}: {key!r:.80} is not a LoRA factor; expected MODULE.lora_a or MODULE.lora_b")
        pairs.setdefault(module, {})[side] = tensor
    for module, pair in pairs.items():
        if len(pair) < 2:
            raise InputError(
                f"{file.path}: {module} has only {', '.join(pair)}; tied factors (tie_params) are not supported"
            )
    return pairs


def _adapter(opened: Opened, family: str, name: str) -> Adapter:
    """name: for an expert whose file holds none."""
    path = opened.file.path
    alpha = _alpha(opened)
    updates: dict[str, dict[int, Update]] = {}
    for module, (site, layer) in places(family, opened.pairs, path).items():
        pair = opened.pairs[module]
        a, b = (_factor(opened.file, f"{module}.{side}", pair[side]) for side in ("lora_a", "lora_b"))
        if a.shape[1] != b.shape[0]:
            raise InputError(f"{path}: {module} has lora_a {a.shape} and lora_b {b.shape}; expected [I, R] and [R, O]")
        updates.setdefault(site, {})[layer] = Update(a.T, b, alpha / len(b))
    kinds = {tensor.storage.kind for pair in opened.pairs.values() for tensor in pair.values()}
    dtype = np.dtype(STORAGES[kinds.pop()]).name if len(kinds) == 1 else "float32"
    name, tasks = _text(opened.info, "expert_name") or name, _text(opened.info, "expert_task_name")
    base = next((one for one in map(_base, (opened.info, *opened.settings)) if one), "")
    info = ExpertInfo(name, tuple(tasks.split(",")) if tasks else (name,), 0, 0.0, base, family, dtype=dtype)
    return Adapter(info, updates)


def _factor(file, key, tensor):
    if len(tensor.shape) != 2 or 0 in tensor.shape:
        raise InputError(f"{file.path}: {key!r} has shape {tensor.shape}; expected two axes, the factor of one expert")
    factor = file.read(key, tensor)
    if not np.isfinite(factor.astype(np.float32)).all():
        raise InputError(f"{file.path}: {key!r} holds NaN or infinite values")
    return factor


def _alpha(opened):
    alphas = [found for one in opened.settings if (found := _get(one, "lora_alpha")) is not None]
    alpha = alphas[0] if alphas else None
    if isinstance(alpha, bool) or not isinstance(alpha, int | float) or not math.isfinite(alpha) or abs(alpha) > 1e20:
        raise InputError(f"{opened.file.path}: lora_alpha is {alpha!r:.80}; expected a number in expert_config")
    return alpha


def _text(holder, key):
    found = _get(holder, key)
    return found if isinstance(found, str) else ""


def _base(holder):
    return _text(holder, "expert_model") or _text(holder, "model")
