"""Adapter files round-trip through a library byte for byte, for all ranks, scales, layers and dtypes."""

import dataclasses
import json
import pathlib
import tempfile

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from modjax.errors import InputError
from modjax.experts.adapter import alpha_of
from modjax.experts.library import Library, concatenate
from modjax.experts.peft import CONFIG, PREFIX, WEIGHTS

WIDTHS = {"self_attn.q_proj": (6, 4), "self_attn.o_proj": (4, 6), "mlp.up_proj": (6, 9)}
DTYPES = [np.float32, np.float16, jnp.bfloat16]
ALPHAS = [1, 3, 5, 0.1, 7.7, -2, 16]


def write(folder, factors, **config):
    """An adapter folder of {module: (A[R,I], B[O,R])}."""
    folder.mkdir(parents=True)
    sides = [("A", 0), ("B", 1)]
    save_file({f"{PREFIX}{name}.lora_{s}.weight": pair[i] for name, pair in factors.items() for s, i in sides},
              folder / WEIGHTS)  # fmt: skip
    (folder / CONFIG).write_text(json.dumps({"peft_type": "LORA", "r": 2, "lora_alpha": 4} | config))
    return folder


def module(layer, name):
    return f"model.layers.{layer}.{name}"


@st.composite
def adapters(draw):
    """(factors, config) with any choice of modules, ranks, alphas and dtype, including subnormal numbers."""
    places = [(layer, name) for layer in range(3) for name in WIDTHS]
    chosen = draw(st.lists(st.sampled_from(places), min_size=1, unique=True))
    dtype, rng = draw(st.sampled_from(DTYPES)), np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    suffixes = sorted({name.rpartition(".")[2] for _, name in chosen} | {module(*place) for place in chosen[:2]})
    subset = st.lists(st.sampled_from(suffixes), unique=True, max_size=2)
    ranks = {key: draw(st.integers(1, 3)) for key in draw(subset)}
    alphas = {key: draw(st.sampled_from([*ALPHAS, 0])) for key in draw(subset)}
    config = {"r": 2, "lora_alpha": draw(st.sampled_from(ALPHAS)), "use_rslora": draw(st.booleans())}
    config |= {"rank_pattern": ranks, "alpha_pattern": alphas, "target_modules": sorted({n for _, n in chosen})}

    def factor(shape):
        exponents = rng.uniform(-40, 3, shape) if draw(st.booleans()) else rng.uniform(-1, 1, shape)
        return (np.float32(rng.choice([-1, 0, 1], shape, p=[0.45, 0.1, 0.45])) * 10**exponents).astype(dtype)

    factors = {}
    for place in chosen:
        matching = (rank for key, rank in ranks.items() if f".{module(*place)}".endswith(f".{key}"))
        (i, o), rank = WIDTHS[place[1]], next(matching, 2)
        factors[module(*place)] = factor((rank, i)), factor((o, rank))
    return factors, config


def same_bytes(folder, other):
    one, two = load_file(folder / WEIGHTS), load_file(other / WEIGHTS)
    assert one.keys() == two.keys()
    for key in one:
        assert one[key].dtype == two[key].dtype and one[key].tobytes() == two[key].tobytes(), key


@settings(max_examples=15, deadline=None, derandomize=True, database=None)
@given(first=adapters(), second=adapters())
def test_in_and_out(first, second):
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder)
        before = [write(path / name, one[0], **one[1]) for name, one in (("one", first), ("two", second))]
        library = Library.from_peft(before)
        library[["two", "one"]].save(path / "library")
        for folder in before:
            same_bytes(folder, path / "library" / folder.name)
        again = Library.load(path / "library")
        assert again.infos == library[["two", "one"]].infos
        concatenate([again["one"], again["two"]]).save(path / "again")
        for folder in before:
            same_bytes(folder, path / "again" / folder.name)
            ours, theirs = (json.loads((one / CONFIG).read_text()) for one in (path / "again" / folder.name, folder))
            assert ours == ours | theirs
        for e, (factors, config) in enumerate((first, second)):
            for name, (_, b) in factors.items():
                _check_update(library, e, name, np.float64(np.float32(b)).T, config)


def _check_update(library, e, name, filed, config):
    """The library has b and the scale of the file, unchanged."""
    rank, alpha = len(filed), config["lora_alpha"]
    for key in config["alpha_pattern"]:
        if f".{name}".endswith(f".{key}"):
            alpha = config["alpha_pattern"][key]
            break
    scale = alpha / (rank**0.5 if config["use_rslora"] else rank)
    lora = library.loras[{"q": "attn.q", "o": "attn.o", "u": "mlp.up"}[name.rpartition(".")[2][0]]]
    layer = int(name.split(".")[2])
    np.testing.assert_array_equal(lora.b[layer, e, :rank], np.float32(filed))
    assert lora.scale[layer, e] == np.float32(scale)


def exact_case(tmp_path, alphas, **config):
    rng = np.random.default_rng(0)
    factors = {
        module(layer, name): (np.float32(rng.normal(size=(2, i))), np.float32(rng.normal(size=(o, 2))))
        for layer in range(2)
        for name, (i, o) in WIDTHS.items()
    }
    return write(tmp_path / "theirs", factors, alpha_pattern=alphas, target_modules=list(WIDTHS), **config)


def test_each_module_has_its_scale(tmp_path):
    library = Library.from_peft(exact_case(tmp_path, {"q_proj": 7, "layers.1.mlp.up_proj": 16}))
    scales = {site: lora.scale[:, 0].tolist() for site, lora in library.loras.items()}
    assert scales == {"attn.q": [3.5, 3.5], "attn.o": [2.0, 2.0], "mlp.up": [2.0, 8.0]}
    library.save(tmp_path / "library")
    same_bytes(tmp_path / "theirs", tmp_path / "library" / "theirs")


def test_the_scale_that_most_modules_have_is_the_experts(tmp_path):
    library = Library.from_peft(exact_case(tmp_path, {"self_attn.*": 14}))
    assert library.scale.tolist() == [7.0] and library.infos[0].alpha == 14.0
    assert library.loras["mlp.up"].scale.tolist() == [[2.0], [2.0]]


def test_what_was_changed_is_written_as_it_is(tmp_path):
    """The patterns and dtype of the file no longer apply; the arrays are saved as they are now."""
    library = Library.from_peft(exact_case(tmp_path, {"q_proj": 3}))
    info = dataclasses.replace(library.infos[0], dtype="float16")
    changed = dataclasses.replace(library, loras=jax.tree.map(lambda leaf: leaf * 1.1, library.loras), infos=(info,))
    changed.save(tmp_path / "library")
    again = Library.load(tmp_path / "library")
    assert again.infos[0].dtype == "float32"
    jax.tree.map(np.testing.assert_array_equal, again.loras, changed.loras)


def test_ranks_that_grew_are_kept(tmp_path):
    library = Library.from_peft(exact_case(tmp_path, {}))
    wider = {
        site: lora._replace(**{side: jnp.concatenate([getattr(lora, side)] * 2, axis=2) for side in ("a", "b")})
        for site, lora in library.loras.items()
    }
    assert {rank for own in library.ranks.values() for rank in own.ravel()} == {2}
    grown = dataclasses.replace(library, loras=wider)
    assert {rank for own in grown.ranks.values() for rank in own.ravel()} == {4}
    grown.save(tmp_path / "library")
    jax.tree.map(np.testing.assert_array_equal, Library.load(tmp_path / "library").loras, wider)


def test_an_adapter_of_zeros_keeps_its_modules(tmp_path):
    zeros = {module(1, "self_attn.q_proj"): (np.zeros((2, 6), np.float32), np.zeros((4, 2), np.float32))}
    both = Library.from_peft([write(tmp_path / "zeros", zeros), exact_case(tmp_path, {})])
    assert both.ranks["attn.q"].tolist() == [[0, 2], [2, 2]] and both.ranks["mlp.up"][:, 0].tolist() == [0, 0]
    both.save(tmp_path / "library")
    same_bytes(tmp_path / "zeros", tmp_path / "library" / "zeros")


def test_scales_far_apart(tmp_path):
    library = Library.from_peft(exact_case(tmp_path, {"q_proj": 9e19}, lora_alpha=2e-20))
    assert np.unique(library.loras["attn.q"].scale) == np.float32(4.5e19)
    library.save(tmp_path / "library")
    same_bytes(tmp_path / "theirs", tmp_path / "library" / "theirs")


def test_layers_of_different_widths(tmp_path):
    factors = {module(i, "self_attn.q_proj"): (np.ones((2, 6 + i)), np.ones((4, 2))) for i in range(2)}
    factors = {key: tuple(np.float32(one) for one in pair) for key, pair in factors.items()}
    with pytest.raises(InputError, match=r"site attn.q: widths \[6, 7\] of a"):
        Library.from_peft(write(tmp_path / "odd", factors))


@pytest.mark.parametrize("alpha, rank", [(5, 3), (16, 4), (0.2, 2), (1 / 3, 7), (49, 49), (0, 3), (-7, 3)])
def test_alpha_of_a_scale(alpha, rank):
    assert alpha_of(alpha / rank, rank) == pytest.approx(alpha, rel=1e-12)
    assert isinstance(alpha, float) or alpha_of(alpha / rank, rank) == alpha
