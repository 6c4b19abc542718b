"""The page's sections on INT8: the ranked layers, the accuracy for each number of layers in float, and the calibration data."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from optkit.artifact.calibration import Diagnosis
from optkit.artifact.findings import Quantization
from optkit.messages import count
from optkit.pipeline.records import StepResult
from optkit.report.numbers import ms_text, size_text
from optkit.report.quantization import recipe_lines
from optkit.report.svg import GOOD, INK, MUTED, draw, series

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_MOST_OPEN = 20  # up to this number of layers the table is open


@dataclass(frozen=True)
class LayerRow:
    """One layer, and the effect on the outputs when only this layer is quantized."""

    name: str
    op: str
    effect: str
    size: str
    kept: bool


@dataclass(frozen=True)
class FrontierRow:
    """The accuracy of the model with some layers in float."""

    kept: int
    value: str
    predicted: str
    chosen: bool


@dataclass(frozen=True)
class Search:
    """The search of one step."""

    step: str
    found: Quantization
    sentence: str
    layers: tuple[LayerRow, ...]
    frontier: tuple[FrontierRow, ...]
    recipe: str

    @property
    def short(self) -> bool:
        """Whether the table of layers is short enough to be shown open."""
        return len(self.layers) <= _MOST_OPEN


@dataclass(frozen=True)
class Calibrated:
    """The findings of the calibration doctor for one step; an empty text means no finding."""

    step: str
    samples: str
    outliers: str
    duplicates: str
    constants: str
    long_tail: str
    shifts: tuple[str, ...]


def searches(steps: Sequence[StepResult]) -> tuple[Search, ...]:
    """Return the searches for layers that stay in float, one for each step that has one."""
    found = [(step.name, step.quantization) for step in steps if step.quantization and step.quantization.layers]
    return tuple(_search(name, quantization) for name, quantization in found)


def calibrations(steps: Sequence[StepResult]) -> tuple[Calibrated, ...]:
    """Return the findings on the calibration data, one row for each calibrated step."""
    return tuple(_calibrated(step, step.calibration) for step in steps if step.calibration)


def draw_frontier(search: Search, i: int) -> str:
    """Draw the value against the number of layers in float, with the limit as a line and a ring around the choice.

    Args:
        search: a search with a frontier.
        i: its index on the page, for unique ids.
    """
    found, points = search.found, search.found.frontier
    metric = found.metric or "value"

    def paint(figure: "Figure") -> None:
        from matplotlib.ticker import MaxNLocator

        axes = figure.subplots()
        axes.plot([p.kept for p in points], [p.value for p in points], color=series(1), marker="o", linewidth=1.8)
        if found.limit is not None:
            axes.axhline(found.limit, color=MUTED, linestyle="--", linewidth=1.2)
            axes.annotate(
                "limit", (0, found.limit), xycoords=("axes fraction", "data"), xytext=(2, 4),
                textcoords="offset points", ha="left", color=MUTED,
            )  # fmt: skip
        for p in points:
            if _is_chosen(p.kept, found):
                axes.plot(
                    p.kept, p.value, marker="o", markersize=13, markerfacecolor="none", markeredgecolor=GOOD,
                    markeredgewidth=2,
                )  # fmt: skip
                axes.annotate(
                    "chosen", (p.kept, p.value), xytext=(0, -20), textcoords="offset points", ha="center", color=INK
                )
        axes.margins(0.08, 0.25)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:.4g}")
        axes.set_xlabel("layers in float")
        axes.set_title("value, larger is better")

    chosen = next((p for p in points if _is_chosen(p.kept, found)), None)
    alt = (
        f"Accuracy of {search.step} by layers in float, measured by {metric}: {points[0].value:.6g} with {points[0].kept} layers in float, {points[-1].value:.6g} with "
        f"{points[-1].kept}. "
        + (f"Chosen: {chosen.kept}, with {chosen.value:.6g}." if chosen else "None reached the limit.")
    )
    return draw(f"frontier-{i}", alt, 260, paint)


def _search(name: str, found: Quantization) -> Search:
    layers = [
        LayerRow(
            name=layer.layer,
            op=layer.op,
            effect="" if layer.sqnr_db is None else f"{layer.sqnr_db:.1f}",
            size=size_text(layer.size_bytes),
            kept=layer.kept,
        )
        for layer in found.layers
    ]
    frontier = [
        FrontierRow(
            kept=point.kept,
            value=f"{point.value:.6g}",
            predicted="" if point.predicted_ms is None else ms_text(point.predicted_ms),
            chosen=_is_chosen(point.kept, found),
        )
        for point in found.frontier
    ]
    return Search(
        step=name,
        found=found,
        sentence=_sentence(found),
        layers=tuple(layers),
        frontier=tuple(frontier),
        recipe="\n".join(recipe_lines(found)),
    )


def _sentence(found: Quantization) -> str:
    of = f"{len(found.exclude)} of {count(len(found.layers), 'layer')}"
    metric = f", measured by {found.metric}" if found.metric else ""
    limit = f"; the limit is {found.limit:.6g}" if found.limit is not None else ""
    if found.failure:
        return f"The limit was not reached{metric}: {found.failure}."
    reached = f" and reach {found.value:.6g}" if found.value is not None else ""
    return f"{of} stay in float{reached}{metric}{limit}."


def _is_chosen(kept: int, found: Quantization) -> bool:
    return not found.failure and kept == len(found.exclude)


def _calibrated(step: StepResult, found: Diagnosis) -> Calibrated:
    growing = found.suggested_samples > found.samples
    worst = found.outliers[0] if found.outliers else None
    tail = found.long_tails[0] if found.long_tails else None
    return Calibrated(
        step=step.name,
        samples=f"{found.samples}: "
        + (
            f"too few, use {found.suggested_samples}"
            if growing
            else f"enough, {found.suggested_samples} are sufficient"
        ),
        outliers=f"{len(found.outliers)}, worst sample {worst.sample} ({worst.worst} {worst.stretch:.1f}x)"
        if worst
        else "",
        duplicates=str(sum(len(group) - 1 for group in found.duplicates) or ""),
        constants=", ".join(f"{name} in {count(len(samples), 'sample')}" for name, samples in found.constants.items()),
        long_tail=f"{tail.tensor}: 99.9 % of values in {tail.inner_share:.1%} of the range" if tail else "",
        shifts=tuple(map(str, step.shifts)),
    )
