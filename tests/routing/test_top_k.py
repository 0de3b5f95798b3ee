import jax
import jax.numpy as jnp
import numpy as np

from modjax.routing import top_k_softmax


def test_top_k_softmax_differentiates_as_softmax_over_the_kept():
    score_BTE, seed_BTE = jax.random.normal(jax.random.key(1), (2, 2, 3, 7))
    kept_BTE = score_BTE >= jnp.sort(score_BTE)[..., -3:-2]

    def masked(score_BTE):
        return jax.nn.softmax(jnp.where(kept_BTE, score_BTE, -jnp.inf) / 0.5)

    got, expected = (
        jax.vjp(weigh, score_BTE) for weigh in (lambda s_BTE: top_k_softmax(s_BTE, 3, 0.5).dense(7), masked)
    )
    np.testing.assert_allclose(got[0], expected[0], atol=1e-6)
    np.testing.assert_allclose(got[1](seed_BTE)[0], expected[1](seed_BTE)[0], atol=1e-6)


def test_no_tensor_of_tokens_by_k_by_experts_is_made():
    """Such a tensor would take 20 MiB; the scores take 5."""

    def loss(score_BTE):
        return jnp.sum(jnp.square(top_k_softmax(score_BTE, 4).dense(256)))

    for one in (lambda score_BTE: top_k_softmax(score_BTE, 4).dense(256), jax.grad(loss)):
        compiled = jax.jit(one).lower(jax.ShapeDtypeStruct((4, 1280, 256), jnp.float32)).compile()
        assert compiled.memory_analysis().temp_size_in_bytes < 8 * 2**20
