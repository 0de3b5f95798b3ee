"""The libraries that a study compares, all trained on equally many rows of the same tasks, each in its own folder."""

import dataclasses
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from modjax import cluster, merge
from modjax.cluster.agreement import measures
from modjax.data.tasks import Tasks
from modjax.errors import InputError
from modjax.experts.library import Library, concatenate
from modjax.model import Model
from modjax.parallel.distributed import from_first
from modjax.routing.embedding import task_embeddings
from modjax.studies import content
from modjax.studies.stages import Stages
from modjax.train.full import train_full
from modjax.train.groups import private, shared
from modjax.train.lora import train_library
from modjax.train.poly import train_poly

MHR_HEADS = 64  # blocks with their own weights, as in the paper's pretraining
EMBEDDED = 8  # examples of each task, the mean of whose embeddings is clustered
FULL_RATE = 3e-5  # learning rate of full fine-tuning in the paper; an expert's would destroy the model


@dataclasses.dataclass(frozen=True)
class Libraries:
    """Libraries of one collection of tasks, trained when they are first asked for.

    The file libraries.json of the stages' folder ties them to all that they are made of.

    Attributes:
      settings: of the private library; see `modjax.train.settings.Settings`.
      cluster: arguments of `modjax.cluster.mbc`.
      rows: {kind: rows per step and member} where they differ from the private library's batch. Every library is
        trained for as many steps as read the rows that the private library reads in all; with epochs, for as many.
      poly: arguments of `train_poly`.
      clustering: the share of the steps, or epochs, that the private experts by which MBC clusters are trained for, and
        that the libraries of clusters then have less, as in the paper (2 of 5 epochs); 0: the private library, at no
        cost.
      private_folder: a private library that is there already; else it is trained, too.
    """

    model: Model
    tasks: Tasks
    stages: Stages
    settings: Mapping[str, Any]
    cluster: Mapping[str, Any]
    rows: Mapping[str, int] = dataclasses.field(default_factory=dict)
    poly: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    clustering: float = 0.0
    private_folder: str | pathlib.Path | None = None

    def path(self, kind: str) -> pathlib.Path:
        """The folder of a library, or of the model of "full", trained if it is missing.

        Raises InputError unless the kind is one of KINDS, and if the folder's libraries are made of other inputs.
        """
        if kind not in KINDS:
            raise InputError(f"no library of kind {kind!r}; expected one of {', '.join(KINDS)}")
        self._claim()
        return KINDS[kind](self, kind)

    def library(self, kind: str) -> Library:
        return Library.load(self.path(kind))

    def clusters(self) -> dict[str, Any]:
        """MBC's clusters of the private experts in the form of clusters.json, with the measures of agreement."""
        self._claim()
        return self.stages.json("clusters", self._clusters)

    def _claim(self):
        given = self.private_folder
        inputs = content.of_training(self.model, self.tasks, self.settings) | {
            "cluster": dict(self.cluster),
            "rows": dict(self.rows),
            "poly": dict(self.poly),
            "clustering": self.clustering,
            "private": content.of_library(given) if given else None,
        }
        self.stages.claim(inputs, "libraries", [*KINDS, "clusters.json"])

    def _clusters(self):
        library = self.library("brief")
        found, families = cluster.mbc(library, **self.cluster), self.tasks.families_of(library.tasks)
        return found.as_json(library) | measures(found, families)

    def _private(self, kind):
        if self.private_folder:
            return pathlib.Path(self.private_folder)
        return self._of_groups(kind, private(self.tasks.training))

    def _brief(self, kind):
        if not self.clustering:
            return self.path("private")
        epochs = self.settings.get("epochs")
        if epochs:
            part = {"epochs": round(self.clustering * epochs, 9)}
        else:
            part = {"steps": max(1, round(self.clustering * self.settings["steps"]))}
        return self._of_groups(kind, private(self.tasks.training), **part)

    def _shared_a(self, kind):
        return self._of_groups(kind, private(self.tasks.training), shared_a=True)

    def _shared(self, kind):
        return self._of_groups(kind, shared(self.tasks.training))

    def _union(self, kind):
        return self._made(kind, concatenate)

    def _mean(self, kind):
        return self._made(kind, lambda parts: merge.uniform(*parts, name=kind))

    def _general(self, kind):
        return self._made(kind, lambda parts: merge.uniform(concatenate(parts), form="products", name=kind))

    def _made(self, kind, of: Callable[[list[Library]], Library]):
        """A library of others, which are trained in stages of their own, not in its time."""
        for part in MADE_OF[kind]:
            self.path(part)
        return self.stages.kept(kind, "library", lambda folder: of(list(map(self.library, MADE_OF[kind]))))

    def _mbc(self, kind):
        return self._of_groups(kind, self.clusters()["groups"])

    def _random(self, kind):
        self.clusters()
        found = cluster.Clusters.load(self.stages.path("clusters"))
        groups = cluster.random(found, **picked(self.cluster, "seed")).groups(self.library("brief"))
        return self._of_groups(kind, groups)

    def _embedding(self, kind):
        library = self.library("brief")
        vectors = task_embeddings(self.model, self.tasks.training, EMBEDDED, system=self.settings.get("system"))
        found = cluster.embedding(library, vectors, **picked(self.cluster, "clusters", "seed", "restarts"))
        return self._of_groups(kind, found.groups(library))

    def _of_groups(self, kind, groups: Mapping[str, Sequence[str]], **own):
        settings = {**self.equal_rows(kind, len(groups)), **own}
        return self.stages.kept(
            kind, "library", lambda folder: train_library(self.model, self.tasks, groups, folder, **settings)
        )

    def _poly(self, kind):
        own = {**self.poly, "heads": MHR_HEADS if kind == "mhr" else 1}
        settings = self.equal_rows(kind, 1)

        def train(folder):
            library, router = train_poly(self.model, self.tasks, workdir=folder, **own, **settings)
            from_first(lambda: router.save(folder / "router.safetensors"))
            return library

        return self.stages.kept(kind, "library", train)

    def _full(self, kind):
        settings = {**self.equal_rows(kind, 1), "learning_rate": FULL_RATE}
        return self.stages.kept(kind, "model", lambda folder: train_full(self.model, self.tasks, folder, **settings))

    def equal_rows(self, kind: str, members: int) -> dict[str, Any]:
        """The settings with which this number of members reads as many rows in all as the private library."""
        share = 1 - self.clustering if kind in OF_CLUSTERS else 1
        batch = self.rows.get(kind, self.settings["batch"])
        if self.settings.get("epochs"):  # each member reads its own tasks as often
            return {**self.settings, "batch": batch, "epochs": round(share * self.settings["epochs"], 9)}
        rows = round(share * self.settings["batch"] * self.settings["steps"] * len(self.tasks.training))
        return {**self.settings, "batch": batch, "steps": max(1, rows // (batch * members))}


OF_CLUSTERS = ("mbc", "random", "embedding")
UNIONS = {  # libraries that have the experts of others
    "private_shared": ("private", "shared"),
    "private_mean": ("private", "mean"),
    "private_general": ("private", "general"),
    "mbc_brief": ("brief", "mbc", "mean"),
}
MADE_OF = {"mean": ("mbc",), "general": ("shared", "mean"), **UNIONS}  # without training
KINDS = {
    "private": Libraries._private,
    "brief": Libraries._brief,  # the private experts by which tasks are clustered
    "shared": Libraries._shared,
    "mbc": Libraries._mbc,
    "mean": Libraries._mean,  # of MBC's experts, as one expert
    "general": Libraries._general,  # half the shared expert and half that mean
    "random": Libraries._random,
    "embedding": Libraries._embedding,
    "shared_a": Libraries._shared_a,
    "poly": Libraries._poly,
    "mhr": Libraries._poly,
    "full": Libraries._full,
    **dict.fromkeys(UNIONS, Libraries._union),
}


def trained(kind: str) -> list[str]:
    """The kinds whose training a library of this kind needs: itself, or those that it is made of."""
    parts = [one for part in MADE_OF.get(kind, ()) for one in trained(part)]
    return list(dict.fromkeys(parts)) or [kind]


def picked(options: Mapping[str, Any], *names: str) -> dict[str, Any]:
    """The options with these names, as far as they are given."""
    return {name: options[name] for name in names if name in options}
