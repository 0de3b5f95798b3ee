"""Libraries whose experts stay in their files: what is opened, what is read, and what is found out."""

import json
import re

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from modjax import Library, PagedLibrary
from modjax.errors import InputError
from modjax.experts import prototype_file, store
from modjax.experts.index import PROTOTYPES
from modjax.experts.weights_file import WEIGHTS
from modjax.routing.prototypes import prototypes_of

SITES = {"attn.q": (16, 12), "attn.o": (12, 16)}


@pytest.fixture
def saved(random_library, tmp_path):
    """Nine experts of rank 2, and one of rank 3 on one of the sites."""
    library = random_library(SITES, experts=9, rank=2, names=[f"e{i}" for i in range(9)], scale=2.0)
    other = random_library({"attn.q": SITES["attn.q"]}, experts=1, rank=3, seed=1, names=["large"])
    (library + other).save(tmp_path / "library")
    return tmp_path / "library"


def test_what_is_resident_equals_the_loaded_library(saved):
    paged, library = PagedLibrary.open(saved), Library.load(saved)
    assert (paged.names, paged.infos, len(paged), paged.layers) == (library.names, library.infos, 10, library.layers)
    assert (paged.widths, paged.rank) == (library.widths, library.rank)
    found = paged.resident(np.dtype("float32"), None).prototypes
    for site, expected_LEI in prototypes_of(library).items():
        np.testing.assert_allclose(found[site], expected_LEI, atol=1e-6)
    assert not found["attn.o"][:, 9].any()  # no update, no direction


@pytest.mark.parametrize("chosen", ["e3", ["large", "e0"], slice(2, 5), [1], [True] + 9 * [False]])
def test_chosen_experts_are_a_library(saved, chosen):
    expected = Library.load(saved)[chosen]
    found = PagedLibrary.open(saved)[chosen]
    assert found.infos == expected.infos
    for site, lora in found.loras.items():
        rank = lora.a.shape[2]
        np.testing.assert_array_equal(lora.a, expected.loras[site].a[:, :, :rank])
        np.testing.assert_array_equal(lora.b, expected.loras[site].b[:, :, :rank])


def scaled(lora):
    return lora.b * lora.scale[..., None, None]


def test_slots_hold_the_experts_used_last_and_no_more(saved):
    paged, library = PagedLibrary.open(saved, cache=3), Library.load(saved)
    pages = paged.resident(np.dtype("float32"), None).pages

    def load(*experts):
        before, slots = pages.reads, pages.load(experts)
        for slot, expert in zip(slots, experts, strict=True):
            for site, lora in library.loras.items():
                held = pages.slots.loras[site]
                np.testing.assert_array_equal(held.a[:, slot], lora.a[:, expert])
                np.testing.assert_array_equal(scaled(held)[:, slot], scaled(lora)[:, expert])
        return pages.reads - before

    assert len(pages) == 3 and all(leaf.shape[1] == 3 for leaf in jax.tree.leaves(pages.slots))
    assert load(0, 1, 2) == 3
    assert load(0, 2) == 0
    assert load(9, 0) == 1  # in the slot of 1, which was used longest ago
    assert load(2, 0, 9) == 0
    assert load(1, 3) == 2
    with pytest.raises(InputError, match="4 experts are needed at once, but the cache has room for 3"):
        pages.load([4, 5, 6, 7])
    assert load(1, 3) == 0


def test_earlier_slots_stay_as_they_are(saved):
    """Answers that are still decoded keep their experts while others are loaded."""
    pages = PagedLibrary.open(saved, cache=2).resident(np.dtype("float32"), None).pages
    pages.load([0, 1])
    held = pages.slots
    before = jax.tree.map(np.array, held)
    pages.load([2, 3])
    jax.tree.map(np.testing.assert_array_equal, held, before)


def test_slots_are_kept_for_the_next_call(saved):
    paged = PagedLibrary.open(saved, cache=2)
    first = paged.resident(np.dtype("float32"), None)
    assert paged.resident(np.dtype("float32"), None) is first
    assert paged.resident(np.dtype("float16"), None).pages.slots.loras["attn.q"].a.dtype == np.float16


def test_prototypes_are_made_once(saved, monkeypatch):
    PagedLibrary.open(saved)
    made = (saved / PROTOTYPES).stat().st_mtime_ns
    monkeypatch.setattr(store, "read", lambda *given: pytest.fail("an expert was read"))
    assert len(PagedLibrary.open(saved)) == 10
    assert (saved / PROTOTYPES).stat().st_mtime_ns == made
    assert {path.name for path in saved.iterdir()} >= {"e0", "library.json", PROTOTYPES}


def test_a_library_with_prototypes_is_loaded_added_to_and_replaced_as_any_other(saved, random_library):
    PagedLibrary.open(saved)
    expected = Library.load(saved)
    store.add(saved, random_library(SITES, experts=1, seed=5, names=["new"]).adapters(), 2)
    store.drop(saved, "e1")
    paged = PagedLibrary.open(saved)
    assert paged.names == (*(name for name in expected.names if name != "e1"), "new")
    found = paged.resident(np.dtype("float32"), None).prototypes["attn.q"]
    np.testing.assert_allclose(found, prototypes_of(Library.load(saved))["attn.q"], atol=1e-6)
    expected.save(saved)
    assert not (saved / PROTOTYPES).exists()


def damage(folder):
    tensors = load_file(folder / WEIGHTS)
    tensors[min(tensors)] *= 2
    save_file(tensors, folder / WEIGHTS)


def test_a_file_that_was_changed_is_found_out_when_it_is_read(saved):
    paged = PagedLibrary.open(saved, cache=3)
    pages = paged.resident(np.dtype("float32"), None).pages
    pages.load([0, 1])
    damage(saved / "e2")
    again = PagedLibrary.open(saved, cache=3)  # reads no expert
    for read in (lambda: pages.load([0, 2]), lambda: again["e2"]):
        with pytest.raises(InputError, match=r"e2/.*: sha256 is \w+\.\.\.; expected"):
            read()
    assert pages.load([0, 1]) == [0, 1] and pages.reads == 2
    (saved / PROTOTYPES).unlink()
    with pytest.raises(InputError, match="e2/.*: sha256"):
        PagedLibrary.open(saved)
    assert not (saved / PROTOTYPES).exists()


@pytest.mark.parametrize("content", [b"", b"not a file of prototypes", b"\x10\0\0\0\0\0\0\0{}"])
def test_damaged_prototypes_are_made_again(saved, content):
    PagedLibrary.open(saved)
    whole = (saved / PROTOTYPES).read_bytes()
    for damaged in (content, whole[:-9]):
        (saved / PROTOTYPES).write_bytes(damaged)
        PagedLibrary.open(saved)
        assert (saved / PROTOTYPES).read_bytes() == whole


def test_prototypes_may_lie_elsewhere(saved, tmp_path):
    paged = PagedLibrary.open(saved, prototypes=tmp_path / "elsewhere")
    assert (tmp_path / "elsewhere").is_file() and not (saved / PROTOTYPES).exists()
    assert paged.names == PagedLibrary.open(saved, prototypes=tmp_path / "elsewhere").names
    with pytest.raises(InputError, match=re.escape(f"{tmp_path / 'none' / 'file'}: cannot be written")):
        PagedLibrary.open(saved, prototypes=tmp_path / "none" / "file")


def test_experts_of_other_widths_are_named(saved, random_library, monkeypatch):
    other = random_library({"attn.q": (20, 12)}, experts=1, names=["wide"])
    monkeypatch.setattr(store, "_check_fit", lambda *given: None)
    store.add(saved, other.adapters(), 2)
    with pytest.raises(InputError, match=r"wide, site attn.q: widths \(input, output\) = \(20, 12\); expected \(16"):
        PagedLibrary.open(saved)


def test_prototypes_of_other_shapes_are_named(saved):
    PagedLibrary.open(saved)
    arrays, file = load_file(saved / PROTOTYPES), saved / PROTOTYPES
    save_file({site: array[:3].copy() for site, array in arrays.items()}, file, prototype_file._metadata(file))
    with pytest.raises(InputError, match=r"float32\[3, 2, \d+\]; delete the file to make it again"):
        PagedLibrary.open(saved)


def test_no_library(tmp_path):
    with pytest.raises(InputError, match="library.json: cannot be read"):
        PagedLibrary.open(tmp_path / "nothing")
    (tmp_path / "library.json").write_text(json.dumps({"schema": 1, "layers": 2, "experts": []}))
    with pytest.raises(InputError, match="at least one expert"):
        PagedLibrary.open(tmp_path)
