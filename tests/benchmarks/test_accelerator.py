"""The benchmark for accelerators: its runner, and its references. All parts at tiny size are slow."""

import accelerator
import accelerator_checks as checks
import accelerator_sizes as sizes
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from modjax.ops.attention import attend

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")


def test_a_part_that_fails_keeps_what_it_found():
    def part(sizes):
        yield "first", {"ratio": 2.0}
        raise ValueError("no such kernel")

    found = accelerator.measured(part, sizes.SMALL, seconds=60)
    assert found["first"] == {"ratio": 2.0} and found["error"] == "ValueError: no such kernel"


def test_a_part_ends_with_its_time():
    def part(sizes):
        yield "first", 1
        while True:
            pass

    found = accelerator.measured(part, sizes.SMALL, seconds=0.05)
    assert found["first"] == 1 and found["error"].startswith("TimeoutError: more than") and found["part_seconds"] < 30


def test_an_error_above_what_is_allowed_is_not_held():
    assert checks.held([3.0, 4.0], [3.0, 4.1], 0.03)["held"]
    assert not checks.held([3.0, 4.0], [3.0, 4.3], 0.03)["held"]
    assert not checks.held([np.nan], [1.0], 0.03)["held"]


@pytest.mark.parametrize("window", [None, 7])
def test_the_reference_of_attention_has_the_gradients_of_a_plain_one(window):
    """Against autodiff through all scores, written again."""
    rows = checks.tree_rows(48)
    q, k, v, out = (jax.random.normal(jax.random.key(i), (2, 48, n, 8)) for i, n in enumerate((4, 2, 2, 4)))

    def plain(q, k, v):
        index = np.arange(48)
        reads = (index[:, None] >= index) & (index[:, None] < rows.ends[:, None, :])
        if window is not None:
            reads &= rows.positions[:, :, None] - rows.positions[:, None, :] < window
        k, v = (jnp.repeat(x, 2, axis=2) for x in (k, v))
        scores = jnp.where(reads[:, None], jnp.einsum("btnh,bsnh->bnts", q, k) / 8**0.5, -1e30)
        weights = jax.nn.softmax(scores, axis=-1) * reads.any(-1)[:, None, :, None]
        return jnp.einsum("bnts,bsnh->btnh", weights, v)

    expected = plain(q, k, v), *jax.grad(lambda *given: jnp.sum(plain(*given) * out), (0, 1, 2))(q, k, v)
    found = checks.attention_reference(*(np.asarray(x, np.float64) for x in (q, k, v, out)), rows, window)
    for got, want in zip(found, expected, strict=True):
        np.testing.assert_allclose(got, want, atol=2e-5)
    np.testing.assert_allclose(attend(q, k, v, rows.positions, rows.ends, window=window), expected[0], atol=2e-5)


def test_every_plan_of_the_mixture_is_measured():
    found = dict(checks.mixture_plans(sizes.SMALL))
    assert len(found) == 2 * 2 * 3 * 2
    assert all(one["held"] for one in found.values()), found


def test_examples_fill_their_rows_and_share_their_beginning():
    (own,) = sizes.instructions(1024, experts=1, rows=2, length=256).values()
    assert len({example.tokens[: sizes.SHARED].tobytes() for example in own}) == 1 < len(own)


def test_the_large_model_is_phi_2():
    attention = {site: (2560, 2560) for site in ("attn.q", "attn.k", "attn.v", "attn.o")}
    config = sizes.config(sizes.FULL, "phi2")
    assert config.sites == attention | {"mlp.fc1": (2560, 10_240), "mlp.fc2": (10_240, 2560)}
    assert (config.L, config.H, config.rope_dim) == (32, 80, 32)


@pytest.mark.slow
@pytest.mark.parametrize("name", accelerator.PARTS)
def test_every_part_at_tiny_size(name):
    found = accelerator.measured(accelerator.PARTS[name][1], sizes.SMALL, seconds=600)
    assert "error" not in found, found
    assert all(value["held"] for value in found.values() if isinstance(value, dict) and "held" in value), found
