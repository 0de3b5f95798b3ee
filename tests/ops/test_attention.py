"""Attention against loops and against all scores: in one block and in many, mapped, on meshes, and its memory."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding
from references import attention as slow

from modjax.ops import attention
from modjax.ops.attention import attend
from modjax.parallel.collectives import collectives
from modjax.parallel.mesh import make_mesh

B, T, N, K, H = 2, 7, 6, 2, 4
LONG = 301  # of five blocks of 61 tokens, the last with padding
# Two trees and padding; one tree whose root has two branches.
POSITIONS = jnp.array([[0, 1, 2, 2, 0, 1, 0], [0, 1, 2, 3, 1, 2, 3]], jnp.int32)
ENDS = jnp.array([[4, 4, 3, 4, 6, 6, 0], [7, 4, 4, 4, 7, 7, 7]], jnp.int32)


def arrays(*lead, N=N, K=K, H=H):
    rng = np.random.default_rng(0)
    return tuple(jnp.float32(rng.normal(size=(*lead, heads, H))) for heads in (N, K, K))


@pytest.fixture
def qkv():
    return arrays(B, T)


def objective(attend):
    """A function of q, k, v and the other arguments whose gradient by each output differs."""

    def total(qkv, *places, **options):
        out = attend(*qkv, *places, **options)
        return jnp.sum(out * jnp.cos(jnp.arange(out.size, dtype=jnp.float32)).reshape(out.shape))

    return total


def close(got, expected, atol=5e-6):
    for pair in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(*pair, atol=atol)


@pytest.mark.parametrize("window", [None, 2, jnp.int32(2), 1])
def test_attend_equals_loops(qkv, window):
    got = attend(*qkv, POSITIONS, ENDS, window=window)
    np.testing.assert_allclose(got, slow.attend(*qkv, POSITIONS, ENDS, window), atol=1e-6)


@pytest.mark.parametrize("scale", [1.0, jnp.float32(0.1)])
def test_scale_and_softcap(qkv, scale):
    got = attend(*qkv, POSITIONS, ENDS, scale=scale, softcap=1.5)
    np.testing.assert_allclose(got, slow.attend(*qkv, POSITIONS, ENDS, None, scale, 1.5), atol=1e-6)


@pytest.mark.parametrize(("window", "softcap"), [(None, None), (40, 1.5)])
@pytest.mark.parametrize("seed", [0, 1])
def test_many_blocks_equal_loops_and_their_gradients_those_of_all_scores(window, softcap, seed):
    qkv, places = arrays(B, LONG), slow.rows(seed, B, LONG)
    scale = jnp.float32(0.4)
    got = attend(*qkv, *places, window=window, scale=scale, softcap=softcap)
    np.testing.assert_allclose(got, slow.attend(*qkv, *places, window, scale, softcap), atol=1e-6)

    def gradient(attend, *inputs, **options):
        return jax.jit(jax.grad(lambda qkv, scale: objective(attend)(qkv, *inputs, scale=scale, **options), (0, 1)))

    got = gradient(attend, *places, window=window, softcap=softcap)(qkv, scale)
    mask = slow.readable(*places, window)
    expected = gradient(slow.with_all_scores, mask, softcap=softcap)(qkv, scale)
    close(got[0], expected[0])
    np.testing.assert_allclose(got[1], expected[1], rtol=1e-5)


def test_reading_nothing_gives_zeros_and_finite_gradients(qkv):
    ends = jnp.zeros((B, T), jnp.int32)
    assert not attend(*qkv, POSITIONS, ends).any()
    gradients = jax.grad(lambda arrays: attend(*arrays, POSITIONS, ends).sum())(qkv)
    assert all(jnp.isfinite(g).all() for g in gradients)


def test_large_scores_stay_finite(qkv):
    q, k, v = qkv
    got, gradient = jax.value_and_grad(lambda q: attend(q, k, v, POSITIONS, ENDS).sum())(q * 1e5)
    assert jnp.isfinite(got) and jnp.isfinite(gradient).all()


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_halves_are_summed_in_float32(dtype):
    qkv, places = tuple(a.astype(dtype) for a in arrays(1, 140)), slow.rows(0, 1, 140)
    got, gradients = jax.value_and_grad(objective(attend))(qkv, *places)
    exact = tuple(a.astype(jnp.float32) for a in qkv)
    expected = jax.grad(objective(attend))(exact, *places)
    out = attend(*qkv, *places)
    assert {out.dtype, *(g.dtype for g in gradients)} == {jnp.dtype(dtype)}
    np.testing.assert_allclose(np.float32(out), attend(*exact, *places), atol=2e-2)
    for g, wanted in zip(gradients, expected, strict=True):
        np.testing.assert_allclose(np.float32(g), wanted, atol=0.02 * np.abs(wanted).max())


@pytest.mark.parametrize("axes", ["rows", "experts"])
def test_blocks_that_nothing_reads_are_not_touched(axes):
    """One of the four blocks of each row, not the same one, is a tree of its own and full of NaN. No other block sees
    it, because rows, mapped or not, skip blocks one by one."""
    lead = (2, 1) if axes == "experts" else (2,)
    q, k, v = (x.reshape(*lead, 256, *x.shape[2:]) for x in arrays(2, 256))
    ends = np.repeat(np.int32([[64, 256, 192, 256], [64, 128, 256, 256]]), 64, axis=1).reshape(*lead, 256)
    bad = np.repeat([[True, False, False, False], [False, True, False, False]], 64, axis=1).reshape(*lead, 256)
    positions, ends = jnp.zeros(ends.shape, jnp.int32), jnp.array(ends)
    k, v = (jnp.where(bad[..., None, None], jnp.nan, x) for x in (k, v))
    function = jax.vmap(attend) if axes == "experts" else attend

    def total(qkv):
        return jnp.where(bad[..., None, None], 0, function(*qkv, positions, ends)).sum()

    got, gradients = jax.jit(jax.value_and_grad(total))((q, k, v))
    assert jnp.isfinite(got)
    assert all(jnp.isfinite(jnp.where(bad[..., None, None], 0, g)).all() for g in gradients)
    assert jnp.isnan(jnp.where(bad[..., None, None], function(q, k, v, positions, ends), 0)).any()


def test_mapped_equals_one_by_one():
    """The mapped axis is not always the first, some arrays are not mapped, and another map lies around it."""
    q, k, v = arrays(2, 3, B, 140)
    positions, ends = slow.rows(0, B, 140)
    window = jnp.int32([3, 300])

    def one(q, k, v, window):
        return jax.value_and_grad(objective(attend))((q, k, v), positions, ends, window=window)

    inner = jax.vmap(one, (0, 1, None, None))
    got = jax.jit(jax.vmap(inner, (0, 0, 0, 0)))(q, k.swapaxes(1, 2), v[:, 0], window)
    alone = jax.jit(one)
    expected = [[alone(q[a, b], k[a, b], v[a, 0], window[a]) for b in range(3)] for a in range(2)]
    expected = jax.tree.map(lambda *x: jnp.stack(x).reshape(2, 3, *x[0].shape), *(x for row in expected for x in row))
    close(got, expected)


@pytest.mark.parametrize(
    ("sizes", "K", "local"),
    [((2, 2, 2), 2, True), ((4, 2, 1), 3, True), ((2, 2, 2), 3, False), ((1, 2, 4), 2, False)],
    ids=["all axes", "no tensor", "heads that tensor does not divide", "fewer heads than devices"],
)
def test_on_a_mesh_the_same_and_nothing_is_exchanged(sizes, K, local):
    """Experts are mapped with the name of their mesh axis, in a scan over layers that are computed again."""
    mesh, E, T = make_mesh(*sizes), 4, 12
    qkv, places = arrays(E, B, T, N=2 * K, K=K), slow.rows(0, E * B, T)
    places = tuple(x.reshape(E, B, T) for x in places)

    def total(q, k, v, positions, ends):
        def layer(q, _):
            return attend(q, k, v, positions, ends, window=jnp.int32(5)), None

        return jax.lax.scan(jax.checkpoint(layer, prevent_cse=False), q, None, length=2)[0]

    def gradients(qkv, places, name=None):
        return jax.grad(lambda qkv: objective(jax.vmap(total, spmd_axis_name=name))(qkv, *places))(qkv)

    heads = jax.P("expert", "fsdp", None, "tensor" if local else None)
    split = [jax.device_put(x, NamedSharding(mesh, heads)) for x in qkv]
    split_places = [jax.device_put(x, NamedSharding(mesh, jax.P("expert", "fsdp"))) for x in places]
    program = jax.jit(gradients, static_argnums=2).lower(split, split_places, "expert").compile()
    close(program(split, split_places), jax.jit(gradients)(qkv, places))
    assert collectives(program.as_text(), mesh) == []


def test_memory_grows_with_the_length_not_its_square():
    def temporary(T):
        qkv = tuple(jax.ShapeDtypeStruct((1, T, heads, 16), jnp.float32) for heads in (4, 2, 2))
        places = (jax.ShapeDtypeStruct((1, T), jnp.int32),) * 2
        compiled = jax.jit(jax.grad(objective(attend))).lower(qkv, *places).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    assert temporary(4096) < 2.2 * temporary(2048) < 2048 * 2048 * 4


def test_a_program_for_a_tpu_has_its_kernels_and_one_for_a_cpu_has_not(monkeypatch):
    monkeypatch.setattr(attention, "MAY_BE_TPU", True)
    qkv = tuple(jax.ShapeDtypeStruct((1, 256, heads, 64), jnp.bfloat16) for heads in (4, 2, 2))
    places = (jax.ShapeDtypeStruct((1, 256), jnp.int32),) * 2
    traced = jax.jit(jax.grad(objective(attend))).trace(qkv, *places)
    calls = {
        name: traced.lower(lowering_platforms=(name,)).as_text().count("tpu_custom_call") for name in ("tpu", "cpu")
    }
    assert calls == {"tpu": 2, "cpu": 0}
