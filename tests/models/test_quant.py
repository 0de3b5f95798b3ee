"""Quantised kernels against slow references, and quantised decoders against the same decoders dequantised."""

import dataclasses
import functools
import statistics

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import modjax
from modjax.data.rows import Rows
from modjax.errors import InputError
from modjax.models import hf
from modjax.models.quant import BLOCK, FORMATS, NF4, NF4_CODES, encoded
from modjax.models.weights import abstract, dequantised, fingerprint, leaves, quantised
from modjax.parallel import rules
from modjax.parallel.mesh import make_mesh
from modjax.train.lora import LoRATraining
from modjax.train.optim import Lengths, per_expert
from modjax.train.settings import Settings
from modjax.train.step import init_state, member_keys, train_step

close = functools.partial(np.testing.assert_allclose, atol=1e-5, rtol=1e-5)
BOTH = pytest.mark.parametrize("quantize", FORMATS)
SHAPES = pytest.mark.parametrize("decoder", ["llama", "phi3", "gpt_neox"], indirect=True)  # plain, fused, with biases
LLAMA = pytest.mark.parametrize("decoder", ["llama"], indirect=True)


def kernel_of(inputs, outputs, seed=0):
    """Weights of channels of very different size, one of them zero."""
    rng = np.random.default_rng(seed)
    kernel_IO = rng.normal(size=(inputs, outputs)) * 10.0 ** rng.integers(-3, 2, outputs)
    kernel_IO[:, 1] = 0
    return kernel_IO.astype(np.float32)


def quantised_kernel(kernel, quantize):
    return FORMATS[quantize](*FORMATS[quantize].encode(kernel), kernel)


def test_nf4_codes_are_the_quantiles_of_the_paper():
    """arXiv 2305.14314, section 3 and appendix E: eight quantiles above zero, seven below, zero, scaled to 1."""
    quantile = statistics.NormalDist().inv_cdf
    last = 0.9677083  # (1 - 1 / 32 + 1 - 1 / 30) / 2, with the digits that the authors computed with
    above = [quantile(p) for p in np.linspace(last, 0.5, 9)[:-1]]
    below = [-quantile(p) for p in np.linspace(last, 0.5, 8)[:-1]]
    np.testing.assert_allclose(NF4_CODES, np.sort([*below, 0, *above]) / max(above), atol=1.5e-7, rtol=0)
    assert [NF4_CODES[i] for i in (0, 1, 7, 8, 15)] == [-1, -0.6961928009986877, 0, 0.07958029955625534, 1]
    assert all(float(np.float32(code)) == code for code in NF4_CODES)


@pytest.mark.parametrize("inputs", [64, 128, 30, 96])
def test_nf4_takes_the_nearest_code_of_each_weight(inputs):
    kernel_IO = kernel_of(inputs, 5)
    kernel = quantised_kernel(kernel_IO, "nf4")
    assert kernel.codes.dtype == jnp.uint8 and kernel.codes.shape == (inputs // 2, 5)
    assert kernel.scale.dtype == jnp.float32 and kernel.scale.shape == (-(-inputs // BLOCK), 5)
    codes, decoded_IO = np.asarray(kernel.codes[...]), np.asarray(kernel.decode())
    for i in range(inputs):
        for o in range(5):
            first = i - i % BLOCK
            scale = max(abs(weight) for weight in kernel_IO[first : first + BLOCK, o])
            nearest = min(range(16), key=lambda code: abs(NF4_CODES[code] * scale - kernel_IO[i, o])) if scale else 7
            assert codes[i // 2, o] >> 4 * (i % 2) & 15 == nearest
            assert decoded_IO[i, o] == np.float32(NF4_CODES[nearest]) * np.float32(scale)


def test_int8_takes_the_nearest_step_of_each_channel():
    kernel_IO = kernel_of(50, 7)
    kernel = quantised_kernel(kernel_IO, "int8")
    step_1O = np.abs(kernel_IO).max(0, keepdims=True) / 127
    assert kernel.codes.dtype == jnp.int8 and np.abs(kernel.codes[...]).max() == 127
    np.testing.assert_allclose(kernel.scale[...], step_1O, rtol=1e-6)
    assert (np.abs(kernel.decode() - kernel_IO) <= 0.5001 * step_1O).all()


@BOTH
def test_layers_are_quantised_each_by_itself(quantize):
    stack_LIO = np.stack([kernel_of(64, 5, seed) for seed in range(3)])
    whole = quantised_kernel(stack_LIO, quantize)
    for layer, kernel_IO in enumerate(stack_LIO):
        one = quantised_kernel(kernel_IO, quantize)
        np.testing.assert_array_equal(whole.codes[layer], one.codes[...])
        np.testing.assert_array_equal(whole.scale[layer], one.scale[...])


@BOTH
def test_parts_of_a_host_kernel_are_encoded_as_the_whole(quantize, monkeypatch):
    monkeypatch.setattr("modjax.models.quant.CHUNK", 200)
    kernel_IO = kernel_of(64, 11)
    found, expected = encoded(kernel_IO.astype(jnp.bfloat16), quantize, "k"), quantised_kernel(kernel_IO, quantize)
    exact = quantised_kernel(kernel_IO.astype(jnp.bfloat16), quantize)
    np.testing.assert_array_equal(found["k.codes"], exact.codes[...])
    np.testing.assert_array_equal(found["k.scale"], exact.scale[...])
    assert found["k.scale"].shape == expected.scale.shape and found["k.sample"].shape == (8, 6)


def test_an_odd_width_has_no_nf4():
    with pytest.raises(InputError, match="nf4 packs inputs in pairs; a linear map has 33"):
        NF4.encode(jnp.ones((33, 4)))


@BOTH
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_product_is_that_with_the_decoded_kernel(quantize, dtype):
    kernel = quantised_kernel(jax.random.normal(jax.random.key(0), (96, 40)), quantize)
    x_BTI = jax.random.normal(jax.random.key(1), (2, 3, 96), dtype)
    exact_BTO = jnp.einsum("bti,io->bto", x_BTI.astype(jnp.float32), kernel.decode())
    got_BTO, wide_BTO = kernel.product(x_BTI), kernel.product(x_BTI, jnp.float32)
    assert got_BTO.dtype == dtype and wide_BTO.dtype == jnp.float32
    rounding = 0.0 if dtype == jnp.float32 or quantize == "int8" else 2**-9  # int8 codes are exact in bfloat16
    largest = jnp.abs(exact_BTO).max()
    np.testing.assert_allclose(wide_BTO, exact_BTO, atol=(1e-6 + rounding) * largest, rtol=0)
    np.testing.assert_allclose(got_BTO.astype(jnp.float32), wide_BTO, rtol=2e-6 if dtype == jnp.float32 else 2**-7)


@SHAPES
@BOTH
def test_forward_is_that_of_the_dequantised_decoder(run, decoder, tokens_BT, quantize):
    # At the fixture's size, rounding the weights once already changes the outputs by more than 1e-5.
    decoder = jax.tree.map(lambda leaf: leaf / 5 if leaf.ndim > 1 else leaf, decoder)
    quantised_decoder = quantised(decoder, quantize)
    plain = dequantised(quantised_decoder, jnp.float32)
    assert list(leaves(plain)) == list(leaves(decoder))
    got, expected = run(quantised_decoder, tokens_BT), run(plain, tokens_BT)
    np.testing.assert_allclose(got, expected, atol=1e-5, rtol=0)
    assert jnp.abs(got - run(decoder, tokens_BT)).max() > 1e-4


@SHAPES
@BOTH
def test_only_kernels_of_blocks_are_quantised(decoder, quantize):
    found = leaves(quantised(decoder, quantize))
    sites = [f"blocks.{site}.kernel" for site in decoder.config.sites]
    for path, leaf in leaves(decoder).items():
        if path in sites:
            assert {name for name in found if name.startswith(f"{path}.")} == {
                f"{path}.codes", f"{path}.scale", f"{path}.sample"
            }  # fmt: skip
        else:
            np.testing.assert_array_equal(found[path], leaf)


def batch_of(experts):
    rng = np.random.default_rng(0)
    shape = (experts, 2, 12)
    places = (np.broadcast_to(np.arange(12, dtype=np.int32), shape), np.full(shape, 12, np.int32))
    at, labels = (rng.integers(0, 11, (experts, 2, 4)).astype(np.int32) for _ in range(2))
    tokens, task = rng.integers(0, 61, shape).astype(np.int32), np.zeros((experts, 2, 1), np.int32)
    return Rows(tokens, *places, at, labels, np.ones(at.shape, np.float32), task)


@pytest.mark.parametrize(("quantize", "remat"), [("int8", True), ("nf4", False)])
def test_a_lockstep_step_is_that_of_the_dequantised_decoder(word_model, quantize, remat):
    """Losses and gradients of two experts, through vmap, scan and, if remat is set, recomputation."""
    settings = Settings(steps=1, dropout=0.0, remat=remat, rank=2, alpha=2.0, sites=("attn.q", "mlp.down"))
    recipe = LoRATraining(word_model.config, settings, 2)
    loras = recipe.start(jax.random.key(0), None, 2)
    loras = jax.tree.map(lambda leaf: leaf + 0.01, loras)  # B not zero, so that A has gradients at once
    optimizer = per_expert(settings)
    state = init_state(loras, 2, optimizer, settings)
    arguments = (state, batch_of(2), member_keys(("a", "b"), 0), Lengths.of(settings, [1, 1]), recipe.frozen)
    step = jax.jit(functools.partial(train_step, recipe=recipe, optimizer=optimizer, settings=settings))
    small = quantised(word_model.params, quantize)
    (got, metrics), (plain, expected) = (step(one, *arguments) for one in (small, dequantised(small, jnp.float32)))
    close(metrics.loss_E, expected.loss_E)
    close(metrics.grad_norm_E, expected.grad_norm_E)
    for name, of in (("mu", np.asarray), ("nu", np.sqrt)):  # the second moment is the square of the gradient
        moments, others = (jax.tree.leaves(optax.tree.get(one.opt_state, name)) for one in (got, plain))
        for moment, other in zip(map(of, moments), map(of, others), strict=True):
            np.testing.assert_allclose(moment, other, atol=1e-5 * np.abs(other).max(), rtol=0)


@LLAMA
@BOTH
def test_gradients_keep_no_decoded_kernels(decoder, quantize):
    """Without recomputation of layers, the memory of a gradient is that of the unquantised decoder."""
    config = dataclasses.replace(decoder.config, L=8, D=64, F=256)
    tree, plain = (abstract(config, jnp.float32, one) for one in (quantize, None))
    adapters = {"attn.q": jax.ShapeDtypeStruct((8, 64, 32), jnp.float32)}

    def gradient(adapters, decoder, tokens_BT):
        def loss(adapters):
            def adapt(layer, sites, x):
                return {site: jnp.einsum("bti,io->bto", x, layer[site]) for site in sites if site in layer}

            return decoder(tokens_BT, adapters=adapters, adapt=adapt)[..., :3].sum()

        return jax.grad(loss)(adapters)

    def working_bytes(tree):
        tokens = jax.ShapeDtypeStruct((1, 4), jnp.int32)
        return jax.jit(gradient).lower(adapters, tree, tokens).compile().memory_analysis().temp_size_in_bytes

    kernels = sum(leaf.size * 4 for path, leaf in leaves(plain).items() if path.endswith(".kernel"))
    assert working_bytes(tree) - working_bytes(plain) < 0.2 * kernels


@BOTH
def test_generation_is_that_of_the_dequantised_model(word_model, quantize):
    small = quantised(word_model.params, quantize)
    models = [dataclasses.replace(word_model, params=one) for one in (small, dequantised(small, jnp.float32))]
    got, expected = (model.generate(["w1 w2 w3", "w4"], max_new_tokens=6) for model in models)
    assert got == expected and all(got)


@BOTH
def test_experts_of_the_model_fit_it_quantised(checkpoint, random_library, quantize):
    """The fingerprint is the full-precision model's, whatever the dtype."""
    plain = modjax.load(checkpoint)
    library = random_library({"attn.q": (32, 32)}, experts=1, layers=3, fingerprint=plain.fingerprint)
    for dtype in (jnp.float32, jnp.bfloat16):
        model = modjax.load(checkpoint, dtype, quantize)
        assert model.fingerprint == plain.fingerprint
        assert jnp.isfinite(model.logits([[3, 4, 5]], library)).all()


@LLAMA
@BOTH
def test_fingerprint_tells_quantised_models_apart(decoder, quantize):
    before = quantised(decoder, quantize)
    assert fingerprint(before) == fingerprint(decoder)
    other = quantised(jax.tree.map(lambda leaf: leaf * 1.1, decoder), quantize)
    assert fingerprint(other) != fingerprint(before)


@BOTH
def test_read_quantised_is_read_and_quantised(checkpoint, quantize):
    got, expected = hf.read(checkpoint, quantize=quantize), quantised(hf.read(checkpoint), quantize)
    assert jax.tree.structure(got) == jax.tree.structure(expected)
    for (path, leaf), other in zip(leaves(got).items(), leaves(expected).values(), strict=True):
        assert leaf.dtype == other.dtype, path
        np.testing.assert_array_equal(leaf, other, err_msg=path)


@BOTH
def test_sharded_equals_unsharded(run, checkpoint, tokens_BT, quantize):
    mesh = make_mesh(expert=2, fsdp=2, tensor=2)
    whole, split = (hf.read(checkpoint, layout=layout, quantize=quantize) for layout in (None, rules.layout(mesh)))
    codes = leaves(split)["blocks.attn.q.kernel.codes"]
    assert codes.sharding.spec == jax.P(None, "fsdp", "tensor") and codes.is_fully_addressable
    for (path, leaf), other in zip(leaves(split).items(), leaves(whole).values(), strict=True):
        np.testing.assert_array_equal(leaf, other, err_msg=path)
    close(run(split, tokens_BT), run(whole, tokens_BT))
    assert fingerprint(split) == fingerprint(whole)


@BOTH
def test_each_quantised_array_has_one_sharding_rule(decoder, quantize):
    for path, leaf in leaves(abstract(decoder.config, jnp.float32, quantize)).items():
        assert len(rules.spec(path)) <= leaf.ndim, path


def test_unknown_formats_are_named(checkpoint):
    with pytest.raises(InputError, match="quantize='int3': expected None or one of 'int8', 'nf4'"):
        modjax.load(checkpoint, quantize="int3")


@LLAMA
def test_quantised_sizes(decoder):
    """int8: 8 bits per weight, a float32 per output channel; nf4: 4 bits, a float32 per 64 weights, 4.5 in all."""
    config = dataclasses.replace(decoder.config, N=8, K=4, D=64, F=128)
    int8, nf4 = (leaves(abstract(config, jnp.float32, quantize)) for quantize in ("int8", "nf4"))
    for site, (inputs, outputs) in config.sites.items():
        assert bits_of(int8, site) == config.L * outputs * (8 * inputs + 32)
        assert bits_of(nf4, site) == config.L * outputs * 4.5 * inputs


def bits_of(tree, site):
    kernel = [tree[f"blocks.{site}.kernel.{name}"] for name in ("codes", "scale")]
    return sum(leaf.size * leaf.dtype.itemsize * 8 for leaf in kernel)
