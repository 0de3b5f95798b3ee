import jax
import jax.numpy as jnp
import numpy as np
import pytest
from references import mixing

from modjax.ops import chosen
from modjax.ops.lora import LoRA, mixture
from modjax.ops.top_k import TopK, dense

B, T, E, R, H, K, WIDTH, OUT = 2, 5, 4, 3, 2, 2, 16, 12
MIXES = ("parameters", "outputs")
STATIC, PER_EXAMPLE, PER_TOKEN, PER_HEAD = (E,), (B, E), (B, T, E), (B, H, E)
PLANS = [("merged", STATIC), ("merged", PER_EXAMPLE), *(("dense", form) for form in (STATIC, PER_EXAMPLE, PER_TOKEN))]
TOP_PER_EXAMPLE, TOP_PER_TOKEN = ("top", B, K), ("top", B, T, K)
PLANS += [("merged", TOP_PER_EXAMPLE), ("gather", TOP_PER_EXAMPLE), ("dense", TOP_PER_TOKEN), ("gather", TOP_PER_TOKEN)]
WAYS = [*((plan, form, mix) for plan, form in PLANS for mix in MIXES), (None, PER_HEAD, "heads")]


@pytest.fixture
def case():
    """Inputs, factors and scales that differ from expert to expert; what the experts add is as large as the inputs."""
    rng = np.random.default_rng(0)
    a_ERI, b_ERO = (rng.normal(size=(E, R, width)) / width**0.5 for width in (WIDTH, OUT))
    lora = LoRA(jnp.float32(a_ERI), jnp.float32(b_ERO), jnp.array([0.5, 1.0, 4.0, 0.1]))
    return jnp.float32(rng.normal(size=(B, T, WIDTH))), lora


def weights_of(form, seed=1):
    rng = np.random.default_rng(seed)
    if form[0] == "top":
        ids = rng.permuted(np.broadcast_to(np.arange(E), (*form[1:-1], E)), axis=-1)[..., : form[-1]]
        return TopK(jnp.int32(ids), weights_of(form[1:]))
    weights = rng.uniform(size=form)
    return jnp.float32(weights / weights.sum(-1, keepdims=True))


def slow(case, weights, mix):
    """The definition, in float64."""
    x_BTI, lora = case
    return mixing.delta(x_BTI, *lora, dense(weights, E), mix)


def close(got, expected):
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("plan, form, mix", WAYS)
def test_every_plan_equals_the_definition(case, agrees, plan, form, mix):
    weights = weights_of(form)
    got = jax.jit(mixture, static_argnums=(3, 4))(*case, weights, mix, plan)
    assert got.dtype == jnp.float32
    agrees(f"mixture, {mix}", got, slow(case, weights, mix))
    close(mixture(*case, weights, mix), got)


@pytest.mark.parametrize("mix", MIXES)
@pytest.mark.parametrize("form", [STATIC, PER_EXAMPLE])
def test_merged_equals_dense_with_the_same_weights(case, form, mix):
    weights = weights_of(form)
    close(mixture(*case, weights, mix, "merged"), mixture(*case, weights, mix, "dense"))


@pytest.mark.parametrize("form", [STATIC, PER_EXAMPLE, PER_TOKEN])
def test_both_mixes_agree_on_one_hot_weights(case, form):
    weights = jax.nn.one_hot(jnp.array(np.random.default_rng(2).integers(0, E, form[:-1])), E)
    close(mixture(*case, weights, "parameters"), mixture(*case, weights, "outputs"))


@pytest.mark.parametrize("plan, form, mix", WAYS)
def test_one_a_for_all_experts_is_that_a_for_each(case, agrees, plan, form, mix):
    x_BTI, lora = case
    weights, shared = weights_of(form), lora._replace(a=lora.a[:1])
    got = mixture(x_BTI, shared, weights, mix, plan)
    agrees(f"mixture, {mix}", got, slow((x_BTI, shared), weights, mix))
    close(got, mixture(x_BTI, lora._replace(a=jnp.repeat(lora.a[:1], E, 0)), weights, mix, plan))


@pytest.mark.parametrize("n_heads", [1, 2, 4])
def test_heads_with_the_same_weights_are_parameters_mixed(case, n_heads):
    weights_BE = weights_of(PER_EXAMPLE)
    repeated_BHE = jnp.repeat(weights_BE[:, None], n_heads, axis=1)
    close(mixture(*case, repeated_BHE, "heads"), mixture(*case, weights_BE, "parameters"))


@pytest.mark.parametrize("mix", MIXES)
def test_one_expert_is_plain_lora(case, agrees, mix):
    x_BTI, lora = case
    one = LoRA(*(leaf[2:3] for leaf in lora))
    expected = 4.0 * np.float64(x_BTI) @ np.float64(lora.a[2]).T @ np.float64(lora.b[2])
    for weights in (jnp.ones(1), jnp.ones((B, 1)), jnp.ones((B, T, 1))):
        agrees(f"mixture, {mix}", mixture(x_BTI, one, weights, mix), expected)


@pytest.mark.parametrize("plan, form, mix", WAYS)
def test_the_order_of_experts_does_not_matter(case, plan, form, mix):
    x_BTI, lora = case
    weights, order = weights_of(form), np.array([2, 0, 3, 1])
    if isinstance(weights, TopK):
        reordered = TopK(jnp.argsort(order)[weights.ids], weights.weights)
    else:
        reordered = weights[..., order]
    shuffled = mixture(x_BTI, LoRA(*(leaf[order] for leaf in lora)), reordered, mix, plan)
    close(shuffled, mixture(*case, weights, mix, plan))


@pytest.mark.parametrize("plan, form, mix", WAYS)
def test_padded_ranks_and_zero_b_add_nothing(case, plan, form, mix):
    x_BTI, lora = case
    weights = weights_of(form)
    padded = LoRA(*(jnp.pad(leaf, ((0, 0), (0, 2), (0, 0))) for leaf in (lora.a, lora.b)), lora.scale)
    close(mixture(x_BTI, padded, weights, mix, plan), mixture(*case, weights, mix, plan))
    without_b = lora._replace(b=jnp.zeros_like(lora.b))
    assert not mixture(x_BTI, without_b, weights, mix, plan).any()


@pytest.mark.parametrize("plan, form, mix", WAYS)
def test_bfloat16_activations_accumulate_in_float32(case, plan, form, mix):
    x_BTI, lora = case
    x_BTI, weights = x_BTI.astype(jnp.bfloat16), weights_of(form)
    got = mixture(x_BTI, lora, weights, mix, plan)
    expected = slow((x_BTI, lora), weights, mix)
    assert got.dtype == jnp.float32
    assert np.linalg.norm(got - expected) < 0.01 * np.linalg.norm(expected)


@pytest.mark.parametrize("plan, form, mix", WAYS)
def test_gradients_equal_finite_differences(case, plan, form, mix):
    """Along one random direction of input, factors, scales and weights together."""
    x_BTI, lora = case
    weights = weights_of(form)
    ids, values = weights if isinstance(weights, TopK) else (None, weights)
    point = (x_BTI, lora, values)
    rng = np.random.default_rng(4)
    direction = jax.tree.map(lambda leaf: rng.normal(size=leaf.shape), point)

    def whole(values):
        return values if ids is None else TopK(ids, values)

    def loss(x_BTI, lora, values):
        return jnp.sum(jnp.square(mixture(x_BTI, lora, whole(values), mix, plan)))

    def slow_loss(step):
        x_BTI, lora, values = jax.tree.map(lambda leaf, along: np.float64(leaf) + step * along, point, direction)
        if ids is not None:
            spread = np.zeros((*ids.shape[:-1], E))
            np.put_along_axis(spread, np.asarray(ids), values, axis=-1)
            values = spread
        return np.sum(np.square(mixing.delta(x_BTI, *lora, values, mix)))

    gradient = jax.grad(loss, argnums=(0, 1, 2))(*point)
    slope = sum(np.sum(g * d) for g, d in zip(jax.tree.leaves(gradient), jax.tree.leaves(direction), strict=True))
    np.testing.assert_allclose(slope, (slow_loss(1e-5) - slow_loss(-1e-5)) / 2e-5, rtol=1e-4)


@pytest.mark.parametrize("n_rows", [1, 7, 24])
@pytest.mark.parametrize("width", [1, 9, 24, 640])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_products_with_chosen_rows_equal_their_definition(width, n_rows, dtype):
    """The forms for CPUs and for accelerators, and the one chosen for this device."""
    rng = np.random.default_rng(0)
    x_nI, rows_SI, ids_nk = rng.normal(size=(5, width)), rng.normal(size=(40, width)), rng.integers(0, 40, (5, n_rows))
    weights_nk = rng.normal(size=(5, n_rows))
    x_nI, weights_nk = (jnp.asarray(x, dtype) for x in (x_nI, weights_nk))
    own_nkI = np.float64(jnp.asarray(rows_SI, dtype))[ids_nk]
    for products in (chosen.products, chosen._products, chosen._products_in_place):
        got = products(x_nI, jnp.float32(rows_SI), ids_nk)
        np.testing.assert_allclose(got, np.einsum("ni,nki->nk", np.float64(x_nI), own_nkI), rtol=1e-5, atol=2e-5)
    for summed in (chosen.weighted_sum, chosen._weighted_sum, chosen._weighted_sum_in_place):
        got = summed(weights_nk, jnp.float32(rows_SI), ids_nk)
        np.testing.assert_allclose(got, np.einsum("nk,nki->ni", np.float64(weights_nk), own_nkI), rtol=1e-5, atol=2e-5)


def test_a_weight_of_0_is_no_expert(case):
    """As for tokens at which fewer than k experts have an update."""
    x_BTI, lora = case
    top = weights_of(TOP_PER_TOKEN)
    first = TopK(top.ids[..., :1], top.weights[..., :1])
    for plan in ("dense", "gather"):
        silent = top._replace(weights=top.weights.at[..., 1].set(0))
        close(mixture(x_BTI, lora, silent, "outputs", plan), mixture(x_BTI, lora, first, "outputs", plan))
        assert not mixture(x_BTI, lora, top._replace(weights=0 * top.weights), "parameters", plan).any()


@pytest.mark.parametrize("plan, form, mix", WAYS)
def test_a_layer_of_all_layers_is_that_layer(case, plan, form, mix):
    x_BTI, lora = case
    weights = weights_of(form)
    for own in (lora, lora._replace(a=lora.a[:1])):
        whole = jax.tree.map(lambda leaf: jnp.stack([leaf + 1, leaf, 2 * leaf]), own)
        got = mixture(x_BTI, whole, weights, mix, plan, jnp.int32(1))
        close(got, mixture(x_BTI, own, weights, mix, plan))
