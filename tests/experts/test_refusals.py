"""What is said of adapters that modjax does not read: other methods, libraries, families, parts of the model."""

import dataclasses
import json

import numpy as np
import peft
import pytest
import torch
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING
from peft.tuners.lora import config as configs
from safetensors.numpy import save_file

import modjax
from modjax.errors import InputError
from modjax.experts import foreign
from modjax.experts.refusals import CONVERSION, CONVERTED_SETTINGS, CONVERTED_TYPES, SETTINGS, refuse

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:peft")
ADAPTER = {"peft_type": "LORA", "r": 2, "lora_alpha": 4}


@pytest.fixture
def adapter(tmp_path):
    """A function that writes an adapter folder with these tensors."""

    def write(tensors, **changes):
        folder = tmp_path / "mine"
        folder.mkdir()
        save_file(
            {key: np.ones(shape, np.float32) for key, shape in tensors.items()}, folder / "adapter_model.safetensors"
        )
        (folder / "adapter_config.json").write_text(json.dumps(ADAPTER | changes))
        return folder

    return write


def factors(*modules):
    pair = {"A": (2, 16), "B": (16, 2)}
    return {f"base_model.model.{m}.lora_{side}.weight": shape for m in modules for side, shape in pair.items()}


FAMILIES = {
    "transformer.h.0.self_attention.query_key_value": "BLOOM or Falcon",
    "transformer.h.3.mlp.dense_4h_to_h": "BLOOM or Falcon",
    "model.decoder.layers.0.self_attn.q_proj": "OPT",
    "model.decoder.layers.11.fc1": "OPT",
    "model.encoder.layers.0.self_attn.q_proj": "an encoder-decoder model",
    "transformer.encoder.layers.0.self_attention.query_key_value": "ChatGLM",
    "transformer.layers.5.attention.query_key_value": "ChatGLM",
    "transformer.blocks.0.attn.Wqkv": "MPT or DBRX",
    "transformer.h.0.attn.q_proj": "GPT-J",
    "transformer.h.0.attn.qkv_proj": "CodeGen",
    "transformer.h.0.mlp.w1": "Qwen 1",
    "model.layers.0.self_attn.W_pack": "Baichuan",
    "model.layers.0.attention.wqkv": "InternLM2",
    "model.layers.0.self_attn.kv_a_proj_with_mqa": "DeepSeek",
    "model.layers.0.block_sparse_moe.experts.3.w1": "a mixture of experts",
    "model.layers.0.mlp.experts.7.gate_proj": "a mixture of experts",
    "model.layers.1.linear_attn.in_proj_qkvz": "a gated delta net",
    "backbone.layers.0.mixer.in_proj": "a state space model",
    "encoder.block.0.layer.0.SelfAttention.q": "T5",
    "bert.encoder.layer.0.attention.self.query": "BERT",
    "model.vision_tower.vision_model.encoder.layers.0.self_attn.q_proj": "vision part",
    "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q": "Stable Diffusion",
}


@pytest.mark.parametrize("module", FAMILIES)
def test_families_are_named(adapter, module):
    with pytest.raises(InputError) as error:
        modjax.Library.from_peft(adapter(factors(module)))
    assert f"mine/adapter_model.safetensors: {module!r} looks like a module of " in str(error.value)
    assert FAMILIES[module] in str(error.value) and "supported families are llama, mistral" in str(error.value)
    assert "\n" not in str(error.value)


def test_every_name_of_a_family_has_an_example():
    """But for those that a part of a name is enough for."""
    named = {foreign.name_of([module]) for module in FAMILIES}
    rest = {"a multimodal model", "Phi of Microsoft's own code", "RWKV"}
    assert named | rest == set(foreign.PATTERNS)
    others = ["language_model.model.layers.0.mlp.up_proj", "layers.0.mixer.Wqkv", "rwkv.blocks.0.attention.receptance"]
    assert {foreign.name_of([module]) for module in others} == rest


def test_modules_of_no_family(adapter):
    with pytest.raises(InputError, match="'some.thing' is a module of no supported family; expected one of llama, mis"):
        modjax.Library.from_peft(adapter(factors("some.thing")))


def test_a_module_beside_those_of_a_family(adapter):
    with pytest.raises(InputError, match="'model.layers.0.mlp.side' is not a linear map of a llama block"):
        modjax.Library.from_peft(adapter(factors("model.layers.0.self_attn.q_proj", "model.layers.0.mlp.side")))


def test_a_model_without_its_head(adapter):
    words = "'layers.0.self_attn.q_proj' belongs to a model without a language-modelling head; expected 'model.layers.0"
    with pytest.raises(InputError, match=words):
        modjax.Library.from_peft(adapter(factors("layers.0.self_attn.q_proj")))


Q = factors("model.layers.0.self_attn.q_proj")
ENDS = {
    "the head": ("lm_head", factors("lm_head")),
    "GPT-NeoX's head": ("embed_out", factors("embed_out")),
    "the embedding": (
        "model.embed_tokens",
        {f"base_model.model.model.embed_tokens.lora_embedding_{side}": (2, 16) for side in "AB"},
    ),
    "GPT-2's embedding": ("transformer.wte", {"base_model.model.transformer.wte.lora_embedding_A": (2, 16)}),
    "embeddings that were resized": (
        "lm_head",
        {f"base_model.model.{name}.weight": (61, 16) for name in ("model.embed_tokens", "lm_head")},
    ),
    "an embedding in a wrapper": (
        "model.embed_tokens",
        {"base_model.model.model.embed_tokens.base_layer.weight": (61, 16)},
    ),
}


@pytest.mark.parametrize("kind", ENDS)
def test_embeddings_and_heads(adapter, kind):
    module, tensors = ENDS[kind]
    words = f"mine/adapter_model.safetensors: '{module}' is an embedding or output head; modjax adapts linear maps"
    with pytest.raises(InputError, match=words):
        modjax.Library.from_peft(adapter(Q | tensors))


MLX = [
    {"fine_tune_type": "lora", "num_layers": 16, "lora_parameters": {"rank": 8, "scale": 20.0, "dropout": 0.0}},
    {"lora_layers": 16, "lora_parameters": {"rank": 8, "alpha": 16, "scale": 10.0}, "model": "org/model"},
]


@pytest.mark.parametrize("config", MLX)
def test_an_adapter_of_mlx(tmp_path, config):
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    a = {"model.layers.0.self_attn.q_proj.lora_a": np.ones((16, 2), np.float32)}
    save_file(a, tmp_path / "adapters.safetensors")
    words = "adapter_config.json: is an adapter of mlx-lm; expected one of PEFT.* lora_A.weight = lora_a.T.*mlx_lm.fuse"
    with pytest.raises(InputError, match=words):
        modjax.Library.from_peft(tmp_path)


def test_an_adapter_of_adapterhub():
    with pytest.raises(InputError, match="is an adapter of AdapterHub's library; expected one of PEFT"):
        refuse({"config": {"architecture": "lora"}, "model_class": "LlamaAdapterModel", "hidden_size": 64}, "here")


class Maps(torch.nn.Module):
    """Two linear maps, enough for every method that changes linear maps."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = torch.nn.Linear(32, 32, bias=False), torch.nn.Linear(32, 32, bias=False)

    def forward(self, x):
        return self.second(torch.tanh(self.first(x)))


NEEDED = {
    "C3A": {"block_size": 8},
    "VBLORA": {"vector_length": 8, "num_vectors": 8},
    "FOURIERFT": {"n_frequency": 10},
    "WAVEFT": {"n_frequency": 10},
    "ADALORA": {"total_step": 10},
    "IA3": {"feedforward_modules": []},
    **{name: {"r": 8} for name in ("MISS", "GRALORA", "SHIRA")},
    "ROAD": {"group_size": 8},
}


def converted(config, folder):
    """The largest error of PEFT's own conversion to LoRA at full rank; None if it has none."""
    torch.manual_seed(1)
    model = peft.get_peft_model(Maps(), config).eval()
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data += 0.1 * torch.randn_like(parameter)
    if not model.supports_lora_conversion():
        return None
    peft.save_as_lora(folder, model, rank=32)
    again, x = peft.PeftModel.from_pretrained(Maps(), folder).eval(), torch.randn(4, 32)
    return float((again(x) - model(x)).abs().max().detach())


def of_linear_maps():
    """The methods of the installed PEFT that change linear maps of any model."""
    needs_a_language_model = {"ADAPTION_PROMPT", "CARTRIDGE", "CPT", "MULTITASK_PROMPT_TUNING", "PREFIX_TUNING",
                              "PROMPT_TUNING", "P_TUNING", "SHADOW", "XLORA"}  # fmt: skip
    return sorted({kind.value for kind in PEFT_TYPE_TO_CONFIG_MAPPING} - needs_a_language_model - {"LORA"})


@pytest.mark.parametrize("kind", of_linear_maps())
def test_conversion_is_named_where_peft_has_one(tmp_path, kind):
    make = PEFT_TYPE_TO_CONFIG_MAPPING[kind]
    fields = {field.name for field in dataclasses.fields(make)}
    targets = {"target_modules": ["first", "second"]} if "target_modules" in fields else {}
    error = converted(make(**targets, **NEEDED.get(kind, {})), tmp_path)
    assert (error is not None) == (kind in CONVERTED_TYPES)
    assert error is None or error < 1e-4
    with pytest.raises(InputError) as refused:
        refuse({"peft_type": kind}, "adapter_config.json")
    assert str(refused.value).startswith(f"adapter_config.json: peft_type {kind!r}; expected 'LORA'")
    assert (CONVERSION in str(refused.value)) == (kind in CONVERTED_TYPES)


def test_settings_that_peft_converts(tmp_path):
    """Not DoRA: PEFT converts it without its magnitudes, and the result is another model."""
    settings = {
        "use_dora": {"use_dora": True},
        "use_qalora": {"use_qalora": True, "qalora_group_size": 8},
        "monteclora_config": {"monteclora_config": configs.MontecloraConfig()},
    }
    for key, values in settings.items():
        error = converted(peft.LoraConfig(target_modules=["first", "second"], **values), tmp_path / key)
        assert (error < 1e-4) == (key in CONVERTED_SETTINGS)
    for key in SETTINGS:
        with pytest.raises(InputError, match=f"{key} = ") as refused:
            refuse({"peft_type": "LORA", key: {"some": 1}}, "")
        assert (CONVERSION in str(refused.value)) == (key in CONVERTED_SETTINGS)
