"""`modjax VERB`: finds the verb, reads its flags, runs it, and reports faulty input in one line."""

import importlib
import logging
import os
import sys
import warnings

from modjax.cli import command, ending, help
from modjax.errors import InputError, suggestion

VERBS = {
    "train": "train a library of experts in lockstep",
    "cluster": "group the experts of a library by their similarity (MBC)",
    "route": "build a router, save it, and analyse which experts it chooses",
    "merge": "merge the experts of a library into one, or subtract general knowledge from each",
    "adapt": "train experts for new tasks on a few examples of each, from a library or from scratch",
    "evaluate": "score the base model, or a library with a router",
    "generate": "answer prompts with the base model, or a library with a router",
    "chat": "chat with the base model or a library, and see the experts of each token",
    "convert": "turn PEFT, mttl and GGUF files into libraries and Hugging Face directories",
    "library": "list the experts of a saved library, add experts, drop experts",
    "leaderboard": "score many methods on one library: intervals, paired differences, costs, an HTML report",
    "data": "list tasks and their sizes, count their tokens, write them to files, fetch a data set",
    "report": "write the HTML report of a finished demo or leaderboard",
    "plan": "say what a training job needs on a pod, without the pod: memory, time, cost",
    "study": "train libraries at equal compute with several seeds, tune and score methods, judge the paper's claims",
    "transfer": "test whether the similarity of two tasks' experts predicts that training them together helps",
    "demo": "run all steps on the embedded model and tasks: train, cluster, compare, report",
}
HELP = {"-h", "-help", "--help"}


def main() -> None:
    """The console entry point; exits with 0, or with a code of `modjax.cli.ending`."""
    verb, *arguments = sys.argv[1:] or ["--help"]
    _warn_in_one_line()
    try:
        if verb in {*HELP, "help"}:
            print(help.overview(VERBS))
        elif verb not in VERBS:
            raise InputError(f"unknown verb {verb!r}; {suggestion(verb, VERBS)}")
        else:
            _run(verb, arguments)
        sys.stdout.flush()
    except BrokenPipeError:  # the reader has seen enough, as in `modjax --help | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except Exception as error:
        sys.exit(ending.show(error))


def _run(verb, arguments):
    sys.path.append(os.getcwd())  # your own routers may be here
    module = importlib.import_module(f"modjax.cli.{verb}")
    if HELP & set(arguments):
        print(help.of_verb(verb, module, arguments))
        return
    config, flags = command.parse(verb, module, arguments)

    from modjax.cli import session  # imports jax, which the list of verbs does not need

    with session.start(flags):
        module.run(config, flags.workdir, flags)


def _warn_in_one_line():
    """Shows warnings, of Python and of logs, as a line of text without the line of code that raised them."""

    def show(message, category, filename, lineno, file=None, line=None):
        print(f"modjax: warning: {' '.join(str(message).split())}", file=sys.stderr)

    warnings.showwarning = show
    logging.addLevelName(logging.WARNING, "warning")
    logging.addLevelName(logging.ERROR, "error")
    logging.basicConfig(format="modjax: %(levelname)s: %(message)s")
    for handler in logging.root.handlers:
        handler.formatter.formatException = lambda _: ""  # an error that ends the command is shown at its end
