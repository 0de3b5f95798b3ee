"""The one exception for input that modjax cannot use, and the hint that ends an error about an unknown name."""

import difflib
from collections.abc import Iterable


class InputError(ValueError):
    """Input a person can mend: names the file or key, what was found and what was expected.

    The command line prints its message alone and exits with code 2; everything else is a bug and
    keeps its traceback.
    """


def suggestion(name: str, known: Iterable[str]) -> str:
    """Hint for an unknown name: "did you mean 'train'?", or all known names where none is near."""
    known = list(known)
    nearest = difflib.get_close_matches(name, known, n=1)
    return f"did you mean {nearest[0]!r}?" if nearest else f"expected one of {', '.join(known)}"
