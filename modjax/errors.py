"""InputError, the only exception for invalid input."""


class InputError(ValueError):
    """Invalid input that a user can correct. The message names the file or key, what was found and what was expected.

    The command line prints only the message and exits with code 2. Any other exception is a bug and keeps its
    traceback.
    """
