import numpy as np
import pytest

import modjax


@pytest.fixture(scope="session")
def base(torch_model, tmp_path_factory):
    """(directory, model) of a tiny random llama."""
    path = tmp_path_factory.mktemp("llama")
    torch_model("llama").save_pretrained(path)
    return path, modjax.load(path)


@pytest.fixture(scope="session")
def model(base):
    return base[1]


@pytest.fixture(scope="session")
def library(model, random_library):
    """Four experts on two sites, every one with a scale of its own."""
    sites = {site: model.config.sites[site] for site in ("attn.q", "mlp.down")}
    return random_library(sites, experts=4, rank=3, layers=3, names=list("abcd"), scale=[1.0, 2.0, 0.5, 3.0])


@pytest.fixture(scope="session")
def tokens_BT():
    return np.random.default_rng(5).integers(0, 61, (2, 9))
