"""`modjax convert`: each direction gives what its source computes, and nothing is overwritten."""

import json
import shutil

import numpy as np
import pytest
from safetensors.numpy import load_file

import modjax as package
from modjax.experts.library import Library
from modjax.models.weights import leaves

TOKENS_BT = np.random.default_rng(0).integers(0, 20, (2, 9))


@pytest.fixture(scope="module")
def model(checkpoint):
    return package.load(checkpoint)


@pytest.fixture(scope="module")
def library(model, checkpoint, random_library, tmp_path_factory):
    """Two experts on disk and in memory."""
    sites = {site: model.config.sites[site] for site in ("attn.q", "mlp.down")}
    found = random_library(
        sites, experts=2, names=["a", "b"], scale=[1.0, 0.5], base=str(checkpoint), fingerprint=model.fingerprint
    )
    path = tmp_path_factory.mktemp("library") / "library"
    found.save(path)
    return path, found


@pytest.fixture
def convert(modjax):
    """Runs the verb, which must succeed; gives what it prints."""

    def run(target, *sources, **options):
        given = [f"--from={source}" for source in sources] + [f"--{key}={value}" for key, value in options.items()]
        code, out, err = modjax("convert", *given, f"--to={target}")
        assert code == 0, err
        return out

    return run


def assert_same(first, second):
    assert first.names == second.names and first.sites == second.sites
    np.testing.assert_array_equal(first.scale, second.scale)
    for site, pair in first.loras.items():
        for own, other in zip(pair, second.loras[site], strict=True):
            np.testing.assert_array_equal(own, other)


def test_peft_folders_to_a_library(convert, library, tmp_path):
    path, found = library
    out = convert(tmp_path / "out", path / "b", path / "a")
    assert f"{tmp_path / 'out'}: library of 2 experts" in out
    assert_same(Library.load(tmp_path / "out"), found[["b", "a"]])
    before, after = (load_file(one / "a" / "adapter_model.safetensors") for one in (path, tmp_path / "out"))
    assert all(after[key].tobytes() == tensor.tobytes() for key, tensor in before.items())


@pytest.fixture
def part(random_library, tmp_path):
    """A function that writes an adapter to the first layer alone, for a base model of this name."""

    def write(folder, base, name="a"):
        random_library({"attn.q": (16, 16)}, experts=1, layers=1, names=[name], base=str(base)).save(tmp_path / "part")
        return shutil.move(tmp_path / "part" / name, tmp_path / folder)

    return write


def test_layers_of_the_base_model(convert, checkpoint, part, model, tmp_path):
    out = convert(tmp_path / "out", part("first", checkpoint))
    assert f"library of 1 experts for 2 layers, as their base model {str(checkpoint)!r} has" in out
    model.logits(TOKENS_BT, Library.load(tmp_path / "out"))


def test_layers_that_are_given(convert, part, model, tmp_path):
    out = convert(tmp_path / "out", part("first", "elsewhere/base"), layers=2)
    assert "library of 1 experts for 2 layers, as given" in out
    model.logits(TOKENS_BT, Library.load(tmp_path / "out"))


def test_layers_that_nobody_knows(convert, modjax, config_file, part, tmp_path):
    adapter = part("first", "elsewhere/base")
    out = convert(tmp_path / "out", adapter)
    assert "for 1 layers, as many as have factors: the base model is not on this machine; --layers=N gives" in out
    generate = ("generate", f"--config={config_file}", "--prompt=red")
    code, _, err = modjax(*generate, f"--config.library={tmp_path / 'out'}")
    assert code == 2 and "read adapters to some layers with layers=2, or modjax convert --layers=2" in err
    convert(tmp_path / "again", tmp_path / "out", layers=2)  # a library gets the number too
    code, _, err = modjax(*generate, f"--config.library={tmp_path / 'again'}")
    assert code == 0, err


def test_layers_of_a_library_beside_an_adapter(convert, library, part, tmp_path):
    out = convert(tmp_path / "out", library[0], part("first", "elsewhere/base"))
    assert f"for 2 layers, as the library {str(library[0])!r} has" in out
    assert Library.load(tmp_path / "out").layers == 2


def test_adapters_in_folders_of_one_name(convert, part, tmp_path):
    first, second = part("first/adapter", "", "a"), part("second/adapter", "", "b")
    convert(tmp_path / "out", first, second)
    assert Library.load(tmp_path / "out").names == ("first", "second")


def test_a_folder_of_adapters_is_no_library(modjax, config_file, part):
    adapter = part("first", "")
    code, _, err = modjax("generate", f"--config={config_file}", f"--config.library={adapter}", "--prompt=red")
    assert code == 2 and f"make a library of it: modjax convert --from={adapter} --to=NEW_DIR" in err


def test_another_content_of_the_source(convert, modjax, part, tmp_path):
    adapter = part("first", "")
    convert(tmp_path / "out", adapter)
    weights = adapter / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4] + bytes(4))
    code, _, err = modjax("convert", f"--from={adapter}", f"--to={tmp_path / 'out'}")
    assert code == 2 and "out: was made when --from held other files; expected --to=FOLDER, new or empty" in err


def test_libraries_and_folders_side_by_side(convert, library, random_library, tmp_path):
    path, found = library
    other = random_library(
        {site: (pair.a.shape[3], pair.b.shape[3]) for site, pair in found.loras.items()}, names=list("cde")
    )
    other.save(tmp_path / "other")
    convert(tmp_path / "out", path / "b", tmp_path / "other")
    assert_same(Library.load(tmp_path / "out"), other + found["b"])


def test_an_mttl_checkpoint_to_a_library(convert, model, random_library, tmp_path):
    import torch

    found = random_library({"attn.q": model.config.sites["attn.q"]}, experts=1, names=["old"], scale=2.0)
    a_LRI, b_LRO = (torch.tensor(np.asarray(leaf[:, 0])) for leaf in found.loras["attn.q"].factors)
    module = "model.layers.{}.self_attn.q_proj.lora_{}"
    weights = {module.format(i, "a"): a_LRI[i].T.contiguous() for i in range(2)}
    weights |= {module.format(i, "b"): b_LRO[i].clone() for i in range(2)}
    known = {"expert_name": "old", "expert_config": {"lora_rank": 2, "lora_alpha": 4.0}}
    torch.save({"expert_info": known, "expert_weights": weights}, tmp_path / "old.ckpt")
    convert(tmp_path / "out", tmp_path / "old.ckpt")
    assert_same(Library.load(tmp_path / "out"), found)


def test_one_expert_of_a_library(convert, library, tmp_path):
    path, found = library
    convert(tmp_path / "out", path, only="b")
    assert_same(Library.load(tmp_path / "out"), found["b"])
    assert Library.load(tmp_path / "out").infos == Library.load(path)["b"].infos


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_libraries_in_half_precision(convert, library, tmp_path, dtype):
    import torch
    from safetensors.torch import load_file

    path, found = library
    convert(tmp_path / "out", path, dtype=dtype)
    again = Library.load(tmp_path / "out")
    for site, pair in found.loras.items():
        for own, other in zip(pair, again.loras[site], strict=True):
            np.testing.assert_array_equal(own.astype(dtype).astype(np.float32), other)
    stored = load_file(tmp_path / "out" / "a" / "adapter_model.safetensors")
    assert {tensor.dtype for tensor in stored.values()} == {getattr(torch, dtype)}
    assert [(info.name, info.rank, info.alpha) for info in again.infos] == [("a", 2, 2.0), ("b", 2, 1.0)]


def torch_logits(path):
    import torch
    import transformers

    with torch.no_grad():
        model = transformers.AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).eval()
        return model(torch.tensor(TOKENS_BT)).logits.numpy()


def test_a_model_with_one_expert_in_it(convert, model, checkpoint, library, tmp_path):
    path, found = library
    out = convert(tmp_path / "out", checkpoint, path, only="a")
    assert "llama model in float32" in out
    expected = model.logits(TOKENS_BT, found["a"])
    np.testing.assert_allclose(torch_logits(tmp_path / "out"), expected, atol=1e-5, rtol=0)
    again = package.load(tmp_path / "out")
    np.testing.assert_allclose(again.logits(TOKENS_BT), expected, atol=1e-5, rtol=0)
    assert again.tokenizer("red green")["input_ids"] == model.tokenizer("red green")["input_ids"]
    assert again.tokenizer.chat_template == model.tokenizer.chat_template


@pytest.mark.parametrize("mix", ["parameters", "outputs"])
def test_a_model_with_weighted_experts_in_it(convert, model, checkpoint, library, tmp_path, mix):
    path, found = library
    convert(tmp_path / "out", path, checkpoint, weights="0.3,-0.6", mix=mix)
    expected = model.fold(found, [0.3, -0.6], mix).logits(TOKENS_BT)
    np.testing.assert_allclose(package.load(tmp_path / "out").logits(TOKENS_BT), expected, atol=1e-6, rtol=0)


def test_a_model_keeps_the_dtype_it_has(convert, model, checkpoint, tmp_path):
    convert(tmp_path / "half", checkpoint, dtype="bfloat16")
    out = convert(tmp_path / "again", tmp_path / "half")
    assert "in bfloat16" in out
    assert package.load(tmp_path / "again").fingerprint == model.fingerprint
    assert json.loads((tmp_path / "again" / "config.json").read_text())["torch_dtype"] == "bfloat16"


def test_the_embedded_model_as_a_directory(convert, tmp_path):
    """Quantised in its GGUF file, it is the same model for transformers and for modjax when written out."""
    convert(tmp_path / "out", "smollm2-135m", dtype="bfloat16")
    source, again = package.load("smollm2-135m"), package.load(tmp_path / "out")
    assert again.fingerprint == source.fingerprint == "2882806fd0ef28ce"
    assert again.config == source.config and again.ends == source.ends
    for (path, leaf), found in zip(leaves(source.params).items(), leaves(again.params).values(), strict=True):
        np.testing.assert_array_equal(leaf.astype("bfloat16").astype(leaf.dtype), found, err_msg=path)
    text = "<|im_start|>user\nThe plural of wolf, 3 times<|im_end|>"
    assert again.tokenizer(text)["input_ids"] == source.tokenizer(text)["input_ids"]
    assert again.tokenizer.chat_template == source.tokenizer.chat_template
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert (config["bos_token_id"], config["eos_token_id"]) == (1, 2)


def test_the_same_command_again_does_nothing(convert, library, tmp_path):
    convert(tmp_path / "out", library[0])
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")}
    assert "complete" in convert(tmp_path / "out", library[0])
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")} == before


def test_what_a_killed_one_left_is_no_hindrance(convert, library, tmp_path):
    left = tmp_path / "out.converting"
    shutil.copytree(library[0] / "a", left)
    (tmp_path / "out").mkdir()
    convert(tmp_path / "out", library[0])
    assert not left.exists()
    assert_same(Library.load(tmp_path / "out"), library[1])


REFUSED = [
    (["--from={library}", "--to={occupied}"], ["occupied: exists", "new or empty"]),
    (["--from={library}", "--to={occupied}/thesis.txt"], ["thesis.txt: is no folder"]),
    (["--from={library}", "--to={library}"], ["library: exists"]),
    (["--from={library}"], ["--to is missing; example: modjax convert"]),
    (["--to={out}"], ["--from is missing"]),
    (["--from={library}", "--to={out}", "--only=z"], ["no expert 'z'", "a, b"]),
    (["--from={library}", "--to={out}", "--dtype=int8"], ["--dtype=int8", "bfloat16"]),
    (["--from={library}", "--to={out}", "--weights=1,1"], ["--weights", "--from does not name both"]),
    (["--from={model}", "--to={out}", "--mix=outputs"], ["--mix", "--from does not name both"]),
    (["--from={model}", "--to={out}", "--only=a"], ["--only chooses among experts"]),
    (["--from={library}", "--to={out}", "--layers=1"], ["'a' has factors for layer 1; expected 1 layers"]),
    (["--from={library}", "--to={out}", "--layers=0"], ["layers=0: expected a whole number, at least 1"]),
    (["--from={library}", "--to={out}", "--layers=two"], ["layers", "two"]),
    (["--from={model}", "--to={out}", "--layers=2"], ["--layers is for a library of experts"]),
    (["--from={library}/a", "--from={library}/a", "--to={out}"], ["library/a: is given twice"]),
    (["--from={library}/a/adapter_model.safetensors", "--to={out}"], ["is a file; expected the folder of an adapter"]),
    (["--from={library}", "--to=."], [".: is the folder of this process"]),
    (["--from={library}", "--to="], ["--to='': expected a path"]),
    (["--from={library}", "--to={library}/library.json/below"], ["library.json/below", "cannot be written"]),
    (["--from={model}", "--from={model}", "--to={out}"], ["two models"]),
    (["--from={model}", "--from={library}", "--to={out}"], ["no weights for a library of 2 experts"]),
    (["--from={model}", "--from={library}", "--to={out}", "--weights=1"], ["expected 2 finite numbers"]),
    (["--from={model}", "--from={library}", "--to={out}", "--weights=1,x"], ["--weights=1,x: expected numbers"]),
    (["--from={model}", "--from={library}", "--to={out}", "--weights=1,1", "--mix=sum"], ["mix='sum'"]),
    (["--from={model}", "--from={stranger}", "--to={out}"], ["stranger", "0123456789abcdef"]),
    (["--from={library}", "--from={library}/a", "--to={out}"], ["experts named twice: a"]),
    (["--from={occupied}/thesis.gguf", "--to={out}"], ["thesis.gguf", "cannot be read"]),
    (["--from={loud}", "--to={out}", "--dtype=float16"], ["'loud'", "not finite in float16"]),
]


@pytest.mark.parametrize(("arguments", "expected"), REFUSED)
def test_bad_input_is_refused(modjax, checkpoint, library, tmp_path, arguments, expected):
    (tmp_path / "occupied").mkdir()
    (tmp_path / "occupied" / "thesis.txt").write_text("mine")
    one = {"attn.q": (np.ones((2, 1, 2, 16)), np.ones((2, 1, 2, 16)))}
    Library.from_arrays(one, names=["stranger"], base="stranger", fingerprint="0123456789abcdef").save(
        tmp_path / "stranger"
    )
    Library.from_arrays({"attn.q": (one["attn.q"][0] * 1e6, one["attn.q"][1])}, names=["loud"]).save(tmp_path / "loud")
    places = {name: tmp_path / name for name in ("occupied", "out", "stranger", "loud")}
    places |= {"library": library[0], "model": checkpoint}
    code, _, err = modjax("convert", *(one.format(**places) for one in arguments))
    assert code == 2, err
    message = err[err.index("modjax: ") :].strip()
    assert "\n" not in message and "Traceback" not in err
    assert all(words in message for words in expected), message
    assert not (tmp_path / "out").exists()
    assert (tmp_path / "occupied" / "thesis.txt").read_text() == "mine"
    assert Library.load(library[0]).names == ("a", "b")
