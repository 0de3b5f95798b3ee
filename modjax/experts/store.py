"""Libraries on disk: a folder of ordinary PEFT adapters and library.json.

    library/
      library.json                  schema version, the experts in order with all that is known of them, sha256
      <expert>/adapter_config.json  as PEFT writes it
      <expert>/adapter_model.safetensors

Each adapter loads in PEFT as it is, and PEFT's own adapters are read by `from_peft`. A library is written beside its
place and moved there when complete, and one that it replaces is deleted last: nothing half-written is ever found
under its name, and nothing is lost to a process that dies.
"""

import dataclasses
import hashlib
import json
import os
import pathlib
import re
import shutil
from collections.abc import Iterable
from typing import Any

import jax.numpy as jnp
import numpy as np
import safetensors
import safetensors.numpy

from modjax.errors import InputError
from modjax.experts.library import ExpertInfo, Library, concatenate
from modjax.files import read_json_object
from modjax.models.hf import MODULES

SCHEMA = 1
WEIGHTS, CONFIG, INDEX = "adapter_model.safetensors", "adapter_config.json", "library.json"
PREFIX = "base_model.model."

# Settings of PEFT that change what an adapter computes and that LoRA factors cannot hold.
REFUSED = {
    "use_dora": False,
    "bias": "none",
    "modules_to_save": None,
    "rank_pattern": {},
    "alpha_pattern": {},
    "fan_in_fan_out": False,
    "layer_replication": None,
    "alora_invocation_tokens": None,
    "arrow_config": None,
    "use_qalora": False,
}


def save(library: Library, path: str | pathlib.Path) -> None:
    """Writes a library. Raises InputError when `path` holds something that is no library."""
    path = pathlib.Path(path)
    if path.is_file() or (path.is_dir() and any(path.iterdir()) and not (path / INDEX).exists()):
        raise InputError(f"{path}: exists and holds no {INDEX}; expected a new folder or an earlier library")
    draft, earlier = (path.with_name(path.name + suffix) for suffix in (".writing", ".earlier"))
    for left_over in (draft, earlier):
        shutil.rmtree(left_over, ignore_errors=True)
    folders = _folders(library.names)
    entries = [_write_expert(library, i, draft / folder) for i, folder in enumerate(folders)]
    (draft / INDEX).write_text(_json({"schema": SCHEMA, "experts": entries}))
    if path.exists():
        os.replace(path, earlier)
    os.replace(draft, path)
    shutil.rmtree(earlier, ignore_errors=True)


def load(path: str | pathlib.Path) -> Library:
    """Reads a library and checks it against its hashes. Raises InputError naming the file for whatever is wrong."""
    path = pathlib.Path(path)
    index = read_json_object(path / INDEX)
    if index.get("schema") != SCHEMA:
        raise InputError(f"{path / INDEX}: schema {index.get('schema')!r}; this version reads {SCHEMA}")
    experts = []
    for entry in _experts(index, path / INDEX):
        folder = path / entry["folder"]
        digest = _sha256(folder / WEIGHTS)
        if digest != entry["sha256"]:
            raise InputError(f"{folder / WEIGHTS}: sha256 {digest[:12]}...; {INDEX} has {entry['sha256'][:12]}...")
        experts.append(_read_expert(folder, _info(entry)))
    return concatenate(experts)


def from_peft(folders: Iterable[str | pathlib.Path]) -> Library:
    """Reads PEFT adapter folders as one library, each expert named after its folder and in float32.

    Raises InputError for adapters that are more than LoRA factors (DoRA, biases, saved modules), for weights that
    are not finite, and for adapters that do not fit one model.
    """
    folders = [folders] if isinstance(folders, str | pathlib.Path) else folders
    folders = [pathlib.Path(folder).absolute() for folder in folders]
    if not folders:
        raise InputError("from_peft needs at least one adapter folder")
    return concatenate([_read_expert(folder, None) for folder in folders])


def _folders(names):
    """A folder name for each expert: its own, freed of what file systems refuse, and unique."""
    taken: dict[str, None] = {}
    for name in names:
        safe = re.sub(r"[^\w.+-]", "_", name).strip(".") or "expert"
        while safe.lower() in taken:
            safe += "_"
        taken[safe.lower()] = None
        yield safe


def _write_expert(library, i, folder) -> dict[str, Any]:
    info = library.infos[i]
    modules = _modules(info, library.sites)
    factors = {
        site: tuple(np.asarray(leaf[:, i, : info.rank]) for leaf in lora) for site, lora in library.loras.items()
    }
    # A site that only other experts have holds nothing but zeros here; one that is trained never does.
    own = {site: pair for site, pair in factors.items() if any(map(np.any, pair))} or factors
    tensors = {}
    for site, (a_LRI, b_LRO) in own.items():
        for layer in range(a_LRI.shape[0]):
            module = PREFIX + modules[site].format(i=layer)
            tensors[f"{module}.lora_A.weight"] = a_LRI[layer]
            tensors[f"{module}.lora_B.weight"] = np.ascontiguousarray(b_LRO[layer].T)
    folder.mkdir(parents=True)
    safetensors.numpy.save_file(dict(sorted(tensors.items())), folder / WEIGHTS, {"format": "pt"})
    targets = sorted({modules[site].rpartition(".")[2] for site in own})
    (folder / CONFIG).write_text(_json(_peft_config(info, float(library.scale[i]), targets)))
    entry = dataclasses.asdict(info) | {"folder": folder.name, "sha256": _sha256(folder / WEIGHTS)}
    return entry | {"training": dict(info.training), "scores": dict(info.scores)}


def _modules(info, sites) -> dict[str, str]:
    known = {site: MODULES.get(info.family, {}).get(f"blocks.{site}") for site in sites}
    for site, module in known.items():
        if module is None:
            raise InputError(f"expert {info.name!r}: a {info.family!r} model has no module for site {site!r}")
    return known


def _peft_config(info, scale, target_modules):
    # The scale is what the expert computes with; info.alpha is how it was given, and usually the same.
    alpha = info.alpha if np.float32(info.alpha / info.rank) == np.float32(scale) else scale * info.rank
    return {
        "alpha_pattern": {},
        "base_model_name_or_path": info.base,
        "bias": "none",
        "inference_mode": True,
        "lora_alpha": int(alpha) if alpha == int(alpha) else alpha,
        "lora_dropout": 0.0,
        "peft_type": "LORA",
        "r": info.rank,
        "rank_pattern": {},
        "target_modules": target_modules,
        "task_type": "CAUSAL_LM",
        "use_dora": False,
        "use_rslora": False,
    }


def _read_expert(folder: pathlib.Path, info: ExpertInfo | None) -> Library:
    config = read_json_object(folder / CONFIG)
    _refuse(config, folder / CONFIG)
    rank, alpha = (_number(config, key, folder / CONFIG) for key in ("r", "lora_alpha"))
    family, found = _by_site(folder / WEIGHTS, int(rank))
    sites = {site: _stacked(site, layers, folder / WEIGHTS) for site, layers in found.items()}
    scale = alpha / (rank**0.5 if config.get("use_rslora") else rank)
    if info is None:
        base = config.get("base_model_name_or_path") or ""
        info = ExpertInfo(folder.name, (folder.name,), int(rank), scale * rank, base, family)
    library = Library.from_arrays(sites, names=[info.name], scale=scale)
    return dataclasses.replace(library, infos=(info,))


def _refuse(config, where):
    if config.get("peft_type") != "LORA":
        raise InputError(f"{where}: peft_type {config.get('peft_type')!r}; expected 'LORA'")
    for key, plain in REFUSED.items():
        value = config.get(key, plain)
        if value != plain and (value or plain):
            raise InputError(f"{where}: {key} = {value!r} cannot be held as LoRA factors; expected {plain!r}")


def _number(config, key, where):
    value = config.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float) or value <= 0:
        raise InputError(f"{where}: {key} = {value!r}; expected a positive number")
    return value


def _by_site(path, rank) -> tuple[str, dict[str, dict[int, dict[str, np.ndarray]]]]:
    """The family whose modules the file names, and {site: {layer: {"A": [R,I], "B": [O,R]}}}."""
    tensors = _tensors(path)
    family, matches = _family(tensors, path)
    found: dict[str, dict[int, dict[str, np.ndarray]]] = {}
    for key, (site, layer, side) in matches.items():
        tensor = tensors[key]
        if tensor.ndim != 2 or tensor.shape[0 if side == "A" else 1] != rank:
            raise InputError(f"{path}: {key!r} has shape {tensor.shape}; {CONFIG} says rank {rank}")
        if not np.isfinite(tensor).all():
            raise InputError(f"{path}: {key!r} holds NaN or infinite values")
        found.setdefault(site, {}).setdefault(layer, {})[side] = tensor
    order = [site.removeprefix("blocks.") for site in MODULES[family]]
    return family, {site: found[site] for site in order if site in found}


def _family(keys, path) -> tuple[str, dict[str, tuple[str, int, str]]]:
    """The first family whose modules all keys name, and {key: (site, layer, "A" or "B")}."""
    strange = {}
    for family, modules in MODULES.items():
        matches = {key: _match(modules, key) for key in keys}
        strange[family] = [key for key, match in matches.items() if not match]
        if not strange[family]:
            return family, matches
    nearest = min(strange, key=lambda family: len(strange[family]))
    raise InputError(f"{path}: {strange[nearest][0]!r} is no LoRA factor of a {nearest} module")


def _match(modules, key):
    for site, module in modules.items():
        pattern = re.escape(PREFIX + module).replace(r"\{i\}", r"(\d+)") + r"\.lora_([AB])\.weight"
        if site.startswith(("blocks.attn.", "blocks.mlp.")) and (match := re.fullmatch(pattern, key)):
            return site.removeprefix("blocks."), int(match[1]), match[2]
    return None


def _stacked(site, layers, path):
    n_layers = max(layers) + 1
    for layer in range(n_layers):
        if set(layers.get(layer, ())) != {"A", "B"}:
            raise InputError(f"{path}: site {site}, layer {layer} of {n_layers}: expected lora_A and lora_B")
    a = np.stack([layers[layer]["A"] for layer in range(n_layers)])
    b = np.stack([layers[layer]["B"].T for layer in range(n_layers)])
    return jnp.asarray(a[:, None], jnp.float32), jnp.asarray(b[:, None], jnp.float32)


def _tensors(path) -> dict[str, np.ndarray]:
    try:
        tensors = safetensors.numpy.load_file(path)
    except (OSError, TypeError, safetensors.SafetensorError) as error:
        raise InputError(f"{path}: is missing, truncated or no safetensors file ({error})") from error
    if not tensors:
        raise InputError(f"{path}: holds no tensors; expected LoRA factors")
    return tensors


def _experts(index, where):
    entries = index.get("experts")
    if not isinstance(entries, list) or not entries:
        raise InputError(f"{where}: key 'experts' is {type(entries).__name__}; expected a list of at least one expert")
    wanted = {field.name for field in dataclasses.fields(ExpertInfo)} | {"folder", "sha256"}
    for number, entry in enumerate(entries):
        if not isinstance(entry, dict) or not wanted <= set(entry):
            raise InputError(f"{where}: expert {number} lacks a key; expected {', '.join(sorted(wanted))}")
    return entries


def _info(entry) -> ExpertInfo:
    values = {field.name: entry[field.name] for field in dataclasses.fields(ExpertInfo)}
    pairs = {key: tuple(values[key].items()) for key in ("training", "scores")}
    return ExpertInfo(**values | pairs | {"tasks": tuple(values["tasks"])})


def _json(value):
    return json.dumps(value, indent=2) + "\n"


def _sha256(path):
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
