"""Reading of the files that mttl writes: libraries, dumps and training checkpoints, with copies of its classes."""

import argparse
import collections
import contextlib
import dataclasses
import json

import jax
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from modjax.errors import InputError
from modjax.experts.library import Library

SITES = {"self_attn.q_proj": (16, 12), "self_attn.dense": (12, 16), "mlp.fc1": (16, 20)}


@dataclasses.dataclass
class Args:
    """A class that is not installed where the file is read."""

    model: str = "phi-2"
    lora_alpha: float = 8.0


def weights(seed, layers=2, rank=4, dtype=torch.float32, sites=SITES):
    generator = torch.Generator().manual_seed(seed)

    def factor(*shape):
        return torch.randn(shape, generator=generator).to(dtype)

    return {
        f"model.layers.{layer}.{name}.lora_{side}": factor(i, rank) if side == "a" else factor(rank, o)
        for layer in range(layers)
        for name, (i, o) in sites.items()
        for side in "ab"
    }


def config(**changes):
    known = {"modify_modules": ".*", "modify_layers": "q_proj|dense|fc1", "tie_params": None, "lora_rank": 4}
    known |= {"lora_alpha": 16.0, "lora_dropout": 0.05, "class_name": "mttl.models.modifiers.lora.LoRAConfig"}
    return known | changes


def info(name, **changes):
    known = {"expert_name": name, "expert_task_name": "adversarial_qa,sort", "parent_node": None, "expert_model": None}
    known |= {"expert_config": config(), "training_config": {"model": "microsoft/phi-2", "args": Args()}}
    return known | {"expert_deleted": False, "class_name": "mttl.models.library.MetadataEntry"} | changes


def add(folder, name, tensors, **changes):
    folder.mkdir(exist_ok=True)
    torch.save(info(name, **changes), folder / f"{name}.meta")
    torch.save(tensors, folder / f"{name}.ckpt")


def check(library, e, tensors):
    sites = {"self_attn.q_proj": "attn.q", "self_attn.dense": "attn.o", "mlp.fc1": "mlp.fc1"}
    for key, tensor in tensors.items():
        _, _, layer, module = key.rpartition(".")[0].split(".", 3)
        lora, expected = library.loras[sites[module]], tensor.detach().float().numpy()
        got = lora.a[int(layer), e].T if key.endswith("a") else lora.b[int(layer), e]
        np.testing.assert_array_equal(got, expected)


def test_a_library(tmp_path):
    first, second = weights(0), weights(1)
    add(tmp_path / "library", "words", first)
    add(tmp_path / "library", "sums", second, expert_config=config(lora_alpha=2), expert_task_name=None)
    add(tmp_path / "library", "gone", weights(2), expert_deleted=True)
    (tmp_path / "library" / "words.scores.bin").write_bytes(b"auxiliary data are not looked at")
    library = Library.from_mttl(tmp_path / "library")
    assert library.names == ("sums", "words") and library.scale.tolist() == [0.5, 4.0]
    assert library.tasks == (("sums",), ("adversarial_qa", "sort"))
    assert {(one.base, one.family, one.rank) for one in library.infos} == {("microsoft/phi-2", "phi", 4)}
    assert library.sites == ("attn.q", "attn.o", "mlp.fc1")
    check(library, 1, first)
    check(library, 0, second)


def test_a_dump_and_a_checkpoint_and_one_of_a_library(tmp_path):
    dump, trained, listed = weights(0), weights(1), weights(2)
    torch.save(
        {"expert_info": info("dump"), "expert_weights": dump, "expert_optimizer_state": None}, tmp_path / "a.ckpt"
    )
    hyper = {"expert_name": "trained", "finetune_task_name": "sort", "lora_alpha": 1, "lora_rank": 4, "model": "phi-2"}
    hyper |= {"args": argparse.Namespace(x=1), "tokenizer": Args()}
    state = collections.OrderedDict((f"model.{key}", torch.nn.Parameter(tensor)) for key, tensor in trained.items())
    torch.save({"hyper_parameters": hyper, "state_dict": state, "epoch": 3, "callbacks": {}}, tmp_path / "best.ckpt")
    add(tmp_path / "library", "listed", listed)
    library = Library.from_mttl([tmp_path / "a.ckpt", tmp_path / "best.ckpt", tmp_path / "library" / "listed.ckpt"])
    assert library.names == ("dump", "trained", "listed") and library.scale.tolist() == [4.0, 0.25, 4.0]
    assert library.tasks[1] == ("sort",) and library.infos[1].base == "phi-2"
    for e, tensors in enumerate((dump, trained, listed)):
        check(library, e, tensors)


def test_settings_of_objects_that_were_not_made(tmp_path):
    add(tmp_path, "a", weights(0), expert_config=None, training_config=Args())
    library = Library.from_mttl(tmp_path)
    assert library.scale.tolist() == [2.0] and library.infos[0].base == "phi-2"


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_on_to_peft(tmp_path, dtype):
    tensors = weights(0, dtype=dtype)
    add(tmp_path / "theirs", "a", tensors)
    library = Library.from_mttl(tmp_path / "theirs", layers=3)
    library.save(tmp_path / "ours")
    assert Library.load(tmp_path / "ours").infos == library.infos
    assert json.loads((tmp_path / "ours" / "a" / "adapter_config.json").read_text())["lora_alpha"] == 16
    from safetensors.torch import load_file

    ours = load_file(tmp_path / "ours" / "a" / "adapter_model.safetensors")
    assert len(ours) == len(tensors)
    for key, tensor in tensors.items():
        assert torch.equal(ours[f"base_model.model.{key[:-1]}{key[-1].upper()}.weight"], tensor.T)


def test_ranks_differ(tmp_path):
    add(tmp_path, "small", weights(0, rank=2))
    add(tmp_path, "wide", weights(1, rank=5, layers=3))
    library = Library.from_mttl(tmp_path)
    assert [one.rank for one in library.infos] == [2, 5] and library.scale.tolist() == pytest.approx([8, 3.2])
    assert library.ranks["attn.q"].tolist() == [[2, 5], [2, 5], [0, 5]]


def test_layers_of_the_base_model(tmp_path):
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "config.json").write_text('{"num_hidden_layers": 4}')
    add(tmp_path / "experts", "a", weights(0), expert_model=str(tmp_path / "base"))
    assert Library.from_mttl(tmp_path / "experts").layers == 4
    assert Library.from_mttl(tmp_path / "experts", layers=3).layers == 3


def test_experts_without_names_are_named_after_their_folders(tmp_path):
    for name in ("math", "code"):
        (tmp_path / name).mkdir()
        torch.save({"expert_info": info(""), "expert_weights": weights(0)}, tmp_path / name / "best.ckpt")
    paths = [tmp_path / name / "best.ckpt" for name in ("math", "code")]
    assert Library.from_mttl(paths).names == ("math", "code")


Q = "model.layers.0.self_attn.q_proj.lora_a"
BAD = {
    "no alpha": ({}, {"expert_config": None, "training_config": {}}, "lora_alpha is None"),
    "alpha of text": ({}, {"expert_config": config(lora_alpha="16")}, "lora_alpha is '16'"),
    "alpha NaN": ({}, {"expert_config": config(lora_alpha=float("nan"))}, "lora_alpha is nan"),
    "tied": ({Q: None}, {}, r"q_proj has only lora_b; tied factors \(tie_params\)"),
    "skills": ({Q: torch.ones(1, 1, 16, 4)}, {}, r"q_proj.lora_a' has shape \(1, 1, 16, 4\); expected two axes"),
    "ranks apart": ({Q: torch.ones(16, 3)}, {}, r"lora_a \(16, 3\) and lora_b \(4, 12\)"),
    "NaN": ({Q: torch.full((16, 4), float("nan"))}, {}, "q_proj.lora_a' holds NaN"),
    "float64": ({Q: torch.ones(16, 4, dtype=torch.float64)}, {}, "is a DoubleStorage"),
    "other weights": ({"model.layers.0.mlp.ia3": torch.ones(4)}, {}, "'model.layers.0.mlp.ia3' is not a LoRA factor"),
    "other module": ({f"head.lora_{side}": torch.ones(4, 4) for side in "ab"}, {}, "'head' is not a linear map"),
    "far layer": ({"model.layers.99999.mlp.fc1.lora_a": torch.ones(16, 4), "model.layers.99999.mlp.fc1.lora_b":
                  torch.ones(4, 20)}, {}, "layer 99999; expected at most"),
}  # fmt: skip


@pytest.mark.parametrize("kind", BAD)
def test_bad_experts_are_named(tmp_path, kind):
    tensors, changes, words = BAD[kind]
    chosen = {key: value for key, value in (weights(0) | tensors).items() if value is not None}
    add(tmp_path, "bad", chosen, **changes)
    with pytest.raises(InputError, match=words) as error:
        Library.from_mttl(tmp_path)
    assert "bad.ckpt" in str(error.value)


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """(folder, bytes of a dump) of an expert with one pair of factors."""
    folder = tmp_path_factory.mktemp("small")
    tensors = weights(0, layers=1, rank=1, sites={"mlp.fc1": (2, 3)})
    torch.save({"expert_info": info("a"), "expert_weights": tensors}, folder / "a.ckpt")
    return folder, (folder / "a.ckpt").read_bytes()


@settings(max_examples=150, deadline=None, derandomize=True, database=None)
@given(data=st.data())
def test_damaged_files_are_refused_or_read(small, data):
    folder, content = small
    start = data.draw(st.integers(0, len(content) - 1))
    middle = data.draw(st.binary(max_size=8) | st.sampled_from([b"\xff" * 8, b"\0" * 8]))
    end = data.draw(st.sampled_from([start, start + len(middle), start + 20, len(content)]))
    (folder / "b.ckpt").write_bytes(content[:start] + middle + content[end:])
    with contextlib.suppress(InputError):
        library = Library.from_mttl(folder / "b.ckpt")
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((library.loras, library.scale)))


def test_files_that_are_no_experts(tmp_path):
    torch.save(weights(0), tmp_path / "alone.ckpt")
    with pytest.raises(InputError, match=r"a file of weights alone needs NAME\.meta"):
        Library.from_mttl(tmp_path / "alone.ckpt")
    with pytest.raises(InputError, match=r"holds no NAME\.meta"):
        Library.from_mttl(tmp_path)
    with pytest.raises(InputError, match="at least one expert"):
        Library.from_mttl([])
    torch.save({"expert_info": info("a"), "expert_weights": {}}, tmp_path / "a.ckpt")
    with pytest.raises(InputError, match="weights are a dict; expected a non-empty dict of tensors"):
        Library.from_mttl(tmp_path / "a.ckpt")
