"""A command line as it is read: flags, config file, keys."""

import types

import pytest

from modjax.cli import command


@pytest.fixture
def parse(tmp_path, monkeypatch):
    """Reads arguments for a verb with one flag of its own and this config."""
    file = tmp_path / "job.py"
    file.write_text(
        "from ml_collections import ConfigDict\n"
        "from modjax.cli.variants import apply\n"
        "def get_config(text=''):\n"
        "    train = {'remat': False, 'sites': ('q',)}\n"
        "    config = ConfigDict({'steps': 3, 'train': train, 'method': {'router': 'arrow'}})\n"
        "    apply(config, text, {})\n"
        "    return config\n"
    )
    monkeypatch.setattr("sys.path", [])

    def define_flags(values):
        command.flags.DEFINE_multi_string("add", [], "folders", values)

    verb = types.SimpleNamespace(NEEDS=("config",), EXAMPLE="modjax try --config=FILE", define_flags=define_flags)
    return lambda *arguments, variants="": command.parse("try", verb, [f"--config={file}{variants}", *arguments])


def test_flags_and_keys_in_any_order(parse):
    config, flags = parse("--config.steps", "4", "--add=a", "--config.train.remat", "--workdir", "here", "--add", "b")
    assert (config.steps, config.train.remat) == (4, True)
    assert (flags.add, flags.workdir, flags.profile) == (["a", "b"], "here", None)


def test_a_flag_wins_over_a_variant(parse):
    config, _ = parse("--config.steps=5", variants=":steps=4,train.remat=True")
    assert (config.steps, config.train.remat) == (5, True)


def test_tuples_and_switches(parse):
    config, _ = parse("--config.train.sites=q", "--config.train.sites=v", "--noconfig.train.remat")
    assert (config.train.sites, config.train.remat) == (("q", "v"), False)


def test_keys_below_a_method_may_be_new(parse):
    config, _ = parse("--config.method.adapt.examples=8", "--config.method.note=mine")
    assert config.method.to_dict() == {"router": "arrow", "adapt": {"examples": 8}, "note": "mine"}
    assert config.is_locked


def test_commands_share_nothing(parse):
    parse("--add=a", "--config.steps=4")
    config, flags = parse()
    assert (config.steps, flags.add) == (3, [])
