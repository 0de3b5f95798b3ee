"""Where a conversation takes place: a terminal with colours and line editing, or a pipe with neither."""

import importlib
import os
import sys

# Of the 256 colours eight that stand apart on dark and on light grounds, also for most colour-blind readers.
COLOURS = (33, 208, 35, 170, 136, 37, 99, 167)
BOLD, DIM = "1", "2"


class Terminal:
    """Reads lines and writes text; paint is left out where no person looks, or where NO_COLOR is set."""

    def __init__(self):
        self.interactive = sys.stdin.isatty() and sys.stdout.isatty()
        self.coloured = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
        if self.interactive:
            importlib.import_module("readline")  # what gives input() its line editing and history

    def ask(self) -> str | None:
        """The next line without its end, "" where it was interrupted; None when there is no more."""
        if not self.interactive:
            line = sys.stdin.readline()
            return line.rstrip("\n") if line else None
        try:
            # The marks tell readline that the codes between take no room.
            return input(f"\001\033[{BOLD}m\002> \001\033[0m\002" if self.coloured else "> ")
        except EOFError:
            self.write("\n")
            return None
        except KeyboardInterrupt:
            self.write("\n")
            return ""

    def write(self, text: str) -> None:
        """At once, without an end of line."""
        sys.stdout.write(text)
        sys.stdout.flush()

    def say(self, line: str) -> None:
        self.write(f"{line}\n")

    def aside(self, line: str) -> None:
        """What only a person at a terminal wants to know."""
        if self.interactive:
            self.say(self.painted(line, DIM))

    def painted(self, text: str, code: str) -> str:
        return f"\033[{code}m{text}\033[0m" if self.coloured and text else text

    def in_colour(self, text: str, number: int) -> str:
        """Text in one of the COLOURS, which are taken in turn."""
        return self.painted(text, f"38;5;{COLOURS[number % len(COLOURS)]}")
