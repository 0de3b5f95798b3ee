import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from modjax.models.block import EVERY, Layer
from modjax.models.weights import abstract, leaves
from modjax.ops.rope import frequencies

close = functools.partial(np.testing.assert_allclose, atol=2e-5, rtol=1e-4)


def test_left_padded_rows_equal_single_rows(run, decoder, tokens_BT):
    ends_BT = jnp.array([[12] * 12, [0] * 5 + [12] * 7], jnp.int32)
    positions_BT = jnp.array([range(12), [0] * 5 + list(range(7))], jnp.int32)
    batch = run(decoder, tokens_BT, positions_BT, ends_BT)
    close(batch[:1], run(decoder, tokens_BT[:1]))
    close(batch[1:, 5:], run(decoder, tokens_BT[1:, 5:]))
    assert jnp.isfinite(batch).all()


def test_packed_paths_equal_separate_rows(run, decoder, tokens_BT):
    ends_BT = jnp.array([[4] * 4 + [11] * 7 + [0]], jnp.int32)
    positions_BT = jnp.array([[*range(4), *range(7), 0]], jnp.int32)
    packed = run(decoder, tokens_BT[:1], positions_BT, ends_BT)
    close(packed[:, :4], run(decoder, tokens_BT[:1, :4]))
    close(packed[:, 4:11], run(decoder, tokens_BT[:1, 4:11]))


def test_the_paths_of_a_tree_equal_separate_rows(run, decoder, tokens_BT):
    """Two trees: three tokens, of which two go on in two ways, and a path; longrope has one factor for both ways."""
    ends_BT = jnp.array([[8, 8, 4, 4, 8, 8, 8, 8, 11, 11, 11, 0]], jnp.int32)
    positions_BT = jnp.array([[0, 1, 2, 3, 2, 3, 4, 5, 0, 1, 2, 0]], jnp.int32)
    tree = run(decoder, tokens_BT[:1], positions_BT, ends_BT)
    for path in ([0, 1, 4, 5, 6, 7], [8, 9, 10], [0, 1, 2, 3]):
        if path != [0, 1, 2, 3] or decoder.config.original is None:
            close(tree[:, path], run(decoder, tokens_BT[:1, path]))


@pytest.mark.parametrize("decoder", ["llama", "phi3", "gpt2", "gemma2"], indirect=True)
def test_gradients_of_a_tree_are_the_sums_of_those_of_its_paths(decoder, tokens_BT):
    """Two paths of six tokens with three in common, each token of a path with its own term of the loss."""
    factors_6 = jnp.arange(1.0, 7.0)
    adapters = {site: jnp.full((2, *shape), 0.01) for site, shape in decoder.config.sites.items()}
    paths = jnp.array([[0, 1, 2, 3, 4, 5], [0, 1, 2, 6, 7, 8]])

    def loss(hidden_26D):
        return jnp.sum(factors_6[None, :, None] * jnp.square(hidden_26D[..., :3]))

    @jax.jit
    @jax.value_and_grad
    def tree(adapters):
        places = jnp.array([[0, 1, 2, 3, 4, 5, 3, 4, 5]]), jnp.array([[9, 9, 9, 6, 6, 6, 9, 9, 9]])
        return loss(decoder(tokens_BT[:1, :9], *places, adapters=adapters, adapt=linear_deltas)[0, paths])

    @jax.jit
    @jax.value_and_grad
    def alone(adapters):
        return loss(decoder(tokens_BT[0, paths], adapters=adapters, adapt=linear_deltas))

    got, expected = tree(adapters), alone(adapters)
    np.testing.assert_allclose(got[0], expected[0], rtol=1e-5)
    for site, gradient in got[1].items():
        largest = jnp.abs(expected[1][site]).max()
        np.testing.assert_allclose(gradient, expected[1][site], rtol=1e-3, atol=1e-4 * largest, err_msg=site)


@pytest.mark.parametrize("decoder", ["gpt2"], indirect=True)
def test_positions_beyond_a_learned_embedding_give_nan(run, decoder, tokens_BT):
    positions_BT = jnp.arange(12)[None] + jnp.array([[decoder.config.context - 12], [decoder.config.context - 11]])
    finite_BT = jnp.isfinite(run(decoder, tokens_BT, positions_BT)).all(axis=-1)
    assert finite_BT[0].all() and not finite_BT[1, -1]


def test_gradients_show_what_each_token_reads(decoder):
    """Row t of the Jacobian is nonzero at the tokens of t's path up to t, as far back as L windows reach."""
    tokens_BT = jnp.arange(12)[None]  # all different, so that each embedding row is one position
    ends_BT = jnp.array([[5] * 5 + [11] * 6 + [0]], jnp.int32)

    @jax.jit
    @functools.partial(jax.vmap, in_axes=(None, 0))
    @jax.grad
    def gradient(embed, t):
        changed = with_leaf(decoder, "embed", embed)
        return changed(tokens_BT, None, ends_BT)[0, t, :3].sum()

    read = jnp.abs(gradient(decoder.embed[...], jnp.arange(12)))[:, :12].sum(-1) > 0
    config = decoder.config
    local_L = config.local or (config.window is not None,) * config.L
    reach = sum(config.window - 1 if local else 12 for local in local_L)
    for t in range(11):
        first = max(0 if t < 5 else 5, t - reach)
        np.testing.assert_array_equal(np.flatnonzero(read[t]), range(first, t + 1))


def with_leaf(decoder, path, array):
    names = list(leaves(decoder))
    changed = [array if name == path else leaf for name, leaf in zip(names, jax.tree.leaves(decoder), strict=True)]
    return jax.tree.unflatten(jax.tree.structure(decoder), changed)


def groups_of(config):
    qkv = ("attn.qkv",) if config.fused_qkv else ("attn.q", "attn.k", "attn.v")
    wide = ("mlp.gate_up",) if config.fused_mlp else ("mlp.gate", "mlp.up") if config.gated else ("mlp.fc1",)
    return [qkv, ("attn.o",), wide, ("mlp.down",) if config.gated else ("mlp.fc2",)]


def test_adapt_is_called_once_for_each_shared_input(run, decoder, tokens_BT):
    calls = []

    def adapt(layer, sites, x_BTI):
        calls.append((sites, x_BTI.shape[-1], jax.tree.map(jnp.shape, layer)))
        return {}

    adapters = {"a": jnp.ones((2, 5)), "b": (jnp.ones((2, 3, 4)),)}
    adapted = decoder(tokens_BT, adapters=adapters, adapt=adapt)
    sites = decoder.config.sites
    layer = {"a": (5,), "b": ((3, 4),)}
    assert calls == [(group, sites[group[0]][0], layer) for group in groups_of(decoder.config)]
    close(adapted, run(decoder, tokens_BT))


def test_deltas_equal_changed_weights(run, decoder, tokens_BT):
    """Each layer gets its own slice: adding x @ w at every site equals the model with w added to its kernels."""
    keys = jax.random.split(jax.random.key(2), 8)
    shapes = decoder.config.sites.items()
    adapters = {
        site: jax.random.normal(key, (2, *shape)) / 10 for key, (site, shape) in zip(keys, shapes, strict=False)
    }
    adapted = jax.jit(lambda adapters: decoder(tokens_BT, adapters=adapters, adapt=linear_deltas))(adapters)
    changed = decoder
    for site, delta_LIO in adapters.items():
        path = f"blocks.{site}.kernel"
        changed = with_leaf(changed, path, leaves(decoder)[path] + delta_LIO)
    close(adapted, run(changed, tokens_BT))
    assert jnp.abs(adapted - run(decoder, tokens_BT)).max() > 0.1


def linear_deltas(layer, sites, x_BTI):
    return {site: jnp.einsum("bti,io->bto", x_BTI, layer[site]) for site in sites if site in layer}


@pytest.mark.parametrize("decoder", ["llama"], indirect=True)
def test_remat_changes_no_gradient(decoder, tokens_BT):
    adapters = {site: jnp.full((2, *shape), 0.01) for site, shape in decoder.config.sites.items()}

    @functools.partial(jax.jit, static_argnums=1)
    def gradient(adapters, remat):
        def loss(adapters):
            return jnp.square(decoder(tokens_BT, adapters=adapters, adapt=linear_deltas, remat=remat)[..., :3]).sum()

        return jax.grad(loss)(adapters)

    jax.tree.map(
        functools.partial(np.testing.assert_allclose, rtol=1e-3, atol=1e-3), *map(gradient, [adapters] * 2, [0, 1])
    )


@pytest.mark.parametrize("decoder", ["llama", "phi3", "olmo3"], indirect=True)
def test_what_is_the_same_in_all_layers_is_no_array_along_them(decoder):
    layer = Layer.stacked(decoder.config)
    if decoder.config.family != "olmo3":
        assert layer == Layer()
        return
    np.testing.assert_array_equal(layer.frequencies_J, [frequencies(8, 50.0), np.zeros(4)])
    np.testing.assert_array_equal(layer.window, [decoder.config.window, EVERY])


def test_init_gives_the_abstract_tree(decoder):
    tree = abstract(decoder.config, jnp.bfloat16)
    assert jax.tree.structure(tree) == jax.tree.structure(decoder)
    assert [leaf.shape for leaf in jax.tree.leaves(tree)] == [leaf.shape for leaf in jax.tree.leaves(decoder)]
    assert all(isinstance(leaf, jax.ShapeDtypeStruct) and leaf.dtype == jnp.bfloat16 for leaf in jax.tree.leaves(tree))


def test_bfloat16_stays_near_float32(run, decoder, tokens_BT):
    low = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), decoder)
    high = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), low)
    got, expected = run(low, tokens_BT), run(high, tokens_BT)
    assert got.dtype == jnp.bfloat16 and low.logits(got).dtype == jnp.float32
    assert jnp.median(jnp.abs(got - expected)) < 0.05 * jnp.abs(expected).mean()


def test_sharded_batch_equals_unsharded(run, decoder, tokens_BT):
    mesh = jax.make_mesh((2,), ("batch",), axis_types=(jax.sharding.AxisType.Auto,))
    split = jax.device_put(tokens_BT, jax.NamedSharding(mesh, jax.P("batch")))
    got = run(jax.device_put(decoder, jax.NamedSharding(mesh, jax.P())), split)
    assert got.sharding.spec[0] == "batch"
    close(got, run(decoder, tokens_BT))


@pytest.mark.parametrize("tied", [False, True])
def test_logits_of_chosen_positions(run, decoder, tokens_BT, tied):
    if tied:
        decoder.head = None
    x_BTD = run(decoder, tokens_BT)
    close(decoder.logits(x_BTD[:, -1]), decoder.logits(x_BTD)[:, -1])
