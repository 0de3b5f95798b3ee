"""Progress of long work: a bar on a terminal; in a file or a pipe a line of text now and then; on the first process."""

import sys
import time
from collections.abc import Collection, Iterator
from typing import Any, TypeVar

from tqdm import tqdm

from modjax.parallel.distributed import is_writer

SECONDS = 30.0  # between two lines
Item = TypeVar("Item")


def progress_bar(total: int, unit: str, done: int = 0, show: bool = True) -> "tqdm | Lines":
    """A context manager with `update(n=1)` and `set_postfix(**shown)`, for work of `total` units.

    Args:
      unit: what is counted, in the singular.
      done: units that an earlier run has finished.
      show: False shows nothing. Of several processes only the first shows something.
    """
    show = show and is_writer()
    if sys.stderr.isatty() or not show:
        return tqdm(total=total, unit=unit, initial=done, disable=not show)
    return Lines(total, unit, done)


def each(items: Collection[Item], unit: str, show: bool = True) -> Iterator[Item]:
    """The items one by one, with a progress bar."""
    with progress_bar(len(items), unit, show=show) as bar:
        for item in items:
            yield item
            bar.update()


class Lines:
    """The part of tqdm that is used, as lines on standard error: one every SECONDS at most, and one at the end."""

    def __init__(self, total: int, unit: str, done: int = 0):
        self.total, self.unit = total, unit
        self.first = self.said = self.done = done  # units at the start, in the latest line, now
        self.start = self.shown = time.monotonic()
        self.postfix = {}

    def __enter__(self) -> "Lines":
        return self

    def __exit__(self, *error: Any) -> None:
        if self.done > self.said:
            self._line()

    def update(self, n: int = 1) -> None:
        self.done += n
        if time.monotonic() - self.shown >= SECONDS:
            self._line()

    def set_postfix(self, refresh: bool = True, **shown: Any) -> None:
        """Values to show at the end of the next line."""
        self.postfix = shown

    def _line(self):
        self.shown, self.said = time.monotonic(), self.done
        seconds = self.shown - self.start
        rate = (self.done - self.first) / max(seconds, 1e-9)
        parts = [
            f"{self.done}/{self.total} {self.unit}s in {seconds:.0f} s",
            f"{rate:.3g} {self.unit}s per second",
            *(f"{name} {value}" for name, value in self.postfix.items()),
        ]
        print(", ".join(parts), file=sys.stderr, flush=True)
