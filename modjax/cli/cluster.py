"""`modjax cluster`: which tasks belong together, by the similarity of their experts."""

from sklearn.metrics import adjusted_rand_score

from modjax.cli import pieces, session
from modjax.experts.cluster import Clusters, mbc
from modjax.experts.library import Library
from modjax.files import write_json


def run(config, workdir, flags) -> None:
    """Writes WORKDIR/clusters.json, which `config.groups` of a train job takes."""
    folder = session.enter(workdir, config)
    library = pieces.library(config)
    clusters = mbc(library, **config.cluster)
    families = dict(zip(pieces.tasks(config), pieces.tasks(config).families, strict=True))
    write_json(folder / "clusters.json", as_json(clusters, library, families))
    for cluster, names in clusters.names.items():
        print(f"cluster {cluster}: {', '.join(names)}")


def as_json(clusters: Clusters, library: Library, families: dict[str, str | None]) -> dict:
    """Each cluster's tasks, the similarity matrix, and agreement with the families (adjusted Rand) where known."""
    own = [families.get(tasks[0]) for tasks in library.tasks]
    return {
        "groups": clusters.groups(library),
        "names": library.names,
        "labels": clusters.labels.tolist(),
        "families": own,
        "adjusted_rand": None if None in own else adjusted_rand_score(own, clusters.labels),
        "inertia": clusters.inertia,
        "matrix": clusters.similarity.round(4).tolist(),
    }
