"""The choice of the exporter: the first whose file has parity, or the faster of two that have parity."""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from optkit.artifact import Artifact
from optkit.artifact.findings import Parity
from optkit.artifact.tensors import batch_dim
from optkit.benchmark import BenchSettings, measure
from optkit.checks import Prover
from optkit.errors import StageError
from optkit.pytorch.tracing import BAKED_IN
from optkit.stages import ExportOnnx

_DECIDES_BY_VALUES = "GuardOnDataDependentSymNode"  # dynamo's name for a branch on the values of a tensor
_Exporter = Literal["dynamo", "torchscript", "script"]
_ORDER: tuple[_Exporter, ...] = ("dynamo", "torchscript", "script")


@dataclass(frozen=True)
class _Candidate:
    """The file of one exporter, and its parity with the model."""

    exporter: str
    artifact: Artifact
    parity: Parity


def export_onnx(stage: ExportOnnx, source: Artifact, out_dir: Path, prover: Prover, filename: str) -> Artifact:
    """Run the exporters in turn; `auto` keeps the first file with parity, `best` the fastest of them in ONNX Runtime.

    A file must pass the checks of the stage, and parity at every corner. The model is scripted only when neither dynamo nor a trace gives
    such a file, because scripted loops run slower than unrolled ones. The notes give the reason for each exporter that was not chosen.
    When no file has parity, the first is returned with its failure.

    Raises:
        StageError: no exporter wrote a file; has every reason.
    """
    written: list[_Candidate] = []
    refused: list[str] = []
    for exporter in _ORDER:
        right = [candidate for candidate in written if candidate.parity.passed and not candidate.parity.beyond]
        if right and (stage.exporter == "auto" or exporter == "script"):
            break
        attempt = stage.model_copy(update={"exporter": exporter})
        try:
            artifact = attempt.run(source, out_dir / f".{exporter}", filename)
        except StageError as e:
            refused.append(str(e).removeprefix(f"{stage.step}: "))
            continue
        baked = [note for note in artifact.notes if BAKED_IN in note]
        if baked and any(_DECIDES_BY_VALUES in reason for reason in refused):
            # Parity is not enough here: random values may all take the branch of the example.
            refused.append(
                f"the {exporter} exporter kept only one branch: {baked[0]}. To accept this, use --exporter {exporter}"
            )
            continue
        candidate = _Candidate(exporter, artifact, prover.parity(artifact))
        written.append(candidate)
        if candidate.parity.unusable:
            break  # the samples are at fault, and another exporter would get the same ones
        if candidate.parity.beyond:
            refused.append(
                f"the file of the {exporter} exporter is wrong beyond the samples: {candidate.parity.beyond}"
            )
        if not candidate.parity.passed:
            because = f" ({'; '.join(baked)})" if baked else ""
            refused.append(f"the file of the {exporter} exporter has no parity: {candidate.parity.failure}{because}")
    if not written:
        reasons = "\n".join(f"  - {reason}" for reason in refused)
        raise StageError(f"{stage.step}: no exporter could export the model.\n{reasons}")
    passed = [candidate for candidate in written if candidate.parity.passed]
    right = [candidate for candidate in passed if not candidate.parity.beyond] or passed[:1]
    chosen, why = _faster(right, prover) if len(right) > 1 else ((right or written)[0], [])
    if chosen.exporter == "script" and any(_DECIDES_BY_VALUES in reason for reason in refused):
        why = [
            *why,
            "forward branches on values: parity was checked only for the branches that the checked values took",
        ]
    notes = (*chosen.artifact.notes, *why, *(f"not chosen: {reason}" for reason in refused))
    return _moved_up(chosen.artifact, out_dir).model_copy(update={"notes": notes})


def _faster(right: list[_Candidate], prover: Prover) -> tuple[_Candidate, list[str]]:
    """Return the candidate with the smaller latency at opt, and a note with the ratio."""
    dim = batch_dim(right[0].artifact.inputs)
    batches = (right[0].artifact.dims[dim].opt,) if dim else ()
    settings = BenchSettings(batches=batches, device=prover.requirements.device)
    measured = measure({c.exporter: c.artifact for c in right}, prover.samples, settings)
    if measured.not_run:
        missing = measured.not_run[0]
        others = [c for c in right if c.exporter != missing.artifact]
        return others[0], [f"not chosen: the {missing.artifact} exporter's file cannot be measured: {missing.reason}"]
    (found,) = measured.speed_ups
    chosen = right[1] if found.ratio > 1 else right[0]
    interval = f" (95 % interval {found.low:.2f} to {found.high:.2f})" if found.low and found.high else ""
    ratio = f"{found.ratio:.2f}x{interval}"
    return chosen, [f"the {found.candidate} exporter's file runs {ratio} as fast as the {found.reference} exporter's"]


def _moved_up(artifact: Artifact, out_dir: Path) -> Artifact:
    """Move the files of the chosen candidate to the stage's own folder, and remove the files of the others."""
    for file in artifact.all_files:
        file.replace(out_dir / file.name)
    for exporter in _ORDER:
        shutil.rmtree(out_dir / f".{exporter}", ignore_errors=True)
    return artifact.model_copy(update={"path": out_dir.absolute() / artifact.path.name})
