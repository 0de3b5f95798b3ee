"""adapter_config.json: which modules have factors, and the rank and scale of each.

The rules are those of peft 0.21: the scale of a module is alpha / rank, or alpha / sqrt(rank) with use_rslora. The
first pattern that matches the end of the module's path gives its rank or alpha in place of r or lora_alpha.
"""

import dataclasses
import functools
import json
import math
import warnings
from collections.abc import Mapping
from typing import Any

import regex

from modjax.errors import InputError
from modjax.experts import refusals
from modjax.files import is_bool, is_number, is_text, is_whole, list_of, object_of

# Settings that decide which modules have factors, and their ranks and scales.
KEPT = (
    "r",
    "lora_alpha",
    "use_rslora",
    "rank_pattern",
    "alpha_pattern",
    "target_modules",
    "exclude_modules",
    "layers_to_transform",
    "layers_pattern",
    "lora_dropout",
    "fan_in_fan_out",
)
# Settings without effect on the output of the factors: their origin and how they were trained.
_WITHOUT_EFFECT = """
    auto_mapping base_model_name_or_path corda_config ensure_weight_tying eva_config inference_mode init_lora_weights
    loftq_config lora_ga_config megatron_core merge_weights peft_type peft_version qalora_group_size revision
    runtime_config task_type velora_config
"""
KNOWN = frozenset([*refusals.SETTINGS, *KEPT, *_WITHOUT_EFFECT.split()])
ALL_LINEAR = "all-linear"


@dataclasses.dataclass(frozen=True)
class PeftConfig:
    """Settings of an adapter. Modules are given by their paths, such as `model.layers.0.self_attn.q_proj`."""

    rank: int
    alpha: float
    rslora: bool
    ranks: Mapping[str, int]  # {pattern: rank}; the first that matches applies
    alphas: Mapping[str, float]  # {pattern: alpha}; the first that matches applies
    targets: str | tuple[str, ...] | None
    excluded: str | tuple[str, ...]
    layers: tuple[int, ...]  # layers that have factors; () for all
    lists: tuple[str, ...]  # patterns of the names of module lists whose indices are layers; () for any
    base: str
    where: str  # path of the file, for messages

    def rank_of(self, module: str) -> int:
        """The rank of a module's factors."""
        return self.ranks.get(self._pattern(self.ranks, module), self.rank)

    def scale_of(self, module: str) -> float:
        """The factor on the product of a module's factors."""
        alpha, rank = self.alphas.get(self._pattern(self.alphas, module), self.alpha), self.rank_of(module)
        return alpha / math.sqrt(rank) if self.rslora else alpha / rank

    def selects(self, module: str) -> bool:
        """Whether PEFT would give this module factors; True if target_modules is missing: the family decides."""
        if self.excluded and self._names(self.excluded, module):
            return False
        if isinstance(self.targets, str):
            return self.targets.lower() == ALL_LINEAR or self._names(self.targets, module)
        if self.targets is None or module in self.targets:
            return True
        return self._names(self.targets, module) and (not self.layers or self._layer_of(module) in self.layers)

    def _layer_of(self, module):
        if not self.lists:
            found = self._match(r".*?\.[^.]*\.(\d+)\.", module)
            return int(found[1]) if found else None
        matches = (self._match(rf"(?:^|.*?\.){pattern}\.(?P<idx>\d+)\.", module) for pattern in self.lists)
        return next((int(found["idx"]) for found in matches if found), None)

    def _pattern(self, patterns, module):
        """The first key that, as a regular expression, matches the path or its end after a dot; else the path."""
        return next((key for key in patterns if self._match(rf"(.*\.)?({key})$", module)), module)

    def _names(self, names, module):
        if isinstance(names, str):
            return self._match(names, module, regex.fullmatch) is not None
        return module in names or any(module.endswith(f".{name}") for name in names)

    def _match(self, pattern, module, how=regex.match):
        """A match as in `re`, with a time limit: some patterns take time exponential in the length of the path."""
        try:
            return how(pattern, module, timeout=1)
        except TimeoutError as error:
            raise InputError(
                f"{self.where}: the pattern {_short(pattern)} takes too long to match {module!r}"
            ) from error


def parse(config: Mapping[str, Any], where: str) -> PeftConfig:
    """The settings of one adapter_config.json; where: its path, for messages.

    Raises InputError naming the key for settings that LoRA factors cannot represent and for invalid values; warns about
    unknown keys.
    """
    refusals.refuse(config, where)
    # An unknown setting that is null, false or empty is one that was not used.
    if unknown := sorted(key for key in set(config) - KNOWN if config[key]):
        warnings.warn(f"{where}: unknown keys {', '.join(map(repr, unknown))} are ignored", stacklevel=2)
    setting = functools.partial(_setting, config, where)
    parsed = PeftConfig(
        rank=setting("r", _is_rank, "a positive whole number"),
        alpha=setting("lora_alpha", _is_alpha, "a number"),
        rslora=setting("use_rslora", is_bool, "true or false", False),
        ranks=setting("rank_pattern", object_of(_is_rank), "an object of patterns and positive whole numbers") or {},
        alphas=setting("alpha_pattern", object_of(_is_alpha), "an object of patterns and numbers") or {},
        targets=_listed(setting("target_modules", _is_names, "a list of names or a string")),
        excluded=_listed(setting("exclude_modules", _is_names, "a list of names or a string")) or (),
        layers=_layers(setting("layers_to_transform", _is_layers, "a list of whole numbers")),
        lists=_layer_lists(setting("layers_pattern", _is_names, "a list of names or a string")),
        base=setting("base_model_name_or_path", is_text, "a string") or "",
        where=where,
    )
    setting("lora_dropout", lambda value: is_number(value) and 0 <= value <= 1, "a number from 0 to 1", 0.0)
    setting("fan_in_fan_out", is_bool, "true or false", False)
    if isinstance(parsed.targets, str) and (parsed.layers or parsed.lists):
        raise InputError(
            f"{where}: layers_to_transform and layers_pattern need target_modules as a list; found a string"
        )
    _check_patterns(parsed, where)
    return parsed


def kept(config: Mapping[str, Any]) -> str:
    """The settings in KEPT as JSON; patterns keep their order, because the first that matches applies."""
    return json.dumps({key: config[key] for key in KEPT if key in config})


def _setting(config, where, key, fits, expected, default=None):
    """The value of a key, checked by `fits`; the default if it is missing or null.

    r and lora_alpha are required: PEFT's default of 8 for both is not assumed.
    """
    value = config.get(key)
    if value is None and key not in ("r", "lora_alpha"):
        return default
    if not fits(value):
        raise InputError(f"{where}: {key} = {_short(value)}; expected {expected}")
    return value


def _short(value):
    text = repr(value)
    return text if len(text) < 80 else f"{text[:76]}..."


def _is_rank(value):
    return is_whole(value) and 0 < value < 2**31


def _is_alpha(value):
    # Unless alpha is 0, the scale must be a normal float32 at any rank.
    return is_number(value) and (value == 0 or 1e-20 < abs(value) < 1e20)


def _is_names(value):
    return is_text(value) or list_of(is_text)(value)


def _is_layers(value):
    return is_whole(value) or list_of(is_whole)(value)


def _listed(value):
    return tuple(value) if isinstance(value, list) else value


def _layers(value):
    return () if value is None else tuple(value) if isinstance(value, list) else (value,)


def _layer_lists(value):
    return (value,) if isinstance(value, str) and value else tuple(value or ())


def _check_patterns(parsed, where):
    regexes = {
        "rank_pattern": parsed.ranks,
        "alpha_pattern": parsed.alphas,
        "layers_pattern": parsed.lists,
        "target_modules": [parsed.targets] if isinstance(parsed.targets, str) else [],
        "exclude_modules": [parsed.excluded] if isinstance(parsed.excluded, str) else [],
    }
    for key, patterns in regexes.items():
        for pattern in patterns:
            try:
                regex.compile(f"({pattern})")
            except (regex.error, OverflowError, RecursionError) as error:
                raise InputError(
                    f"{where}: {key} has {_short(pattern)}, which is not a regular expression ({error})"
                ) from error
