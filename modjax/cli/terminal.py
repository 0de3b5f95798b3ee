"""Input and output of a chat: a terminal with colours and line editing, or a pipe with neither."""

import importlib
import os
import sys

from modjax.errors import InputError

# Eight of the 256 colours that differ clearly on dark and light backgrounds, also for most colour-blind readers.
COLOURS = (33, 208, 35, 170, 136, 37, 99, 167)
BOLD, DIM = "1", "2"


def on_one_line(text: str) -> str:
    """The text with line breaks, tabs and other control characters as escapes, so that tables keep their lines."""
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text)


class Terminal:
    """Reads lines and writes text; without colours in a pipe, and if NO_COLOR is set."""

    def __init__(self):
        self.interactive = sys.stdin.isatty() and sys.stdout.isatty()
        self.coloured = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
        if self.interactive:
            importlib.import_module("readline")  # gives input() line editing and history

    def ask(self) -> str | None:
        """The next line without its line break, "" if it was interrupted; None at the end of the input."""
        if not self.interactive:
            return self._piped()
        try:
            # The marks \001 and \002 tell readline that the codes between them have no width.
            return input(f"\001\033[{BOLD}m\002> \001\033[0m\002" if self.coloured else "> ")
        except EOFError:
            self.write("\n")
            return None
        except KeyboardInterrupt:
            self.write("\n")
            return ""

    def _piped(self) -> str | None:
        try:
            line = sys.stdin.readline()
        except UnicodeDecodeError as error:
            raise InputError(
                f"standard input: byte 0x{error.object[error.start]:02X}; expected text in UTF-8"
            ) from error
        return line.removeprefix("\ufeff").rstrip("\n") if line else None

    def write(self, text: str) -> None:
        """Writes the text at once, without a line break."""
        sys.stdout.write(text)
        sys.stdout.flush()

    def say(self, line: str) -> None:
        self.write(f"{line}\n")

    def aside(self, line: str) -> None:
        """Writes a line that only a person at a terminal needs."""
        if self.interactive:
            self.say(self.painted(line, DIM))

    def painted(self, text: str, code: str) -> str:
        return f"\033[{code}m{text}\033[0m" if self.coloured and text else text

    def in_colour(self, text: str, number: int) -> str:
        """The text in colour `number` of COLOURS, which repeat."""
        return self.painted(text, f"38;5;{COLOURS[number % len(COLOURS)]}")
