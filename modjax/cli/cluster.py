"""`modjax cluster`: groups of tasks whose experts are similar."""

import pathlib

from absl.flags import DEFINE_string, FlagValues

from modjax.cli import build, session
from modjax.cluster import Clusters, Sweep, adjusted_rand, dendrogram, embedding, mbc, nearest, random, sweep
from modjax.cluster.agreement import measures
from modjax.data.tasks import Tasks
from modjax.errors import InputError
from modjax.experts.library import Library
from modjax.files import write_json
from modjax.model import Model
from modjax.parallel.distributed import from_first
from modjax.report import clustering
from modjax.routing.embedding import task_embeddings
from modjax.studies import content
from modjax.studies.libraries import picked

NEEDS = ("config", "workdir")  # flags that must be given
EXAMPLE = "modjax cluster --config=configs/mbc.py:quick,library=workdir/private/library --workdir=workdir/clusters"
METHODS = ("mbc", "random", "embedding")
MEASURES = ("inertia", "silhouette", "adjusted_rand")


def define_flags(values: FlagValues) -> None:
    DEFINE_string("sweep", None, "FIRST:LAST, numbers of clusters to compare, with pictures", values)
    DEFINE_string("against", None, "another clusters.json, to print the agreement with", values)
    DEFINE_string("nearest", None, "a library; each of its experts is given the nearest cluster", values)


def run(config, workdir, flags) -> None:
    """Writes WORKDIR/clusters.json, which `config.groups` of a train job takes, and the comparisons that flags name."""
    sizes = _sizes(flags.sweep) if flags.sweep else ()
    folder = session.enter(workdir, config)
    library, tasks = build.library(config), build.tasks(config)
    model = build.model(config) if config.cluster.get("method") == "embedding" else None
    made_of = {"library": library.fingerprint, "model": model and model.content}
    session.bind(folder, content.of_tasks(tasks) | made_of, "clusters.json")
    families = tasks.families_of(library.tasks)
    clusters = _clusters(config, library, tasks, model)  # on all processes: the base model may lie across them
    from_first(lambda: _report(folder, config, flags, clusters, library, families, sizes))


def _report(folder, config, flags, clusters, library, families, sizes):
    """Writes and prints the clusters and the comparisons."""
    write_json(folder / "clusters.json", clusters.as_json(library) | measures(clusters, families))
    for cluster, names in clusters.names.items():
        print(f"cluster {cluster}: {', '.join(names)}")
    if flags.against:
        agreement = adjusted_rand(clusters, Clusters.load(flags.against))
        print(f"adjusted Rand index against {flags.against}: {agreement:.3f}")
    if flags.nearest:
        _place(folder, config, clusters, library, Library.load(flags.nearest))
    if sizes:
        _sweep(folder, config, clusters, library, families, sizes)


def _clusters(config, library: Library, tasks: Tasks, model: Model | None) -> Clusters:
    """The clusters by `config.cluster.method`; a random partition has the sizes of MBC's with the same settings."""
    options = config.cluster.to_dict()
    method, examples = options.pop("method", "mbc"), options.pop("examples", 32)
    if method == "mbc":
        return mbc(library, **options)
    if method == "random":
        return random(mbc(library, **options), **picked(config.cluster, "seed"))
    if method == "embedding":
        named = tasks.select(list(dict.fromkeys(task for own in library.tasks for task in own)))
        vectors = task_embeddings(model, named, examples, system=config.train.system)
        return embedding(library, vectors, **picked(config.cluster, "clusters", "seed", "restarts"))
    raise InputError(f"config.cluster.method = {method!r}; expected one of {', '.join(METHODS)}")


def _place(folder, config, clusters, library, new):
    """Prints the nearest cluster of each new expert; writes nearest.json, the groups with the new tasks added."""
    found = nearest(clusters, library, new, **picked(config.cluster, "sparsity"))
    groups = clusters.groups(library)
    for name, tasks, label, own in zip(new.names, new.tasks, found.labels, found.similarity, strict=True):
        group = f"cluster {label}"
        groups[group] = tuple(dict.fromkeys((*groups[group], *tasks)))
        print(f"{name}: {group}, mean similarity {own[label]:.3f}")
    labels = dict(zip(new.names, found.labels.tolist(), strict=True))
    write_json(folder / "nearest.json", {"groups": groups, "labels": labels, "similarity": found.similarity.tolist()})


def _sweep(folder: pathlib.Path, config, clusters, library, families, sizes):
    """MBC for each number of clusters: prints a line for each; writes sweep.json and the pictures.

    The tree is that of the experts' similarity, in the colours of the clusters of `config.cluster`.
    """
    options = picked(config.cluster, "sparsity", "components", "seed", "restarts")
    found = sweep(library, sizes, families=None if None in families else families, **options)
    rows = [_measured(found, size) for size in found.clusters]
    for row in rows:
        shown = [f"{key.replace('_', ' ')} {row[key]:.3f}" for key in MEASURES if row[key] is not None]
        print(f"{row['clusters']} clusters: {', '.join(shown)}")
    tree = dendrogram(next(iter(found.clusters.values())).similarity)
    write_json(folder / "sweep.json", {"experts": library.names, "sweep": rows, "dendrogram": tree.tolist()})
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


def _sizes(text):
    first, _, last = text.partition(":")
    if not (first.isdecimal() and last.isdecimal() and int(first) <= int(last)):
        raise InputError(f"--sweep={text}; expected FIRST:LAST, the fewest and the most clusters")
    return range(int(first), int(last) + 1)
