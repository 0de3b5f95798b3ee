"""`modjax VERB`: finds the verb, reads its flags, runs it, and speaks plainly when the input is at fault."""

import importlib
import os
import sys

from absl import flags, logging
from ml_collections import config_flags

from modjax.errors import InputError

VERBS = {
    "train": "train a library of experts in lockstep",
    "cluster": "cluster a library's experts (MBC)",
    "route": "make a router once and keep it, and see how it divides the work",
    "merge": "make one expert of a library's, or take off what general experts know",
    "adapt": "experts for new tasks from a few examples of each, by a library or from scratch",
    "evaluate": "score a library under a router",
    "generate": "answer prompts with a library under a router",
    "chat": "talk with a library under a router, and see which experts answer",
    "convert": "PEFT, mttl and GGUF files to libraries and Hugging Face directories, experts folded in or not",
    "library": "list a saved library's experts, add some, drop some",
    "leaderboard": "every method on one library: scores with intervals, pairs compared, costs, an HTML report",
    "report": "write the HTML report of a finished demo or leaderboard",
    "transfer": "does the similarity of two tasks' experts say whether training them together helps?",
    "demo": "the whole path: private library, clusters, cluster experts, comparison, report",
}
USAGE = "usage: modjax VERB --config=FILE[:VARIANT,...] --workdir=DIR [--config.KEY=VALUE ...]\n\n" + "\n".join(
    f"  {verb:11} {text}" for verb, text in VERBS.items()
)
USAGES = {
    "convert": "usage: modjax convert --from=SOURCE [--from=SOURCE ...] --to=FOLDER",
    "library": "usage: modjax library --path=DIR [--add=FOLDER ...] [--drop=NAME ...] [--router=FILE]",
}
# The flags that a verb cannot do without, where they are not --config and --workdir.
NEEDED = {"generate": ("config",), "chat": ("config",), "convert": ("from", "to"), "library": ("path",)}
INPUT_FAULT = 2  # exit code

_CONFIG = config_flags.DEFINE_config_file("config", None, "the job's config file, with variants behind a colon")
_WORKDIR = flags.DEFINE_string("workdir", None, "the job's folder; the same command resumes what lies there")
flags.DEFINE_multi_string("prompt", [], "generate: a prompt; may be given several times")
flags.DEFINE_string("prompts", None, "generate: a file of prompts, one a line, or .jsonl with prompt or messages")
flags.DEFINE_string("expert", None, "generate: the expert that the oracle router gives every prompt")
flags.DEFINE_bool("json", False, "generate: print a JSON line for each prompt")
flags.DEFINE_multi_string("from", None, "convert: PEFT or mttl folders or files, libraries, one model; may be repeated")
flags.DEFINE_string("to", None, "convert: the folder to write, new or empty")
flags.DEFINE_multi_string("only", [], "convert: an expert to take, by name; may be repeated; by default all")
flags.DEFINE_list("weights", [], "convert: what experts are weighted with when they are folded into a model")
flags.DEFINE_string("mix", None, "convert: what weights act on, parameters (the default) or outputs")
flags.DEFINE_string("dtype", None, "convert: float32, float16 or bfloat16; by default as it was")
flags.DEFINE_string("sweep", None, "cluster: FIRST:LAST, numbers of clusters to compare, with pictures")
flags.DEFINE_string("against", None, "cluster: another clusters.json, to print the agreement with")
flags.DEFINE_string("nearest", None, "cluster: a library whose experts are each given the cluster they belong to")
flags.DEFINE_string("path", None, "library: its folder")
flags.DEFINE_multi_string("add", [], "library: a PEFT adapter or a library whose experts to add; may be repeated")
flags.DEFINE_multi_string("drop", [], "library: an expert to take out, by name; may be repeated")
flags.DEFINE_string("router", None, "library: the file of a router that changes with it")
flags.DEFINE_string("report", "report", "report, demo, leaderboard, route: the folder that index.html goes to")
flags.DEFINE_string("profile", None, "a folder for a profiler trace of the whole job")


def main() -> None:
    """The console entry point; returns to the shell with 0, or with 2 when the input is at fault."""
    verb, arguments = (sys.argv[1] if len(sys.argv) > 1 else "--help"), sys.argv[2:]
    if verb in ("-h", "--help", "help"):
        print(USAGE)
        return
    try:
        if verb not in VERBS:
            raise InputError(f"no verb {verb!r}; expected one of {', '.join(VERBS)}")
        _run(verb, arguments)
    except InputError as error:
        print(f"modjax: {error}", file=sys.stderr)
        sys.exit(INPUT_FAULT)


def _run(verb, arguments):
    sys.argv = [f"modjax {verb}", *arguments]  # config_flags reads overrides from here
    _parse(arguments, NEEDED.get(verb, ("config", "workdir")), USAGES.get(verb, USAGE))

    from modjax.cli import session  # jax is imported only once the flags are known to be good

    logging.set_verbosity(logging.WARNING)
    with session.start(flags.FLAGS.profile):
        importlib.import_module(f"modjax.cli.{verb}").run(_CONFIG.value, _WORKDIR.value, flags.FLAGS)


def _parse(arguments, needed, usage):
    """Reads the flags; whatever absl and ml_collections say of them is said in one line."""
    sys.path.append(os.getcwd())  # where a router of one's own may lie
    for path in (one.removeprefix("--config=").partition(":")[0] for one in arguments if one.startswith("--config=")):
        if not os.path.isfile(path):
            raise InputError(f"{path}: no such config file")
        sys.path.insert(0, os.path.dirname(os.path.abspath(path)))  # a config may import its neighbours
    try:
        rest = flags.FLAGS(sys.argv)
        missing = [flag for flag in needed if flags.FLAGS[flag].value is None]
    except (flags.Error, AttributeError, KeyError, TypeError, ValueError, OSError) as error:
        text = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
        raise InputError(" ".join(text.split())) from error
    if rest[1:]:
        raise InputError(f"unexpected argument {rest[1]!r}; options are given as --name=value")
    if missing:
        raise InputError(f"--{missing[0]} is missing; {usage.splitlines()[0]}")
