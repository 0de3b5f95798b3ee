"""Matplotlib figures as inline SVG in the font and in the light or dark colours of the page."""

import contextlib
import io
import re
import warnings
from collections.abc import Iterator, Mapping
from html import escape

import matplotlib
from matplotlib.figure import Figure

from modjax.report.colours import CLUSTERS, METHODS

# Matplotlib knows no CSS variables. Each is drawn in a stand-in colour, which is replaced in the output.
VARIABLES = (
    "ink",
    "muted",
    "rule",
    "surface",
    *(f"method-{index}" for index in range(METHODS)),
    *(f"cluster-{index}" for index in range(CLUSTERS)),
)
STAND_IN = {variable: f"#0a01{index:02x}" for index, variable in enumerate(VARIABLES)}

STYLE = {
    "svg.fonttype": "none",  # text stays text: small, selectable and in the page's font
    "svg.hashsalt": "modjax",  # the same results give the same bytes
    "text.parse_math": False,  # a dollar sign in a task's name is a dollar sign
    "font.size": 12,
    "axes.titlesize": 13,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.8,
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.linewidth": 0.8,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "xtick.major.pad": 6,
    "ytick.major.pad": 6,
    "axes.edgecolor": STAND_IN["rule"],
    "grid.color": STAND_IN["rule"],
    "axes.labelcolor": STAND_IN["muted"],
    "xtick.color": STAND_IN["muted"],
    "ytick.color": STAND_IN["muted"],
    "axes.titlecolor": STAND_IN["ink"],
    "text.color": STAND_IN["ink"],
}

NOT_IN_XML = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")
METADATA = ("Creator", "Date", "Format", "Type")  # left out of the file

styled = matplotlib.rc_context(STYLE)  # decorates a function that draws and renders one figure


def figure(width: float, height: float) -> Figure:
    """An empty figure of this size in CSS pixels; lengths and font sizes in points are then pixels too."""
    return Figure(figsize=(width / 72, height / 72), dpi=72, layout="constrained")


def render(drawing: Figure, name: str, label: str, titles: Mapping[str, str] | None = None) -> str:
    """The figure as an `<svg>` element that scales down with its column but not above its own size.

    `name` is a prefix that makes its ids unique on the page, `label` describes it to readers who cannot see it,
    `titles` are tooltips, {gid of an artist: text}.
    """
    buffer = io.StringIO()
    with any_glyph():
        drawing.savefig(buffer, format="svg", transparent=True, metadata=dict.fromkeys(METADATA))
    body = buffer.getvalue().partition("<svg")[2].partition(">")[2]
    # a style element within the drawing would style the whole page
    body = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>", "", body, flags=re.DOTALL)
    for gid, text in (titles or {}).items():
        body = body.replace(f'<g id="{gid}">', f'<g id="{gid}"><title>{escape(text)}</title>', 1)
    body = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{name}-", body)
    body = re.sub("#0a01([0-9a-f]{2})", lambda match: f"var(--{VARIABLES[int(match[1], 16)]})", body)
    width, height = drawing.get_size_inches() * 72
    return (
        f'<svg class="plot" role="img" aria-label="{escape(label)}" viewBox="0 0 {width:g} {height:g}"'
        f' style="max-width:{width:g}px">{body}'
    )


@contextlib.contextmanager
def any_glyph() -> Iterator[None]:
    """Keeps matplotlib from warning of glyphs that its font lacks; the font of the page may have them."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"Glyph .* missing from")
        yield


def shorten(text: str, length: int = 30) -> str:
    """A name as a label: on one line, cut to `length` characters, with a sign for those that no SVG may hold."""
    text = NOT_IN_XML.sub("\ufffd", " ".join(str(text).split()))
    return text if len(text) <= length else text[: length - 1] + "…"
