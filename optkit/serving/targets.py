"""Packaging of one artifact with its golden samples and its client."""

from collections.abc import Sequence
from pathlib import Path

from optkit.artifact import Artifact, Passport
from optkit.data import Samples
from optkit.runners import why_not_runnable
from optkit.serving import (
    ArtifactServing,
    Packaged,
    TritonServing,
    make_golden,
    package_torchserve,
    package_triton,
)
from optkit.serving.golden import golden_sizes
from optkit.serving.torchserve.golden import archive_golden


def package(
    passport: Passport,
    folder: Path,
    serving: ArtifactServing,
    *,
    name: str,
    samples: Samples,
    force: bool,
    others: Sequence[Artifact] = (),
) -> Packaged:
    """Write the artifact of a passport to a model repository or model store; the passport says whether it may be batched.

    Raises:
        OptkitError: the artifact cannot be packaged with these settings, or the package cannot be written. Nothing was changed.
    """
    artifact, independence = passport.artifact, passport.batch_independence
    if isinstance(serving, TritonServing):
        sample = samples.at({dim: r.opt for dim, r in artifact.dims.items()}) if serving.warmup else None
        return package_triton(
            artifact,
            folder,
            serving,
            name=name,
            independence=independence,
            sample=sample,
            golden=None if why_not_runnable(artifact) else make_golden(artifact, samples),
            force=force,
            others=others,
        )
    tried = samples.at(golden_sizes(artifact.inputs, artifact.dims)) if serving.client else None
    return package_torchserve(
        artifact,
        folder,
        serving,
        name=name,
        independence=independence,
        golden=None
        if serving.handler or why_not_runnable(artifact)
        else archive_golden(artifact, samples, serving.image),
        sample=tried,
        force=force,
    )
