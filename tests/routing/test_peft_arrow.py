"""Arrow equals PEFT's Arrow, given the prototypes that PEFT computed."""

import jax.numpy as jnp
import numpy as np
import peft
import pytest
import torch
import transformers

from modjax.routing import Arrow

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")

SITES = {"attn.q": "self_attn.q_proj", "attn.o": "self_attn.o_proj", "mlp.up": "mlp.up_proj"}


@pytest.mark.parametrize("top_k, temperature", [(2, 1.0), (3, 0.3), (1, 1.0)])
def test_logits_equal_pefts(base, random_library, tokens_BT, tmp_path, top_k, temperature):
    path, model = base
    sites = {site: model.config.sites[site] for site in SITES}
    library = random_library(sites, experts=3, rank=3, layers=3, scale=[2.0, 0.5, 1.0], base=str(path))
    library.save(tmp_path)
    theirs = peft.tuners.lora.create_arrow_model(
        transformers.AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32),
        [str(tmp_path / name) for name in library.names],
        peft.ArrowConfig(top_k=top_k, router_temperature=temperature, rng_seed=0),
    ).eval()
    with torch.no_grad():
        expected = theirs(torch.tensor(tokens_BT)).logits.numpy()
    router = Arrow(_prototypes(theirs), top_k, temperature, "outputs")
    got = model.logits(tokens_BT, library, router)
    assert np.abs(got - model.logits(tokens_BT)).max() > 0.1
    np.testing.assert_allclose(got, expected, atol=1e-5 * np.abs(expected).max())


def _prototypes(theirs):
    layers = theirs.base_model.model.model.layers
    return {
        site: jnp.stack([layer.get_submodule(name).lora_arrow["arrow_router"].prototypes.numpy() for layer in layers])
        for site, name in SITES.items()
    }
