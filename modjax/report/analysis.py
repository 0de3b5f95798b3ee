"""The analysis of a router by layer and site: use of experts, entropy, agreement with the oracle."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from modjax.errors import InputError
from modjax.report import numbers, svg
from modjax.report.plots import NAMED_EXPERTS, tint
from modjax.report.svg import STAND_IN

SIDE_BY_SIDE = 4  # maps of sites per row
AGREEMENT = ("tokens_right", "examples_right")
HEADINGS = {
    "entropy": "entropy, nats",
    "effective": "experts in use",
    "tokens_right": "tokens as the oracle, %",
    "examples_right": "prompts as the oracle, %",
}
AXES = {"use": "LSE", "entropy": "LS", "effective": "LS", **dict.fromkeys(AGREEMENT, "LS")}


def shown(index: int, method: Mapping) -> dict[str, Any]:
    """One router of `results["analysis"]`: its drawings, and a row of figures per site.

    Raises InputError where an array does not fit the numbers of layers, sites and experts.
    """
    arrays = {name: _array(method, name) for name in AXES}
    return {
        "name": method["name"],
        "examples": method["examples"],
        "tokens": method["tokens"],
        "n_experts": len(method["experts"]),
        "accuracy": None if method.get("accuracy") is None else numbers.percent(method["accuracy"]),
        "chance": numbers.percent(1 / len(method["experts"])),
        "rows": _rows(method, arrays),
        "largest": numbers.ratio(arrays["use"].max()),
        "plot": _drawing(index, method, arrays),
        "sites": _sites(index, method, arrays["use"]),
    }


def text(method: Mapping) -> str:
    """The same figures as aligned plain text, a line per site; `method` is one of `results["analysis"]`."""
    lines = [["site", *HEADINGS.values()]]
    for row in _rows(method, {name: _array(method, name) for name in AXES}):
        lines.append([row["site"], *(row[name] for name in HEADINGS)])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    table = ["  ".join([line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])]).rstrip() for line in lines]
    return "\n".join([*table, _agreement(method)])


def _agreement(method):
    if method.get("accuracy") is None:
        return "no prompt belongs to a task with an expert of its own, so there is no oracle to agree with"
    right, chance = numbers.percent(method["accuracy"]), numbers.percent(1 / len(method["experts"]))
    return f"prompts that go to the oracle's expert: {right} %, chance {chance} %"


def _rows(method: Mapping, arrays: Mapping[str, np.ndarray]) -> list[dict[str, str]]:
    """Means over layers: of all sites together, then of each site."""
    rows = [_row("all sites", {name: array.mean(axis=1) for name, array in arrays.items()})]
    for place, site in enumerate(method["sites"]):
        rows.append(_row(site, {name: array[:, place] for name, array in arrays.items()}))
    return rows


def _array(method: Mapping, name: str) -> np.ndarray:
    """float64, all NaN where nothing was measured."""
    sizes = {"L": len(method["use"]), "S": len(method["sites"]), "E": len(method["experts"])}
    shape = tuple(sizes[letter] for letter in AXES[name])
    if method.get(name) is None:
        return np.full(shape, np.nan)
    try:
        array = np.asarray(method[name], np.float64)
    except ValueError:  # rows of unequal length
        array = np.zeros(())
    if array.shape != shape:
        sizes = " x ".join(map(str, shape))
        raise InputError(f"results: analysis.{name} of {method['name']!r} must hold {sizes} numbers")
    return array


def _row(site: str, of_layers: Mapping[str, np.ndarray]) -> dict[str, str]:
    """Means over layers of one site, as text."""
    n_experts = of_layers["use"].shape[-1]
    return {
        "site": site,
        "entropy": numbers.ratio(of_layers["entropy"].mean()),
        "share": numbers.percent(of_layers["entropy"].mean() / max(np.log(n_experts), 1e-9)),
        "effective": numbers.ratio(of_layers["effective"].mean()),
        **{name: numbers.percent(of_layers[name].mean()) for name in AGREEMENT},
    }


@svg.styled
def _drawing(index: int, method: Mapping, arrays: Mapping[str, np.ndarray]) -> str:
    experts = list(method["experts"])
    figure = svg.figure(1040, 110 + min(560, max(120, 19 * len(experts))))
    figure.get_layout_engine().set(wspace=0.06)
    heat, sure, right = figure.subplots(1, 3, width_ratios=(5, 3, 3))
    use_EL = arrays["use"].mean(axis=1).T
    _use(heat, use_EL, experts, use_EL.max(), f"Mean weight, up to {numbers.ratio(use_EL.max())}")
    entropy_LS = arrays["entropy"] / max(np.log(len(experts)), 1e-9)
    titles = _lines(sure, "Entropy, % of the largest", 100 * entropy_LS, method["sites"], "entropy")
    if np.isfinite(arrays["examples_right"]).any():
        titles |= _lines(right, "Prompts as the oracle, %", 100 * arrays["examples_right"], method["sites"], "right")
        _chance(right, 100 / len(experts))
    else:
        right.set_visible(False)
    return svg.render(figure, f"analysis{index}", f"How {method['name']} uses its experts by layer", titles)


@svg.styled
def _sites(index: int, method: Mapping, use_LSE: np.ndarray) -> str:
    """A map for each site, all with the same scale."""
    experts, sites = list(method["experts"]), method["sites"]
    columns, rows = min(SIDE_BY_SIDE, len(sites)), -(-len(sites) // SIDE_BY_SIDE)
    figure = svg.figure(1040, rows * (70 + min(560, max(80, 16 * len(experts)))))
    panels = figure.subplots(rows, columns, squeeze=False, sharey=True).flat
    for panel, site, use_LE in zip(panels, sites, use_LSE.swapaxes(0, 1), strict=False):
        _use(panel, use_LE.T, experts, use_LSE.max(), site)
    for panel in panels[len(sites) :]:
        panel.set_visible(False)
    return svg.render(figure, f"analysis{index}sites", f"How {method['name']} uses its experts by layer and site")


def _use(panel: Axes, use_EL: np.ndarray, experts: list[str], largest: float, title: str) -> None:
    """Mean weights as opacity, darkest at the largest."""
    panel.imshow(tint(np.clip(use_EL / max(largest, 1e-9), 0, 1)), interpolation="none", aspect="auto")
    panel.grid(visible=False)
    panel.spines[:].set_visible(False)
    panel.set_title(title)
    _layers(panel, use_EL.shape[1], first=0)
    if len(experts) > NAMED_EXPERTS:
        panel.set_yticks([])
        return
    panel.set_yticks(
        range(len(experts)), [svg.shorten(name, 24) for name in experts], fontsize=min(12, 500 / len(experts))
    )
    panel.tick_params(axis="y", labelcolor=STAND_IN["ink"])


def _lines(panel: Axes, title: str, percent_LS: np.ndarray, sites: list[str], name: str) -> dict[str, str]:
    """A thin line per site, and a heavy one for their mean; returns {gid: site}, the tooltips of the lines."""
    layers = np.arange(1, len(percent_LS) + 1)
    for place in range(len(sites)):
        panel.plot(layers, percent_LS[:, place], color=STAND_IN["muted"], linewidth=1, alpha=0.6, gid=f"{name}-{place}")
    panel.plot(layers, percent_LS.mean(axis=1), color=STAND_IN["ink"], linewidth=2)
    panel.set_title(title)
    panel.set_ylim(0, 103)
    _layers(panel, len(layers), first=1)
    return {f"{name}-{place}": site for place, site in enumerate(sites)}


def _chance(panel: Axes, percent: float) -> None:
    panel.axhline(percent, color=STAND_IN["muted"], linewidth=1, linestyle=(0, (3, 3)))
    place = {"xycoords": ("axes fraction", "data"), "textcoords": "offset points", "va": "center"}
    panel.annotate("chance", (1, percent), (4, 0), color=STAND_IN["muted"], **place)


def _layers(panel: Axes, n_layers: int, first: int) -> None:
    """Labels layers from 1, as in the token view."""
    places = [place for place in MaxNLocator(6, integer=True).tick_values(1, n_layers) if 1 <= place <= n_layers]
    panel.set_xticks([place - 1 + first for place in places], [f"{place:g}" for place in places])
    panel.set_xlabel("layer")
