"""Drawings as separate files: SVG in the light and dark colours of the page, PNG in the light ones."""

import pathlib
import re
from collections.abc import Callable, Mapping

import matplotlib
from matplotlib.figure import Figure

from modjax.report import svg

STYLE_SHEET = pathlib.Path(__file__).parent / "page.css"
FONT = 'Inter, system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif'
PADDING = 10  # pixels
PNG_SCALE = 2  # pixels of the file per pixel of the drawing
HEAD = """<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" width="{width}" \
height="{height}" role="img" viewBox="0 0 {width} {height}" aria-label="{label}">
<style>
svg {{ color-scheme: light dark; font-family: {font}; {light} }}
text {{ font-family: inherit !important; font-variant-numeric: tabular-nums }}
@media (prefers-color-scheme: dark) {{ svg {{ {dark} }} }}
</style>
<rect width="100%" height="100%" fill="var(--surface)"/>
"""


def write(draw: Callable[[Mapping[str, str]], Figure], stem: pathlib.Path, label: str) -> None:
    """Writes STEM.svg and STEM.png.

    Args:
      draw: returns the figure, drawn in the given colours, {variable of page.css: colour}.
      label: describes the drawing to readers who cannot see it.
    """
    light, dark = palettes()
    with matplotlib.rc_context(svg.STYLE):
        drawing = _padded(draw(svg.STAND_IN))
        body = svg.render(drawing, stem.name, label)
    width, height = (f"{length * 72:g}" for length in drawing.get_size_inches())
    shades = {name: "; ".join(f"--{key}: {value}" for key, value in own.items())
              for name, own in (("light", light), ("dark", dark))}  # fmt: skip
    label = re.search(r'aria-label="([^"]*)"', body)[1]  # as escaped there
    head = HEAD.format(width=width, height=height, label=label, font=FONT, **shades)
    stem.with_suffix(".svg").write_text(head + body.partition(">")[2], encoding="utf-8")
    own = {svg.STAND_IN[variable]: light[variable] for variable in svg.VARIABLES}
    style = {key: own.get(value, value) for key, value in svg.STYLE.items()}
    with matplotlib.rc_context(style), svg.any_glyph():
        _padded(draw(light)).savefig(stem.with_suffix(".png"), dpi=72 * PNG_SCALE, facecolor=light["surface"])


def _padded(drawing: Figure) -> Figure:
    """The figure with room between panels and at its edges, because there is no page around it."""
    drawing.get_layout_engine().set(w_pad=PADDING / 72, h_pad=PADDING / 72)
    return drawing


def palettes() -> tuple[dict[str, str], dict[str, str]]:
    """{variable: colour} of the page in light and in dark mode."""
    blocks = re.findall(r":root \{(.*?)\}", STYLE_SHEET.read_text(encoding="utf-8"), re.DOTALL)
    light, dark = (dict(re.findall(r"--([\w-]+): (#[0-9a-f]+)", block)) for block in blocks)
    return light, dark
