"""The picture of a transfer study: the gain of joint training of each pair over the similarity of its experts."""

import pathlib
from collections.abc import Mapping

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from modjax.report import numbers, picture, svg

KINDS = {True: ("method-2", "one family"), False: ("method-1", "two families")}


def write(found: Mapping, stem: pathlib.Path) -> None:
    """Writes STEM.svg and .png of the result of a transfer study: a dot per pair, a bar with its interval per bin."""
    label = "Gain of joint training of pairs of tasks over the similarity of their experts"
    picture.write(lambda colours: _scatter(found, colours), stem, label)


def _scatter(found: Mapping, colours: Mapping[str, str]) -> Figure:
    figure = svg.figure(620, 400)
    panel = figure.subplots()
    panel.axhline(0, color=colours["muted"], linewidth=1)
    for one in found["bins"]:
        gain, middle = one["gain"], (one["low"] + one["high"]) / 2
        panel.hlines(gain["value"], one["low"], one["high"], color=colours["ink"], linewidth=2.2)
        panel.vlines(middle, gain["low"], gain["high"], color=colours["ink"], linewidth=1.2)
    known = all(None not in pair["families"] for pair in found["pairs"])
    for same, (variable, name) in KINDS.items():
        own = [pair for pair in found["pairs"] if (known and len(set(pair["families"])) == 1) is same]
        if own:
            places = [[pair[key] for pair in own] for key in ("similarity", "gain")]
            panel.scatter(*places, s=34, color=colours[variable], alpha=0.8, linewidths=0, label=name, zorder=3)
    if known:
        panel.legend(frameon=False, loc="best", handletextpad=0.2)
    rho = found["spearman"]
    low, high = (numbers.ratio(rho[end]) for end in ("low", "high"))
    panel.set_title(f"Spearman's rank correlation {numbers.ratio(rho['value'])}, 95 % of draws {low} to {high}")
    panel.set_xlabel("similarity of the private experts")
    panel.set_ylabel("gain of joint training, nats per target token")
    for axis in (panel.xaxis, panel.yaxis):
        axis.set_major_locator(MaxNLocator(6))
    return figure
