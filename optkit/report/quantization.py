"""The search for layers that stay in float: the layers, the accuracy for each number of them, and lines for a recipe."""

from rich.table import Table
from rich.text import Text

from optkit.artifact.findings import Quantization
from optkit.report.numbers import ms_text, size_text
from optkit.report.table import plain_table
from optkit.untrusted.quoting import yaml_text


def quantization_parts(found: Quantization | None) -> list[Table | str]:
    """Return the tables of the layers and of the frontier, and the recipe lines; an empty list if no layer was ranked."""
    if found is None or not found.layers:
        return []
    parts: list[Table | str] = [_layers(found), _frontier(found)]
    if lines := recipe_lines(found):
        parts.append("\n".join(["for a recipe:", *(f"  {line}" for line in lines)]))
    return parts


def recipe_lines(found: Quantization) -> list[str]:
    """Return recipe lines that keep the same layers in float without a new search; an empty list if no layer stays in float."""
    return (
        ["exclude:", *(f"  - {yaml_text(name)}" for name in found.exclude)]
        if found.exclude and not found.failure
        else []
    )


def _layers(found: Quantization) -> Table:
    table = plain_table("layers, most harmful first", "layer", "op", ">SQNR dB", ">size", "precision")
    for layer in found.layers:
        ratio = "" if layer.sqnr_db is None else f"{layer.sqnr_db:.1f}"
        kept = Text("float", "yellow") if layer.kept else Text("INT8")
        table.add_row(layer.layer, layer.op, ratio, size_text(layer.size_bytes), kept)
    return table


def _frontier(found: Quantization) -> Table:
    table = plain_table("accuracy by layers in float", ">layers", ">value", ">predicted ms", "")
    for point in found.frontier:
        predicted = "" if point.predicted_ms is None else ms_text(point.predicted_ms)
        chosen = "chosen" if point.kept == len(found.exclude) and not found.failure else ""
        table.add_row(str(point.kept), f"{point.value:.6g}", predicted, chosen)
    return table
