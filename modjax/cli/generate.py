"""`modjax generate`: answers to prompts."""

import json
import pathlib
import sys

from absl.flags import DEFINE_bool, DEFINE_multi_string, DEFINE_string, FlagValues

from modjax.cli import build, session
from modjax.data.jsonl import read_json_lines
from modjax.data.messages import Prompt
from modjax.data.sources.lines import SUFFIXES
from modjax.errors import InputError
from modjax.files import decoded, read_lines, split_lines
from modjax.parallel.distributed import from_first
from modjax.studies import methods

NEEDS = ("config",)  # flags that must be given
EXAMPLE = 'modjax generate --config=configs/chat.py:library=workdir/private/library --prompt="Give the plural of wolf."'


def define_flags(values: FlagValues) -> None:
    DEFINE_multi_string("prompt", [], "a prompt", values)
    DEFINE_string("prompts", None, "a file of prompts, one per line, or .jsonl with prompt or messages", values)
    DEFINE_string("expert", None, "the expert that the oracle router gives every prompt", values)
    DEFINE_bool("json", False, "print a JSON line for each prompt", values)


def run(config, workdir, flags) -> None:
    """Prints one answer per prompt, or with --json one line {"prompt", "answer", "expert"} per prompt.

    Prompts come from --prompt, or from the file --prompts, or line by line from standard input. Each line of a .jsonl
    file is a string, {"prompt"} or {"messages"}, with "expert" for the oracle.
    """
    if workdir:
        session.enter(workdir, config)
    asked = from_first(lambda: _asked(flags))
    if not asked:
        raise InputError("no prompts; expected --prompt=TEXT, --prompts=FILE, or lines on standard input")
    experiment = build.experiment(config)
    method = methods.make("generate", build.method(config), experiment)
    experts = [expert for _, expert in asked]
    answers = experiment.model.generate(
        [prompt for prompt, _ in asked],
        method.library,
        method.router,
        choices=None if set(experts) == {None} else experts,
        progress=len(asked) > 1 and sys.stderr.isatty(),
        **config.generate,
    )
    for (prompt, expert), answer in zip(asked, answers, strict=True):
        print(json.dumps(_line(prompt, expert, answer), ensure_ascii=False) if flags.json else answer)


def _asked(flags) -> list[tuple[Prompt, str | int | None]]:
    """(prompt, its expert) for each prompt; --expert is the expert of prompts that name none."""
    if flags.prompt:
        found = [(prompt, None) for prompt in flags.prompt]
    elif flags.prompts:
        found = _read(pathlib.Path(flags.prompts))
    else:
        lines = split_lines(decoded(sys.stdin.buffer.read(), "standard input"))
        found = [(line, None) for line in lines if line.strip()]
    return [(prompt, flags.expert if expert is None else expert) for prompt, expert in found]


def _read(path):
    if path.name.endswith(SUFFIXES):
        return [_parsed(found, where) for found, where in read_json_lines(path)]
    return [(line, None) for line in read_lines(path)]


def _parsed(found, where):
    found = {"prompt": found} if isinstance(found, str) else found
    prompt = found.get("prompt", found.get("messages")) if isinstance(found, dict) else None
    if not isinstance(prompt, str | list):
        raise InputError(f'{where}: expected a string, or an object with "prompt" or "messages"')
    return prompt, found.get("expert")


def _line(prompt, expert, answer):
    asked = {"prompt": prompt} if isinstance(prompt, str) else {"messages": prompt}
    return asked | {"answer": answer} | ({} if expert is None else {"expert": expert})
