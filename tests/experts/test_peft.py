"""Adapters written by PEFT are read, and ours load in PEFT, with equal logits and equal bytes."""

import json
import os
import shutil

import drawn
import jax.numpy as jnp
import numpy as np
import peft
import pytest
import safetensors.torch
import torch
import transformers
from safetensors.numpy import load_file, save_file

import modjax
from modjax.errors import InputError
from modjax.experts.peft import CONFIG, PREFIX, WEIGHTS
from modjax.models.hf_names import MODULES

# peft uses a name that transformers has deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")

TOKENS_BT = np.random.default_rng(0).integers(0, 61, (2, 11))


class Base:
    """A tiny model of a family: transformers' in a directory, and modjax's."""

    def __init__(self, family, path, torch_model):
        self.family, self.path = family, path
        torch_model(family).save_pretrained(path)
        self.model = modjax.load(path)

    def in_torch(self):
        return transformers.AutoModelForCausalLM.from_pretrained(self.path, dtype=torch.float32)

    def adapted(self, adapter):
        """Logits that PEFT gives with an adapter folder."""
        return torch_logits(peft.PeftModel.from_pretrained(self.in_torch(), adapter))

    def adapter(self, folder, dtype=torch.float32, seed=0, **config):
        """Has PEFT write a random adapter, B far from zero; its logits."""
        torch.manual_seed(seed)
        settings = {"r": 3, "lora_alpha": 5, "target_modules": "all-linear", "task_type": "CAUSAL_LM"}
        settings["fan_in_fan_out"] = self.family == "gpt2"
        model = peft.get_peft_model(self.in_torch(), peft.LoraConfig(**(settings | config)))
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(parameter, std=0.3)
        model.to(dtype).save_pretrained(folder)
        return torch_logits(model.float())


def torch_logits(model):
    with torch.no_grad():
        return model.eval()(torch.tensor(TOKENS_BT)).logits.numpy()


def close(got, expected):
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5 * np.abs(expected).max())


def same_bytes(one, other):
    before, after = (load_file(folder / WEIGHTS) for folder in (one, other))
    assert before.keys() == after.keys()
    for key in before:
        assert before[key].dtype == after[key].dtype and before[key].tobytes() == after[key].tobytes()


@pytest.fixture(scope="module", params=drawn.families())
def base(request, torch_model, tmp_path_factory):
    return Base(request.param, tmp_path_factory.mktemp(request.param), torch_model)


@pytest.fixture(scope="module")
def llama(torch_model, tmp_path_factory):
    return Base("llama", tmp_path_factory.mktemp("llama"), torch_model)


def test_our_adapters_give_peft_the_same_logits(base, random_library, tmp_path):
    names = ["first", "second"]
    fields = {"names": names, "scale": [2.0, 0.3], "family": base.family, "base": str(base.path)}
    library = random_library(base.model.config.sites, experts=2, rank=4, layers=3, **fields)
    library.save(tmp_path)
    for name in names:
        ours = base.model.logits(TOKENS_BT, library[name])
        assert np.abs(ours - base.model.logits(TOKENS_BT)).max() > 0.1
        close(ours, base.adapted(tmp_path / name))


def test_pefts_adapters_give_us_the_same_logits_and_go_back_as_they_came(base, tmp_path):
    last = next(name for name in reversed(base.model.config.sites))
    module = MODULES[base.family][f"blocks.{last}"].format(i=1)
    patterns = {
        "rank_pattern": {module: 4, r"0\..*": 2},
        "alpha_pattern": {module.rpartition(".")[2]: 7, r"0\.(attn|self_attn|attention)\..*": 1.5},
    }
    base.adapter(tmp_path / "theirs", use_rslora=True, **patterns)
    # PEFT sorts the patterns on saving, and the first match applies: a saved adapter may differ from the trained one.
    expected = base.adapted(tmp_path / "theirs")
    library = modjax.Library.from_peft(tmp_path / "theirs")
    assert any(len(np.unique(lora.scale)) > 1 for lora in library.loras.values())
    close(base.model.logits(TOKENS_BT, library), expected)
    library.save(tmp_path / "library")
    same_bytes(tmp_path / "theirs", tmp_path / "library" / "theirs")
    close(base.adapted(tmp_path / "library" / "theirs"), expected)


SELECTIONS = {
    "names": {"target_modules": ["v_proj", "down_proj"]},
    "paths": {"target_modules": ["model.layers.2.self_attn.q_proj", "layers.0.mlp.up_proj"]},
    "regex": {"target_modules": r".*layers\.[02]\.(self_attn\.[kv]_proj|mlp\.gate_proj)"},
    "some layers": {"target_modules": ["q_proj", "o_proj"], "layers_to_transform": [1]},
    "layers of a list": {"target_modules": ["q_proj"], "layers_to_transform": [0, 2], "layers_pattern": "layers"},
    "all but some": {"target_modules": "all-linear", "exclude_modules": ["up_proj", "layers.1.self_attn.q_proj"]},
    "scales by module": {"alpha_pattern": {"q_proj": 9, "layers.1.self_attn.v_proj": 0}},
    "eva": {"init_lora_weights": "gaussian", "rank_pattern": {"k_proj": 6}, "alpha_pattern": {"k_proj": 10}},
}


@pytest.mark.parametrize("kind", SELECTIONS)
def test_modules_chosen_in_any_way(llama, tmp_path, kind):
    expected = llama.adapter(tmp_path / "theirs", **SELECTIONS[kind])
    library = modjax.Library.from_peft(tmp_path / "theirs", layers=3)
    close(llama.model.logits(TOKENS_BT, library), expected)
    library.save(tmp_path / "library")
    back = tmp_path / "library" / "theirs"
    same_bytes(tmp_path / "theirs", back)
    ours, theirs = (json.loads((folder / CONFIG).read_text()) for folder in (back, tmp_path / "theirs"))
    assert all(ours[key] == theirs[key] for key in ("target_modules", "exclude_modules", "alpha_pattern"))
    # If the original config no longer describes the adapter, modules are listed by their paths.
    louder = {site: lora._replace(scale=2 * lora.scale) for site, lora in library.loras.items()}
    louder = modjax.Library(louder, library.infos)
    louder.save(tmp_path / "louder")
    same_bytes(tmp_path / "theirs", tmp_path / "louder" / "theirs")
    close(llama.adapted(tmp_path / "louder" / "theirs"), llama.model.logits(TOKENS_BT, louder))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_stays_as_it_is(llama, tmp_path, dtype):
    llama.adapter(tmp_path / "theirs", dtype, alpha_pattern={"q_proj": 7})
    library = modjax.Library.from_peft([tmp_path / "theirs"])
    assert {leaf.dtype for lora in library.loras.values() for leaf in lora} == {jnp.dtype("float32")}
    assert library.infos[0].dtype == str(dtype).removeprefix("torch.")
    close(llama.model.logits(TOKENS_BT, library), llama.adapted(tmp_path / "theirs"))
    library.save(tmp_path / "library")
    same_bytes(tmp_path / "theirs", tmp_path / "library" / "theirs")


def pickled(folder, **options):
    """Turns an adapter's weights into adapter_model.bin, as PEFT wrote it up to version 0.5."""
    torch.save(safetensors.torch.load_file(folder / WEIGHTS), folder / "adapter_model.bin", **options)
    (folder / WEIGHTS).unlink()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("old", [False, True])
def test_weights_in_a_file_of_torch(llama, tmp_path, dtype, old):
    llama.adapter(tmp_path / "theirs", dtype)
    expected = llama.adapted(tmp_path / "theirs")
    shutil.copytree(tmp_path / "theirs", tmp_path / "pickled" / "theirs")
    pickled(tmp_path / "pickled" / "theirs", _use_new_zipfile_serialization=not old)
    library = modjax.Library.from_peft(tmp_path / "pickled" / "theirs")
    close(llama.model.logits(TOKENS_BT, library), expected)
    library.save(tmp_path / "library")
    same_bytes(tmp_path / "theirs", tmp_path / "library" / "theirs")


def test_weights_in_both_forms(llama, tmp_path):
    llama.adapter(tmp_path / "a")
    (tmp_path / "a" / "adapter_model.bin").write_bytes(b"no one reads this")
    assert modjax.Library.from_peft(tmp_path / "a").names == ("a",)


class Bomb:
    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return os.system, (f"touch {self.target}",)


@pytest.mark.parametrize("content", [lambda bomb: {"x": bomb}, lambda bomb: bomb, lambda bomb: [bomb]])
def test_malicious_pickles_are_refused(llama, tmp_path, content):
    llama.adapter(tmp_path / "a")
    (tmp_path / "a" / WEIGHTS).unlink()
    torch.save(content(Bomb(tmp_path / "exploded")), tmp_path / "a" / "adapter_model.bin")
    with pytest.raises(InputError, match="adapter_model.bin: holds something other than tensors"):
        modjax.Library.from_peft(tmp_path / "a")
    assert not (tmp_path / "exploded").exists()


def test_adapters_saved_together(llama, tmp_path):
    """Adapters of different ranks and scales; PEFT saves `default` at the root and the others in subfolders."""
    torch.manual_seed(0)
    settings = {
        "default": {"r": 2, "lora_alpha": 7, "target_modules": ["q_proj"]},
        "large": {"r": 6, "lora_alpha": 3, "use_rslora": True, "target_modules": ["q_proj", "up_proj"]},
        "other": {"r": 1, "lora_alpha": 2, "target_modules": ["k_proj"]},
    }
    configs = {name: peft.LoraConfig(task_type="CAUSAL_LM", **one) for name, one in settings.items()}
    model = peft.get_peft_model(llama.in_torch(), configs["default"])
    for name in ("large", "other"):
        model.add_adapter(name, configs[name])
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    model.save_pretrained(tmp_path / "many")
    library = modjax.Library.from_peft(tmp_path / "many")
    assert library.names == ("default", "large", "other") and library.rank == 6
    for name in settings:
        model.set_adapter(name)
        close(llama.model.logits(TOKENS_BT, library[name]), torch_logits(model))
    assert modjax.Library.from_peft(tmp_path / "many" / "large").names == ("large",)
    assert modjax.Library.from_peft([tmp_path / "many" / name for name in ("other", "large")]).names[0] == "other"
    library.save(tmp_path / "library")
    same_bytes(tmp_path / "many", tmp_path / "library" / "default")
    for name in ("large", "other"):
        same_bytes(tmp_path / "many" / name, tmp_path / "library" / name)


def test_checkpoints_under_an_adapter_are_no_experts(llama, tmp_path):
    for folder in (tmp_path / "run", tmp_path / "run" / "checkpoint-10"):
        llama.adapter(folder, target_modules=["q_proj"])
    assert modjax.Library.from_peft(tmp_path / "run").names == ("run",)


def based_on(folder, base):
    """Gives an adapter another base model."""
    config = json.loads((folder / CONFIG).read_text())
    (folder / CONFIG).write_text(json.dumps(config | {"base_model_name_or_path": base}))
    return folder


def test_layers_that_no_adapter_has(llama, tmp_path):
    expected = llama.adapter(tmp_path / "first", target_modules=["q_proj"], layers_to_transform=[0])
    library = modjax.Library.from_peft(tmp_path / "first")  # the base model is on this machine
    close(llama.model.logits(TOKENS_BT, library), expected)
    library.save(tmp_path / "library")
    assert modjax.Library.load(tmp_path / "library").layers == 3
    based_on(tmp_path / "first", "elsewhere/first")
    library = modjax.Library.from_peft(tmp_path / "first")
    assert library.layers == 1
    with pytest.raises(InputError, match="read adapters to some layers with layers=3, or modjax convert --layers=3"):
        llama.model.logits(TOKENS_BT, library)
    with pytest.raises(InputError, match="layers=0: expected a whole number, at least 1"):
        modjax.Library.from_peft(tmp_path / "first", layers=0)
    close(llama.model.logits(TOKENS_BT, modjax.Library.from_peft(tmp_path / "first", layers=3)), expected)


def test_a_base_model_with_fewer_layers_than_the_adapter(llama, tmp_path):
    llama.adapter(tmp_path / "a", target_modules=["q_proj"])
    (tmp_path / "small").mkdir()
    (tmp_path / "small" / "config.json").write_text('{"num_hidden_layers": 2}')
    based_on(tmp_path / "a", str(tmp_path / "small"))
    with pytest.raises(
        InputError, match="'a' has factors for layer 2, but .*small, which .* has 2 layers; give the num"
    ):
        modjax.Library.from_peft(tmp_path / "a")
    assert modjax.Library.from_peft(tmp_path / "a", layers=3).layers == 3


def test_base_models_of_different_depths(llama, tmp_path):
    for name, layers in (("three", 3), ("four", 4)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(json.dumps({"text_config": {"num_hidden_layers": layers}}))
        llama.adapter(tmp_path / f"for {name}", target_modules=["q_proj"])
        based_on(tmp_path / f"for {name}", str(tmp_path / name))
    both = [tmp_path / "for three", tmp_path / "for four"]
    with pytest.raises(
        InputError, match=r"different base models, .*three \(3 layers\), .*four \(4 layers\); expected one"
    ):
        modjax.Library.from_peft(both)
    assert modjax.Library.from_peft(both, layers=4).layers == 4


def test_adapters_of_different_families(tmp_path):
    for name, module in (("a", "model.layers.0.self_attn.q_proj"), ("b", "gpt_neox.layers.0.attention.dense")):
        (tmp_path / name).mkdir()
        factors = {f"{PREFIX}{module}.lora_{side}.weight": np.ones((2, 2), np.float32) for side in "AB"}
        save_file(factors, tmp_path / name / WEIGHTS)
        (tmp_path / name / CONFIG).write_text(json.dumps({"peft_type": "LORA", "r": 2, "lora_alpha": 2}))
    with pytest.raises(
        InputError, match=r"families: .*a/adapter_model.safetensors \(llama\).*\(gpt_neox\); expected one"
    ):
        modjax.Library.from_peft(tmp_path)
