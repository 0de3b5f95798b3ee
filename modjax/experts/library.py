"""A library of LoRA experts: one pytree of stacked arrays, and an ExpertInfo for each expert."""

import dataclasses
import functools
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from modjax import digest
from modjax.arguments import items, known, number, refused, text, texts
from modjax.errors import InputError
from modjax.experts import depth, factors, mttl, peft, selection, store
from modjax.experts.adapter import Adapter, each, unstacked
from modjax.experts.axis import joined, pad_rank, taken
from modjax.experts.info import ORIGIN, ExpertInfo
from modjax.experts.ranks import ranks
from modjax.ops.lora import LoRA, Loras

# The sites of all families, in the order in which a block computes them.
_SITES = "attn.q attn.k attn.v attn.qkv attn.o mlp.gate mlp.up mlp.gate_up mlp.fc1 mlp.down mlp.fc2"
ORDER = {site: place for place, site in enumerate(_SITES.split())}
OWN = ("name", "tasks", "rank", "alpha")  # fields of ExpertInfo that each expert has its own values of
SHARED = [field.name for field in dataclasses.fields(ExpertInfo) if field.name not in OWN]


@dataclasses.dataclass(frozen=True)
class Library:
    """Experts as one pytree: every leaf of `loras` has the layer axis first, the expert axis second.

    Attributes:
      loras: {site: LoRA(a float32[L,E,R,I], b float32[L,E,R,O], scale float32[L,E])}; smaller ranks are padded with
        zeros. Where all experts of a site share one A it may be held once, a float32[L,1,R,I]; see `with_shared_a`.
      infos: one ExpertInfo per expert, in the order of the expert axis.
    """

    loras: Loras
    infos: tuple[ExpertInfo, ...]

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(info.name for info in self.infos)

    @property
    def tasks(self) -> tuple[tuple[str, ...], ...]:
        """The tasks each expert was trained on."""
        return tuple(info.tasks for info in self.infos)

    @property
    def failed(self) -> tuple[str, ...]:
        """The names of the experts whose training diverged; see `ExpertInfo.failed`."""
        return tuple(info.name for info in self.infos if info.failed)

    @property
    def sites(self) -> tuple[str, ...]:
        """The sites in the order of a block. `loras` itself may be sorted by name, as JAX returns dictionaries."""
        return tuple(sorted(self.loras, key=lambda site: (ORDER.get(site, len(ORDER)), site)))

    @property
    def scale(self) -> np.ndarray:
        """float32[E], alpha / rank of each expert.

        Single modules of an expert that was read from a file may have other scales; `loras` has those in use.
        """
        return np.float32([info.alpha / info.rank for info in self.infos])

    @property
    def layers(self) -> int:
        """The number of layers of the base model."""
        return next(iter(self.loras.values())).b.shape[0]

    @property
    def widths(self) -> dict[str, tuple[int, int]]:
        """{site: (input, output)}."""
        return {site: (lora.a.shape[3], lora.b.shape[3]) for site, lora in self.loras.items()}

    @property
    def rank(self) -> int:
        """The rank that all experts are padded to."""
        return next(iter(self.loras.values())).a.shape[2]

    @property
    def ranks(self) -> dict[str, np.ndarray]:
        """{site: int[L,E]}, the rank of each expert's factors in each layer; 0 in layers without factors.

        For an expert read from a file these are `ExpertInfo.ranks`, if all rows beyond them are zero. Otherwise it is
        the expert's rank in each layer with a factor that is not zero, or in every layer if all factors are zero.
        """
        return ranks({site: self.loras[site] for site in self.sites}, self.infos)

    @functools.cached_property
    def fingerprint(self) -> str:
        """Sixteen hexadecimal digits that identify the experts: their arrays, and what their infos say of them.

        A library that is saved and loaded keeps it, so what only tells where an expert is from does not count.
        """
        infos = [{key: value for key, value in vars(info).items() if key not in ORIGIN} for info in self.infos]
        return digest.of_json([infos, {site: digest.of_arrays(self.loras[site]) for site in self.sites}])

    def __len__(self) -> int:
        return len(self.infos)

    def __repr__(self) -> str:
        failed = f"; failed: {', '.join(self.failed)}" if self.failed else ""
        return f"Library({len(self)} experts of rank {self.rank} on {', '.join(self.sites)}{failed})"

    def __getitem__(self, chosen: str | int | slice | Sequence[str | int | bool]) -> "Library":
        """The chosen experts, by name, index, slice or mask, as a library in the given order.

        Raises InputError for an unknown expert, for one that is chosen twice, and if none is chosen.
        """
        ids = np.asarray(selection.indices(chosen, self.names), np.int32)
        loras = jax.tree.map(lambda leaf: taken(leaf, ids), self.loras)
        return Library(loras, tuple(self.infos[i] for i in ids))

    def __add__(self, other: "Library") -> "Library":
        """The experts of both libraries; smaller ranks and missing sites are filled with zeros."""
        return concatenate([self, other])

    def with_shared_a(self) -> "Library":
        """The same experts with A stored once for all, where A was frozen in training; half the memory or less.

        Raises InputError naming the first expert whose A differs.
        """
        for site in self.sites:
            a_LERI = self.loras[site].a
            differs_E = np.asarray(jnp.any(a_LERI != a_LERI[:, :1], axis=(0, 2, 3)))
            if differs_E.any():
                other = self.names[int(differs_E.argmax())]
                raise InputError(f"site {site}: A of {other!r} differs from A of {self.names[0]!r}; expected the same")
        return dataclasses.replace(self, loras={s: lora._replace(a=lora.a[:, :1]) for s, lora in self.loras.items()})

    def expanded(self) -> "Library":
        """The same experts with A repeated for each, a[L,E,R,I], at sites where it is stored once."""
        return dataclasses.replace(self, loras={s: lora._replace(a=lora.factors.a) for s, lora in self.loras.items()})

    def expert_of(self, task: str) -> int | None:
        """The index of the first expert trained on `task`, or None."""
        return next(iter(self.experts_of(task)), None)

    def experts_of(self, task: str) -> tuple[int, ...]:
        """The indices of all experts trained on `task`."""
        task = text("task", task)
        return tuple(i for i, tasks in enumerate(self.tasks) if task in tasks)

    def save(self, path: str | os.PathLike) -> None:
        """Writes a folder of PEFT adapters and library.json; see `modjax.experts.store`."""
        store.save(self.adapters(), self.layers, path)

    @staticmethod
    def load(path: str | os.PathLike) -> "Library":
        """Reads a folder that `save` wrote, and checks it against its hashes."""
        return Library.of(*store.load(path))

    @staticmethod
    def from_peft(folders: str | os.PathLike | Iterable[str | os.PathLike], layers: int | None = None) -> "Library":
        """Reads PEFT adapters, one expert each; see `modjax.experts.peft.read`.

        layers: L of the base model; by default as in `of`.
        """
        return Library.of(peft.read(folders), layers)

    @staticmethod
    def from_mttl(paths: str | os.PathLike | Iterable[str | os.PathLike], layers: int | None = None) -> "Library":
        """Reads expert libraries and checkpoints of mttl without unpickling; see `modjax.experts.mttl.read`.

        layers: L of the base model; by default as in `of`.
        """
        return Library.of(mttl.read(paths), layers)

    @staticmethod
    def of(adapters: Sequence[Adapter], layers: int | None = None) -> "Library":
        """The adapters as experts, in order.

        Args:
          layers: L of the base model; by default that of the base model which the adapters name, if it is on this
            machine, else the last layer of any adapter, plus one. Factors are zero in layers that an adapter does not
            have.

        Raises InputError for an adapter with more layers, and for adapters to models of different shapes.
        """
        adapters = list(each(adapters))
        layers = depth.of(adapters, layers).layers
        return concatenate([_library_of_one(adapter, layers) for adapter in adapters])

    def adapters(self) -> Iterator[Adapter]:
        """The experts one by one as NumPy arrays, in the form that files hold them."""
        ranks = self.ranks
        for e, info in enumerate(self.infos):
            arrays = {site: self.loras[site] for site in self.sites}
            one = jax.tree.map(lambda leaf, e=e: np.asarray(leaf[:, min(e, leaf.shape[1] - 1)]), arrays)
            yield unstacked(info, one, {site: ranks[site][:, e] for site in self.sites})

    @staticmethod
    def from_arrays(
        sites: Mapping[str, tuple[jax.Array, jax.Array]],
        names: Sequence[str] | None = None,
        scale: float | Sequence[float] = 1.0,
        tasks: Sequence[Iterable[str]] | None = None,
        **info: Any,
    ) -> "Library":
        """A library from {site: (a[L,E,R,I], b[L,E,R,O])}, or a[L,1,R,I] for one A of all experts.

        Args:
          names: one per expert; by default expert0, expert1, ...
          scale: alpha / rank, one for all experts or one per expert.
          tasks: the tasks of each expert; by default its name.
          info: other fields of ExpertInfo, the same for all experts.

        Raises InputError for arrays, names, scales or tasks whose numbers or shapes do not fit, and for a field that
        does not exist or has a value that no file can hold.
        """
        pairs = factors.given(sites)
        n_layers, n_experts, rank = factors.sizes(pairs)
        names = texts("names", [f"expert{i}" for i in range(n_experts)] if names is None else names)
        if len(names) != n_experts or len(set(names)) != n_experts:
            raise InputError(f"names {names}: expected {n_experts} different names, one per expert")
        tasks = [(name,) for name in names] if tasks is None else items("tasks", tasks, "a list of tasks per expert")
        scales = _scales(scale, n_experts)
        if len(scales) != n_experts or len(tasks) != n_experts:
            raise InputError(
                f"{len(scales)} scales and {len(tasks)} lists of tasks for {n_experts} experts; expected one scale or "
                "one per expert, and one list of tasks per expert"
            )
        known(info, SHARED, "ExpertInfo")
        infos = tuple(
            ExpertInfo(name, own, rank, s * rank, **info) for name, own, s in zip(names, tasks, scales, strict=True)
        )
        scale_LE = jnp.broadcast_to(jnp.asarray(scales, jnp.float32)[None], (n_layers, n_experts))
        return Library({site: LoRA(a, b, scale_LE) for site, (a, b) in pairs.items()}, infos)


jax.tree_util.register_dataclass(Library, data_fields=["loras"], meta_fields=["infos"])


def concatenate(libraries: Sequence[Library]) -> Library:
    """All experts of several libraries over one base model, in order.

    If every library stores A of a site once, and these are bit-identical, so does the result.

    Raises InputError if there is none, if a name occurs twice, or if the base models differ.
    """
    libraries = items("libraries", libraries, "a list of libraries")
    if not libraries or not all(isinstance(library, Library) for library in libraries):
        raise refused("libraries", libraries, "a list of at least one library")
    infos = tuple(info for library in libraries for info in library.infos)
    names = [info.name for info in infos]
    if len(set(names)) != len(names):
        twice = sorted({name for name in names if names.count(name) > 1})
        raise InputError(f"experts named twice: {', '.join(twice)}; rename them before adding libraries")
    known = {info.fingerprint for info in infos if info.fingerprint}
    if len(known) > 1:
        raise InputError(f"experts of different base models, fingerprints {', '.join(sorted(known))}; expected one")
    rank = max(library.rank for library in libraries)
    shapes = {site: lora for library in libraries for site, lora in library.loras.items()}
    counts, loras = [len(library) for library in libraries], {}
    for site, like in shapes.items():
        a_parts, b_parts, scale_parts = zip(*(_part(library, site, like, rank) for library in libraries), strict=True)
        loras[site] = LoRA(
            joined(a_parts, counts), jnp.concatenate(b_parts, axis=1), jnp.concatenate(scale_parts, axis=1)
        )
    factors.sizes({site: (lora.a, lora.b) for site, lora in loras.items()})
    return Library(loras, infos)


def _part(library: Library, site: str, like: LoRA, rank: int) -> LoRA:
    """A library's experts at one site, padded to a rank; zero factors if it does not have the site."""
    if site not in library.loras:
        a, b = (jnp.zeros((leaf.shape[0], len(library), rank, leaf.shape[3])) for leaf in (like.a, like.b))
        return LoRA(a, b, jnp.broadcast_to(jnp.asarray(library.scale)[None], b.shape[:2]))
    own = library.loras[site]
    if own.a.shape[::3] != like.a.shape[::3] or own.b.shape[::3] != like.b.shape[::3]:
        raise InputError(
            f"site {site}: factors {own.a.shape}, {own.b.shape} and {like.a.shape}, {like.b.shape} do not fit one "
            "model (layers or widths differ)" + depth.hint(*sorted((own.b.shape[0], like.b.shape[0])))
        )
    return LoRA(pad_rank(own.a, rank), pad_rank(own.b, rank), own.scale)


def _library_of_one(adapter: Adapter, layers: int) -> Library:
    loras = jax.tree.map(lambda leaf: jnp.asarray(leaf)[:, None], adapter.stacked(layers))
    return Library(loras, (adapter.described(layers),))


def _scales(scale: Any, count: int) -> list[float]:
    """One number for each expert, of one or of several."""
    one = np.ndim(scale) == 0 if isinstance(scale, np.ndarray | jax.Array) else not isinstance(scale, Iterable)
    given = [scale] * count if one else items("scale", scale, "a number, or one per expert")
    return [number("scale", value) for value in given]
