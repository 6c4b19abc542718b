"""What the commands that make one file have in common: make it, prove it, show it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from optkit.cli.output import Output
from optkit.cli.values import requirements, samples_of, settings
from optkit.errors import RecipeError

if TYPE_CHECKING:
    from optkit.artifact import Artifact
    from optkit.stages import Stage


@dataclass(frozen=True)
class Proof:
    """The options that say how an artifact is proven."""

    data: str | None = None
    evaluation: str | None = None
    max_drop: float | None = None
    atol: float | None = None
    rtol: float | None = None
    device: str = "cpu"
    may_mix: bool = False


def make_and_show(
    out: Output,
    stage: "Stage",
    source: "Artifact",
    output: Path,
    proof: Proof,
    force: bool,
    hints: Sequence[str],
    *,
    doctor: bool = False,
) -> None:
    """Make `output` from `source`, show its passport, and exit with 1 when it does not hold what was asked.

    With `doctor`, what its calibration data is like is shown too.
    """
    if proof.max_drop is not None and proof.evaluation is None:
        raise RecipeError(
            f"--max-drop {proof.max_drop:g}: nothing measures accuracy. Give --evaluate file.py:evaluate."
        )
    from optkit.pipeline.single import make_file
    from optkit.recipe.keys import Gates
    from optkit.report import calibration_tables, passport_text, quantization_parts

    with out.working():  # until the answer only, which would start on the line of the progress
        made = make_file(
            stage,
            source,
            output,
            asked=requirements(proof.evaluation, proof.atol, proof.rtol, proof.device),
            gates=settings(Gates, max_accuracy_drop=proof.max_drop, batch_independence=not proof.may_mix),
            samples=samples_of(source, proof.data),
            force=force,
        )
    parts = quantization_parts(made.passport.artifact.quantization)
    tables = calibration_tables(made.passport) if doctor else []
    out.answer(made.passport, passport_text(made.passport, output if not made.failures else None), *parts, *tables)
    out.verdict(made.failures)
    if made.failures:
        out.hint(f"{output} was not written")
        raise typer.Exit(1)
    out.hint(*(f"next: {hint}" for hint in hints))
