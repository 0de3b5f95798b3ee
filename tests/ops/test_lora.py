import jax
import jax.numpy as jnp
import numpy as np
import pytest

from modjax.ops.lora import LoRA, mixture

B, T, E, R, H, WIDTH, OUT = 2, 5, 4, 3, 2, 16, 12
MIXES = ("parameters", "outputs")
STATIC, PER_EXAMPLE, PER_TOKEN, PER_HEAD = (E,), (B, E), (B, T, E), (B, H, E)
PLANS = [("merged", STATIC), ("merged", PER_EXAMPLE), *(("dense", form) for form in (STATIC, PER_EXAMPLE, PER_TOKEN))]
WAYS = [*((plan, form, mix) for plan, form in PLANS for mix in MIXES), (None, PER_HEAD, "heads")]


@pytest.fixture
def case():
    """Inputs, factors and scales that differ from expert to expert."""
    rng = np.random.default_rng(0)
    lora = LoRA(jnp.float32(rng.normal(size=(E, R, WIDTH))), jnp.float32(rng.normal(size=(E, R, OUT))))
    return jnp.float32(rng.normal(size=(B, T, WIDTH))), lora, jnp.array([0.5, 1.0, 4.0, 0.1])


def weights_of(form, seed=1):
    weights = np.random.default_rng(seed).uniform(size=form)
    return jnp.float32(weights / weights.sum(-1, keepdims=True))


def slow_mixture(x_BTI, lora, scale_E, weights, mix):
    """Token by token from the definition, in float64."""
    x_BTI, a_ERI, b_ERO, scale_E, weights = (np.float64(leaf) for leaf in (x_BTI, *lora, scale_E, weights))
    a_ERI = np.broadcast_to(a_ERI, (len(b_ERO), *a_ERI.shape[1:]))
    if mix == "heads":
        return slow_heads(x_BTI, a_ERI, b_ERO, scale_E, weights)
    weights = weights[:, None] if weights.ndim == 2 else weights
    weights_BTE = np.broadcast_to(weights, (*x_BTI.shape[:2], len(scale_E)))
    out_BTO = np.zeros((*x_BTI.shape[:2], b_ERO.shape[-1]))
    for b, t in np.ndindex(*x_BTI.shape[:2]):
        w_E = weights_BTE[b, t]
        if mix == "parameters":
            a_RI = sum(w * a for w, a in zip(w_E, a_ERI, strict=True))
            b_RO = sum(w * s * b for w, s, b in zip(w_E, scale_E, b_ERO, strict=True))
            out_BTO[b, t] = b_RO.T @ a_RI @ x_BTI[b, t]
        else:
            for e, w in enumerate(w_E):
                out_BTO[b, t] += w * scale_E[e] * b_ERO[e].T @ a_ERI[e] @ x_BTI[b, t]
    return out_BTO


def slow_heads(x_BTI, a_ERI, b_ERO, scale_E, weights_BHE):
    """Each example's A and B, block of columns by block of columns."""
    out = []
    for x_TI, weights_HE in zip(x_BTI, weights_BHE, strict=True):
        parts = zip(weights_HE, np.split(a_ERI, H, axis=-1), np.split(b_ERO, H, axis=-1), strict=True)
        mixed = [(np.einsum("e,erx->rx", w, a), np.einsum("e,e,erx->rx", w, scale_E, b)) for w, a, b in parts]
        a_RI, b_RO = (np.concatenate(blocks, axis=-1) for blocks in zip(*mixed, strict=True))
        out.append(x_TI @ a_RI.T @ b_RO)
    return np.stack(out)


def close(got, expected):
    np.testing.assert_allclose(got, expected, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("plan, form, mix", WAYS)
def test_every_plan_equals_the_definition(case, plan, form, mix):
    weights = weights_of(form)
    got = jax.jit(mixture, static_argnums=(4, 5))(*case, weights, mix, plan)
    assert got.dtype == jnp.float32
    close(got, slow_mixture(*case, weights, mix))
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
def test_one_a_for_all_experts_is_that_a_for_each(case, plan, form, mix):
    x_BTI, lora, scale_E = case
    weights, shared = weights_of(form), lora._replace(a=lora.a[:1])
    got = mixture(x_BTI, shared, scale_E, weights, mix, plan)
    close(got, slow_mixture(x_BTI, shared, scale_E, weights, mix))
    close(got, mixture(x_BTI, lora._replace(a=jnp.repeat(lora.a[:1], E, 0)), scale_E, weights, mix, plan))


@pytest.mark.parametrize("n_heads", [1, 2, 4])
def test_heads_with_the_same_weights_are_parameters_mixed(case, n_heads):
    weights_BE = weights_of(PER_EXAMPLE)
    repeated_BHE = jnp.repeat(weights_BE[:, None], n_heads, axis=1)
    close(mixture(*case, repeated_BHE, "heads"), mixture(*case, weights_BE, "parameters"))


@pytest.mark.parametrize("mix", MIXES)
def test_one_expert_is_plain_lora(case, mix):
    x_BTI, lora, scale_E = case
    one = LoRA(lora.a[2:3], lora.b[2:3])
    expected = 4.0 * np.float64(x_BTI) @ np.float64(lora.a[2]).T @ np.float64(lora.b[2])
    for weights in (jnp.ones(1), jnp.ones((B, 1)), jnp.ones((B, T, 1))):
        close(mixture(x_BTI, one, scale_E[2:3], weights, mix), expected)


@pytest.mark.parametrize("plan, form, mix", WAYS)
def test_the_order_of_experts_does_not_matter(case, plan, form, mix):
    x_BTI, lora, scale_E = case
    weights, order = weights_of(form), np.array([2, 0, 3, 1])
    shuffled = mixture(x_BTI, LoRA(*(leaf[order] for leaf in lora)), scale_E[order], weights[..., order], mix, plan)
    close(shuffled, mixture(*case, weights, mix, plan))


@pytest.mark.parametrize("plan, form, mix", WAYS)
def test_padded_ranks_and_zero_b_add_nothing(case, plan, form, mix):
    x_BTI, lora, scale_E = case
    weights = weights_of(form)
    padded = LoRA(*(jnp.pad(leaf, ((0, 0), (0, 2), (0, 0))) for leaf in lora))
    close(mixture(x_BTI, padded, scale_E, weights, mix, plan), mixture(*case, weights, mix, plan))
    without_b = lora._replace(b=jnp.zeros_like(lora.b))
    assert not mixture(x_BTI, without_b, scale_E, weights, mix, plan).any()


@pytest.mark.parametrize("plan, form, mix", WAYS)
def test_bfloat16_activations_accumulate_in_float32(case, plan, form, mix):
    x_BTI, lora, scale_E = case
    x_BTI, weights = x_BTI.astype(jnp.bfloat16), weights_of(form)
    got = mixture(x_BTI, lora, scale_E, weights, mix, plan)
    expected = slow_mixture(x_BTI, lora, scale_E, weights, mix)
    assert got.dtype == jnp.float32
    assert np.linalg.norm(got - expected) < 0.01 * np.linalg.norm(expected)


@pytest.mark.parametrize("plan, form, mix", WAYS)
def test_gradients_equal_finite_differences(case, plan, form, mix):
    """Along one random direction of input, factors and weights together."""
    x_BTI, lora, scale_E = case
    point = (x_BTI, lora, weights_of(form))
    rng = np.random.default_rng(4)
    direction = jax.tree.map(lambda leaf: rng.normal(size=leaf.shape), point)

    def loss(x_BTI, lora, weights):
        return jnp.sum(jnp.square(mixture(x_BTI, lora, scale_E, weights, mix, plan)))

    def slow_loss(step):
        x_BTI, lora, weights = jax.tree.map(lambda leaf, along: np.float64(leaf) + step * along, point, direction)
        return np.sum(np.square(slow_mixture(x_BTI, lora, scale_E, weights, mix)))

    gradient = jax.grad(loss, argnums=(0, 1, 2))(*point)
    slope = sum(np.sum(g * d) for g, d in zip(jax.tree.leaves(gradient), jax.tree.leaves(direction), strict=True))
    np.testing.assert_allclose(slope, (slow_loss(1e-5) - slow_loss(-1e-5)) / 2e-5, rtol=1e-4)
