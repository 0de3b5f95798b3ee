"""What every merge begins and ends with: checked weights and scales, and one expert with its history."""

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple, get_args

import jax.numpy as jnp
import numpy as np

from modjax.errors import InputError
from modjax.experts.info import ExpertInfo
from modjax.experts.library import Library
from modjax.merge.factors import Shares
from modjax.ops.lora import LoRA

Form = Literal["factors", "roots", "products"]


class Record(NamedTuple):
    """What a merged expert remembers of its making."""

    name: str
    weights_E: np.ndarray
    training: Mapping[str, str | int | float]  # the method and its settings


def checked_form(form: Form, rank: int | None = None) -> Form:
    """Raises InputError for another form, and for a rank where none is chosen."""
    if form not in get_args(Form):
        raise InputError(f"form={form!r}: expected one of {', '.join(get_args(Form))}")
    if rank is not None and (form != "products" or rank < 1):
        raise InputError(f"rank={rank} with form={form!r}: a rank of at least 1 is chosen for 'products' alone")
    return form


def checked_weights(library: Library, weights: Sequence[float] | None, default: float) -> np.ndarray:
    """float64[E]; the default for each expert where none are given. Raises InputError unless one finite number each."""
    weights_E = np.full(len(library), default) if weights is None else np.asarray(weights, np.float64)
    if weights_E.shape != (len(library),) or not np.isfinite(weights_E).all():
        raise InputError(f"weights {weights}: expected {len(library)} finite numbers, one an expert")
    return weights_E


def scale_of(library: Library) -> float:
    """The merged expert's scale: the largest of the experts', 1 where all are silent."""
    return float(np.abs(np.asarray(library.scale)).max()) or 1.0


def shares(library: Library, weights_E: np.ndarray, form: Form) -> Shares:
    """The weights of both factors in one form, with the merged expert's scale taken out of them."""
    part_E = weights_E * np.asarray(library.scale, np.float64) / scale_of(library)
    if form == "factors":
        pair = weights_E, part_E
    elif form == "roots":
        root_E = np.sqrt(np.abs(part_E))
        pair = np.where(part_E < 0, -root_E, root_E), root_E
    else:
        pair = np.ones_like(part_E), part_E
    return Shares(*(np.float32(share_E) for share_E in pair))


def own_rank(library: Library) -> int:
    """The largest rank that any expert's factors have, at least 1."""
    return max(1, *(int(ranks_LE.max()) for ranks_LE in library.ranks.values()))


def merged(
    library: Library,
    loras: Mapping[str, LoRA],
    record: Record,
    scores: Mapping[str, float] | None = None,
) -> Library:
    """A library of one from factors a[L,R,I], b[L,R,O]; what is known of it is what is known of all, and how it came.

    Args:
      library: the experts it was merged from; their names join the record.
    """
    scale, infos = scale_of(library), library.infos
    rank = next(iter(loras.values())).a.shape[1]
    parents = {
        "experts": ", ".join(library.names),
        "weights": ", ".join(f"{weight:.6g}" for weight in record.weights_E),
    }
    info = ExpertInfo(
        name=record.name,
        tasks=tuple(dict.fromkeys(task for own in library.tasks for task in own)),
        rank=rank,
        alpha=scale * rank,
        base=infos[0].base,
        family=infos[0].family,
        fingerprint=next((info.fingerprint for info in infos if info.fingerprint), ""),
        training=tuple({**record.training, **parents}.items()),
        scores=tuple((scores or {}).items()),
    )
    stacked = {site: LoRA(a_LRI[:, None], b_LRO[:, None]) for site, (a_LRI, b_LRO) in loras.items()}
    return Library(stacked, jnp.full((1,), scale, jnp.float32), (info,))
