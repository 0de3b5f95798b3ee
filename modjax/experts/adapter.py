"""One expert as NumPy arrays, module by module, in the form of an adapter file.

A file may give each module its own rank and scale. Stacked for a library, all modules of an expert are padded with
zeros to the expert's rank. Scales are stored next to the factors, one per layer and site, so the numbers of a file are
never changed.
"""

import collections
import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from modjax.arguments import refused
from modjax.errors import InputError
from modjax.experts.info import DTYPES, ExpertInfo
from modjax.ops.lora import LoRA


class Update(NamedTuple):
    """The update of one module, scale * b^T a."""

    a: np.ndarray  # [R, I]
    b: np.ndarray  # [R, O]
    scale: float  # alpha / R, or alpha / sqrt(R)


@dataclasses.dataclass(frozen=True)
class Adapter:
    """One expert as a file holds it.

    Attributes:
      info: `info.dtype` is the dtype of the factors; a rank of 0 means that rank, alpha and ranks are not known yet.
      updates: {site: {layer: Update}}, at least one.
    """

    info: ExpertInfo
    updates: Mapping[str, Mapping[int, Update]]

    @property
    def modules(self) -> dict[tuple[str, int], Update]:
        return {(site, layer): one for site, layers in self.updates.items() for layer, one in layers.items()}

    @property
    def layers(self) -> int:
        """The number of layers up to the last one that has an update."""
        return 1 + max(layer for _, layer in self.modules)

    @property
    def rank(self) -> int:
        """The largest rank of its modules."""
        return max(len(one.a) for one in self.modules.values())

    @property
    def scale(self) -> float:
        """The most common scale of its modules; 0 only if all are 0."""
        scales = [one.scale for one in self.modules.values()]
        scales = [scale for scale in scales if scale] or scales
        commonest = collections.Counter(map(np.float32, scales)).most_common(1)[0][0]
        return next(scale for scale in scales if np.float32(scale) == commonest)

    def described(self, layers: int) -> ExpertInfo:
        """The info, with rank, alpha and ranks per layer from the modules where they are not known yet."""
        if self.info.rank:
            return self.info
        ranks = {
            site: tuple(len(own[i].a) if i in own else 0 for i in range(layers)) for site, own in self.updates.items()
        }
        alpha = alpha_of(self.scale, self.rank)
        return dataclasses.replace(self.info, rank=self.rank, alpha=alpha, ranks=tuple(ranks.items()))

    def stacked(self, layers: int, rank: int | None = None) -> dict[str, LoRA]:
        """{site: LoRA(a float32[L,R,I], b float32[L,R,O], scale float32[L])}; zero factors in layers without an update.

        rank: R, at least the expert's own, which is the default.

        Raises InputError for an update beyond `layers`, and for widths that differ from layer to layer.
        """
        if self.layers > layers:
            raise InputError(
                f"expert {self.info.name!r} has factors for layer {self.layers - 1}; expected {layers} layers"
            )
        return {
            site: LoRA(
                self._stacked(site, "a", layers, rank or self.rank),
                self._stacked(site, "b", layers, rank or self.rank),
                np.float32([own[i].scale if i in own else self.scale for i in range(layers)]),
            )
            for site, own in self.updates.items()
        }

    def _stacked(self, site, side, n_layers, rank):
        factors = {layer: getattr(one, side) for layer, one in self.updates[site].items()}
        widths = sorted({factor.shape[1] for factor in factors.values()})
        if len(widths) > 1:
            raise InputError(
                f"expert {self.info.name!r}, site {site}: widths {widths} of {side}; expected the same in all layers"
            )
        stacked = np.zeros((n_layers, rank, widths[0]), np.float32)
        for layer, factor in factors.items():
            stacked[layer, : len(factor)] = factor
        return stacked

    def in_dtype(self, dtype: str) -> "Adapter":
        """The adapter with its factors rounded to a dtype, a key of DTYPES.

        Raises InputError naming the expert if its factors exceed the range of the dtype.
        """

        def narrowed(factor):
            with np.errstate(over="ignore"):
                found = factor.astype(DTYPES[dtype])
            if not np.isfinite(found).all():
                raise InputError(f"expert {self.info.name!r}: some values are not finite in {dtype}")
            return found

        updates = {
            site: {layer: one._replace(a=narrowed(one.a), b=narrowed(one.b)) for layer, one in layers.items()}
            for site, layers in self.updates.items()
        }
        return Adapter(dataclasses.replace(self.info, dtype=dtype), updates)


def each(adapters: Any) -> Iterator[Adapter]:
    """The adapters one by one. Raises InputError for anything else than adapters."""
    if not isinstance(adapters, Iterable):
        raise refused("adapters", adapters, "adapters, as Library.adapters() gives them")
    for adapter in adapters:
        if not isinstance(adapter, Adapter):
            raise refused("adapters", adapter, "adapters, as Library.adapters() gives them")
        yield adapter


def unstacked(info: ExpertInfo, loras: Mapping[str, LoRA], ranks: Mapping[str, np.ndarray]) -> Adapter:
    """The adapter of an expert's stacked arrays, the inverse of `Adapter.stacked`.

    The factors have the dtype `info.dtype` if it represents all of them exactly, else float32. `info.alpha` is kept if
    any module has the scale alpha / rank, else computed from the most common scale.

    Args:
      loras: {site: LoRA(a float32[L,R,I], b float32[L,R,O], scale float32[L])}.
      ranks: {site: int[L]}, the rank in each layer, 0 for layers without an update.
    """
    nominal = info.alpha / info.rank
    updates: dict[str, dict[int, Update]] = {}
    for site, (a_LRI, b_LRO, scale_L) in loras.items():
        for layer in np.flatnonzero(ranks[site]).tolist():
            rows, scale = slice(ranks[site][layer]), float(scale_L[layer])
            # Equal in float32, but the float64 quotient gives alpha as a short decimal.
            scale = nominal if np.float32(nominal) == np.float32(scale) else scale
            updates.setdefault(site, {})[layer] = Update(a_LRI[layer, rows], b_LRO[layer, rows], scale)
    adapter = Adapter(dataclasses.replace(info, dtype="float32"), updates)
    if np.float32(nominal) not in {np.float32(one.scale) for one in adapter.modules.values()}:
        changed = dataclasses.replace(adapter.info, alpha=alpha_of(adapter.scale, info.rank))
        adapter = dataclasses.replace(adapter, info=changed)
    return _narrowed(adapter, info.dtype)


def _narrowed(adapter, dtype) -> Adapter:
    factors = [factor for one in adapter.modules.values() for factor in (one.a, one.b)]
    with np.errstate(over="ignore"):
        exact = all(np.array_equal(x.astype(DTYPES[dtype]).astype(np.float32), x, equal_nan=True) for x in factors)
    return adapter.in_dtype(dtype) if exact and dtype != "float32" else adapter


def alpha_of(scale: float, rank: int) -> float:
    """The alpha with alpha / rank == scale in float32; a short decimal if there is one."""
    short = float(f"{scale * rank:.12g}")
    return short if np.float32(short / rank) == np.float32(scale) else scale * rank
