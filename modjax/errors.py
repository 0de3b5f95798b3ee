"""Exceptions that the command line prints in one line, and the suggestion that ends an error about an unknown name."""

import difflib
from collections.abc import Iterable


class InputError(ValueError):
    """Invalid input that a user can correct. The message names the file or key, what was found and what was expected.

    The command line prints only the message and exits with code 2. Any other exception is a bug and keeps its
    traceback.
    """


class Stopped(Exception):
    """A run ends before its end, not for its input, and has saved what it can; the message says how to go on.

    The command line prints only the message and exits with code 75.
    """


class Busy(Stopped):
    """Another run works in the folder; the message says which, and what to do."""


def suggestion(name: str, known: Iterable[str]) -> str:
    """Hint for an unknown name: "did you mean 'train'?", or all known names if none is near."""
    known = list(known)
    nearest = difflib.get_close_matches(name, known, n=1)
    return f"did you mean {nearest[0]!r}?" if nearest else f"expected one of {', '.join(known) or 'none'}"
