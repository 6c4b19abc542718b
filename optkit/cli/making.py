"""What the commands that make one file have in common: make it, prove it, show it."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from optkit.cli.output import Output
from optkit.cli.values import parse_args, parse_dims, parse_inputs, requirements, samples_of, settings
from optkit.errors import RecipeError

if TYPE_CHECKING:
    from optkit.artifact import Artifact
    from optkit.stages import Stage

logger = logging.getLogger(__name__)

Source = Annotated[
    str,
    typer.Argument(
        help="file.py (its one model), file.py:build, package.module:factory, a TorchScript or .pt2 file, or a Hugging Face folder.",
        show_default=False,
    ),
]


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


class SourceModel:
    """The options that say which model is taken out of PyTorch."""

    def __init__(
        self,
        target: str,
        inputs: list[str] | None,
        example: str | None,
        dims: list[str] | None,
        output_names: list[str] | None,
        weights: Path | None,
        arguments: list[str] | None,
    ) -> None:
        from optkit.user_code import absolute_target

        self.target = target
        self.inputs = parse_inputs(inputs)
        self.example = absolute_target(example, Path()) if example else None
        self.dims = parse_dims(dims)
        self.outputs = tuple(output_names) if output_names else None
        self.weights = weights
        self.args = parse_args(arguments)

    def make(self, folder: Path) -> "Artifact":
        """Build the model, write its source artifact to `folder`, and log what was found about it.

        Raises:
            ModelError: it cannot be built or run, or the options do not fit it.
        """
        from optkit.pytorch.source import make_source

        source = make_source(
            self.target,
            folder,
            self.inputs,
            self.dims,
            weights=self.weights,
            args=self.args,
            outputs=self.outputs,
            example=self.example,
        )
        for note in source.notes:
            logger.info("%s", note)
        return source


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
    from optkit.api.make import make_file
    from optkit.artifact.gates import Gates

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
    from optkit.report import calibration_tables, passport_text, quantization_parts

    parts = quantization_parts(made.passport.artifact.quantization)
    tables = calibration_tables(made.passport) if doctor else []
    out.answer(made.passport, passport_text(made.passport, output if not made.failures else None), *parts, *tables)
    out.verdict(made.failures)
    if made.failures:
        out.hint(f"{output} was not written")
        raise typer.Exit(1)
    out.hint(*(f"next: {hint}" for hint in hints))
