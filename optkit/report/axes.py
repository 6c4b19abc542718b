"""Shared parts of the pictures: lines with markers, logarithmic ticks, labels that do not overlap."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from optkit.report.svg import INK, MARKERS, MUTED, series, shorten

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

    from optkit.report.pictures import Point


def line(axes: "Axes", name: str, place: int, points: Sequence[tuple[float, float]]) -> None:
    """Draw the line of a variant through its points."""
    x, y = zip(*points, strict=True)
    marker = MARKERS[place % len(MARKERS)]
    axes.plot(x, y, color=series(place), marker=marker, markersize=5, linewidth=1.8, label=shorten(name))


def ms_ticks(axes: "Axes") -> None:
    """Set round numbers of ms as the ticks of a logarithmic x axis."""
    log_ticks(axes.xaxis, lambda value: f"{value:g}")


def log_ticks(axis: "Axis", text: Callable[[float], str]) -> None:
    """Set round numbers as the ticks of a logarithmic axis, even if it spans less than a decade.

    Matplotlib's default labels between decades are TeX, which an SVG in a page does not render.
    """
    from matplotlib.ticker import LogLocator, NullFormatter

    low, high = sorted(axis.get_view_interval())
    axis.set_major_locator(LogLocator(subs=(1, 2, 5) if high / low < 60 else (1,), numticks=12))
    axis.set_major_formatter(lambda value, _: text(value))
    axis.set_minor_formatter(NullFormatter())


def label_points(figure: "Figure", axes: "Axes", points: Sequence["Point"]) -> None:
    """Write each name next to its point, where it overlaps no other name."""
    from matplotlib.transforms import Bbox

    figure.draw_without_rendering()
    frame = axes.get_window_extent()
    taken: list[Bbox] = []
    for p in points:
        x, y = axes.transData.transform((p.latency_ms, p.quality))
        taken.append(Bbox.from_bounds(x - 9, y - 9, 18, 18))
    for p in sorted(points, key=lambda p: p.latency_ms):
        best = None
        for dx, dy in (
            (0, 20),
            (0, -20),
            (14, 30),
            (14, -30),
            (-14, 40),
            (-14, -40),
            (0, 50),
            (0, -50),
            (0, 62),
            (0, -62),
        ):
            side = "center" if not dx else "left" if dx > 0 else "right"
            label = axes.annotate(
                shorten(p.name),
                (p.latency_ms, p.quality),
                xytext=(dx, dy),
                textcoords="offset points",
                ha=side,
                va="center",
                color=MUTED if p.dominated else INK,
                zorder=3,
            )
            box = label.get_window_extent()
            outside = box.x0 < frame.x0 - 4 or box.x1 > frame.x1 + 4 or box.y0 < frame.y0 or box.y1 > frame.y1
            if not outside and not any(box.overlaps(other) for other in taken):
                best = box
                break
            label.remove()
        if best is not None:
            taken.append(best)
