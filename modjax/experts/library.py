"""A library of LoRA experts: one pytree of stacked arrays, and what is known of each expert."""

import dataclasses
import pathlib
from collections.abc import Iterable, Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from modjax.errors import InputError
from modjax.ops.lora import LoRA


@dataclasses.dataclass(frozen=True)
class ExpertInfo:
    """What is known of one expert beside its arrays."""

    name: str
    tasks: tuple[str, ...]  # the tasks it was trained on
    rank: int
    alpha: float
    base: str = ""  # the base model's name
    family: str = "llama"  # the base model's family, which names the modules in a PEFT folder
    fingerprint: str = ""  # of the base model's weights; "" when unknown
    training: tuple[tuple[str, str | int | float], ...] = ()  # settings, as pairs
    scores: tuple[tuple[str, float], ...] = ()


@dataclasses.dataclass(frozen=True)
class Library:
    """Experts as one pytree: every leaf of `loras` has the layer axis first, the expert axis second.

    Attributes:
      loras: {site: LoRA(a float32[L,E,R,I], b float32[L,E,R,O])}; smaller ranks are padded with zeros.
      scale: float32[E], alpha / rank of each expert.
      infos: one ExpertInfo an expert, in the order of the expert axis.
    """

    loras: dict[str, LoRA]
    scale: jax.Array
    infos: tuple[ExpertInfo, ...]

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(info.name for info in self.infos)

    @property
    def tasks(self) -> tuple[tuple[str, ...], ...]:
        """The tasks each expert was trained on."""
        return tuple(info.tasks for info in self.infos)

    @property
    def sites(self) -> tuple[str, ...]:
        return tuple(self.loras)

    @property
    def rank(self) -> int:
        """The rank that all experts are padded to."""
        return next(iter(self.loras.values())).a.shape[2]

    def __len__(self) -> int:
        return len(self.infos)

    def __repr__(self) -> str:
        return f"Library({len(self)} experts of rank {self.rank} on {', '.join(self.sites)})"

    def __getitem__(self, chosen: str | int | slice | Sequence[str | int]) -> "Library":
        """The chosen experts, by name or index, as a library in the order asked for.

        Raises InputError for an unknown name, for an expert chosen twice and where none is chosen.
        """
        ids = np.asarray(self._ids(chosen), np.int32)
        if not 0 < len(ids) == len(set(ids.tolist())):
            raise InputError(f"library[{chosen!r}]: expected at least one expert, and none twice")
        loras = jax.tree.map(lambda leaf: leaf[:, ids], self.loras)
        return Library(loras, self.scale[ids], tuple(self.infos[i] for i in ids))

    def __add__(self, other: "Library") -> "Library":
        """Both libraries' experts; the smaller rank is padded, a site that one lacks is zero there."""
        return concatenate([self, other])

    def expert_of(self, task: str) -> int | None:
        """The index of the first expert trained on `task`, or None."""
        return next((i for i, tasks in enumerate(self.tasks) if task in tasks), None)

    def save(self, path: str | pathlib.Path) -> None:
        """Writes a folder of PEFT adapters with library.json; see `modjax.experts.store`."""
        from modjax.experts import store

        store.save(self, path)

    @staticmethod
    def load(path: str | pathlib.Path) -> "Library":
        """Reads what `save` wrote."""
        from modjax.experts import store

        return store.load(path)

    @staticmethod
    def from_peft(folders: Iterable[str | pathlib.Path]) -> "Library":
        """Reads PEFT adapter folders, one expert each, named after its folder."""
        from modjax.experts import store

        return store.from_peft(folders)

    @staticmethod
    def from_arrays(
        sites: Mapping[str, tuple[jax.Array, jax.Array]],
        names: Sequence[str] | None = None,
        scale: float | Sequence[float] = 1.0,
        **info,
    ) -> "Library":
        """A library from {site: (a[L,E,R,I], b[L,E,R,O])}.

        Args:
          names: one an expert; by default expert0, expert1, ...
          scale: alpha / rank, of all experts or of each.
          info: other fields of ExpertInfo, the same for all experts; but `tasks` is a list with each expert's own,
            by default its name.
        """
        if not sites:
            raise InputError("a library needs at least one site, as {site: (a[L,E,R,I], b[L,E,R,O])}")
        loras = {site: LoRA(*(jnp.asarray(factor, jnp.float32) for factor in pair)) for site, pair in sites.items()}
        n_layers, n_experts, rank, _ = _check_shapes(loras)
        names = tuple(names) if names is not None else tuple(f"expert{i}" for i in range(n_experts))
        if len(names) != n_experts or len(set(names)) != n_experts:
            raise InputError(f"names {names}: expected {n_experts} different names, one an expert")
        tasks = info.pop("tasks", None) or [(name,) for name in names]
        if np.shape(scale) not in ((), (n_experts,)) or len(tasks) != n_experts:
            raise InputError(f"{np.size(scale)} scales and {len(tasks)} lists of tasks for {n_experts} experts")
        scale_E = np.broadcast_to(np.asarray(scale, np.float64), (n_experts,))  # alpha / rank gives the float32 back
        infos = tuple(
            ExpertInfo(name, tuple(own), rank, float(s * rank), **info)
            for name, own, s in zip(names, tasks, scale_E, strict=True)
        )
        return Library(loras, jnp.asarray(scale_E, jnp.float32), infos)

    def _ids(self, chosen) -> list[int]:
        if isinstance(chosen, slice):
            return list(range(len(self)))[chosen]
        if isinstance(chosen, str | int | np.integer):
            chosen = [chosen]
        return [self._id(one) for one in chosen]

    def _id(self, one) -> int:
        if isinstance(one, str):
            if one not in self.names:
                raise InputError(f"no expert {one!r}; the library has {', '.join(self.names)}")
            return self.names.index(one)
        return range(len(self))[one]


jax.tree_util.register_dataclass(Library, data_fields=["loras", "scale"], meta_fields=["infos"])


def concatenate(libraries: Sequence[Library]) -> Library:
    """All experts of several libraries over one base model, in order.

    Raises InputError when a name occurs twice or when the base models differ.
    """
    infos = tuple(info for library in libraries for info in library.infos)
    names = [info.name for info in infos]
    if len(set(names)) != len(names):
        twice = sorted({name for name in names if names.count(name) > 1})
        raise InputError(f"experts named twice: {', '.join(twice)}; rename them before adding libraries")
    known = {info.fingerprint for info in infos if info.fingerprint}
    if len(known) > 1:
        raise InputError(f"experts of different base models ({', '.join(sorted(known))}) cannot be added")
    rank = max(library.rank for library in libraries)
    shapes = {site: lora for library in libraries for site, lora in library.loras.items()}
    loras = {
        site: jax.tree.map(lambda *parts: jnp.concatenate(parts, axis=1), *_parts(libraries, site, like, rank))
        for site, like in shapes.items()
    }
    _check_shapes(loras)
    return Library(loras, jnp.concatenate([library.scale for library in libraries]), infos)


def _parts(libraries, site, like, rank):
    for library in libraries:
        if site in library.loras:
            own = library.loras[site]
            if any(got.shape[::3] != expected.shape[::3] for got, expected in zip(own, like, strict=True)):
                raise InputError(
                    f"site {site}: factors {own.a.shape}, {own.b.shape} and {like.a.shape}, {like.b.shape} "
                    "do not fit one model"
                )
            yield LoRA(*(pad_rank(leaf, rank) for leaf in own))
        else:
            yield LoRA(*(jnp.zeros((leaf.shape[0], len(library), rank, leaf.shape[3])) for leaf in like))


def pad_rank(factor_LERI: jax.Array, rank: int) -> jax.Array:
    """Zero rows up to `rank`; they add nothing to the product."""
    missing = rank - factor_LERI.shape[2]
    return jnp.pad(factor_LERI, ((0, 0), (0, 0), (0, missing), (0, 0)))


def _check_shapes(loras: Mapping[str, LoRA]) -> tuple[int, ...]:
    first = next(iter(loras.values())).a.shape
    for site, (a, b) in loras.items():
        if a.ndim != 4 or b.ndim != 4 or a.shape[:3] != b.shape[:3] or a.shape[:3] != first[:3]:
            raise InputError(
                f"site {site}: a {a.shape} and b {b.shape}; expected a[L,E,R,I] and b[L,E,R,O] "
                f"with L, E, R = {first[:3]}"
            )
    return first
