"""The parity of a run as a coloured table: one row for each artifact, one column for each output at each corner."""

from collections.abc import Sequence
from dataclasses import dataclass

from optkit.artifact.findings import OutputParity, at
from optkit.pipeline.records import StepResult


@dataclass(frozen=True)
class Cell:
    """One point of parity: its text, a description for the tooltip, and its colour."""

    text: str
    description: str
    level: str


@dataclass(frozen=True)
class HeatRow:
    """The parity of one variant."""

    name: str
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class Heat:
    """The table of parity: one column for each output at each corner."""

    columns: tuple[str, ...]
    rows: tuple[HeatRow, ...]


def heat_of(steps: Sequence[StepResult]) -> Heat | None:
    """Return the table; None if nothing was compared."""
    compared = {step.name: _by_column(step.parity.outputs) for step in steps if step.parity and step.parity.outputs}
    columns = tuple(dict.fromkeys(column for cells in compared.values() for column in cells))
    missing = Cell("", "not compared", "")
    rows = [HeatRow(name, tuple(cells.get(column, missing) for column in columns)) for name, cells in compared.items()]
    return Heat(columns, tuple(rows)) if rows else None


def _by_column(outputs: Sequence[OutputParity]) -> dict[str, Cell]:
    """Return a cell for each output at each corner; if a corner was tested twice, the worse result is kept."""
    one_output = len({o.output for o in outputs}) == 1
    cells: dict[str, Cell] = {}
    worst: dict[str, float] = {}
    for o in outputs:
        corner = at(o.sizes).removeprefix(" at ") or "all"
        column = corner if one_output else f"{o.output}, {corner}"
        error = float("inf") if o.failure or o.cosine is None else 1 - o.cosine
        if column not in cells or not error <= worst[column]:
            cells[column], worst[column] = _cell(o), error
    return cells


def _cell(o: OutputParity) -> Cell:
    where = f"{o.output}{at(o.sizes)}"
    if o.failure:
        return Cell("✗" if o.max_abs is None else f"✗ {o.max_abs:.0e}", f"{where}: {o.failure}", "hx")
    error = 1 - (o.cosine or 0.0)
    level = next((f"h{i}" for i, limit in enumerate((1e-10, 1e-6, 1e-4, 1e-2)) if error < limit), "h4")
    text = "equal" if not o.max_abs else f"{o.max_abs:.0e}"
    return Cell(
        text, f"{where}: max abs {o.max_abs or 0:.3g}, max rel {o.max_rel or 0:.3g}, cosine {o.cosine or 0:.9f}", level
    )
