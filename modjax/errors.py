"""The one exception for input that modjax cannot use."""


class InputError(ValueError):
    """Input a person can mend: names the file or key, what was found and what was expected.

    The command line prints its message alone and exits with code 2; everything else is a bug and
    keeps its traceback.
    """
