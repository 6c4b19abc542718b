"""The ensembles of a run: make their parts, check the whole against the pipeline's source code, and package it."""

import logging
from collections.abc import Mapping
from pathlib import Path

from optkit.artifact import Passport
from optkit.artifact.tensors import DimRange, TensorSpec
from optkit.checks import Prover, Requirements
from optkit.choose.winner import Winner
from optkit.data import Samples
from optkit.errors import OptkitError, StageError, raise_if_interrupted
from optkit.pipeline.packages import FOLDERS, used_dims
from optkit.pipeline.plan import Plan
from optkit.pipeline.records import StepResult
from optkit.pipeline.steps import stage_step
from optkit.pytorch.source import make_source
from optkit.serving import Packaged
from optkit.serving.golden import Golden, golden_sizes
from optkit.serving.settings import FASTEST
from optkit.serving.triton.ensemble.config import package_ensemble
from optkit.serving.triton.ensemble.local import LocalEnsemble, ensemble_tolerance, prove_ensemble
from optkit.serving.triton.ensemble.package import Ensemble, EnsemblePart, EnsembleSettings, Node, connect
from optkit.stages import ExportOnnx
from optkit.system.supervisor import step

logger = logging.getLogger(__name__)

Made = Mapping[str, Passport]  # the artifacts of the run that passed their gates


def package_ensembles(
    plan: Plan, results: Mapping[str, StepResult], winner: Winner | None
) -> tuple[tuple[Packaged, ...], tuple[str, ...]]:
    """Check and write every ensemble of the recipe; return the packages, and the reasons why others were not written."""
    passed = {name: result.passport for name, result in results.items() if result.passport and result.passed}
    if winner is not None:
        passed[FASTEST] = passed[winner.artifact]
    done: list[Packaged] = []
    refusals: list[str] = []
    for i, settings in enumerate(plan.recipe.ensembles):
        where = f"ensembles.{i} ({settings.name})"
        try:
            with step(where):
                done.append(_package(plan, settings, passed))
        except OptkitError as e:
            raise_if_interrupted(e)
            refusals.append(f"{where}: {e}")
            continue
        logger.info("ensembles.%d (%s): %s", i, settings.name, done[-1].notes[0])
    return tuple(done), tuple(refusals)


def _package(plan: Plan, settings: EnsembleSettings, passed: Made) -> Packaged:
    dims = plan.recipe.dims
    read = {*settings.outputs, *(tensor for part in settings.parts for tensor in part.takes.values())}
    folder = plan.out_dir / settings.name
    nodes = [_node(part, folder / part.name, dims, passed) for part in settings.parts]
    read |= {tensor for node in nodes for tensor in node.takes.values()}
    nodes = [_giving(node, part, read) for node, part in zip(nodes, settings.parts, strict=True)]
    ensemble = connect(settings.name, settings.inputs, settings.outputs, nodes, used_dims(settings.inputs, dims))
    samples = Samples.of(settings.data, ensemble.inputs, ensemble.dims)
    golden, proof = _prove(ensemble, settings, samples)
    repository = plan.out_dir / FOLDERS["triton"]
    packaged = package_ensemble(ensemble, settings, repository, golden, force=True)  # the folder belongs to the run
    return packaged.model_copy(update={"notes": (proof, *packaged.notes)})


def _prove(ensemble: Ensemble, settings: EnsembleSettings, samples: Samples) -> tuple[Golden, str]:
    """Check the ensemble against its reference; return golden samples and a sentence on the check.

    Raises:
        StageError: the outputs are not equal to those of the reference.
    """
    with LocalEnsemble(ensemble) as local:
        parity = prove_ensemble(local, settings.reference, samples)
        if not parity.passed:
            raise StageError(f"not packaged: its outputs differ from those of {parity.reference}: {parity.failure}")
        feed = samples.at(golden_sizes(ensemble.inputs, ensemble.dims))
        golden = Golden(feed, local.infer(feed), ensemble_tolerance(ensemble))
    points = len({tuple(output.sizes.items()) for output in parity.outputs})
    return (
        golden,
        f"equal to {parity.reference} at {points} points ({parity.values}, max abs {parity.max_abs or 0:.3g})",
    )


def _node(part: EnsemblePart, folder: Path, dims: Mapping[str, DimRange], passed: Made) -> Node:
    """Return the node of a part, and export its module if it has one; `gives` is still empty."""
    if part.artifact is not None:
        if part.artifact not in passed:
            raise StageError(f"not packaged: {part.artifact!r} did not pass its gates")
        passport = passed[part.artifact]
    elif part.module is not None:
        passport = _exported(part, folder, dims)
    else:
        return Node(part.name, part.inputs, part.outputs, _takes(part, part.inputs), {}, function=part.function)
    artifact = passport.artifact
    return Node(
        part.name,
        artifact.inputs,
        artifact.outputs,
        _takes(part, artifact.inputs),
        {},
        artifact=artifact,
        independence=passport.batch_independence,
    )


def _exported(part: EnsemblePart, folder: Path, dims: Mapping[str, DimRange]) -> Passport:
    """Export a module to ONNX, and check that the file is equal to it.

    Raises:
        StageError: no exporter writes an equal file.
    """
    source = make_source(
        part.module or "", folder / "source", part.inputs, used_dims(part.inputs, dims), outputs=part.output_names
    )
    prover = Prover(source, Samples(source.inputs, source.dims, random=source.random), Requirements())
    passport, known = stage_step(ExportOnnx(), source, folder / "onnx", prover)
    passport, proven = prover.prove(passport)
    if not (known and proven):
        passport.save()
    if passport.parity is None or not passport.parity.passed:
        failure = passport.parity.failure if passport.parity else "nothing was compared"
        raise StageError(f"not packaged: the ONNX file of part {part.name!r} is not equal to its module: {failure}")
    return passport


def _takes(part: EnsemblePart, inputs: tuple[TensorSpec, ...]) -> dict[str, str]:
    return {spec.name: spec.name for spec in inputs} | part.takes


def _giving(node: Node, part: EnsemblePart, read: set[str]) -> Node:
    """Return the node with its outputs in `gives`: those that the part maps, and those that another part reads by their own name."""
    own = {spec.name: spec.name for spec in node.outputs if spec.name in read and spec.name not in part.gives}
    return Node(
        node.name,
        node.inputs,
        node.outputs,
        node.takes,
        own | part.gives,
        artifact=node.artifact,
        independence=node.independence,
        function=node.function,
    )
