"""Adapters cross over to real PEFT and back: the same logits from tiny random models of transformers."""

import numpy as np
import peft
import pytest
import torch
import transformers
from safetensors.numpy import load_file

import modjax

# peft asks transformers for a name that transformers is about to drop.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")

TOKENS_BT = np.random.default_rng(0).integers(0, 61, (2, 11))
MODULES = {
    "llama": ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
    "phi": ["q_proj", "k_proj", "v_proj", "dense", "fc1", "fc2"],
}


@pytest.fixture(scope="module", params=MODULES)
def base(request, torch_model, tmp_path_factory):
    """(family, directory, modjax's model)."""
    path = tmp_path_factory.mktemp(request.param)
    torch_model(request.param).save_pretrained(path)
    return request.param, path, modjax.load(path)


def in_torch(path, adapter):
    model = transformers.AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
    return torch_logits(peft.PeftModel.from_pretrained(model, adapter))


def torch_logits(model):
    with torch.no_grad():
        return model.eval()(torch.tensor(TOKENS_BT)).logits.numpy()


def peft_adapter(base, folder, seed=0, dtype=torch.float32, **config):
    """A random adapter that PEFT itself wrote, B far from zero."""
    family, path, _ = base
    torch.manual_seed(seed)
    model = transformers.AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
    settings = {"r": 3, "lora_alpha": 5, "target_modules": MODULES[family], "task_type": "CAUSAL_LM"}
    model = peft.get_peft_model(model, peft.LoraConfig(**(settings | config)))
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    model = model.to(dtype)
    model.save_pretrained(folder)
    return torch_logits(model.float())


def close(got, expected):
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5 * np.abs(expected).max())


def test_our_adapters_give_peft_the_same_logits(base, random_library, tmp_path):
    family, path, model = base
    names = ["first", "second"]
    library = random_library(
        model.config.sites, experts=2, rank=4, layers=3, names=names, scale=[2.0, 0.3], family=family, base=str(path)
    )
    library.save(tmp_path)
    for name in names:
        ours = model.logits(TOKENS_BT, library[name])
        assert np.abs(ours - model.logits(TOKENS_BT)).max() > 0.1
        close(ours, in_torch(path, tmp_path / name))


@pytest.mark.parametrize("config", [{}, {"use_rslora": True}, {"target_modules": ["v_proj", "q_proj"]}])
def test_pefts_adapters_give_us_the_same_logits(base, tmp_path, config):
    expected = peft_adapter(base, tmp_path / "theirs", **config)
    _, path, model = base
    library = modjax.Library.from_peft([tmp_path / "theirs"])
    close(model.logits(TOKENS_BT, library), expected)
    library.save(tmp_path / "library")
    close(in_torch(path, tmp_path / "library" / "theirs"), expected)


def test_ranks_and_scales_differ_within_a_library(base, tmp_path):
    settings = {"small": {"r": 2, "lora_alpha": 7}, "large": {"r": 6, "lora_alpha": 3, "use_rslora": True}}
    expected = {name: peft_adapter(base, tmp_path / name, **config) for name, config in settings.items()}
    library = modjax.Library.from_peft([tmp_path / name for name in settings])
    for name, logits in expected.items():
        close(base[2].logits(TOKENS_BT, library[name]), logits)


def test_import_then_export_keeps_every_byte(base, tmp_path):
    peft_adapter(base, tmp_path / "theirs")
    modjax.Library.from_peft([tmp_path / "theirs"]).save(tmp_path / "library")
    folders = tmp_path / "theirs", tmp_path / "library" / "theirs"
    before, after = (load_file(folder / "adapter_model.safetensors") for folder in folders)
    assert before.keys() == after.keys()
    assert all(before[key].tobytes() == after[key].tobytes() for key in before)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_adapters_are_read_exactly(base, tmp_path, dtype):
    peft_adapter(base, tmp_path / "theirs", dtype=dtype)
    stored = torch_tensors(tmp_path / "theirs")
    assert {tensor.dtype for tensor in stored.values()} == {dtype}
    modjax.Library.from_peft([tmp_path / "theirs"]).save(tmp_path / "library")
    for key, tensor in torch_tensors(tmp_path / "library" / "theirs").items():
        assert torch.equal(tensor, stored[key].float())


def torch_tensors(folder):
    from safetensors.torch import load_file

    return load_file(folder / "adapter_model.safetensors")
