"""`modjax chat` through a pipe."""

import io

import pytest


@pytest.fixture
def chat(modjax, config_file, monkeypatch):
    """Says lines to `modjax chat` and gives the printed ones."""

    def run(said, *arguments):
        monkeypatch.setattr("sys.stdin", io.StringIO("".join(f"{line}\n" for line in said)))
        code, out, err = modjax("chat", f"--config={config_file}", *arguments)
        assert code == 0, err
        return out.splitlines()

    return run


@pytest.fixture
def library(checkpoint, random_library, tmp_path):
    path = tmp_path / "library"
    random_library({"attn.q": (16, 16), "mlp.down": (24, 16)}, names=["a", "b", "c d"]).save(path)
    return f"--config.library={path}"


def test_a_piped_line_may_hold_other_separators_and_a_mark_is_no_text(chat):
    said = ["what\u2028is\x0cred", "/reset"]
    assert chat(["\ufeff" + said[0], said[1]]) == chat(said)


def test_a_conversation_is_remembered_until_it_is_reset(chat, checkpoint):
    import modjax

    first, second, forgotten, third = chat(["what is red", "", "what is blue", "/reset", "what is blue", "/quit", "no"])
    model = modjax.load(checkpoint)

    def answer(*words):
        messages = [{"role": role, "content": one} for role, one in zip(("user", "assistant") * 2, words, strict=False)]
        return model.generate([messages], max_new_tokens=3)[0]

    assert first == answer("what is red")
    assert second == answer("what is red", first, "what is blue")
    assert third == answer("what is blue")
    assert forgotten == "new conversation"


def test_experts_are_shown_after_answers(chat, library):
    lines = chat(["/experts", "what is red", "/experts", "what is red"], library)
    assert lines[0] == "experts are shown" and lines[-2] == "experts are hidden"
    table = lines[2:-2]
    assert table[0].endswith("]") and "weight" in table[1]
    assert sorted(line.split()[1] for line in table[2:]) == ["a", "b", "c"]


def test_routers_can_be_changed(chat, library):
    said = ["/experts", "/router uniform", "what is red", "/router oracle c d", "what is red", "/router none"]
    lines = chat([*said, "/reset", "what is red"], library)
    assert lines[1].endswith("with 3 experts, routed by Uniform")
    assert lines[3] == "  every token used all 3 experts alike"
    assert lines[4].endswith("routed by Oracle of c d")
    assert "c d" in lines[8] and lines[8].split()[-2:] == ["100%", "100%"]
    assert "experts" not in lines[-3]
    assert lines[-1] == chat(["what is red"])[0]


def test_a_system_message_starts_a_new_conversation(chat):
    """Seen by the tokens of a conversation that is too long: one a word, and one before each message and answer."""
    said = ["what is red", "/system yes yes big", "what is red", "/system", "what is red"]
    plain, one, longer, other, again = chat(said, "--config.generate.max_new_tokens=64")
    assert one == "new conversation with this system message"
    assert other == "new conversation with the template's system message"
    assert "has 5 tokens" in plain and "has 9 tokens" in longer and plain == again


def test_the_conversation_goes_on_after_an_error(chat, library):
    lines = chat(
        ["/router bow", "/router oracle", "/router uniform a", "/bow", "red " * 80, "what is red", "/help"], library
    )
    for line, words in zip(
        lines,
        ["bow", "an expert, one of a, b, c d, after oracle", "nothing after uniform", "'/bow'", "at most 64"],
        strict=False,
    ):
        assert line.startswith("modjax: ") and words in line
    assert not lines[5].startswith("modjax: ")
    assert any(line.split()[0] == "/quit" for line in lines[6:])
    assert chat(["/experts"])[0].startswith("modjax: there are no experts")
