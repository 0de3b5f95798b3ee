"""One expert on the host, module by module: what a file holds, on its way into a library and out again.

A file may give each module a rank and a scale of its own. A library pads all factors with zeros to one rank and has one
scale an expert, the one that most of the expert's modules have; what a module's scale differs by goes into its b:

    b = round(b of the file * ratio),  ratio = the module's scale / the expert's

So whoever computes with a library's factors and scales computes what the file means. A product with a ratio that is no
power of two is rounded, and not all of float32 comes back from that by division; at sites where the way out would not
give the file's very bytes, the library keeps the file's b beside, in `Library.originals`.

On the way out nothing that is remembered is trusted. An original counts only where it gives the b that the library
computes with, a narrow dtype only where it holds every number exactly. What was changed on the way is written as it is.
"""

import collections
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from modjax.errors import InputError
from modjax.experts.info import ExpertInfo
from modjax.experts.library import Library, concatenate
from modjax.ops.lora import LoRA

DTYPES = {"float32": np.float32, "float16": np.float16, "bfloat16": jnp.bfloat16}


class Factors(NamedTuple):
    """The update of one module, scale * b^T a."""

    a: np.ndarray  # [R, I]
    b: np.ndarray  # [R, O]
    scale: float  # alpha / R, or alpha / sqrt(R)


@dataclasses.dataclass(frozen=True)
class Adapter:
    """One expert as a file has it.

    Attributes:
      info: its dtype is the factors'; rank, alpha, ranks and ratios are filled in by `to_library`.
      factors: {site: {layer: Factors}}.
    """

    info: ExpertInfo
    factors: Mapping[str, Mapping[int, Factors]]

    @property
    def modules(self) -> dict[tuple[str, int], Factors]:
        return {(site, layer): one for site, layers in self.factors.items() for layer, one in layers.items()}

    @property
    def rank(self) -> int:
        """The largest of its modules' ranks."""
        return max(len(one.a) for one in self.modules.values())

    @property
    def scale(self) -> float:
        """The scale that most of its modules have; 0 only if all have."""
        scales = [one.scale for one in self.modules.values()]
        scales = [scale for scale in scales if scale] or scales
        commonest = collections.Counter(map(np.float32, scales)).most_common(1)[0][0]
        return next(scale for scale in scales if np.float32(scale) == commonest)


def to_library(adapters: Sequence[Adapter], layers: int | None = None) -> Library:
    """The adapters as experts, in order.

    Args:
      layers: L of the base model; by default up to the last layer that any adapter has. Factors are zero in the
        layers that an adapter lacks.

    Raises InputError for an adapter that has a layer beyond, and for adapters that do not fit each other.
    """
    for adapter in adapters:
        last = max(layer for _, layer in adapter.modules)
        if layers is not None and last >= layers:
            raise InputError(f"expert {adapter.info.name!r} has factors for layer {last}; expected {layers} layers")
    layers = layers or 1 + max(layer for adapter in adapters for _, layer in adapter.modules)
    return concatenate([_expert(adapter, layers) for adapter in adapters])


def from_library(library: Library) -> Iterator[Adapter]:
    """The experts one by one, as files are to have them."""
    ranks = library.ranks
    for e, info in enumerate(library.infos):
        remembered = info.alpha / info.rank
        scale = remembered if np.float32(remembered) == library.scale[e] else float(library.scale[e])
        own = {site: ranks[site][:, e] for site in library.sites if ranks[site][:, e].any()}
        one = library[e]
        arrays = {site: _arrays(one, site) for site in own}
        as_read = _adapter(info, scale, own, arrays)
        yield as_read or _adapter(dataclasses.replace(info, dtype="float32"), scale, own, arrays)


def alpha_of(scale: float, rank: int) -> float:
    """The alpha that gives the scale in float32, a short decimal if there is one."""
    short = float(f"{scale * rank:.12g}")
    return short if np.float32(short / rank) == np.float32(scale) else scale * rank


def _expert(adapter, n_layers) -> Library:
    """A library of one, with what `from_library` needs to give the adapter back."""
    rank, scale = adapter.rank, adapter.scale
    loras, originals, ranks, ratios = {}, {}, {}, {}
    for site, layers in adapter.factors.items():
        a_LRI, filed_LRO = (_stacked(adapter, site, side, n_layers, rank) for side in ("a", "b"))
        ratios[site] = _ratios(layers, n_layers, scale)
        b_LRO = _folded(filed_LRO, ratios[site][:, None, None])
        if not np.isfinite(b_LRO).all():
            raise InputError(f"expert {adapter.info.name!r}, site {site}: its modules' scales are too far apart")
        loras[site] = LoRA(jnp.asarray(a_LRI[:, None]), jnp.asarray(b_LRO[:, None]))
        ranks[site] = np.asarray([len(layers[i].a) if i in layers else 0 for i in range(n_layers)])
        found = _as_filed(b_LRO, ratios[site][:, None, None], None, adapter.info.dtype)
        if found is None or np.float32(found).tobytes() != filed_LRO.tobytes():
            originals[site] = jnp.asarray(filed_LRO[:, None])
    info = dataclasses.replace(
        adapter.info,
        rank=rank,
        alpha=alpha_of(scale, rank),
        ranks=_pairs(ranks),
        ratios=_pairs(ratios) if _differ(ratios) else (),
    )
    return Library(loras, jnp.asarray([scale], jnp.float32), (info,), originals)


def _stacked(adapter, site, side, n_layers, rank):
    layers = {layer: getattr(one, side) for layer, one in adapter.factors[site].items()}
    widths = sorted({factor.shape[1] for factor in layers.values()})
    if len(widths) > 1:
        raise InputError(
            f"expert {adapter.info.name!r}, site {site}: widths {widths} of {side}; expected the same in all layers"
        )
    stacked = np.zeros((n_layers, rank, widths[0]), np.float32)
    for layer, factor in layers.items():
        stacked[layer, : len(factor)] = factor
    return stacked


def _ratios(layers, n_layers, scale):
    ratio_L = np.ones(n_layers)
    for layer, one in layers.items():
        if np.float32(one.scale) != np.float32(scale):
            ratio_L[layer] = float(np.float32(one.scale)) / float(np.float32(scale))
    return ratio_L


def _times(scale, ratio):
    # The ratio is one of float32 scales, and gives the module's float32 scale back from no other.
    return scale if ratio == 1 else float(np.float32(scale)) * ratio


def _differ(ratios):
    return any((ratio_L != 1).any() for ratio_L in ratios.values())


def _pairs(by_site):
    return tuple((site, tuple(values.tolist())) for site, values in by_site.items())


def _arrays(one, site):
    """a[L,R,I], b[L,R,O] and, or None, the file's b[L,R,O] of a library of one."""
    kept = one.originals.get(site)
    return *(np.asarray(leaf[:, 0]) for leaf in one.loras[site]), None if kept is None else np.asarray(kept[:, 0])


def _adapter(info, scale, ranks, arrays) -> Adapter | None:
    """The adapter in info.dtype; None where that does not hold its numbers exactly."""
    factors: dict[str, dict[int, Factors]] = {}
    for site, (a_LRI, b_LRO, kept_LRO) in arrays.items():
        ratios = dict(info.ratios).get(site, ())
        for layer in np.flatnonzero(ranks[site]).tolist():
            rows = slice(ranks[site][layer])
            ratio = ratios[layer] if layer < len(ratios) else 1.0
            a = _as_filed(a_LRI[layer, rows], 1.0, None, info.dtype)
            b = _as_filed(b_LRO[layer, rows], ratio, None if kept_LRO is None else kept_LRO[layer, rows], info.dtype)
            if b is None:
                ratio, b = 1.0, _as_filed(b_LRO[layer, rows], 1.0, None, info.dtype)
            if a is None or b is None:
                return None
            factors.setdefault(site, {})[layer] = Factors(a, b, _times(scale, ratio))
    return Adapter(info, factors)


def _as_filed(folded, ratio, kept, dtype):
    """Numbers of `dtype` that fold to `folded`, `kept` if these do; None where none are found."""
    for candidate in ([] if kept is None else [kept]) + [_unfolded(folded, ratio)]:
        with np.errstate(over="ignore"):
            found = candidate.astype(DTYPES[dtype])
        if np.array_equal(_folded(found, ratio), folded, equal_nan=True):
            return found
    return None


def _folded(filed, ratio):
    with np.errstate(over="ignore"):
        return np.float32(np.float64(filed) * ratio)


def _unfolded(folded, ratio):
    with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
        return np.float32(np.float64(folded) / ratio)
