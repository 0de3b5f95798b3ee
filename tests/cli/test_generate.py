"""`modjax generate`: the sources of prompts, and the printed lines."""

import gzip
import io
import json

import pytest


@pytest.fixture
def library(checkpoint, random_library, tmp_path):
    path = tmp_path / "library"
    random_library({"attn.q": (16, 16), "mlp.down": (24, 16)}, names=["a", "b", "c"]).save(path)
    return f"--config.library={path}"


@pytest.fixture
def generate(modjax, config_file):
    """Runs `modjax generate` without a working folder; the printed lines."""

    def run(*arguments):
        code, out, err = modjax("generate", f"--config={config_file}", *arguments)
        assert code == 0, err
        return out.split("\n")[:-1]

    return run


PROMPTS = ["what is red", "what is the name of this cat"]


def piped(content):
    return io.TextIOWrapper(io.BytesIO(content))


def test_prompts_from_flags_file_and_standard_input_are_answered_alike(generate, monkeypatch, tmp_path):
    expected = generate(*(f"--prompt={prompt}" for prompt in PROMPTS))
    assert len(expected) == 2
    monkeypatch.setattr("sys.stdin", piped("\n\n".join(PROMPTS).encode()))
    assert generate() == expected
    (tmp_path / "prompts.txt").write_text("\n".join(PROMPTS))
    assert generate(f"--prompts={tmp_path / 'prompts.txt'}") == expected
    chat = {"messages": [{"role": "user", "content": PROMPTS[1]}]}
    (tmp_path / "prompts.jsonl").write_text(f"{json.dumps(PROMPTS[0])}\n{json.dumps(chat)}\n")
    assert generate(f"--prompts={tmp_path / 'prompts.jsonl'}") == expected


# Characters at which str.splitlines splits, though they are no line ends.
WITHIN = ["what\u2028is", "name\u2029of\x85this", "the\x0bbig\x0ccat\x1c\x1d\x1e", "mark \ufeff inside"]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_prompts_end_at_line_ends_alone(generate, monkeypatch, tmp_path, end):
    text, compressed, lines = tmp_path / "a.txt", tmp_path / "a.txt.gz", tmp_path / "a.jsonl"
    content = ("\ufeff" + end.join(WITHIN) + end).encode()
    text.write_bytes(content)
    compressed.write_bytes(gzip.compress(content))
    lines.write_bytes(("\ufeff" + end.join(json.dumps(one, ensure_ascii=False) for one in WITHIN)).encode())
    monkeypatch.setattr("sys.stdin", piped(content))
    for source in ([], [f"--prompts={text}"], [f"--prompts={compressed}"], [f"--prompts={lines}"]):
        assert [json.loads(line)["prompt"] for line in generate("--json", *source)] == WITHIN


def test_json_lines_hold_prompt_answer_and_expert(generate, library, tmp_path):
    plain = generate("--prompt=what is red", library)
    (line,) = generate("--prompt=what is red", library, "--json")
    assert json.loads(line) == {"prompt": "what is red", "answer": plain[0]}
    asked = [{"prompt": PROMPTS[0], "expert": "b"}, {"prompt": PROMPTS[1]}]
    (tmp_path / "prompts.jsonl").write_text("".join(json.dumps(one) + "\n" for one in asked))
    told = generate(
        f"--prompts={tmp_path / 'prompts.jsonl'}", library, "--config.method.router.name=oracle", "--expert=c", "--json"
    )
    assert [json.loads(one)["expert"] for one in told] == ["b", "c"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--config.generate.max_new_tokens=0"], ["max_new_tokens=0"]),
        (["--config.generate.max_new_tokens=64"], ["max_new_tokens=64", "at most 64"]),
        (["--config.method.router.name=oracle"], ["oracle", "choices="]),
        (["--config.method.router.name=oracle", "--expert=d"], ["'d'", "a, b, c"]),
    ],
)
def test_faulty_requests_are_named(modjax, config_file, library, arguments, words):
    code, _, err = modjax("generate", f"--config={config_file}", library, "--prompt=what is red", *arguments)
    assert code == 2
    assert all(word in err for word in words), err


@pytest.mark.parametrize("line", ["{", "3", '{"question": "what"}', '{"messages": [{"text": "what"}]}'])
def test_bad_lines_of_a_prompt_file_are_named(modjax, config_file, tmp_path, line):
    (tmp_path / "bad.jsonl").write_text(f'"what is red"\n{line}\n')
    code, _, err = modjax("generate", f"--config={config_file}", f"--prompts={tmp_path / 'bad.jsonl'}")
    assert code == 2
    assert "line 2" in err or "'text': 'what'" in err


def test_a_missing_prompt_file_is_named(modjax, config_file, tmp_path):
    code, _, err = modjax("generate", f"--config={config_file}", f"--prompts={tmp_path / 'none.txt'}")
    assert code == 2 and "none.txt" in err
