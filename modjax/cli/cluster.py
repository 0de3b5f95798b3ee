"""`modjax cluster`: which tasks belong together, by the similarity of their experts."""

import pathlib

import numpy as np
from absl.flags import DEFINE_string, FlagValues

from modjax.cli import build, session
from modjax.cluster import (
    Clusters,
    Sweep,
    adjusted_rand,
    dendrogram,
    embedding,
    mbc,
    nearest,
    random,
    silhouette,
    sweep,
)
from modjax.data.tasks import Tasks
from modjax.errors import InputError
from modjax.experts.library import Library
from modjax.files import write_json
from modjax.parallel.distributed import from_first
from modjax.report import clustering
from modjax.routing.examples import first_of
from modjax.routing.task_representations import embed

NEEDS = ("config", "workdir")  # flags that must be given
EXAMPLE = "modjax cluster --config=configs/mbc.py:quick,library=workdir/private/library --workdir=workdir/clusters"
METHODS = ("mbc", "random", "embedding")
MEASURES = ("inertia", "silhouette", "adjusted_rand")


def define_flags(values: FlagValues) -> None:
    DEFINE_string("sweep", None, "FIRST:LAST, numbers of clusters to compare, with pictures", values)
    DEFINE_string("against", None, "another clusters.json, to print the agreement with", values)
    DEFINE_string("nearest", None, "a library; each of its experts is given the nearest cluster", values)


def run(config, workdir, flags) -> None:
    """Writes WORKDIR/clusters.json, which `config.groups` of a train job takes, and what flags ask for."""
    sizes = _sizes(flags.sweep) if flags.sweep else ()
    folder = session.enter(workdir, config)
    library, tasks = build.library(config), build.tasks(config)
    families = {name: task.family for name, task in tasks.items()}
    clusters = _clusters(config, library, tasks)  # on all processes: the base model may lie across them
    from_first(lambda: _leave(folder, config, flags, clusters, library, families, sizes))


def _leave(folder, config, flags, clusters, library, families, sizes):
    """Writes and prints the clusters and what flags ask for."""
    write_json(folder / "clusters.json", as_json(clusters, library, families))
    for cluster, names in clusters.names.items():
        print(f"cluster {cluster}: {', '.join(names)}")
    if flags.against:
        agreement = adjusted_rand(clusters, Clusters.load(flags.against))
        print(f"adjusted Rand index against {flags.against}: {agreement:.3f}")
    if flags.nearest:
        _place(folder, config, clusters, library, Library.load(flags.nearest))
    if sizes:
        _sweep(folder, config, clusters, library, families, sizes)


def as_json(clusters: Clusters, library: Library, families: dict[str, str | None]) -> dict:
    """Each cluster's tasks, the similarity matrix, and agreement with the families (adjusted Rand) where known."""
    own = _families(library, families)
    return {
        "groups": clusters.groups(library),
        "names": library.names,
        "labels": clusters.labels.tolist(),
        "families": own,
        "adjusted_rand": None if None in own else adjusted_rand(clusters, own),
        "inertia": clusters.inertia,
        "silhouette": silhouette(clusters),
        "matrix": clusters.similarity.round(4).tolist(),
    }


def _families(library, families):
    return [families.get(tasks[0]) if tasks else None for tasks in library.tasks]


def _clusters(config, library: Library, tasks: Tasks) -> Clusters:
    """What `config.cluster.method` says; a random partition has the sizes that MBC finds with the same settings."""
    options = config.cluster.to_dict()
    method, examples = options.pop("method", "mbc"), options.pop("examples", 32)
    if method == "mbc":
        return mbc(library, **options)
    if method == "random":
        return random(mbc(library, **options), **_options(config, "seed"))
    if method == "embedding":
        own = _options(config, "clusters", "seed", "restarts")
        return embedding(library, _vectors(config, library, tasks, examples), **own)
    raise InputError(f"config.cluster.method = {method!r}; expected one of {', '.join(METHODS)}")


def _vectors(config, library, tasks, examples) -> dict[str, np.ndarray]:
    """{task: float64[D]}, the mean embedding of its first training examples' prompts by the base model."""
    named = tasks.select(dict.fromkeys(task for own in library.tasks for task in own))
    sources = {name: [example.source for example in first_of(named, name, examples, "train")] for name in named}
    prompts = [source for own in sources.values() for source in own]
    embedded_nD = embed(build.model(config), prompts, config.train.system)
    ends = np.cumsum([len(own) for own in sources.values()])[:-1]
    return {name: own_nD.mean(axis=0) for name, own_nD in zip(sources, np.split(embedded_nD, ends), strict=True)}


def _place(folder, config, clusters, library, new):
    """Prints the cluster of each new expert; nearest.json holds the groups with the new tasks in them."""
    found = nearest(clusters, library, new, **_options(config, "sparsity"))
    groups = clusters.groups(library)
    for name, tasks, label, own in zip(new.names, new.tasks, found.labels, found.similarity, strict=True):
        group = f"cluster {label}"
        groups[group] = tuple(dict.fromkeys((*groups[group], *tasks)))
        print(f"{name}: {group}, mean similarity {own[label]:.3f}")
    labels = dict(zip(new.names, found.labels.tolist(), strict=True))
    write_json(folder / "nearest.json", {"groups": groups, "labels": labels, "similarity": found.similarity.tolist()})


def _sweep(folder: pathlib.Path, config, clusters, library, families, sizes):
    """MBC for each number of clusters: prints a line each; writes sweep.json and the pictures.

    The tree is that of the experts' similarity, in the colours of the clusters that were asked for.
    """
    own = _families(library, families)
    options = _options(config, "sparsity", "components", "seed", "restarts")
    found = sweep(library, sizes, families=None if None in own else own, **options)
    rows = [_measured(found, size) for size in found.clusters]
    for row in rows:
        shown = [f"{key.replace('_', ' ')} {row[key]:.3f}" for key in MEASURES if row[key] is not None]
        print(f"{row['clusters']} clusters: {', '.join(shown)}")
    tree = dendrogram(next(iter(found.clusters.values())).similarity)
    write_json(folder / "sweep.json", {"names": library.names, "sweep": rows, "dendrogram": tree.tolist()})
    clustering.write_sweep(rows, folder / "sweep")
    clustering.write_dendrogram(tree, library.names, clusters.labels.tolist(), folder / "dendrogram")


def _measured(found: Sweep, size):
    return {
        "clusters": size,
        "inertia": found.clusters[size].inertia,
        "silhouette": found.silhouette[size],
        "adjusted_rand": found.adjusted_rand[size] if found.adjusted_rand else None,
        "labels": found.clusters[size].labels.tolist(),
    }


def _options(config, *names):
    return {name: config.cluster[name] for name in names if name in config.cluster}


def _sizes(text):
    first, _, last = text.partition(":")
    if not (first.isdecimal() and last.isdecimal() and int(first) <= int(last)):
        raise InputError(f"--sweep={text}; expected FIRST:LAST, the fewest and the most clusters")
    return range(int(first), int(last) + 1)
