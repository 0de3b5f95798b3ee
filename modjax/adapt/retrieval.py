"""Which experts of a library a new task begins with: a few at random, or those nearest to an expert of its own.

An expert is first trained on the new task's examples, and what is compared are flattened factors, as in MBC
(modjax.cluster): by their cosine, or by the cosine of their SVD coordinates after sparsification.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np

from modjax.cluster import similarity
from modjax.data.loader import key_of
from modjax.data.tasks import Tasks
from modjax.errors import InputError
from modjax.experts.library import Library

By = Literal["random", "lora", "svd"]
Retrieved = Mapping[str, Sequence[str]]  # {task: names of experts, nearest first}


def retrieve(
    library: Library,
    tasks: Tasks,
    n: int = 5,
    by: By = "lora",
    own: Library | None = None,
    sparsity: float = 0.5,
    components: int = 64,
    seed: int = 0,
) -> dict[str, tuple[str, ...]]:
    """The n experts of each new task, those of the highest score first; no task's depend on the other tasks.

    Args:
      n: how many, 1 to the number of experts.
      by: "random"; "lora" or "svd", the scores of `nearness`.
      own: experts trained on the new tasks, from `modjax.adapt.lora`; "random" needs none.
      seed: of "random"; every task draws from its own name.

    Raises InputError for settings that cannot be, and for a task without an expert of its own.
    """
    if by not in get_args(By):
        raise InputError(f"by={by!r}: expected one of {', '.join(get_args(By))}")
    if not 1 <= n <= len(library):
        raise InputError(f"n={n}: expected 1 to {len(library)}, the number of experts")
    found = {}
    for name in tasks:
        if by == "random":
            order = np.random.RandomState(key_of(name, seed)).permutation(len(library))
        else:
            options = {"sparsity": sparsity, "components": components}
            order = np.argsort(-nearness(library, _expert_of(own, name, by), by, **options), kind="stable")
        found[name] = tuple(library.names[i] for i in order[:n])
    return found


def nearness(
    library: Library, expert: Library, by: By = "lora", sparsity: float = 0.5, components: int = 64
) -> np.ndarray:
    """How near each expert lies to a new one, float32[E] in [-1, 1].

    "lora": the cosine of flattened factors (A and B of all sites and layers, scales left out). "svd": library and new
    expert together are sparsified, each at the quantile `sparsity` of its own magnitudes, and truncated to `components`
    singular vectors; the cosine of the coordinates.

    Args:
      expert: a library of one, of the library's model.
    """
    (info,) = expert.infos
    renamed = dataclasses.replace(info, name=f"new task {info.name}")  # its task may be in the library already
    together = library + dataclasses.replace(expert, infos=(renamed,))
    if by == "lora":
        return np.asarray(_cosines(together.loras))[:-1]
    return np.asarray(similarity(together, sparsity=sparsity, components=components))[-1, :-1]


@jax.jit
def _cosines(loras):
    """float32[E]: the last expert against all."""
    leaves = [factor for lora in loras.values() for factor in (lora.a, lora.b)]
    inner_E = sum(jnp.einsum("lerx,lrx->e", leaf, leaf[:, -1], precision="highest") for leaf in leaves)
    square_E = sum(jnp.einsum("lerx,lerx->e", leaf, leaf, precision="highest") for leaf in leaves)
    norm_E = jnp.sqrt(jnp.maximum(square_E, jnp.finfo(jnp.float32).tiny))
    return inner_E / (norm_E * norm_E[-1])


def retrieved_from(library: Library, tasks: Tasks, retrieved: Retrieved | None) -> dict[str, tuple[str, ...]]:
    """{task: its experts}, all of the library where nothing was retrieved.

    Raises InputError for a task without experts, for experts that the library lacks, and for unequal numbers.
    """
    if retrieved is None:
        return dict.fromkeys(tasks, library.names)
    for name in tasks:
        missing = [expert for expert in retrieved.get(name, ()) if expert not in library.names]
        if not retrieved.get(name) or missing:
            raise InputError(f"retrieved: task {name!r} has experts {missing}; expected some of the library's")
    chosen = {name: tuple(retrieved[name]) for name in tasks}
    if len({len(own) for own in chosen.values()}) != 1:
        raise InputError(f"retrieved: {[len(own) for own in chosen.values()]} experts; expected as many for every task")
    return chosen


def _expert_of(own, task, by) -> Library:
    index = None if own is None else own.expert_of(task)
    if index is None:
        raise InputError(f"by={by!r}: task {task!r} has no expert of its own; train one with modjax.adapt.lora")
    return own[index]
