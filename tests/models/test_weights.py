import dataclasses
import json
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save_file

from modjax.models.assembly import Assembly
from modjax.models.weights import fingerprint, leaves
from modjax.parallel.mesh import make_mesh


def test_leaf_paths_name_sites(decoder):
    paths = list(leaves(decoder))
    for site in decoder.config.sites:
        assert f"blocks.{site}.kernel" in paths
    assert "embed" in paths and ("final_norm.scale" in paths) == (decoder.config.norm != "layer_plain")
    assert len(paths) == len(set(paths)) == len(jax.tree.leaves(decoder))


@pytest.mark.parametrize("spec", [None, jax.P(), jax.P(None, "fsdp", "tensor"), jax.P(None, ("tensor", "fsdp"))])
@pytest.mark.parametrize("stacked", [True, False])
def test_a_leaf_is_assembled_where_it_lies(spec, stacked):
    mesh = make_mesh(expert=2, fsdp=2, tensor=2)
    sharding = None if spec is None else jax.NamedSharding(mesh, spec)
    expected = np.arange(3 * 8 * 4, dtype=np.float64).reshape(3, 8, 4)
    assembly = Assembly(expected.shape, jnp.bfloat16, sharding)
    for layer, array in enumerate(expected) if stacked else [(None, expected)]:
        assembly.write(array, layer)
    leaf = assembly.finish()
    assert leaf.dtype == jnp.bfloat16 and leaf.sharding == (sharding or jnp.ones(3).sharding)
    np.testing.assert_array_equal(leaf, expected)


def test_fingerprint_is_the_weights_not_their_dtype(decoder):
    low = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), decoder)
    assert fingerprint(low) == fingerprint(decoder)
    assert len(fingerprint(decoder)) == 16


def test_fingerprint_tells_models_apart(decoder):
    before = fingerprint(decoder)
    for path in leaves(decoder):
        tree = jax.tree.map_with_path(
            lambda keys, leaf, path=path: leaf * (2 if _path(keys) == path else 1) + 0, decoder
        )
        unchanged = not leaves(decoder)[path].any()
        assert (fingerprint(tree) == before) == unchanged, path
    decoder.config = dataclasses.replace(decoder.config, rope_theta=123.0)
    assert fingerprint(decoder) != before


def _path(keys):
    return ".".join(key.name for key in keys[:-1])


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """A llama of 200 MiB, its largest tensor 16 MiB, its largest stacked leaf 48 MiB."""
    path = tmp_path_factory.mktemp("large")
    sizes = {"vocab_size": 8192, "hidden_size": 512, "intermediate_size": 1536, "num_hidden_layers": 16}
    sizes |= {"num_attention_heads": 8, "num_key_value_heads": 4, "tie_word_embeddings": True}
    (path / "config.json").write_text(json.dumps({"model_type": "llama", **sizes}))
    rng = np.random.default_rng(0)
    shapes = {"model.embed_tokens": (8192, 512), "model.norm": (512,)}
    for i in range(sizes["num_hidden_layers"]):
        block = {"input_layernorm": (512,), "post_attention_layernorm": (512,)}
        block |= {f"self_attn.{name}_proj": (512 if name in "qo" else 256, 512) for name in "qkvo"}
        block |= {"mlp.gate_proj": (1536, 512), "mlp.up_proj": (1536, 512), "mlp.down_proj": (512, 1536)}
        shapes |= {f"model.layers.{i}.{name}": shape for name, shape in block.items()}
    tensors = {f"{name}.weight": rng.random(shape, np.float32) - 0.5 for name, shape in shapes.items()}
    save_file(tensors, path / "model.safetensors")
    return path


READ = """
import sys
import jax, jax.numpy as jnp, numpy as np
from modjax.models import hf, quant
from modjax.parallel import rules
from modjax.parallel.mesh import make_mesh

def resident(key):
    return next(int(line.split()[1]) << 10 for line in open("/proc/self/status") if line.startswith(key))

path, dtype, quantize, mesh = sys.argv[1], sys.argv[2], sys.argv[3] or None, sys.argv[4]
layout = rules.layout(make_mesh(expert=2, fsdp=2)) if mesh else None
jnp.ones(3).block_until_ready()
if quantize:  # the encoders' compiled programs are not part of the model
    for shape in ((512, 512), (512, 256), (512, 1536), (1536, 512)):
        quant.encoded(np.ones(shape, np.float32), quantize, "")
before = resident("VmRSS")
decoder = hf.read(path, jnp.dtype(dtype), layout, quantize)
print(sum(leaf.nbytes for leaf in jax.tree.leaves(decoder)), resident("VmHWM") - before)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="/proc tells the memory of a process")
@pytest.mark.parametrize(
    ("dtype", "quantize", "mesh"),
    [
        ("float32", "", ""),
        ("bfloat16", "", ""),
        ("float32", "", "mesh"),
        ("float32", "int8", ""),
        ("bfloat16", "nf4", ""),
    ],
)
def test_reading_takes_the_model_and_its_largest_tensor(large, dtype, quantize, mesh):
    """Peak memory of a separate process, with an allowance of 10 MiB for tracing and XLA's threads.

    malloc is set to return freed memory to the system at once; otherwise it keeps an amount that varies with load.
    """
    flags = {"XLA_FLAGS": "--xla_force_host_platform_device_count=4" if mesh else ""}
    flags |= {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_ARENA_MAX": "1"}
    run = subprocess.run(
        [sys.executable, "-c", READ, large, dtype, quantize, mesh],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | flags,
    )
    model, peak = map(int, run.stdout.split())
    assert peak <= model + 8192 * 512 * 4 + (10 << 20)
