"""Arrow and GenKnowSub equal PEFT's, both with PEFT's own prototypes and from its seed."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import peft
import pytest
import torch
import transformers

import modjax
from modjax.merge.genknowsub import genknowsub
from modjax.routing import Arrow, arrow

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")

SEED = 7
EXPERTS = 4
MODULES = {
    "llama": {"attn.q": "self_attn.q_proj", "attn.o": "self_attn.o_proj", "mlp.up": "mlp.up_proj"},
    "phi": {"attn.v": "self_attn.v_proj", "attn.o": "self_attn.dense", "mlp.fc2": "mlp.fc2"},
}
CHOICES = [(1, 1.0), (2, 0.2), (2, 1.0), (3, 5.0), (EXPERTS, 0.2)]  # top_k, temperature


@pytest.fixture(scope="module", params=MODULES)
def base(request, torch_model, tmp_path_factory):
    """(family, directory, modjax's model)."""
    path = tmp_path_factory.mktemp(request.param)
    torch_model(request.param).save_pretrained(path)
    return request.param, path, modjax.load(path)


def mixed_alphas(library):
    return library


def mixed_ranks(library):
    """PEFT's Arrow needs experts of one rank, so smaller ones are padded with rows of zeros."""
    rows_R = jnp.arange(library.rank)
    own_ER = jnp.float32(rows_R[None] < jnp.array([1, 3, 2, 3])[:, None])[None, :, :, None]
    loras = {site: lora._replace(a=lora.a * own_ER, b=lora.b * own_ER) for site, lora in library.loras.items()}
    return dataclasses.replace(library, loras=loras)


@pytest.fixture(scope="module", params=[mixed_alphas, mixed_ranks])
def libraries(request, base, random_library):
    """Four experts with different scales, and two general ones."""
    family, path, model = base
    sites = {site: model.config.sites[site] for site in MODULES[family]}
    common = {"rank": 3, "layers": 3, "base": str(path), "family": family}
    library = random_library(sites, experts=EXPERTS, scale=[1.0, 0.25, 0.5, 0.75], names=list("abcd"), **common)
    general = random_library(sites, experts=2, seed=1, scale=[3.0, 0.7], names=["wiki", "web"], **common)
    return request.param(library), general


def theirs(base, libraries, folder, subtracted):
    """PEFT's Arrow model of the same adapters."""
    for library, name in zip(libraries, ("own", "general"), strict=True):
        library.save(folder / name)
    model = peft.tuners.lora.create_arrow_model(
        transformers.AutoModelForCausalLM.from_pretrained(base[1], dtype=torch.float32),
        [str(folder / "own" / name) for name in libraries[0].names],
        peft.ArrowConfig(top_k=2, router_temperature=1.0, use_gks=subtracted, rng_seed=SEED),
        [str(folder / "general" / name) for name in libraries[1].names],
    )
    return model.eval()


def set_choice(model, top_k, temperature):
    for module in model.modules():
        if isinstance(module, peft.tuners.lora.arrow.ArrowLoraLinearLayer):
            module.top_k, module.temperature = top_k, temperature


def torch_logits(model, tokens_BT):
    with torch.no_grad():
        return model(torch.tensor(tokens_BT)).logits.numpy()


def torch_prototypes(base, model):
    layers = model.base_model.model.model.layers
    return {
        site: jnp.stack([layer.get_submodule(name).lora_arrow["arrow_router"].prototypes.numpy() for layer in layers])
        for site, name in MODULES[base[0]].items()
    }


@pytest.mark.parametrize("subtracted", [False, True], ids=["plain", "genknowsub"])
def test_logits_equal_pefts(base, libraries, tokens_BT, tmp_path, subtracted):
    model = base[2]
    torch_model = theirs(base, libraries, tmp_path, subtracted)
    library = genknowsub(*libraries) if subtracted else libraries[0]
    plain = model.logits(tokens_BT)
    torch_logits(torch_model, tokens_BT)  # PEFT subtracts and makes prototypes on first use
    prototypes = torch_prototypes(base, torch_model)
    for top_k, temperature in CHOICES:
        set_choice(torch_model, top_k, temperature)
        expected = torch_logits(torch_model, tokens_BT)
        given = model.logits(tokens_BT, library, Arrow(prototypes, top_k, temperature, "outputs"))
        found = arrow(library, top_k, temperature, "outputs", prototypes="power", seed=SEED)
        from_seed = model.logits(tokens_BT, library, found)
        assert np.abs(expected - plain).max() > 0.1
        np.testing.assert_allclose(given, expected, atol=1e-5, rtol=0, err_msg=f"{top_k} {temperature}")
        np.testing.assert_allclose(from_seed, expected, atol=1e-5, rtol=0, err_msg=f"{top_k} {temperature}, from seed")


def test_prototypes_equal_pefts(base, libraries, tokens_BT, tmp_path):
    """PEFT iterates in float32 and stops before it converges: where singular values are close, its own rounding is more
    than this."""
    torch_model = theirs(base, libraries, tmp_path, False)
    torch_logits(torch_model, tokens_BT)
    ours = arrow(libraries[0], prototypes="power", seed=SEED).prototypes
    for site, expected in torch_prototypes(base, torch_model).items():
        np.testing.assert_allclose(ours[site], expected, atol=1e-6, rtol=0)
