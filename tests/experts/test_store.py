import dataclasses
import json
import re
import shutil
import unicodedata

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from modjax.errors import InputError
from modjax.experts import store
from modjax.experts.library import Library
from modjax.experts.store import WEIGHTS

SITES = {"attn.q": (16, 12), "attn.o": (12, 16)}
PREFIX = "base_model.model.model.layers."


@pytest.fixture
def library(random_library):
    """Experts with two ranks, scales that are not short decimals, and a value in every field of ExpertInfo."""
    small = random_library(SITES, experts=2, names=["z: last/first?", "a"], scale=[1 / 3, 0.1])
    large = random_library(SITES, experts=1, rank=3, names=["large"], scale=4.0, seed=1, fingerprint="0123456789abcdef")
    both = small + large
    infos = list(both.infos)
    training = (("steps", 40), ("learning_rate", 2e-3), ("data", "open48"))
    infos[1] = dataclasses.replace(infos[1], training=training, scores=(("validation_loss", 0.1), ("match", 1.0)))
    return dataclasses.replace(both, infos=tuple(infos))


def equal(left, right):
    assert left.infos == right.infos and sorted(left.sites) == sorted(right.sites)
    jax.tree.map(np.testing.assert_array_equal, (left.loras, left.scale), (right.loras, right.scale))


def test_saved_and_loaded_is_the_same_bit_for_bit(library, tmp_path):
    library.save(tmp_path / "new" / "library")
    equal(Library.load(tmp_path / "new" / "library"), library)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["library"]


def test_sites_that_an_expert_lacks_are_not_in_its_folder(random_library, tmp_path):
    both = random_library(SITES, experts=1, names=["a"]) + random_library({"mlp.up": (16, 24)}, experts=1, names=["b"])
    both.save(tmp_path)
    assert json.loads((tmp_path / "b" / "adapter_config.json").read_text())["target_modules"] == ["up_proj"]
    equal(Library.load(tmp_path), both)


def test_untrained_experts_are_kept(library, tmp_path):
    loras = {
        site: jax.tree.map(jnp.zeros_like, lora)._replace(scale=lora.scale) for site, lora in library.loras.items()
    }
    zeros = dataclasses.replace(library, loras=loras)
    zeros.save(tmp_path)
    equal(Library.load(tmp_path), zeros)


def test_folders_are_as_peft_writes_them(library, tmp_path):
    library.save(tmp_path)
    folder = tmp_path / "a"
    with safe_open(folder / WEIGHTS, "numpy") as file:
        keys, metadata = list(file.keys()), file.metadata()
        shapes = {key: file.get_tensor(key).shape for key in keys}
    modules = [f"{PREFIX}{i}.self_attn.{name}" for i in range(2) for name in ("o_proj", "q_proj")]
    assert sorted(keys) == [f"{module}.lora_{side}.weight" for module in modules for side in "AB"]
    assert metadata == {"format": "pt"}
    assert shapes[f"{PREFIX}1.self_attn.q_proj.lora_A.weight"] == (2, 16)
    assert shapes[f"{PREFIX}1.self_attn.q_proj.lora_B.weight"] == (12, 2)
    text = (folder / "adapter_config.json").read_text()
    assert text == json.dumps(json.loads(text), indent=2, sort_keys=True) + "\n"
    assert json.loads(text) == {
        "alpha_pattern": {},
        "base_model_name_or_path": "",
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "lora_alpha": 0.2,
        "lora_dropout": 0.0,
        "peft_type": "LORA",
        "r": 2,
        "rank_pattern": {},
        "target_modules": ["o_proj", "q_proj"],
        "task_type": "CAUSAL_LM",
        "use_dora": False,
        "use_rslora": False,
    }


def test_scale_is_what_counts(library, tmp_path):
    """A changed scale is the one that is saved."""
    loras = {site: lora._replace(scale=3 * lora.scale) for site, lora in library.loras.items()}
    dataclasses.replace(library, loras=loras).save(tmp_path)
    again = Library.load(tmp_path)
    np.testing.assert_array_equal(again.scale, np.float32(3) * library.scale)
    jax.tree.map(np.testing.assert_array_equal, again.loras, loras)


def test_saving_over_an_earlier_library_replaces_it(library, random_library, tmp_path):
    library.save(tmp_path / "library")
    other = random_library(SITES)
    other.save(tmp_path / "library")
    equal(Library.load(tmp_path / "library"), other)
    assert [path.name for path in tmp_path.iterdir()] == ["library"]


def test_a_failed_save_leaves_the_earlier_library(library, random_library, tmp_path):
    library.save(tmp_path / "library")
    with pytest.raises(InputError, match="no module for site 'mlp.fc1'"):
        random_library({"mlp.fc1": (16, 12)}).save(tmp_path / "library")
    equal(Library.load(tmp_path / "library"), library)


def test_saving_over_something_else_is_refused(library, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    for path, words in ((tmp_path, "holds no library.json"), (tmp_path / "notes.txt", "is no folder, but exists")):
        with pytest.raises(InputError, match=words):
            library.save(path)
    assert (tmp_path / "notes.txt").read_text() == "mine"


NAMES = [
    *(
        "a/b",
        "a?b",
        "A_B",
        "a_b",
        "..",
        ".",
        "...",
        "/etc/passwd",
        "../../x",
        "~",
        " ",
        "a ",
        "a.",
        ".hidden",
        "-rf",
        "\0",
    ),
    *(
        "CON",
        "con",
        "nul.txt",
        "aux",
        "COM1",
        "x" * 300,
        "x" * 301,
        "\u732b" * 200,
        "\u732b\u732b",
        "\u0645\u0631\u062d\u0628\u0627",
    ),
    *(
        "\u00e9",
        "e\u0301",
        "\u00c9",
        "stra\u00dfe",
        "STRASSE",
        "\u0130",
        "i",
        "\U0001f642",
        "a\nb",
        "a,b",
        "a=b",
        "'",
        '"',
    ),
    *("library.json", "LIBRARY.json", "library.json.writing", "adapter_config.json", "adapter_model.safetensors"),
    *("convert.json", ".writing", "x.earlier", "x.meta", "default", "None", "null", "0", "a:b", "*", "<>|", "%s", "{}"),
]


def test_names_of_any_text(random_library, tmp_path):
    library = random_library({"attn.q": (4, 4)}, layers=1, rank=1, experts=len(NAMES), names=NAMES)
    library.save(tmp_path / "library")
    equal(Library.load(tmp_path / "library"), library)
    folders = [path.name for path in (tmp_path / "library").iterdir() if path.is_dir()]
    assert len(folders) == len(NAMES) == len({unicodedata.normalize("NFC", name).casefold() for name in folders})
    assert all(len(name.encode()) < 150 and name.strip(". -") == name for name in folders)
    assert [path.name for path in tmp_path.iterdir()] == ["library"]
    library.save(tmp_path / "library")  # over the earlier one
    for name in NAMES[:3]:
        store.drop(tmp_path / "library", name)
    assert Library.load(tmp_path / "library").names == tuple(NAMES[3:])
    store.add(tmp_path / "library", list(library[NAMES[:3]].adapters()), 1)
    equal(Library.load(tmp_path / "library"), library[NAMES[3:] + NAMES[:3]])


@pytest.mark.parametrize("name", ["", "\ud800"])
def test_names_that_cannot_be(random_library, tmp_path, name):
    with pytest.raises(InputError, match="name.*: expected "):
        random_library(SITES, experts=1, names=[name]).save(tmp_path / "library")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("folder", ["a", "A.b", "expert", "-x", "CON", "\u732b", "x" * 200, "a_"])
def test_folders_that_earlier_versions_wrote(random_library, tmp_path, folder):
    library = random_library(SITES, experts=1, names=["first"])
    library.save(tmp_path)
    (tmp_path / "first").rename(tmp_path / folder)
    index(lambda found: found["experts"][0].update(folder=folder))(tmp_path)
    equal(Library.load(tmp_path), library)


@pytest.mark.parametrize("folder", ["", ".", "..", "../a", "a/b", "/a", "a\\b", ".writing", "a\0", "C:", 3, None])
def test_folders_outside_a_library(saved, folder):
    index(lambda found: found["experts"][1].update(folder=folder))(saved)
    with pytest.raises(InputError, match="expert 1: folder = .* is invalid"):
        Library.load(saved)


def test_plain_peft_folders_are_named_after_themselves(library, tmp_path):
    library.save(tmp_path)
    read = Library.from_peft([tmp_path / "large", tmp_path / "a"])
    assert read.names == ("large", "a") and read.tasks == (("large",), ("a",))
    chosen = library[["large", "a"]]
    jax.tree.map(np.testing.assert_array_equal, (read.loras, read.scale), (chosen.loras, chosen.scale))
    assert Library.from_peft(str(tmp_path / "a")).names == ("a",)


def test_phi_has_its_own_modules(random_library, tmp_path):
    library = random_library({"attn.o": (16, 16), "mlp.fc1": (16, 24)}, names=["a", "b", "c"], family="phi")
    library.save(tmp_path)
    assert f"{PREFIX}0.self_attn.dense.lora_A.weight" in load_file(tmp_path / "a" / WEIGHTS)
    assert {info.family for info in Library.from_peft([tmp_path / "a"]).infos} == {"phi"}


@pytest.fixture
def saved(library, tmp_path):
    library.save(tmp_path / "library")
    return tmp_path / "library"


def rewrite(folder, change):
    """Changes the tensors of one adapter in place."""
    tensors = load_file(folder / WEIGHTS)
    change(tensors)
    save_file(tensors, folder / WEIGHTS)


def configure(**changes):
    def damage(folder):
        path = folder / "adapter_config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return damage


def without(key):
    def damage(folder):
        path = folder / "adapter_config.json"
        path.write_text(json.dumps({k: v for k, v in json.loads(path.read_text()).items() if k != key}))

    return damage


def tensor(change):
    return lambda folder: rewrite(folder, change)


FIRST = f"{PREFIX}0.self_attn.q_proj.lora_A.weight"
BAD_ADAPTERS = {
    "truncated": (lambda f: (f / WEIGHTS).write_bytes((f / WEIGHTS).read_bytes()[:-9]), "truncated"),
    "text": (lambda f: (f / WEIGHTS).write_text("not weights"), "not a safetensors file"),
    "no weights": (lambda f: (f / WEIGHTS).unlink(), f"{WEIGHTS}: is truncated, missing"),
    "named as a pickle": (
        lambda f: (f / WEIGHTS).rename(f / "adapter_model.bin"),
        "adapter_model.bin: is truncated or not a file of torch.save",
    ),
    "no config": (lambda f: (f / "adapter_config.json").unlink(), "adapter_config.json: cannot be read"),
    "broken config": (lambda f: (f / "adapter_config.json").write_text("{"), "is not JSON"),
    "config of a list": (lambda f: (f / "adapter_config.json").write_text("[]"), "expected an object"),
    "no tensors": (tensor(lambda t: t.clear()), "has no tensors"),
    "NaN": (tensor(lambda t: t[FIRST].__setitem__((0, 0), np.nan)), f"{FIRST}' holds NaN"),
    "infinity": (tensor(lambda t: t[FIRST].__setitem__((0, 0), np.inf)), f"{FIRST}' holds NaN or infinite"),
    "unknown module": (tensor(lambda t: t.update({"base_model.model.lm_head.lora_A.weight": t[FIRST]})), "lm_head"),
    "bias": (tensor(lambda t: t.update({FIRST.replace("weight", "bias"): t[FIRST]})), "lora_A.bias"),
    "half a pair": (tensor(lambda t: t.pop(FIRST)), "q_proj has only lora_B; expected lora_A and lora_B"),
    "embeddings": (
        tensor(lambda t: t.update({FIRST.replace("lora_A.weight", "lora_embedding_A"): t[FIRST]})),
        "_embed",
    ),
    "convolution": (tensor(lambda t: t.update({FIRST: t[FIRST][:, :, None, None]})), "shape (2, 16, 1, 1)"),
    "no numbers": (tensor(lambda t: t.update({FIRST: t[FIRST][:, :0]})), "shape (2, 0)"),
    "float64": (tensor(lambda t: t.update({FIRST: t[FIRST].astype(np.float64)})), "has dtype F64"),
    "far layer": (
        tensor(lambda t: t.update({key.replace("layers.0", "layers.99999"): t[key] for key in list(t)})),
        "layer 99999; expected at most",
    ),
    "another rank": (configure(r=3), "rank 3"),
    "rank 0": (configure(r=0), "r = 0; expected a positive"),
    "no alpha": (without("lora_alpha"), "lora_alpha = None; expected a number"),
    "no rank": (without("r"), "r = None"),
    "DoRA": (configure(use_dora=True), "use_dora = True"),
    "trained biases": (configure(bias="all"), "bias = 'all'"),
    "saved modules": (configure(modules_to_save=["embed_tokens"]), "modules_to_save"),
    "ranks by module": (
        configure(rank_pattern={"q_proj": 8}),
        f"{FIRST}' has shape (2, 16); expected (8, input width): adapter_config.json gives rank 8",
    ),
    "repeated layers": (configure(layer_replication=[[0, 2]]), "layer_replication"),
    "taken out of the base": (configure(init_lora_weights="pissa"), "init_lora_weights = 'pissa'"),
    "another method": (configure(peft_type="IA3"), "'IA3'; expected 'LORA'"),
}


@pytest.mark.parametrize("kind", BAD_ADAPTERS)
def test_bad_adapters_are_named(saved, kind):
    damage, words = BAD_ADAPTERS[kind]
    damage(saved / "a")
    with pytest.raises(InputError, match=re.escape(words)) as error:
        Library.from_peft([saved / "large", saved / "a"])
    assert str(saved / "a") in str(error.value)


def index(change):
    def damage(folder):
        found = json.loads((folder / "library.json").read_text())
        change(found)
        (folder / "library.json").write_text(json.dumps(found))

    return damage


BAD_LIBRARIES = {
    "no index": (
        lambda f: (f / "library.json").unlink(),
        "holds experts of peft, and no library.json; make a",
    ),
    "nothing": (shutil.rmtree, "library.json: cannot be read"),
    "broken index": (lambda f: (f / "library.json").write_text("{"), "is not JSON"),
    "another schema": (index(lambda found: found.update(schema=99)), "schema is 99; this version of modjax reads 1"),
    "no experts": (index(lambda found: found.update(experts=[])), "at least one expert"),
    "half an expert": (index(lambda found: found["experts"][1].pop("alpha")), "expert 1 has no key 'alpha'"),
    "other weights": (lambda f: rewrite(f / "a", lambda t: t[FIRST].__imul__(2)), "sha256"),
    "layers of text": (index(lambda found: found.update(layers="2")), "layers = '2'; expected a whole number from 1"),
    "too few layers": (index(lambda found: found.update(layers=1)), "factors for layer 1; expected 1 layers"),
    "another rank": (
        index(lambda found: found["experts"][1].update(rank=3)),
        f"{WEIGHTS}: rank is 2; expected 3, as in library.json",
    ),
    "folder outside": (
        index(lambda found: found["experts"][1].update(folder="../a")),
        "expert 1: folder = '../a' is invalid",
    ),
    "absurd tasks": (index(lambda found: found["experts"][1].update(tasks=5)), "expert 1: tasks = 5 is invalid"),
    "other family": (
        index(lambda found: found["experts"][1].update(family="gpt2")),
        "is not a linear map of a gpt2 block",
    ),
    "lost weights": (lambda f: (f / "a" / WEIGHTS).unlink(), WEIGHTS),
    "an expert twice": (index(lambda found: found["experts"].append(found["experts"][0])), "named twice"),
}


@pytest.mark.parametrize("kind", BAD_LIBRARIES)
def test_bad_libraries_are_named(saved, kind):
    damage, words = BAD_LIBRARIES[kind]
    damage(saved)
    with pytest.raises(InputError, match=words):
        Library.load(saved)


def test_adapters_that_do_not_fit_each_other(random_library, tmp_path):
    for name, width in (("narrow", 16), ("wide", 20)):
        random_library({"attn.q": (width, 12)}, experts=1, names=[name]).save(tmp_path / name)
    with pytest.raises(InputError, match="do not fit one model"):
        Library.from_peft([tmp_path / "narrow" / "narrow", tmp_path / "wide" / "wide"])


def test_settings_that_are_not_known_are_named(saved):
    configure(use_magic=True)(saved / "a")
    with pytest.warns(UserWarning, match="unknown keys 'use_magic' are ignored"):
        Library.from_peft(saved / "a")


def test_factors_that_the_config_does_not_choose_count(saved):
    configure(target_modules=["o_proj"])(saved / "a")
    with pytest.warns(UserWarning, match=r"does not select model\.layers\.0\.self_attn\.q_proj and 1 more"):
        library = Library.from_peft(saved / "a")
    library.save(saved.parent / "again")
    config = json.loads((saved.parent / "again" / "a" / "adapter_config.json").read_text())
    assert config["target_modules"] == ["o_proj", "q_proj"]


def test_scales_of_zero_and_below(library, tmp_path):
    factors = np.float32([0, -1, 1])
    loras = {site: lora._replace(scale=lora.scale * factors[None]) for site, lora in library.loras.items()}
    dataclasses.replace(library, loras=loras).save(tmp_path)
    again = Library.load(tmp_path)
    np.testing.assert_array_equal(again.scale, library.scale * factors)
    jax.tree.map(np.testing.assert_array_equal, again.loras, loras)


def test_an_expert_that_diverged_is_saved_beside_the_others_and_refused(library, tmp_path):
    broken = {site: lora._replace(a=lora.a.at[0, 1, 0, 0].set(jnp.nan)) for site, lora in library.loras.items()}
    dataclasses.replace(library, loras=broken).save(tmp_path)
    with pytest.raises(InputError, match=f"a/{WEIGHTS}: .* holds NaN"):
        Library.load(tmp_path)
    assert Library.from_peft(tmp_path / "large").names == ("large",)


def test_no_folders(tmp_path):
    with pytest.raises(InputError, match="at least one adapter folder"):
        Library.from_peft([])
