"""A tiny checkpoint with a tokenizer, tiny tasks, and a config file that names both."""

import json
import sys

import pytest

WORDS = "red green blue one two three cat dog bird big small yes no what is the name of this".split()  # noqa: SIM905


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory):
    """A directory as transformers writes it: config, weights, tokenizer with a chat template."""
    import tokenizers
    import torch
    import transformers

    path = tmp_path_factory.mktemp("model")
    vocabulary = {word: i for i, word in enumerate(["<unk>", "<end>", "<user>", "<model>", *WORDS])}
    bare = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="<unk>"))
    bare.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=bare,
        eos_token="<end>",
        unk_token="<unk>",
        chat_template="{% for m in messages %}<user> {{ m['content'] }} {% endfor %}<model> ",
    )
    tokenizer.save_pretrained(path)
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=len(vocabulary),
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=64,
        eos_token_id=1,
    )
    transformers.LlamaForCausalLM(config).save_pretrained(path)
    return path


@pytest.fixture(scope="session")
def tasks_file(tmp_path_factory):
    """Three tasks in training and one held out, as JSON lines."""
    path = tmp_path_factory.mktemp("tasks") / "tasks.jsonl"
    lines = [
        {"task": task, "source": f"what is {word} {other}", "target": target, "split": split, "family": task[:1],
         "held_out": task == "d"}
        for task, target in (("a", "yes"), ("b", "no"), ("c", "cat dog"), ("d", "red"))
        for split, words in (("train", WORDS[:6]), ("validation", WORDS[6:9]), ("test", WORDS[9:12]))
        for word in words
        for other in ("one", "two")
    ]  # fmt: skip
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


@pytest.fixture
def config_file(checkpoint, tasks_file, tmp_path):
    """A config of the repo's own kind for the tiny model and tasks."""
    path = tmp_path / "tiny_config.py"
    path.write_text(
        "from modjax.train.settings import Settings\n"
        "import dataclasses\n"
        "from ml_collections import ConfigDict, FieldReference\n"
        "from ml_collections.config_dict import placeholder\n"
        "def get_config():\n"
        "    train = dataclasses.asdict(Settings(steps=4, batch=1, length=32, rank=2, save_every=2))\n"
        "    return ConfigDict({\n"
        f"        'model': {str(checkpoint)!r}, 'quantize': None,\n"
        f"        'tasks': FieldReference({str(tasks_file)!r}, object), 'only': (), 'groups': 'private',\n"
        "        'recipe': 'lora', 'poly': {'skills': 2, 'heads': 1, 'weights_rate': 10.0},\n"
        "        'library': '', 'train': train,\n"
        "        'method': {'router': {'name': 'arrow', 'top_k': placeholder(int)}, 'calibrate': None},\n"
        "        'route': {'shown': 2},\n"
        "        'cluster': {'clusters': 2, 'seed': 0, 'restarts': 4},\n"
        "        'evaluate': {'examples': 2, 'seed': 0, 'length': 32, 'max_new_tokens': 3, 'system': ''},\n"
        "        'generate': {'max_new_tokens': 3}, 'mesh': {'expert': -1, 'fsdp': 1, 'tensor': 1},\n"
        "        'demo': {'rows': {'mbc': 2, 'shared': 3}, 'shown': ('a', 'd')},\n"
        "    })\n"
    )
    return path


@pytest.fixture
def library(checkpoint, random_library, tmp_path):
    """The folder of three random experts for the tiny checkpoint, of the tasks in training."""
    path = tmp_path / "experts" / "library"
    random_library({"attn.q": (16, 16), "mlp.down": (24, 16)}, names=["a", "b", "c"]).save(path)
    return path


@pytest.fixture
def modjax(monkeypatch, capsys):
    """Runs the command line in this process: arguments in, (exit code, stdout, stderr) out."""
    from modjax.cli import main

    def run(*arguments):
        monkeypatch.setattr("sys.argv", ["modjax", *map(str, arguments)])
        monkeypatch.setattr("sys.path", [*sys.path])
        monkeypatch.setenv("COLUMNS", "120")
        try:
            main.main()
            code = 0
        except SystemExit as stop:
            code = stop.code
        out, err = capsys.readouterr()
        return code, out, err

    return run
