"""Retrieval of experts for a new task: a few at random, or those most similar to an expert of the task itself.

For the latter an expert is first trained on the new task's examples. Its flattened factors are compared with those of
the library, as in MBC (modjax.cluster): by their cosine, or by the cosine of their SVD coordinates after
sparsification.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np

from modjax import arguments
from modjax.arguments import choice, refused, whole
from modjax.cluster import similarity
from modjax.data.loader import key_of
from modjax.data.tasks import Tasks
from modjax.errors import InputError
from modjax.experts.failed import without_failed
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
    """Chooses n experts for each new task, the highest score first: {task: (expert, ...)}.

    The experts of a task do not depend on the other tasks.

    Args:
      library: its experts whose training failed are left out, with a warning.
      n: number of experts per task, from 1 to the number of experts.
      by: "random", or the score of `nearness` by "lora" or "svd".
      own: experts trained on the new tasks, from `modjax.adapt.lora`; "random" needs none.
      sparsity, components: settings of "svd"; see `nearness`.
      seed: seed of "random", combined with the name of each task.

    Raises InputError for an invalid setting, and for a task without an expert in `own`.
    """
    choice("by", by, get_args(By))
    library, seed = without_failed(library), arguments.seed("seed", seed)
    n = whole("n", n, least=1, most=len(library))
    found = {}
    for name in arguments.texts("tasks", tasks):
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
    """The similarity of each expert to a new one, float32[E] in [-1, 1].

    Args:
      expert: a library of one, for the same model.
      by: "lora", the cosine of the flattened factors (A and B of all sites and layers, without scales); or "svd", the
        cosine of coordinates: library and new expert are sparsified together and projected on singular vectors.
      sparsity: for "svd", the quantile of an expert's magnitudes up to which its numbers are set to 0.
      components: for "svd", the number of singular vectors.
    """
    choice("by", by, get_args(By))
    arguments.instance("library", library, Library)
    if len(arguments.instance("expert", expert, Library)) != 1:
        raise refused("expert", expert, "a library of one expert")
    (info,) = expert.infos
    renamed = dataclasses.replace(info, name=f"new task {info.name}")  # the library may have an expert of that name
    together = library + dataclasses.replace(expert, infos=(renamed,))
    if by == "lora":
        return np.asarray(_cosines(together.loras))[:-1]
    return np.asarray(similarity(together, sparsity=sparsity, components=components))[-1, :-1]


@jax.jit
def _cosines(loras):
    """float32[E], the cosine of each expert with the last one."""
    leaves = [factor for lora in loras.values() for factor in (lora.a, lora.b)]
    inner_E = sum(jnp.einsum("lerx,lrx->e", leaf, leaf[:, -1], precision="highest") for leaf in leaves)
    square_E = sum(jnp.einsum("lerx,lerx->e", leaf, leaf, precision="highest") for leaf in leaves)
    norm_E = jnp.sqrt(jnp.maximum(square_E, jnp.finfo(jnp.float32).tiny))
    return inner_E / (norm_E * norm_E[-1])


def retrieved_from(library: Library, tasks: Tasks, retrieved: Retrieved | None) -> dict[str, tuple[str, ...]]:
    """{task: its experts}; if `retrieved` is None, all experts of the library for each task.

    Experts whose training failed are then left out, with a warning. Raises InputError for a task without experts, for
    experts that are not in the library, and for different numbers of experts per task.
    """
    if retrieved is None:
        return dict.fromkeys(tasks, without_failed(library).names)
    retrieved = arguments.mapping("retrieved", retrieved, "{task: [expert, ...]}")
    chosen = {name: arguments.texts(f"retrieved[{name!r}]", retrieved.get(name, ())) for name in tasks}
    for name, own in chosen.items():
        if not own or not set(own) <= set(library.names):
            known = ", ".join(library.names)
            raise InputError(f"retrieved: task {name!r} has experts {list(own)}; expected at least one of {known}")
    if len({len(own) for own in chosen.values()}) != 1:
        found = {name: len(own) for name, own in chosen.items()}
        raise InputError(f"retrieved: numbers of experts are {found}; expected the same number for every task")
    return chosen


def _expert_of(own, task, by) -> Library:
    index = None if own is None else arguments.instance("own", own, Library).expert_of(task)
    if index is None:
        raise InputError(f"by={by!r}: task {task!r} has no expert in own=; train one with modjax.adapt.lora")
    return own[index]
