"""PyTorch's normal numbers without PyTorch, for parity with what its users start from."""

import numpy as np

from modjax.errors import InputError


def torch_normal(size: int, seed: int) -> np.ndarray:
    """float32[size], the values of `torch.randn(size)` on the CPU after `manual_seed(seed)`, to a rounding or two.

    PyTorch draws float32 uniforms from the low 24 bits of a Mersenne twister (MT19937, seeded as in its reference
    code), and turns each run of 16 into normals by Box-Muller, the first eight giving radii and the last eight
    angles. Where 16 does not divide the size, the last 16 values are drawn anew. Fewer than 16 are made another way.
    Raises InputError for such a size and for a seed outside 0..2^32 - 1.
    """
    if size < 16 or not 0 <= seed < 2**32:
        raise InputError(f"{size} values from seed {seed}: expected at least 16, and a seed from 0 up to 2^32 - 1")
    twister = np.random.RandomState(seed)
    whole = size // 16 * 16
    uniform_n = _uniform(twister, size)
    normal_n = np.empty(size, np.float32)
    normal_n[:whole] = _box_muller(uniform_n[:whole])
    if whole < size:
        normal_n[-16:] = _box_muller(_uniform(twister, 16))
    return normal_n


def _uniform(twister, size):
    bits_n = twister.randint(0, 2**32, size, np.uint32)
    return (bits_n & np.uint32(2**24 - 1)).astype(np.float32) * np.float32(2**-24)


def _box_muller(uniform_n):
    first_m8, second_m8 = np.moveaxis(uniform_n.reshape(-1, 2, 8), 1, 0)
    radius_m8 = np.sqrt(np.float32(-2) * np.log(np.float32(1) - first_m8))
    angle_m8 = np.float32(2 * np.pi) * second_m8
    return np.stack([radius_m8 * np.cos(angle_m8), radius_m8 * np.sin(angle_m8)], axis=1).reshape(-1)
