"""The drawn parts of the page: the comparison as dots, loss curves, the similarity matrix."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from modjax import metrics
from modjax.errors import InputError
from modjax.metrics import LOSS, Metric
from modjax.report import numbers, svg
from modjax.report.colours import cluster_of, cluster_variable
from modjax.report.metric import show
from modjax.report.svg import STAND_IN
from modjax.report.table import SPLITS

POINTS = 120  # of a curve; more cannot be seen at its width
HEAT_RGB = (0.24, 0.47, 0.78)  # readable at every opacity on a light page and on a dark one
NAMED_EXPERTS = 64  # above this the matrix is drawn without names


def _floats(values: Sequence) -> np.ndarray:
    """float64, NaN where nothing was measured."""
    measured = (numbers.finite(value) for value in values)
    return np.array([np.nan if number is None else number for number in measured], np.float64)


@svg.styled
def comparison(methods: Sequence[Mapping], variables: Mapping[str, str]) -> str:
    """One panel per metric, one row per method: a filled dot in distribution, a hollow one held out.

    `variables` is {method: CSS variable}.
    """
    figure = svg.figure(1040, 70 + 27 * len(methods))
    figure.get_layout_engine().set(wspace=0.06)
    panels = figure.subplots(1, len(metrics.METRICS), sharey=True)
    for panel, metric in zip(panels, metrics.METRICS, strict=True):
        _dots(panel, metric, methods, [STAND_IN[variables[method["name"]]] for method in methods])
    panels[0].set_yticks(range(len(methods)), [svg.shorten(method["name"]) for method in methods])
    panels[0].tick_params(axis="y", labelcolor=STAND_IN["ink"])
    panels[0].set_ylim(len(methods) - 0.5, -0.5)
    return svg.render(figure, "comparison", "Scores of each method, in distribution and held out")


def _dots(panel: Axes, metric: Metric, methods: Sequence[Mapping], colours: Sequence[str]) -> None:
    """The two dots of a method: one above the other if there are intervals, else side by side with a line between."""
    factor = 100 if metric.in_percent else 1
    splits = [[method.get(split) or {} for method in methods] for split in SPLITS]
    inside, outside = (factor * _floats([scores.get(metric.name) for scores in split]) for split in splits)
    whiskers = [factor * _ends(split, metric) for split in splits]
    rows = np.arange(len(methods))
    aside = 0.17 if np.isfinite(whiskers).any() else 0.0
    if not aside:
        panel.hlines(rows, inside, outside, colors=colours, linewidth=1.2, alpha=0.5)
    for (low, high), shift in zip(whiskers, (-aside, aside), strict=True):
        panel.hlines(rows + shift, low, high, colors=colours, linewidth=1.6, alpha=0.6)
    size = 30 if aside else 46
    panel.scatter(inside, rows - aside, s=size, c=colours, zorder=3)
    hollow = {"facecolors": STAND_IN["surface"], "edgecolors": colours, "linewidths": 1.6}
    panel.scatter(outside, rows + aside, s=0.85 * size, zorder=3, **hollow)
    panel.set_title(f"{metric.title}, {metric.unit}")
    panel.grid(axis="y", visible=False)
    panel.spines[["left", "bottom"]].set_visible(False)
    panel.xaxis.set_major_locator(MaxNLocator(5))
    panel.margins(x=0.08)


def _ends(split: Sequence[Mapping], metric: Metric) -> np.ndarray:
    """float64[2, M], the ends of each method's interval; NaN where it has none."""
    pairs = [(scores.get("intervals") or {}).get(metric.name) or (None, None) for scores in split]
    return np.stack([_floats(pair) for pair in pairs], axis=1)


def binned(steps: Sequence, values: Sequence, points: int = POINTS) -> tuple[np.ndarray, np.ndarray]:
    """Steps and values as means over equal windows, float64[<= points] each; missing values are left out."""
    steps, values = _floats(steps), np.ma.masked_invalid(_floats(values))
    if len(steps) != len(values):
        raise InputError(f"a loss curve has {len(values)} values; expected one for each of its {len(steps)} steps")
    if not len(steps):
        return steps, values.filled(np.nan)
    starts = np.arange(0, len(steps), -(-len(steps) // points))
    counts = np.add.reduceat((~np.ma.getmaskarray(values)).astype(float), starts)
    sums = np.add.reduceat(values.filled(0.0), starts)
    sizes = np.diff(np.append(starts, len(steps)))
    means = np.divide(sums, counts, out=np.full(len(starts), np.nan), where=counts > 0)
    return np.add.reduceat(steps, starts) / sizes, means


def _mean(curves: Sequence[np.ndarray]) -> np.ndarray:
    """The mean over experts at each step, NaN where none was measured."""
    return np.ma.masked_invalid(np.stack(curves)).mean(axis=0).filled(np.nan)


def curves(libraries: Sequence[Mapping], clusters: Mapping[str, int]) -> list[str]:
    """One panel per library, all with the same loss axis. `clusters` is {expert: cluster}."""
    trained = [library for library in libraries if library.get("loss")]
    limits = _loss_limits(trained)
    return [_curve_panel(index, library, clusters, limits) for index, library in enumerate(trained)]


def _loss_limits(libraries: Sequence[Mapping]) -> tuple[float, float]:
    """Limits that hold every curve, except for later spikes above the 99.5th percentile."""
    seen = [binned(library["steps"], values)[1] for library in libraries for values in library["loss"].values()]
    losses = [curve[np.isfinite(curve)] for curve in seen if np.isfinite(curve).any()]
    if not losses:
        return 0.0, 1.0
    every = np.concatenate(losses)
    low, high = every.min(), max(np.percentile(every, 99.5), *(curve[0] for curve in losses))
    margin = 0.06 * (high - low) or 0.1
    return low - margin, high + margin


@svg.styled
def _curve_panel(index: int, library: Mapping, clusters: Mapping[str, int], limits: tuple[float, float]) -> str:
    figure = svg.figure(336, 250)
    panel = figure.subplots()
    means, checks, titles = [], [], {}
    validation = library.get("validation") or {}
    for number, (expert, values) in enumerate(library["loss"].items()):
        colour = STAND_IN[cluster_variable(cluster_of(expert, clusters))]
        steps, mean = binned(library["steps"], values)
        means.append(mean)
        panel.plot(steps, mean, color=colour, linewidth=1.1, alpha=0.65, gid=f"curve-{number}")
        titles[f"curve-{number}"] = expert
        if expert in (validation.get("loss") or {}):
            checks.append(_floats(validation["loss"][expert]))
            panel.plot(validation["steps"], checks[-1], "o", color=colour, markersize=2.5, alpha=0.5)
    _mean_curve(panel, steps, means, validation, checks)
    panel.set_ylim(limits)
    panel.set_xlabel("step")
    count = f"{len(means)} experts" if len(means) > 1 else "one expert"
    panel.set_title(f"{svg.shorten(library['name'], 24)}, {count}")
    panel.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    return svg.render(figure, f"curves{index}", f"Training loss of {library['name']} by step", titles)


def _mean_curve(
    panel: Axes, steps: np.ndarray, means: Sequence, validation: Mapping, checks: Sequence[np.ndarray]
) -> None:
    """The mean over experts: a heavy line with its last value, and dots for validation."""
    ink, mean = STAND_IN["ink"], _mean(means)
    panel.plot(steps, mean, color=ink, linewidth=2)
    if checks:
        panel.plot(validation["steps"], _mean(checks), "o", color=ink, markersize=5.5)
    measured = np.flatnonzero(np.isfinite(mean))
    if measured.size:
        last = measured[-1]
        panel.annotate(
            show(LOSS, mean[last]),
            (steps[last], mean[last]),
            (7, 0),
            textcoords="offset points",
            va="center",
            fontweight="bold",
            annotation_clip=False,
        )


def cluster_order(labels: Sequence[int]) -> np.ndarray:
    """int[E], the experts cluster by cluster, in their original order within each."""
    return np.argsort(np.asarray(labels), kind="stable")


@svg.styled
def similarity(names: Sequence[str], matrix: Sequence[Sequence[float]], labels: Sequence[int]) -> str:
    """The similarity of experts, ordered by cluster, with each cluster framed in its colour.

    The diagonal, where every expert equals itself, is left out of the scale.
    """
    order = cluster_order(labels)
    similarity_EE = np.stack([_floats(row) for row in matrix])[np.ix_(order, order)]
    np.fill_diagonal(similarity_EE, np.nan)
    figure = svg.figure(620, 560)
    panel = figure.subplots()
    low, high = _heat_map(panel, similarity_EE)
    _cluster_frames(panel, np.asarray(labels)[order])
    _expert_ticks(panel, [svg.shorten(names[index], 24) for index in order])
    _scale_bar(panel.inset_axes((0.0, -0.055, 0.45, 0.022)), low, high)
    return svg.render(figure, "similarity", "Similarity of experts, ordered by cluster")


def _heat_map(panel: Axes, similarity_EE: np.ndarray) -> tuple[float, float]:
    """Draws the matrix as opacity, for light and dark pages; returns its lowest and highest value."""
    measured = similarity_EE[np.isfinite(similarity_EE)]
    low, high = (measured.min(), measured.max()) if measured.size else (0.0, 1.0)
    high = max(high, low + 0.01)  # equal values still need a scale
    opacity_EE = np.nan_to_num((similarity_EE - low) / (high - low))
    panel.imshow(tint(opacity_EE), interpolation="none")
    panel.grid(visible=False)
    panel.spines[:].set_visible(False)
    return low, high


def tint(opacity: np.ndarray) -> np.ndarray:
    """uint8[..., 4], the heat colour at each opacity in [0, 1]."""
    rgb = np.broadcast_to(HEAT_RGB, (*opacity.shape, 3))
    return np.round(255 * np.concatenate([rgb, opacity[..., None]], axis=-1)).astype(np.uint8)


def _cluster_frames(panel: Axes, labels: np.ndarray) -> None:
    for cluster in np.unique(labels):
        start, size = np.flatnonzero(labels == cluster)[0], int((labels == cluster).sum())
        colour = STAND_IN[cluster_variable(int(cluster))]
        frame = {"fill": False, "edgecolor": colour, "linewidth": 2.2, "clip_on": False, "zorder": 4}
        panel.add_patch(Rectangle((start - 0.5, start - 0.5), size, size, **frame))


def _expert_ticks(panel: Axes, names: Sequence[str]) -> None:
    panel.set_xticks([])
    if len(names) > NAMED_EXPERTS:
        panel.set_yticks([])
        return
    panel.set_yticks(range(len(names)), names, fontsize=min(13, 440 / len(names)))
    panel.tick_params(axis="y", labelcolor=STAND_IN["ink"])


def _scale_bar(bar: Axes, low: float, high: float) -> None:
    ramp = tint(np.linspace(0, 1, 64)[None])
    bar.imshow(ramp, interpolation="none", aspect="auto", extent=(low, high, 0, 1))
    bar.set_yticks([])
    bar.set_xticks([low, high], [f"{low:.2f}", f"{high:.2f}"])
    bar.grid(visible=False)
