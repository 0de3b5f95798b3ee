"""The first and last steps of every merge: checks of the settings, weights with scales, and the merged expert."""

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple, get_args

import jax.numpy as jnp
import numpy as np

from modjax.arguments import choice, refused, whole
from modjax.errors import InputError
from modjax.experts.failed import without_failed
from modjax.experts.info import ExpertInfo
from modjax.experts.library import Library
from modjax.merge.factors import Shares
from modjax.ops.lora import Factors, LoRA

Form = Literal["factors", "roots", "products"]


class Record(NamedTuple):
    """The name of a merged expert, and how it was made, for its ExpertInfo."""

    name: str
    weights_E: np.ndarray
    training: Mapping[str, str | int | float]  # the method and its settings


def checked_form(form: Form, rank: int | None = None) -> Form:
    """The form. Raises InputError for an unknown form, and for a rank with a form other than "products"."""
    choice("form", form, get_args(Form))
    if rank is not None and (form != "products" or whole("rank", rank) < 1):
        raise InputError(f"rank={rank}, form={form!r}: expected a rank of at least 1, and only with form='products'")
    return form


def checked_weights(library: Library, weights: Sequence[float]) -> np.ndarray:
    """float64[E]. Raises InputError unless they are E numbers that are finite in float32."""
    try:
        weights_E = np.asarray(weights, np.float64)
    except (TypeError, ValueError):
        weights_E = np.zeros(0)
    if weights_E.shape != (len(library),) or not (np.abs(weights_E) <= np.finfo(np.float32).max).all():
        raise refused("weights", weights, f"{len(library)} finite numbers, one per expert")
    return weights_E


def weighed(
    library: Library, weights: Sequence[float] | None, default: float | None = None
) -> tuple[Library, np.ndarray]:
    """The experts to merge, and their weights float64[E].

    Args:
      weights: None leaves out the experts whose training failed, with a warning, and gives the others the default.
      default: None is 1 / E.

    Raises InputError unless weights are E finite numbers, and if training failed for all experts.
    """
    if weights is not None:
        return library, checked_weights(library, weights)
    library = without_failed(library)
    return library, np.full(len(library), 1 / len(library) if default is None else default)


def scale_of(library: Library) -> float:
    """The merged expert's scale: the largest of the experts' scales; 1 if all are 0."""
    return float(np.abs(library.scale).max()) or 1.0


def shares(lora: LoRA, weights_E: np.ndarray, form: Form, scale: float) -> Shares:
    """The weights of both factors of one site in one form, divided by `scale`, that of the merged expert."""
    part_LE = weights_E[None] * np.asarray(lora.scale, np.float64) / scale
    if form == "factors":
        pair = np.broadcast_to(weights_E[None], part_LE.shape), part_LE
    elif form == "roots":
        root_LE = np.sqrt(np.abs(part_LE))
        pair = np.where(part_LE < 0, -root_LE, root_LE), root_LE
    else:
        pair = np.ones_like(part_LE), part_LE
    return Shares(*(np.float32(share_LE) for share_LE in pair))


def own_rank(library: Library) -> int:
    """The largest rank that any expert's factors have, at least 1."""
    return max(1, *(int(ranks_LE.max()) for ranks_LE in library.ranks.values()))


def merged(
    library: Library,
    factors: Mapping[str, Factors],
    record: Record,
    scores: Mapping[str, float] | None = None,
) -> Library:
    """A library of one from {site: Factors(a[L,R,I], b[L,R,O])}, with the tasks of all experts and the merge's record.

    Args:
      library: the experts that were merged; their names and weights are added to the record.
    """
    scale, infos = scale_of(library), library.infos
    n_layers, rank, _ = next(iter(factors.values())).a.shape
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
    scale_L1 = jnp.full((n_layers, 1), scale, jnp.float32)
    loras = {site: LoRA(a_LRI[:, None], b_LRO[:, None], scale_L1) for site, (a_LRI, b_LRO) in factors.items()}
    return Library(loras, (info,))
