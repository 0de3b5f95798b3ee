"""Properties of all routers of prompts, tested with one of them."""

import numpy as np
import pytest

from modjax.data.tokenize import Encoded
from modjax.errors import InputError
from modjax.eval import Method
from modjax.eval.likelihood import target_loss
from modjax.eval.traces import routing_weights
from modjax.ops.top_k import dense
from modjax.routing import Bound, Context, PromptRows, arrow, hook, logo, settle


@pytest.fixture(scope="module")
def router(mixed):
    return logo(mixed, top_k=2)


@pytest.fixture(scope="module")
def examples():
    rng = np.random.default_rng(7)
    return [Encoded(rng.integers(3, 61, n + 3).astype(np.int32), n) for n in (4, 9, 6)]


def settled(model, library, router, rows):
    return settle(model.params, Bound(library.loras, router), rows).router


def test_logits_take_each_row_as_a_prompt(model, mixed, router, tokens_BT):
    kept = settled(model, mixed, router, PromptRows.whole(tokens_BT))
    expected = model.logits(tokens_BT, mixed, kept)
    np.testing.assert_allclose(model.logits(tokens_BT, mixed, router), expected, atol=1e-5)
    assert np.abs(expected - model.logits(tokens_BT)).max() > 0.1


def test_the_mix_is_the_routers(model, mixed, tokens_BT):
    means = logo(mixed, mix="parameters")
    kept = settled(model, mixed, means, PromptRows.whole(tokens_BT))
    assert kept.mix == "parameters"
    apart = model.logits(tokens_BT, mixed, means) - model.logits(tokens_BT, mixed, logo(mixed))
    assert np.abs(apart).max() > 0.01


def test_padding_is_no_prompt(model, mixed, router, prompts):
    padded = settled(model, mixed, router, PromptRows.one_each(prompts, len(prompts) + 1, 16))
    for row, prompt in enumerate(prompts):
        alone = settled(model, mixed, router, PromptRows.whole(prompt[None]))
        got, expected = (dense(one("", None, None), len(mixed)) for one in (padded, alone))
        np.testing.assert_allclose(got[:, row], expected[:, 0], atol=1e-5)


def test_a_loss_is_that_of_weights_from_the_prompt_alone(model, mixed, router, examples):
    totals, counts = target_loss(model, examples, model.bind(mixed, router), batch=2)
    for one, total, count in zip(examples, totals, counts, strict=True):
        row = np.zeros((1, 16), np.int32)
        row[0, : len(one.tokens)] = one.tokens
        kept = settled(model, mixed, router, PromptRows.right_padded(row, np.array([one.n_prompt])))
        logits_TV = np.float64(model.logits(row, mixed, kept)[0])
        log_TV = logits_TV - np.log(np.exp(logits_TV).sum(-1, keepdims=True))
        at = np.arange(one.n_prompt, len(one.tokens))
        np.testing.assert_allclose(total, -log_TV[at - 1, one.tokens[at]].sum(), rtol=1e-5)
        assert count == 3


def test_targets_are_not_read(model, mixed, router, examples):
    """Weights are the same with other targets, and without any."""
    other = [Encoded(np.where(np.arange(len(o.tokens)) < o.n_prompt, o.tokens, 5), o.n_prompt) for o in examples]
    alone = [Encoded(one.tokens[: one.n_prompt], one.n_prompt) for one in examples]
    method = Method("logo", mixed, router)
    for weights in zip(*(routing_weights(model, method, given, 2) for given in (examples, other, alone)), strict=True):
        first_E = weights[0][0, 0]
        assert (first_E > 0).sum() == 2
        for weights_LnE in weights:
            np.testing.assert_allclose(weights_LnE, np.broadcast_to(first_E, weights_LnE.shape), atol=1e-6)


def test_routers_of_tokens_and_no_experts_are_given_back(model, mixed, tokens_BT):
    rows = PromptRows.whole(tokens_BT)
    assert settle(model.params, None, rows) is None
    bound = Bound(mixed.loras, arrow(mixed))
    assert settle(model.params, bound, rows) is bound


def test_what_was_settled_is_saved_and_loaded(model, mixed, router, tokens_BT, loaded):
    kept = settled(model, mixed, router, PromptRows.whole(tokens_BT))
    again = loaded(kept)
    np.testing.assert_array_equal(model.logits(tokens_BT, mixed, again), model.logits(tokens_BT, mixed, kept))


def test_tokens_cannot_be_weighed(mixed, router, x_BTI):
    bound = Bound(mixed.loras, router)
    with pytest.raises(InputError, match="a Logo router weighs prompts, not tokens; call modjax.routing.settle"):
        router("attn.q", x_BTI, Context())
    with pytest.raises(InputError, match="weighs prompts"):
        hook(bound)["adapt"](bound, ("attn.q",), x_BTI)
