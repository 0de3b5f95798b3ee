import dataclasses

import jax
import jax.numpy as jnp

from modjax.models.weights import fingerprint, leaves


def test_leaf_paths_name_sites(decoder):
    paths = list(leaves(decoder))
    for site in decoder.config.sites:
        assert f"blocks.{site}.kernel" in paths
    assert "embed" in paths and "final_norm.scale" in paths
    assert len(paths) == len(set(paths)) == len(jax.tree.leaves(decoder))


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
