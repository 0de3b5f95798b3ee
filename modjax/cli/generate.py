"""`modjax generate`: answers to prompts."""

import sys

from modjax.cli import pieces, session
from modjax.errors import InputError


def run(config, workdir, flags) -> None:
    """Prints one answer a prompt; prompts come from --prompt, or line by line from standard input."""
    session.enter(workdir, config)
    prompts = flags.prompt or [line.rstrip("\n") for line in sys.stdin if line.strip()]
    if not prompts:
        raise InputError("no prompts; expected --prompt=TEXT, or lines on standard input")
    library = pieces.library(config) if config.library else None
    router = pieces.router(config, library) if library else None
    for answer in pieces.model(config).generate(prompts, library, router, **config.generate):
        print(answer)
