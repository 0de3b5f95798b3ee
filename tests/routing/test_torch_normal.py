import numpy as np
import pytest

from modjax.errors import InputError
from modjax.routing.torch_normal import torch_normal


@pytest.mark.parametrize("size", [16, 17, 31, 32, 48, 576, 2560, 10_241])
@pytest.mark.parametrize("seed", [0, 42, 2**32 - 1])
def test_they_are_torchs(size, seed):
    import torch

    expected = torch.randn(size, generator=torch.Generator().manual_seed(seed))
    np.testing.assert_allclose(torch_normal(size, seed), expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize(("size", "seed"), [(15, 0), (32, -1), (32, 2**32)])
def test_what_cannot_be_is_named(size, seed):
    with pytest.raises(InputError, match=f"{size} values from seed {seed}"):
        torch_normal(size, seed)
