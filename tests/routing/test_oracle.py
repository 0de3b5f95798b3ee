import numpy as np
import pytest

from modjax.errors import InputError
from modjax.routing import Context, oracle


def test_each_example_gets_its_expert_and_minus_one_the_base(model, library):
    tokens_BT = np.random.default_rng(0).integers(0, 61, (3, 6))
    context = Context(np.array([3, -1, 1], np.int32))
    got = model.logits(tokens_BT, library, oracle(library), context)
    for row, name in ((0, "d"), (2, "b")):
        alone = model.logits(tokens_BT[row : row + 1], library[name])
        np.testing.assert_allclose(got[row : row + 1], alone, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(got[1:2], model.logits(tokens_BT[1:2]), rtol=1e-4, atol=1e-4)


def test_weights_are_one_hot(library, agrees):
    weights_BE = oracle(library)("attn.q", None, Context(np.array([2, -1])))
    agrees("oracle", weights_BE, [[0, 0, 1, 0], [0, 0, 0, 0]])


def test_without_the_experts_of_examples_it_says_so(model, library, tokens_BT):
    with pytest.raises(InputError, match=r"the oracle router needs the expert of each example; expected Context"):
        model.logits(tokens_BT, library, oracle(library))
