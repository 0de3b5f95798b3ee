import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding
from references import attention as slow

from modjax.ops import attention
from modjax.ops.attention import attend
from modjax.parallel import rules
from modjax.parallel.collectives import collectives
from modjax.parallel.mesh import make_mesh

B, T, N, K, H = 2, 7, 6, 2, 4
# Two trees and padding; one tree whose root has two branches.
POSITIONS = jnp.array([[0, 1, 2, 2, 0, 1, 0], [0, 1, 2, 3, 1, 2, 3]], jnp.int32)
ENDS = jnp.array([[4, 4, 3, 4, 6, 6, 0], [7, 4, 4, 4, 7, 7, 7]], jnp.int32)


@pytest.fixture
def qkv():
    rng = np.random.default_rng(0)
    return tuple(jnp.float32(rng.normal(size=(B, T, heads, H))) for heads in (N, K, K))


@pytest.mark.parametrize("window", [None, 2, jnp.int32(2), 1])
def test_attend_equals_loops(qkv, window):
    got = attend(*qkv, POSITIONS, ENDS, window=window)
    np.testing.assert_allclose(got, slow.attend(*qkv, POSITIONS, ENDS, window), atol=1e-6)


@pytest.mark.parametrize("scale", [1.0, jnp.float32(0.1)])
def test_scale_and_softcap(qkv, scale):
    got = attend(*qkv, POSITIONS, ENDS, scale=scale, softcap=1.5)
    np.testing.assert_allclose(got, slow.attend(*qkv, POSITIONS, ENDS, None, scale, 1.5), atol=1e-6)


def test_reading_nothing_gives_zeros_and_finite_gradients(qkv):
    ends = jnp.zeros((B, T), jnp.int32)
    assert not attend(*qkv, POSITIONS, ends).any()
    gradients = jax.grad(lambda arrays: attend(*arrays, POSITIONS, ends).sum())(qkv)
    assert all(jnp.isfinite(g).all() for g in gradients)


def test_large_scores_stay_finite(qkv):
    q, k, v = qkv
    got, gradient = jax.value_and_grad(lambda q: attend(q, k, v, POSITIONS, ENDS).sum())(q * 1e5)
    assert jnp.isfinite(got) and jnp.isfinite(gradient).all()


def test_bfloat16_accumulates_in_float32(qkv):
    halves = tuple(a.astype(jnp.bfloat16) for a in qkv)
    got = attend(*halves, POSITIONS, ENDS)
    exact = attend(*(a.astype(jnp.float32) for a in halves), POSITIONS, ENDS)
    assert got.dtype == jnp.bfloat16
    np.testing.assert_allclose(np.float32(got), exact, atol=2e-2)


def experts_on(mesh, heads, split=True):
    """A function that gives outputs and gradients of two experts with four rows each, and its arrays on the mesh."""
    rng = np.random.default_rng(1)
    shapes = [(2, 4, T, number, H) for number in (heads[0], heads[1], heads[1], heads[0])]
    arrays = [jnp.float32(rng.normal(size=shape)) for shape in shapes]
    places = [jnp.broadcast_to(jnp.tile(one, (2, 1)), (2, 4, T)) for one in (POSITIONS, ENDS)]
    sharding = rules.sharding(arrays[1][0], rules.HEADS, mesh) if split else None

    def one(q, k, v, g, positions, ends):
        window, scale = jnp.int32(3), jnp.float32(0.3)
        run = lambda *qkv: attend(*qkv, positions, ends, window=window, scale=scale, sharding=sharding)  # noqa: E731
        out, pull = jax.vjp(run, q, k, v)
        return out, pull(g)

    rows = NamedSharding(mesh, rules.ROWS)
    return jax.jit(jax.vmap(one, spmd_axis_name="expert")), [jax.device_put(x, rows) for x in (*arrays, *places)]


@pytest.mark.parametrize("heads", [(4, 2), (3, 1)], ids=["heads are split", "one key-value head for two devices"])
def test_on_a_mesh_each_device_attends_to_its_own(heads):
    """Equal to the result without a mesh, and devices exchange nothing of rows of other devices."""
    mesh = make_mesh(expert=2, fsdp=2, tensor=2)
    run, arrays = experts_on(mesh, heads)
    compiled = run.lower(*arrays).compile()
    assert not [one for one in collectives(compiled.as_text(), mesh) if {"expert", "fsdp"} & set(one.axes)]
    alone, whole = experts_on(make_mesh(1, 1, 1, devices=jax.devices()[:1]), heads)
    for got, expected in zip(*(jax.tree.leaves(x) for x in (compiled(*arrays), alone(*whole))), strict=True):
        np.testing.assert_allclose(got, expected, atol=1e-6)


@pytest.mark.parametrize("split", [True, False])
def test_kernels_for_a_tpu_are_local_or_left_out(monkeypatch, split):
    """XLA refuses to split a kernel over devices."""
    monkeypatch.setattr(attention, "MAY_BE_TPU", True)
    run, arrays = experts_on(make_mesh(expert=2, fsdp=2, tensor=2), (4, 2), split)
    text = run.trace(*arrays).lower(lowering_platforms=("tpu",)).as_text()
    assert text.count("tpu_custom_call") == (2 if split else 0)
