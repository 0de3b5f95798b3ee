"""Every initialisation and setting of the installed PEFT, held against the model that was trained.

Each adapter is trained, saved by PEFT and read again. It either gives the trained model's logits or is refused. The
initialisations and settings are listed by PEFT itself, so that those of a later version are tried too.
"""

import dataclasses
import inspect
import re
import typing

import numpy as np
import peft
import pytest
import torch
import transformers
from peft.tuners.lora import config as configs
from peft.tuners.lora import layer as lora_layer
from peft.tuners.lora.corda import preprocess_corda
from peft.tuners.lora.loraga import preprocess_loraga

import modjax
from modjax.errors import InputError

# peft uses a name that transformers has deprecated.
pytestmark = [
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning:peft"),
    pytest.mark.filterwarnings("ignore:Full backward hook is firing:UserWarning"),
]
TOKENS_BT = np.random.default_rng(0).integers(0, 61, (2, 11))
PLAIN = {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "v_proj", "down_proj"], "task_type": "CAUSAL_LM"}


@pytest.fixture(scope="module")
def base(torch_model, tmp_path_factory):
    """(a function that gives the model in torch, the model in JAX)"""
    path = tmp_path_factory.mktemp("llama")
    torch_model("llama").save_pretrained(path)
    return lambda: transformers.LlamaForCausalLM.from_pretrained(path).eval(), modjax.load(path)


def logits(model):
    with torch.no_grad():
        return model.eval()(torch.tensor(TOKENS_BT)).logits.numpy()


def step(model):
    ids = torch.tensor(TOKENS_BT)
    model(ids, labels=ids).loss.backward()


def run(model):
    for row in TOKENS_BT:
        model(torch.tensor(row[None]))


def covariances(model, config):
    preprocess_corda(model, config, run_model=lambda: run(model))


def eva(model, config):
    batch = {"input_ids": torch.tensor(TOKENS_BT), "attention_mask": torch.ones(TOKENS_BT.shape)}
    peft.initialize_lora_eva_weights(model, [batch] * 3)


def quantised(weight, reduced_rank, **settings):
    """What LoftQ returns, with a quantiser that needs no GPU: rounded weights, and the rank-r part of the error."""
    scale = weight.abs().max() / 3
    rounded = (weight / scale).round() * scale
    left, values, right = torch.linalg.svd(weight - rounded, full_matrices=False)
    root = values[:reduced_rank].sqrt()
    return rounded, root[:, None] * right[:reduced_rank], left[:, :reduced_rank] * root


# What an initialisation needs: settings, a function to call before and one to call after the adapter is added.
NEEDS = {
    "corda": {"corda_config": configs.CordaConfig(corda_method="kpm")},
    "loftq": {"loftq_config": {"loftq_bits": 2, "loftq_iter": 1}},
    "lora_ga": {"lora_ga_config": configs.LoraGAConfig()},
    "eva": {"eva_config": configs.EvaConfig(rho=2.0)},
}
BEFORE = {
    "corda": covariances,
    "lora_ga": lambda model, config: preprocess_loraga(model, config, lambda: step(model)),
}
AFTER = {"eva": eva}


def starts():
    """All values of init_lora_weights: those that its type lists, and those that the code compares it with."""
    listed, left = {True, False}, [typing.get_type_hints(peft.LoraConfig)["init_lora_weights"]]
    while left:
        inner = typing.get_args(left.pop())
        listed |= {one for one in inner if isinstance(one, str)}
        left += [one for one in inner if not isinstance(one, str)]
    code = inspect.getsource(lora_layer)
    listed |= set(re.findall(r'init_lora_weights(?:\.lower\(\))? == "(\w+)"', code))
    listed |= set(re.findall(r'init_lora_weights\.startswith\("(\w+)"\)', code))
    return sorted((str(one).replace("[number of iters]", "4"), one) for one in listed)


def trained(model, folder, before=None, after=None, **changes):
    """Adds an adapter, moves its factors as training does, saves it; (its logits, whether base weights changed)."""
    config = peft.LoraConfig(**(PLAIN | changes))
    weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    if before:
        before(model, config)
    model = peft.get_peft_model(model, config)
    if after:
        after(model, config)
    torch.manual_seed(1)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data += 0.1 * torch.randn_like(parameter)
    found = {name.removeprefix("base_model.model.").replace("base_layer.", ""): tensor
             for name, tensor in model.state_dict().items()}  # fmt: skip
    changed = not all(torch.equal(found[name], tensor) for name, tensor in weights.items() if name in found)
    model.save_pretrained(folder)
    return logits(model), changed


def close(got, expected):
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("name, start", starts(), ids=[name for name, _ in starts()])
def test_initialisations(base, tmp_path, monkeypatch, name, start):
    monkeypatch.setattr(lora_layer, "loftq_init", quantised)
    in_torch, model = base
    start = name if isinstance(start, str) else start
    kind = name.partition("_niter")[0]
    changes = {"init_lora_weights": start} | NEEDS.get(kind, {})
    expected, changed = trained(in_torch(), tmp_path / "a", BEFORE.get(kind), AFTER.get(kind), **changes)
    if changed:
        with pytest.raises(
            InputError, match=f"init_lora_weights = {start!r}: the factors need base weights from which"
        ):
            modjax.Library.from_peft(tmp_path / "a", layers=3)
    else:
        assert np.abs(expected - model.logits(TOKENS_BT)).max() > 0.01
        close(model.logits(TOKENS_BT, modjax.Library.from_peft(tmp_path / "a", layers=3)), expected)


def test_the_initialisations_that_change_the_base_are_known():
    """If this fails, a new version of PEFT has one more: see `modjax.experts.refusals`."""
    names = {name.partition("_niter")[0] for name, _ in starts()}
    harmless = {"True", "False", "gaussian", "eva", "orthogonal", "mica"}
    assert names - harmless == {"pissa", "corda", "olora", "loftq", "lora_ga"}


# A value of each setting that is not its default.
SETTINGS = {
    "r": 3,
    "target_modules": "all-linear",
    "exclude_modules": ["v_proj"],
    "lora_alpha": 5,
    "lora_dropout": 0.3,
    "fan_in_fan_out": True,
    "bias": "all",
    "use_rslora": True,
    "modules_to_save": ["lm_head"],
    "layers_to_transform": [1],
    "layers_pattern": "layers",
    "rank_pattern": {"v_proj": 2},
    "alpha_pattern": {"v_proj": 3},
    "megatron_core": "megatron.core",
    "trainable_token_indices": [3, 5],
    "loftq_config": {"loftq_bits": 4},
    "eva_config": configs.EvaConfig(),
    "corda_config": configs.CordaConfig(),
    "lora_ga_config": configs.LoraGAConfig(),
    "use_dora": True,
    "velora_config": configs.VeloraConfig(num_groups=4),
    "alora_invocation_tokens": [7],
    "use_qalora": True,
    "qalora_group_size": 8,
    "monteclora_config": configs.MontecloraConfig(),
    "layer_replication": [[0, 3], [1, 3]],
    "runtime_config": configs.LoraRuntimeConfig(ephemeral_gpu_offload=True),
    "lora_bias": True,
    "target_parameters": ["q_proj.weight"],
    "use_bdlora": configs.BdLoraConfig(nblocks=2, target_modules_bd_a=["q_proj"], match_strict=False),
    "kasa_config": configs.KasaConfig(),
    "ensure_weight_tying": True,
    "task_type": "FEATURE_EXTRACTION",
    "revision": "main",
    "base_model_name_or_path": "some/model",
    "inference_mode": True,
    "auto_mapping": {"base_model_class": "LlamaForCausalLM", "parent_library": "transformers.models.llama"},
    "peft_version": "0.1",
}
ALONG = {
    "use_qalora": {"qalora_group_size": 8},
    "layers_pattern": {"layers_to_transform": [0, 2]},
    "target_parameters": {"target_modules": ["k_proj"]},
}
# Settings that are tested elsewhere, or that no model on one device can be trained with.
ELSEWHERE = {"init_lora_weights", "peft_type", "megatron_config", "arrow_config"}
REFUSED = {"use_dora", "bias", "lora_bias", "modules_to_save", "trainable_token_indices", "target_parameters",
           "layer_replication", "alora_invocation_tokens", "kasa_config", "monteclora_config", "use_bdlora",
           "use_qalora"}  # fmt: skip


def test_every_setting_is_tried():
    assert {field.name for field in dataclasses.fields(peft.LoraConfig)} == SETTINGS.keys() | ELSEWHERE


@pytest.mark.parametrize("key", SETTINGS)
def test_settings(base, tmp_path, key):
    in_torch, model = base
    expected, _ = trained(in_torch(), tmp_path / "a", **({key: SETTINGS[key]} | ALONG.get(key, {})))
    if key in REFUSED:
        with pytest.raises(InputError, match=f"adapter_config.json: {key} = "):
            modjax.Library.from_peft(tmp_path / "a", layers=3)
    else:
        close(model.logits(TOKENS_BT, modjax.Library.from_peft(tmp_path / "a", layers=3)), expected)
