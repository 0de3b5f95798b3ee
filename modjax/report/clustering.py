"""Pictures of a clustering: quality measures over the number of clusters, and the dendrogram of similarities."""

import pathlib
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from modjax.report import numbers, picture, svg
from modjax.report.colours import cluster_variable

Colours = Mapping[str, str]
# key of a sweep's row, title, which value is best: the largest, or none
MEASURES = (
    ("silhouette", "Silhouette", max),
    ("inertia", "Inertia", None),
    ("adjusted_rand", "Adjusted Rand index with families", max),
)
NAMED = 100  # a tree of more experts is drawn without names
ROW = {True: 19, False: 4}  # pixels per expert, with names and without


def write_sweep(rows: Sequence[Mapping], stem: pathlib.Path) -> None:
    """Writes STEM.svg and .png: a panel for each measure over the number of clusters.

    Args:
      rows: {clusters: K, inertia, silhouette: float or None, adjusted_rand: float or None} for each number.
    """
    picture.write(lambda colours: _sweep(rows, colours), stem, "Measures of a clustering by the number of clusters")


def write_dendrogram(tree: np.ndarray, names: Sequence[str], labels: Sequence[int], stem: pathlib.Path) -> None:
    """Writes STEM.svg and .png: the tree of `modjax.cluster.dendrogram`, each cluster in its colour."""
    label = "Dendrogram of experts by average linkage over one minus their similarity"
    picture.write(lambda colours: _dendrogram(np.asarray(tree), names, labels, colours), stem, label)


def _sweep(rows, colours: Colours) -> Figure:
    measured = [one for one in MEASURES if any(numbers.finite(row[one[0]]) is not None for row in rows)]
    figure = svg.figure(330 * len(measured), 260)
    panels = figure.subplots(1, len(measured), squeeze=False)[0]
    for panel, (key, title, better) in zip(panels, measured, strict=True):
        points = [(row["clusters"], row[key]) for row in rows if numbers.finite(row[key]) is not None]
        _curve(panel, points, better, colours)
        panel.set_title(title)
        panel.set_xlabel("clusters")
    return figure


def _curve(panel: Axes, points: Sequence[tuple[int, float]], better: Callable | None, colours: Colours) -> None:
    """A line with a dot per number of clusters; the best dot is larger and labelled."""
    sizes, values = zip(*points, strict=True)
    panel.plot(sizes, values, "-o", color=colours["method-1"], linewidth=1.6, markersize=4.5)
    panel.xaxis.set_major_locator(MaxNLocator(7, integer=True))
    panel.yaxis.set_major_locator(MaxNLocator(5))
    panel.margins(x=0.06, y=0.16)
    if better is None:
        return
    size, value = better(points, key=lambda point: point[1])
    panel.plot([size], [value], "o", color=colours["method-2"], markersize=9)
    panel.annotate(
        f"{size} clusters, {numbers.ratio(value)}", (size, value), (0, 9), textcoords="offset points",
        ha=_side(size, sizes), va="bottom", fontweight="bold", color=colours["ink"],
    )  # fmt: skip


def _side(size, sizes):
    """Alignment towards the middle, so that the label stays on the panel."""
    place = (size - min(sizes)) / max(max(sizes) - min(sizes), 1)
    return "left" if place < 0.3 else "right" if place > 0.7 else "center"


def _dendrogram(tree, names, labels, colours: Colours) -> Figure:
    named = len(names) <= NAMED
    figure = svg.figure(720, 70 + ROW[named] * len(names))
    panel = figure.subplots()
    order = _leaves(tree)
    places = {int(leaf): place for place, leaf in enumerate(order)}
    _branches(panel, tree, places, labels, colours)
    panel.set_ylim(len(names) - 0.4, -0.6)
    panel.set_xlabel("distance, 1 − similarity")
    panel.grid(axis="y", visible=False)
    panel.spines[["left", "bottom"]].set_visible(False)
    panel.set_yticks([])
    if named:
        panel.set_yticks(range(len(order)), [svg.shorten(names[leaf]) for leaf in order])
        panel.yaxis.tick_right()
        for tick, leaf in zip(panel.get_yticklabels(), order, strict=True):
            tick.set_color(colours[cluster_variable(labels[leaf])])
    return figure


def _leaves(tree) -> list[int]:
    """The experts from top to bottom, so that no two branches cross."""
    n_experts = len(tree) + 1
    below = [[leaf] for leaf in range(n_experts)]
    for first, second, *_ in tree:
        below.append(below[int(first)] + below[int(second)])
    return below[-1]


def _branches(panel: Axes, tree, places, labels, colours: Colours) -> None:
    """Merges from right to left by distance; a branch whose experts are all of one cluster has its colour."""
    heights = tree[:, 2]
    margin = 0.08 * (np.ptp(heights) or heights[-1] or 1.0)
    rim = heights.min() - margin  # leaves have distance 0, far to the right where all experts are much alike
    nodes = [(rim, places[leaf], label) for leaf, label in enumerate(labels)]
    for first, second, height, _ in tree:
        pair = [nodes[int(one)] for one in (first, second)]
        label = pair[0][2] if pair[0][2] == pair[1][2] else None
        for x, y, own in pair:
            panel.plot([x, height], [y, y], color=colours[cluster_variable(own)], solid_capstyle="butt")
        ends = [y for _, y, _ in pair]
        panel.plot([height] * 2, ends, color=colours[cluster_variable(label)], solid_capstyle="projecting")
        nodes.append((height, sum(ends) / 2, label))
    panel.set_xlim(heights.max() + margin, rim)
