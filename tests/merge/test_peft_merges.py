"""Merges equal PEFT's `add_weighted_adapter` for the settings in which both compute the same."""

import numpy as np
import peft
import pytest
import torch
from peft.utils import merge_utils

from modjax import merge

# peft uses a name that transformers has deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")

MODULES = {"attn.q": "self_attn.q_proj", "mlp.down": "mlp.down_proj"}
SITES = {"attn.q": (32, 32), "mlp.down": (48, 32)}
NAMES = ["first", "second", "third"]
SCALE = [2.0, 0.5, 1.0]
WEIGHTS = [0.5, -0.3, 0.8]


@pytest.fixture(scope="module")
def library(random_library):
    return random_library(SITES, rank=3, layers=3, scale=SCALE, names=NAMES)


@pytest.fixture(scope="module")
def adapted(torch_model, library):
    return with_adapters(torch_model("llama"), library)


def with_adapters(base, library):
    """PEFT's model with the library's experts as its adapters."""
    model = None
    for e, info in enumerate(library.infos):
        own = [MODULES[site].rpartition(".")[2] for site in library.sites if library.ranks[site][:, e].any()]
        config = peft.LoraConfig(r=info.rank, lora_alpha=info.alpha, target_modules=own, task_type="CAUSAL_LM")
        if model is None:
            model = peft.get_peft_model(base, config, adapter_name=info.name)
        else:
            model.add_adapter(info.name, config)
        for site, lora in library.loras.items():
            for layer, module in enumerate(modules(model, site)):
                if info.name in module.lora_A:
                    a, b = (np.array(leaf[layer, e, : info.rank]) for leaf in (lora.a, lora.b))
                    module.lora_A[info.name].weight.data = torch.tensor(a)
                    module.lora_B[info.name].weight.data = torch.tensor(b.T.copy())
    return model


def modules(model, site):
    return [layer.get_submodule(MODULES[site]) for layer in model.base_model.model.model.layers]


def assert_as_peft(got, model, weights, kind, **settings):
    """The merged updates agree to 1e-5, site by site and layer by layer."""
    name = f"{kind} {settings}".replace(".", "_")
    model.add_weighted_adapter(NAMES, list(weights), name, combination_type=kind, **settings)
    for site, (a_LERI, b_LERO, _) in got.loras.items():
        for layer, module in enumerate(modules(model, site)):
            expected = module.get_delta_weight(name).detach().numpy()
            found = got.scale[0] * b_LERO[layer, 0].T @ a_LERI[layer, 0]
            assert np.abs(expected).max() > 0.01
            np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)
    model.delete_adapter(name)


def test_concatenate_is_cat(adapted, library):
    assert_as_peft(merge.concatenate(library, WEIGHTS), adapted, WEIGHTS, "cat")


@pytest.mark.parametrize("rank", [2, 5])
def test_svd_is_svd(adapted, library, rank):
    assert_as_peft(merge.svd(library, rank, WEIGHTS), adapted, WEIGHTS, "svd", svd_rank=rank)


def test_roots_are_linear(adapted, library):
    assert_as_peft(merge.weighted(library, WEIGHTS, "roots"), adapted, WEIGHTS, "linear")


def test_factors_are_linear_of_squared_weights_at_equal_scales(torch_model, random_library):
    equal = random_library(SITES, rank=3, layers=3, scale=1.5, names=NAMES)
    weights = np.asarray([0.2, 0.3, 0.5])
    got = merge.weighted(equal, weights, "factors")
    assert_as_peft(got, with_adapters(torch_model("llama"), equal), weights**2, "linear")


@pytest.mark.parametrize(("form", "kind"), [("roots", "ties"), ("products", "ties_svd")])
def test_ties_is_ties(adapted, library, form, kind):
    assert_as_peft(merge.ties(library, 0.4, WEIGHTS, form), adapted, WEIGHTS, kind, density=0.4)


def test_default_ties_is_ties_at_equal_scales(torch_model, random_library):
    equal = random_library(SITES, rank=3, layers=3, scale=1.5, names=NAMES)
    assert_as_peft(merge.ties(equal), with_adapters(torch_model("llama"), equal), [1.0] * 3, "ties", density=0.2)


@pytest.mark.parametrize(("form", "kind"), [("roots", "magnitude_prune"), ("products", "magnitude_prune_svd")])
def test_magnitude_prune_is_magnitude_prune(adapted, library, form, kind):
    assert_as_peft(merge.magnitude_prune(library, 0.4, WEIGHTS, form), adapted, WEIGHTS, kind, density=0.4)


@pytest.mark.parametrize(("elect", "kind"), [(False, "dare_linear"), (True, "dare_ties")])
def test_dare_is_dare_with_the_same_entries_dropped(adapted, library, elect, kind, monkeypatch):
    """PEFT gets the entries that DARE keeps here, in the order in which it draws: A then B, per expert."""
    alone = [merge.dare(library[[e]], 0.4, seed=7) for e in range(3)]
    places = [(site, layer) for layer in range(3) for site in MODULES]
    left = [
        np.array(one.loras[site][side][layer, 0]).T if side else np.array(one.loras[site][side][layer, 0])
        for site, layer in places
        for side in (0, 1)
        for one in alone
    ]
    monkeypatch.setattr(
        merge_utils, "random_pruning", lambda tensor, density, rescale: torch.tensor(left.pop(0).copy())
    )
    assert_as_peft(merge.dare(library, 0.4, WEIGHTS, "roots", elect, seed=7), adapted, WEIGHTS, kind, density=0.4)
    assert not left


@pytest.mark.parametrize("kind", ["cat", "svd", "ties_svd"])
def test_ranks_and_sites_differ(torch_model, random_library, kind):
    small = random_library(SITES, experts=2, rank=2, layers=3, scale=[2.0, 0.5], names=NAMES[:2])
    mixed = small + random_library({"attn.q": (32, 32)}, experts=1, rank=4, layers=3, seed=1, names=NAMES[2:])
    got, settings = {
        "cat": (merge.concatenate(mixed, WEIGHTS), {}),
        "svd": (merge.svd(mixed, 4, WEIGHTS), {"svd_rank": 4}),
        "ties_svd": (merge.ties(mixed, 0.4, WEIGHTS, "products"), {"density": 0.4}),
    }[kind]
    assert_as_peft(got, with_adapters(torch_model("llama"), mixed), WEIGHTS, kind, **settings)
