"""The three splits, and the split of an example that has none, which goes by its index in its task.

As in the FLAN data of the MBC and Arrow paper (arXiv:2405.11157): u = RandomState(index).uniform(); train if u is below
0.8, validation below 0.9, test above. So adding examples changes the split of no other.
"""

import functools

import numpy as np

SPLITS = ("train", "validation", "test")
BOUNDS = (0.8, 0.9)
_SHIFT = 397  # of the Mersenne Twister: a word of its next state is made of the words at i, i + 1 and i + 397


@functools.cache
def assign_split(index: int) -> str:
    """The split of an example that has none."""
    return SPLITS[np.searchsorted(BOUNDS, np.random.RandomState(index).uniform(), side="right")]


def by_index(n: int) -> np.ndarray:
    """uint8[n]: for each index below n the place of its split in SPLITS; as `assign_split`, a thousand times faster.

    The first two words of n Mersenne Twisters (mt19937) at a time, which make the 53 bits of `uniform`.
    """
    words = _seeded(n)
    high_n, low_n = (_tempered(_next(*words[i : i + 2], words[i + 2])) for i in (0, 3))
    u_n = ((high_n >> 5) * 67108864.0 + (low_n >> 6)) / 9007199254740992.0
    return np.searchsorted(BOUNDS, u_n, side="right").astype(np.uint8)


def _seeded(n) -> list[np.ndarray]:
    """Words 0, 1, 397 and 1, 2, 398 of the states that the seeds 0 ... n-1 give."""
    word_n, words = np.arange(n, dtype=np.uint32), {}
    for place in range(_SHIFT + 2):
        if place < 3 or place >= _SHIFT:
            words[place] = word_n
        word_n = np.uint32(1812433253) * (word_n ^ (word_n >> 30)) + np.uint32(place + 1)
    return [words[place] for place in (0, 1, _SHIFT, 1, 2, _SHIFT + 1)]


def _next(this_n, after_n, far_n) -> np.ndarray:
    mixed_n = (this_n & np.uint32(0x80000000)) | (after_n & np.uint32(0x7FFFFFFF))
    return far_n ^ (mixed_n >> 1) ^ np.where(mixed_n & 1, np.uint32(0x9908B0DF), np.uint32(0))


def _tempered(word_n) -> np.ndarray:
    word_n = word_n ^ (word_n >> 11)
    word_n = word_n ^ ((word_n << 7) & np.uint32(0x9D2C5680))
    word_n = word_n ^ ((word_n << 15) & np.uint32(0xEFC60000))
    return word_n ^ (word_n >> 18)
