"""Pages: experts in a fixed number of slots on the device, the least recently used of which are given to others."""

from __future__ import annotations

import collections
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from modjax.errors import InputError
from modjax.models.padding import bucket


class Pages:
    """Slots for the arrays of experts.

    Attributes:
      slots: a tree of arrays [L,S,...]: what each of S slots holds, zeros where it is free. Loading makes a new tree;
        the earlier one stays as it is.
      reads: how many experts were read so far.
    """

    def __init__(self, empty: Any, slots: int, read: Callable[[int], Any], put: Callable[[Any], Any]):
        """All slots are free.

        Args:
          empty: a page, as a tree of arrays [L,...], for its shapes and dtypes.
          slots: their number, S.
          read: expert -> its page.
          put: puts a tree of arrays on the device.
        """
        self.slots = put(jax.tree.map(lambda one: jnp.zeros((len(one), slots, *one.shape[1:]), one.dtype), empty))
        self.reads = 0
        self._read, self._put = read, put
        self._places: collections.OrderedDict[int, int] = collections.OrderedDict()  # the least recently used first

    def __len__(self) -> int:
        """The number of slots."""
        return jax.tree.leaves(self.slots)[0].shape[1]

    def load(self, experts: Sequence[int]) -> list[int]:
        """The slots of these experts, different ones; those that have none yet are read.

        Raises InputError for more experts than slots, and as `read`; nothing changes then.
        """
        if len(experts) > len(self):
            raise InputError(
                f"{len(experts)} experts are needed at once, but the cache has room for {len(self)}; open the library "
                "with a larger cache=, or give fewer prompts at once"
            )
        missing = [one for one in experts if one not in self._places]
        pages = [self._read(one) for one in missing]
        self.reads += len(pages)
        for one in experts:
            if one in self._places:
                self._places.move_to_end(one)
        if missing:
            self._fill(missing, pages)
        return [self._places[one] for one in experts]

    def _fill(self, experts, pages):
        free = sorted(set(range(len(self))) - set(self._places.values()))
        for expert in experts:
            self._places[expert] = free.pop(0) if free else self._places.popitem(last=False)[1]
        filled = bucket(len(pages), 1) - len(pages)  # the last page several times, for few shapes
        stacked = jax.tree.map(lambda *leaves: np.stack(leaves, axis=1), *pages, *[pages[-1]] * filled)
        places = [self._places[one] for one in experts]
        places += places[-1:] * filled
        self.slots = _with(self.slots, self._put(stacked), np.asarray(places, np.int32))


@jax.jit
def _with(slots, pages, places):
    return jax.tree.map(lambda slot, page: slot.at[:, places].set(page.astype(slot.dtype)), slots, pages)
