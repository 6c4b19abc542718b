"""Draw with matplotlib as inline SVG that takes its colours from the page's theme.

A picture is drawn with marker colours, one for each role (ink, line, series 3). In the SVG each marker colour becomes a CSS variable, so
that one drawing works in the light theme, in the dark theme and on paper. Every picture is drawn twice, for a screen and for a phone,
because a scaled-down drawing is not readable.
"""

import io
import re
import warnings
import xml.etree.ElementTree as ET
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from optkit.untrusted.quoting import visible

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Marker colours: placeholders, which the theme's colours replace.
INK, MUTED, LINE, SURFACE, GOOD = "#000001", "#000002", "#000003", "#000004", "#000005"
SERIES = tuple(f"#0001{i:02x}" for i in range(8))
_VARIABLES = {INK: "ink", MUTED: "muted", LINE: "line", SURFACE: "surface", GOOD: "good"} | {
    marker: f"series-{i}" for i, marker in enumerate(SERIES)
}
MARKERS = ("o", "s", "D", "^", "v", "P", "X", "*")  # series differ in shape as well as in colour

WIDTHS_PX = {"wide": 900, "narrow": 350}
_PX_PER_INCH = 96
_STYLE: Any = {  # matplotlib has a type for each key
    "svg.fonttype": "none",  # text stays text: a screen reader can read it, and it can be searched and copied
    "text.parse_math": False,  # a dollar sign in a name does not start a formula
    "font.size": 9.5,
    "text.color": INK,
    "axes.edgecolor": LINE,
    "axes.facecolor": "none",
    "axes.labelcolor": MUTED,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.titlelocation": "left",
    "axes.titlesize": 9.5,
    "axes.titleweight": "bold",
    "grid.color": LINE,
    "grid.linewidth": 0.6,
    "xtick.color": LINE,
    "ytick.color": LINE,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": INK,
    "xtick.minor.visible": False,
    "ytick.left": False,
    "figure.facecolor": "none",
}
_SVG, _XLINK = "http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"


def draw(name: str, alt: str, height_px: int, paint: Callable[["Figure"], None]) -> str:
    """Return a picture as two `<svg>` elements; the page shows the one that fits its width.

    Args:
        name: the name of the picture, unique in the page; the ids in the SVG start with it.
        alt: the text alternative for screen readers.
        height_px: the height of both drawings.
        paint: draws onto an empty figure.
    """
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    found = []
    for size, width_px in WIDTHS_PX.items():
        key = f"{name}-{size}"
        with matplotlib.rc_context(rc=_STYLE | {"svg.hashsalt": key}), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Glyph .* missing")  # the browser has fonts for all characters
            figure = Figure(figsize=(width_px / _PX_PER_INCH, height_px / _PX_PER_INCH), layout="constrained")
            FigureCanvasSVG(figure)
            paint(figure)
            text = io.StringIO()
            figure.savefig(text, format="svg", metadata={"Date": None})
        found.append(_inline(text.getvalue(), key, size, alt))
    return "\n".join(found)


def is_narrow(figure: "Figure") -> bool:
    """Whether this is the drawing for a phone."""
    return figure.get_figwidth() * _PX_PER_INCH < 500


def series(i: int) -> str:
    """Return the colour of the i-th variant."""
    return SERIES[i % len(SERIES)]


def shorten(text: str, longest: int = 22) -> str:
    """Return a short label with printable characters only; the tables contain the whole name."""
    text = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)
    return text if len(text) <= longest else f"{text[: longest // 2]}…{text[-(longest // 2 - 1) :]}"


def _inline(text: str, key: str, size: str, alt: str) -> str:
    """Return matplotlib's SVG as an element of a page, with a label, unique ids and the theme's colours."""
    root = ET.fromstring(text)
    for metadata in root.findall(f"{{{_SVG}}}metadata"):
        root.remove(metadata)
    for element in root.iter():
        for attribute, value in element.attrib.items():
            if attribute == "id":
                element.set(attribute, f"{key}-{value}")
            elif attribute == f"{{{_XLINK}}}href":
                element.set(attribute, value.replace("#", f"#{key}-", 1))
            else:
                element.set(attribute, _themed(value.replace("url(#", f"url(#{key}-")))
        if element.tag == f"{{{_SVG}}}style" and element.text:
            element.text = ""  # its rules would apply to the whole page
    for attribute in ("width", "height", "version"):
        root.attrib.pop(attribute, None)
    root.set("class", f"picture {size}")
    root.set("role", "img")
    root.set("aria-label", visible(alt))
    ET.register_namespace("", _SVG)
    ET.register_namespace("xlink", _XLINK)
    return ET.tostring(root, encoding="unicode")


def _themed(style: str) -> str:
    style = re.sub(r"font-family:[^;]*;?", "", style)
    style = re.sub(r"font: ([^']*?)'[^;]*", r"font: \1var(--font)", style)
    return re.sub(r"#0{3}[01][0-9a-f]{2}\b", lambda m: f"var(--{_VARIABLES.get(m.group(), 'ink')})", style)
