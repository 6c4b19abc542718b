"""The pictures of a report, each with a text alternative."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from optkit.report.axes import label_points, line, log_ticks, ms_ticks
from optkit.report.numbers import ms_text
from optkit.report.svg import INK, LINE, MUTED, draw, is_narrow, series, shorten

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from optkit.artifact.findings import Measurement


@dataclass(frozen=True)
class Point:
    """A variant in the trade-off picture."""

    name: str
    place: int  # index among all variants, for its colour
    latency_ms: float
    quality: float  # accuracy, or the error against the source
    size_bytes: int | None
    dominated: bool


def dominated(points: Mapping[str, tuple[float, float]]) -> set[str]:
    """Return the names of the dominated variants: another one is better in one cost and not worse in the other.

    Args:
        points: name -> two costs; smaller is better for both.
    """
    return {
        name
        for name, mine in points.items()
        if any(
            other[0] <= mine[0] and other[1] <= mine[1] and other != mine
            for key, other in points.items()
            if key != name
        )
    }


def trade_off(points: Sequence[Point], batch: int, quality: str, smaller_is_better: bool) -> str:
    """Draw quality against latency; the area of a mark is the file size, and dominated variants are pale."""
    biggest = max((p.size_bytes or 0 for p in points), default=0)

    def paint(figure: "Figure") -> None:
        axes = figure.subplots()
        axes.set_xscale("log")
        if smaller_is_better:
            axes.set_yscale("log")
            axes.invert_yaxis()
        axes.set_xlabel(f"median latency at batch {batch}, ms (log)")
        axes.set_title(f"{quality},\nbetter is up, faster is left")
        front = sorted((p for p in points if not p.dominated), key=lambda p: p.latency_ms)
        axes.plot([p.latency_ms for p in front], [p.quality for p in front], color=LINE, linewidth=1.5, zorder=1)
        for p in points:
            area = 60 + 700 * (p.size_bytes or 0) / biggest if biggest else 60
            axes.scatter(
                p.latency_ms,
                p.quality,
                s=area,
                marker="o",
                facecolor=series(p.place) if p.size_bytes else "none",
                edgecolor=series(p.place),
                alpha=0.3 if p.dominated else 0.85,
                linewidth=1.5,
                zorder=2,
            )
        axes.margins(0.16 if not is_narrow(figure) else 0.2, 0.22)
        ms_ticks(axes)
        if smaller_is_better:
            log_ticks(axes.yaxis, lambda value: f"{value:.0e}" if value <= 1 else "")
        label_points(figure, axes, points)

    best = min(points, key=lambda p: p.latency_ms)
    pale = [p.name for p in points if p.dominated]
    alt = (
        f"Scatter plot of {len(points)} variants: {quality} against median latency at batch {batch}. Fastest is {best.name} "
        f"with {ms_text(best.latency_ms)} ms. "
        + (f"Dominated: {', '.join(pale)}." if pale else "No variant is dominated.")
    )
    return draw("trade-off", alt, 360, paint)


def distributions(measurements: Sequence["Measurement"], places: Mapping[str, int]) -> str:
    """Draw the latencies of every variant at each batch size: 5 to 95 % as a thin line, 25 to 75 % as a thick one, the median as a mark."""
    import numpy as np

    batches = sorted({m.batch for m in measurements})
    rows = {batch: [m for m in measurements if m.batch == batch and any(m.times_ms)] for batch in batches}

    def paint(figure: "Figure") -> None:
        grid = figure.subplots(
            len(batches),
            1,
            sharex=True,
            squeeze=False,
            gridspec_kw={"height_ratios": [len(rows[b]) + 0.6 for b in batches]},
        )
        for axes, batch in zip(grid[:, 0], batches, strict=True):
            for y, m in enumerate(rows[batch]):
                calls = np.concatenate([np.asarray(block) for block in m.times_ms])
                p5, p25, p50, p75, p95 = np.percentile(calls, (5, 25, 50, 75, 95))
                color = series(places[m.artifact])
                axes.plot([p5, p95], [y, y], color=color, linewidth=1.6, solid_capstyle="round")
                axes.plot([p25, p75], [y, y], color=color, linewidth=7, solid_capstyle="butt", alpha=0.55)
                axes.plot([p50], [y], marker="|", markersize=12, markeredgewidth=2.2, color=INK)
            axes.set_xscale("log")
            axes.set_yticks(range(len(rows[batch])), [shorten(m.artifact) for m in rows[batch]])
            axes.set_ylim(len(rows[batch]) - 0.4, -0.6)
            axes.grid(visible=False, axis="y")
            axes.set_title(f"batch {batch}")
            ms_ticks(axes)
        grid[-1, 0].set_xlabel("ms per call (log)")

    alt = "Latency distributions. " + " ".join(
        f"Batch {b}: " + ", ".join(f"{m.artifact} median {ms_text(m.p50_ms)} ms" for m in rows[b]) + "."
        for b in batches
    )
    return draw("distributions", alt, 60 + sum(30 + 24 * len(found) for found in rows.values()), paint)


def throughput(measurements: Sequence["Measurement"], places: Mapping[str, int], knees: Mapping[str, int]) -> str:
    """Draw samples per second against the batch size, with a ring around the knee."""
    lines = {name: sorted((m for m in measurements if m.artifact == name), key=lambda m: m.batch) for name in places}
    lines = {name: found for name, found in lines.items() if found}

    def paint(figure: "Figure") -> None:
        axes = figure.subplots()
        for name, found in lines.items():
            line(axes, name, places[name], [(m.batch, m.samples_per_s) for m in found])
            for m in found:
                if knees.get(name) == m.batch:
                    axes.plot(
                        m.batch, m.samples_per_s, marker="o", markersize=12, markerfacecolor="none", markeredgecolor=INK
                    )
        axes.set_xscale("log", base=2)
        axes.set_yscale("log")
        batches = sorted({m.batch for m in measurements})
        axes.set_xticks(batches, [str(b) for b in batches])
        axes.set_xlabel("batch")
        axes.set_title("samples per second (log)")
        log_ticks(axes.yaxis, lambda value: f"{value:,.0f}")
        columns = 2 if is_narrow(figure) else 4
        figure.legend(loc="outside lower center", ncols=columns, frameon=False, labelcolor=INK, fontsize=9)

    peak = {name: max(found, key=lambda m: m.samples_per_s) for name, found in lines.items()}
    alt = "Throughput against batch size. Highest: " + ", ".join(
        f"{name} {m.samples_per_s:,.0f} samples per second at batch {m.batch}" for name, m in peak.items()
    )
    return draw("throughput", alt, 360, paint)


def bars(
    name: str,
    title: str,
    rows: Mapping[str, Mapping[str, float]],
    unit: str,
    pale: Sequence[str] = (),
    overlay: tuple[str, Mapping[str, float]] | None = None,
) -> str:
    """Draw one stacked bar for each row.

    Args:
        name: the name of the picture.
        title: the title above the bars.
        rows: row -> part -> value; every row has the same parts.
        unit: the unit of the values.
        pale: rows that are drawn pale.
        overlay: label and values by row of something parallel to the parts; drawn as a line across the bar.
    """
    overlay_label, overlay_values = overlay or ("", {})
    parts = list(dict.fromkeys(part for row in rows.values() for part in row))

    def paint(figure: "Figure") -> None:
        axes = figure.subplots()
        for y, (row, values) in enumerate(rows.items()):
            left = 0.0
            for i, part in enumerate(parts):
                color, alpha = series(i + 1), 0.35 if row in pale else 0.9
                axes.barh(
                    y, values[part], left=left, height=0.62, color=color, alpha=alpha, label=part if y == 0 else None
                )
                left += values[part]
            if row in overlay_values:
                axes.vlines(
                    overlay_values[row],
                    y - 0.42,
                    y + 0.42,
                    colors=INK,
                    linewidth=2.5,
                    label=overlay_label if y == 0 else "_nolegend_",
                )
            axes.annotate(
                f"{left:.3g} {unit}",
                (max(left, overlay_values.get(row, 0.0)), y),
                xytext=(4, 0),
                textcoords="offset points",
                va="center",
                color=MUTED,
            )
        axes.set_yticks(range(len(rows)), [shorten(row, 30) for row in rows])
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.margins(x=0.14 if not is_narrow(figure) else 0.3)
        axes.grid(visible=False, axis="y")
        axes.set_xlabel(unit)
        axes.set_title(title)
        if len(parts) > 1:
            columns = 2 if is_narrow(figure) else len(parts) + bool(overlay_label)
            figure.legend(loc="outside lower center", ncols=columns, frameon=False, labelcolor=INK)

    alt = f"{title}: " + "; ".join(
        f"{row} {sum(values.values()):.3g} {unit}"
        + (f" ({', '.join(f'{part} {v:.3g}' for part, v in values.items())})" if len(parts) > 1 else "")
        + (f", {overlay_label} {overlay_values[row]:.3g}" if row in overlay_values else "")
        for row, values in rows.items()
    )
    return draw(name, alt, 70 + 27 * len(rows) + (40 if len(parts) > 1 else 0), paint)


def over_time(
    lines: Mapping[str, Sequence[tuple[int, float]]], places: Mapping[str, int], labels: Sequence[str]
) -> str:
    """Draw the median latency of every variant over the runs of the history.

    Args:
        lines: variant -> (number of the run, ms).
        places: variant -> its colour.
        labels: the label of each run on the x axis.
    """

    def paint(figure: "Figure") -> None:
        axes = figure.subplots()
        for name, found in lines.items():
            line(axes, name, places.get(name, 0), found)
        axes.set_yscale("log")
        step = max(1, len(labels) // (4 if is_narrow(figure) else 8))
        axes.set_xticks(range(0, len(labels), step), [shorten(label) for label in labels[::step]])
        axes.set_title("median latency, ms (log)")
        log_ticks(axes.yaxis, ms_text)
        columns = 2 if is_narrow(figure) else 4
        figure.legend(loc="outside lower center", ncols=columns, frameon=False, labelcolor=INK, fontsize=9)

    alt = f"Median latency over {len(labels)} runs. " + ", ".join(
        f"{name} from {ms_text(found[0][1])} to {ms_text(found[-1][1])} ms" for name, found in lines.items()
    )
    return draw("over-time", alt, 360, paint)
