"""The meaning of adapter_config.json, compared with how PEFT reads it."""

import dataclasses
import json
import math

import peft
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from peft.tuners.tuners_utils import check_target_module_exists
from peft.utils.other import get_pattern_key

from modjax.errors import InputError
from modjax.experts.peft_config import KNOWN, kept, parse

PLAIN = {"peft_type": "LORA", "r": 8, "lora_alpha": 16}
MODULES = [
    f"{body}.{layer}.{name}"
    for body, names in {
        "model.layers": ("self_attn.q_proj", "self_attn.k_proj", "mlp.up_proj"),
        "transformer.h": ("attn.c_attn", "attn.c_proj", "mlp.c_proj"),
    }.items()
    for layer in (0, 1, 11)
    for name in names
]
NAMES = st.sampled_from(
    [
        "q_proj",
        "proj",
        "k_proj",
        "c_proj",
        "attn.c_proj",
        "mlp.c_proj",
        "self_attn.q_proj",
        "1.mlp.up_proj",
        *MODULES[:4],
    ]
)
REGEXES = st.sampled_from(
    [".*", r".*\.1\..*", "q_proj", ".*[qk]_proj", r"model\.layers\.(0|11)\..*", r".*\.(attn|mlp)\.c_proj", "all-linear",
     "^model.layers.1.self_attn.q_proj", r"\d+\.attn.*", "(up|c)_proj", "", "self_attn.*"]
)  # fmt: skip
SHORT = settings(max_examples=200, deadline=None, derandomize=True, database=None)


@SHORT
@given(
    ranks=st.dictionaries(REGEXES | NAMES, st.integers(1, 64), max_size=3),
    alphas=st.dictionaries(REGEXES | NAMES, st.floats(-1e3, 1e3).filter(lambda x: not 0 < abs(x) < 1e-9), max_size=3),
    rslora=st.booleans(),
)
def test_ranks_and_scales(ranks, alphas, rslora):
    parsed = parse(PLAIN | {"rank_pattern": ranks, "alpha_pattern": alphas, "use_rslora": rslora}, "here")
    for module in MODULES:
        rank = ranks.get(get_pattern_key(ranks.keys(), module), 8)
        alpha = alphas.get(get_pattern_key(alphas.keys(), module), 16)
        assert parsed.rank_of(module) == rank
        assert parsed.scale_of(module) == (alpha / math.sqrt(rank) if rslora else alpha / rank)


@SHORT
@given(
    targets=st.lists(NAMES, min_size=1, max_size=3) | REGEXES.filter(lambda regex: regex not in ("all-linear", "")),
    excluded=st.none() | st.lists(NAMES, max_size=2) | REGEXES.filter(lambda regex: regex != "all-linear"),
    layers=st.none() | st.integers(0, 11) | st.lists(st.integers(0, 11), max_size=3),
    lists=st.none() | st.sampled_from(["layers", "h", "nothing", ["h", "layers"], []]),
)
def test_choice_of_modules(targets, excluded, layers, lists):
    chosen = {"target_modules": targets, "exclude_modules": excluded}
    if isinstance(targets, list) and layers is not None:
        chosen |= {"layers_to_transform": layers, "layers_pattern": lists}
    theirs, ours = peft.LoraConfig(**chosen), parse(PLAIN | chosen, "here")
    for module in MODULES:
        assert ours.selects(module) == bool(check_target_module_exists(theirs, module))


def test_all_linear_maps_and_no_word_of_them():
    assert all(parse(PLAIN | {"target_modules": name}, "").selects(MODULES[0]) for name in ("all-linear", "All-Linear"))
    assert parse(PLAIN, "").selects(MODULES[0])


def test_all_settings_of_peft_are_known():
    assert {field.name for field in dataclasses.fields(peft.LoraConfig)} <= KNOWN


def test_unknown_settings_are_named():
    with pytest.warns(UserWarning, match="config.json: unknown keys 'use_magic', 'zeal' are ignored"):
        parse(PLAIN | {"zeal": 1, "use_magic": True}, "config.json")


@pytest.mark.parametrize("value", [None, False, "", [], {}])
def test_unknown_settings_that_are_not_used_need_no_warning(value):
    parse(PLAIN | {"zeal": value, "enable_lora": None, "merge_weights": False, "fan_in_fan_out": False}, "")
    parse(PLAIN | {"merge_weights": True}, "")


def test_patterns_keep_their_order():
    patterns = {"q_proj": 2, "a.*": 4, ".*proj": 3}
    assert list(json.loads(kept(PLAIN | {"rank_pattern": patterns}))["rank_pattern"]) == list(patterns)


REFUSED = {
    "use_dora": True,
    "bias": "lora_only",
    "lora_bias": True,
    "modules_to_save": ["lm_head"],
    "trainable_token_indices": [1],
    "target_parameters": ["experts.gate_up_proj"],
    "layer_replication": [[0, 2]],
    "alora_invocation_tokens": [3],
    "arrow_config": {"top_k": 2},
    "kasa_config": {"beta": 1},
    "monteclora_config": {},
    "use_bdlora": {"nblocks": 2},
    "use_qalora": True,
    "megatron_config": {"tensor_model_parallel_size": 2},
    "enable_lora": [True, False, True],
    "init_lora_weights": "pissa_niter_4",
    "peft_type": "IA3",
}


@pytest.mark.parametrize("key", REFUSED)
def test_more_than_lora_factors(key):
    with pytest.raises(InputError, match=f"config.json: {key}"):
        parse(PLAIN | {key: REFUSED[key] or {"a": 1}}, "config.json")


ABSURD = {
    "r": [-1, 0, "16", None, 1e9, 16.0, True, [8], 10**30],
    "lora_alpha": [math.nan, math.inf, "16", None, True, [], 10**400, 1e300, 1e-300],
    "target_modules": [5, [5], {}, True, "(", "a{99999999999}"],
    "exclude_modules": [5, [None], "["],
    "rank_pattern": [[], "q_proj", {"q_proj": 0}, {"q_proj": "4"}, {"(": 4}, {"q_proj": 2.5}],
    "alpha_pattern": [5, {"q_proj": None}, {"*": 4}, {"q_proj": math.nan}],
    "layers_to_transform": ["0", [None], {}, [0.5]],
    "layers_pattern": [5, [5], "("],
    "use_rslora": ["yes", 1],
    "lora_dropout": ["a", 2, -0.1, math.nan],
    "fan_in_fan_out": ["no"],
    "base_model_name_or_path": [5, ["a"]],
}


@pytest.mark.parametrize("key, value", [(key, value) for key, values in ABSURD.items() for value in values], ids=str)
def test_absurd_settings(key, value):
    with pytest.raises(InputError, match=f"config.json: {key}"):
        parse(PLAIN | {key: value}, "config.json")


def test_layers_of_a_regular_expression():
    with pytest.raises(InputError, match="layers_to_transform and layers_pattern need target_modules as a list"):
        parse(PLAIN | {"target_modules": ".*q_proj", "layers_to_transform": [0]}, "")


@pytest.mark.parametrize("start", ["pissa_niter_16", "PiSSA", "olora", "corda", "loftq", "lora_ga", "lora-ga"])
def test_starts_that_change_the_base(start):
    """`test_peft_trained` compares each of these with the model that was trained."""
    with pytest.raises(InputError, match=f"init_lora_weights = '{start}': the factors need base weights from which"):
        parse(PLAIN | {"init_lora_weights": start}, "")


def test_starts_that_are_not_known():
    with pytest.raises(InputError, match="'zen': may have changed the base weights; expected true, false or one of"):
        parse(PLAIN | {"init_lora_weights": "zen"}, "")
    for start in (None, True, False, "Gaussian", "eva"):
        parse(PLAIN | {"init_lora_weights": start}, "")


def test_a_pattern_that_would_match_for_ever():
    hostile = parse(PLAIN | {"target_modules": "(.|.|.)*[A-Z]"}, "my/adapter_config.json")
    words = r"^my/adapter_config.json: .* takes too long to match 'model.layers.0.self_attn.q_proj'"
    with pytest.raises(InputError, match=words):
        hostile.selects("model.layers.0.self_attn.q_proj")
