"""Multimodal checkpoints: their text decoder is read, adapted and exported; the vision part is left alone."""

import json

import numpy as np
import peft
import pytest
import torch
import transformers
from safetensors.numpy import load_file, save_file

import modjax
from modjax.errors import InputError
from modjax.models import export, hf
from modjax.models.config import ModelConfig
from modjax.models.families.multimodal import MULTIMODAL
from modjax.models.weights import leaves

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")

TOKENS_BT = np.random.default_rng(0).integers(0, 61, (2, 11))


@pytest.fixture(scope="module", params=MULTIMODAL)
def folder(request, torch_model, tmp_path_factory):
    path = tmp_path_factory.mktemp(request.param)
    torch_model(request.param).save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def model(folder):
    return modjax.load(folder)


def torch_logits(model):
    with torch.no_grad():
        return model.eval()(torch.tensor(TOKENS_BT)).logits.numpy()


def in_torch(folder, kind=transformers.AutoModelForImageTextToText):
    return kind.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")


def rewritten(folder, to, rename):
    """A copy of the checkpoint whose tensors have other names."""
    to.mkdir()
    (to / "config.json").write_bytes((folder / "config.json").read_bytes())
    save_file({rename(name): array for name, array in load_file(folder / hf.SINGLE).items()}, to / hf.SINGLE)
    return to


@pytest.mark.parametrize("renamed", ["model.language_model.", "language_model."], ids=["newer", "without a head"])
def test_every_version_of_the_names_is_read(folder, model, tmp_path, renamed):
    path = rewritten(folder, tmp_path / "other", lambda name: name.replace("language_model.model.", renamed))
    for (name, leaf), found in zip(leaves(model.params).items(), leaves(hf.read(path)).values(), strict=True):
        np.testing.assert_array_equal(leaf, found, err_msg=name)


def test_the_export_is_a_model_of_the_text_family(folder, model, tmp_path):
    export.write(model.params, tmp_path / "out", like=folder)
    text = json.loads((folder / "config.json").read_text())["text_config"]
    written = json.loads((tmp_path / "out" / "config.json").read_text())
    assert written["model_type"] == text["model_type"] and "vision_config" not in written
    theirs = in_torch(tmp_path / "out", transformers.AutoModelForCausalLM)
    assert type(theirs).__name__ in written["architectures"]
    np.testing.assert_allclose(torch_logits(theirs), model.logits(TOKENS_BT), atol=1e-4, rtol=0)
    before, after = load_file(folder / hf.SINGLE), load_file(tmp_path / "out" / hf.SINGLE)
    text = {name.removeprefix("language_model."): array for name, array in before.items() if "language" in name}
    assert text.keys() | {"lm_head.weight"} >= after.keys() >= text.keys()
    for name, array in after.items():
        np.testing.assert_array_equal(array, before.get(name, text.get(name)), err_msg=name)


def test_our_adapters_give_peft_the_same_logits(folder, model, random_library, tmp_path):
    library = random_library(model.config.sites, experts=1, layers=3, names=["one"], family=model.config.family)
    library.save(tmp_path)
    ours = model.logits(TOKENS_BT, library)
    assert np.abs(ours - model.logits(TOKENS_BT)).max() > 0.1
    theirs = torch_logits(peft.PeftModel.from_pretrained(in_torch(folder), tmp_path / "one"))
    np.testing.assert_allclose(ours, theirs, atol=1e-5 * np.abs(theirs).max(), rtol=1e-5)


@pytest.mark.parametrize("older", [False, True], ids=["today's names", "older names"])
def test_pefts_adapters_give_us_the_same_logits(folder, model, tmp_path, older):
    torch.manual_seed(0)
    targets = r".*language_model.*\.(q_proj|o_proj|down_proj)"
    adapted = peft.get_peft_model(in_torch(folder), peft.LoraConfig(r=3, target_modules=targets))
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    adapted.save_pretrained(tmp_path / "theirs")
    file = tmp_path / "theirs" / "adapter_model.safetensors"
    if older:
        names = ("model.model.language_model", "model.language_model.model")
        save_file({name.replace(*names): array for name, array in load_file(file).items()}, file)
    library = modjax.Library.from_peft(tmp_path / "theirs")
    theirs = torch_logits(adapted)
    np.testing.assert_allclose(model.logits(TOKENS_BT, library), theirs, atol=1e-5 * np.abs(theirs).max(), rtol=1e-5)


def test_files_that_say_little_take_the_defaults_of_transformers():
    found = {"model_type": "gemma3", "text_config": {"hidden_size": 2560, "num_hidden_layers": 34}}
    theirs = transformers.AutoConfig.for_model(**found).to_dict()
    config = ModelConfig.from_hf(found, "config.json")
    assert config == ModelConfig.from_hf(theirs, "config.json")
    assert (config.family, config.V, config.N, config.K, config.H, config.tied) == ("gemma3", 262_208, 8, 4, 256, True)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"text_config": None}, "config.json: text_config is None; expected an object"),
        (
            {"text_config": {"model_type": "llama"}},
            "model_type is 'llama'; supported are mistral, ministral3",
        ),
        ({"text_config": {"model_type": ["mistral"]}}, "text_config: model_type is .'mistral'.; supported are"),
        (
            {"text_config": {"model_type": "mistral"}},
            "text_config: vocab_size is None; expected a positive",
        ),
        ({"quantization_config": {"quant_method": "fp8"}}, "the weights are quantised .*fp8"),
        (
            {"model_type": "gemma3", "text_config": {"final_logit_softcapping": 30.0}},
            "text_config: final_logit_softcapping = 30.0 is not supported; expected None",
        ),
    ],
)
def test_errors_name_file_and_key(change, says):
    found = {"model_type": "mistral3", "text_config": {"model_type": "mistral"}} | change
    with pytest.raises(InputError, match=says) as caught:
        ModelConfig.from_hf(found, "config.json")
    assert str(caught.value).startswith("config.json: ")
