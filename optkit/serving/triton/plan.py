"""TensorRT engines as Triton's TensorRT backend takes them: one file, or one for each compute capability of a server's GPUs."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from optkit.artifact import Artifact
from optkit.artifact.engine import EngineFacts, sm_text
from optkit.errors import StageError

if TYPE_CHECKING:
    from tritonclient.grpc import model_config_pb2 as schema


def as_built(artifact: Artifact) -> Artifact:
    """Return an engine with its actual dtypes for the configuration; TensorRT 8.6 uses INT32 instead of INT64.

    Raises:
        StageError: no Triton backend loads it.
    """
    engine = _engine(artifact)
    if engine.runtime != "tensorrt":
        raise StageError(
            f"{artifact.path.name}: is an engine of TensorRT-RTX; Triton's backend loads only engines of TensorRT. Build it with --runtime "
            f"tensorrt on a GPU like the server's, with the TensorRT release that `optkit doctor --triton` shows."
        )
    return artifact.model_copy(update={"inputs": engine.inputs, "outputs": engine.outputs})


def plan_files(plans: Sequence[Artifact]) -> dict[str, Path]:
    """Return name in the version folder -> engine: `model.plan` for one engine, otherwise one name for each compute capability.

    Raises:
        StageError: two engines have the same compute capability, or their contracts differ.
    """
    if len(plans) == 1:
        return {"model.plan": plans[0].path}
    first = plans[0]
    found: dict[str, Path] = {}
    for plan in plans:
        if (plan.inputs, plan.outputs, plan.dims) != (first.inputs, first.outputs, first.dims):
            raise StageError(
                f"{plan.path.name}: its inputs, outputs or profiles differ from {first.path.name}; expected engines of one model"
            )
        for target in _engine(plan).targets:
            name = f"model_{target}.plan"
            if name in found:
                raise StageError(
                    f"{plan.path.name}: {found[name].name} is for {sm_text(target)} too; expected one engine for each GPU"
                )
            found[name] = plan.path
    return found


def describe_plans(config: "schema.ModelConfig", plans: Sequence[Artifact]) -> None:
    """Add the fields that engines need: GPU instances, the file for each compute capability, and all profiles."""
    for group in config.instance_group:
        group.kind = group.KIND_GPU
        profiles = len(_engine(plans[0]).profiles)
        if profiles > 1:
            group.profile.extend(str(i) for i in range(profiles))
    if len(plans) > 1:
        for plan in plans:
            for target in _engine(plan).targets:
                number = target.removeprefix("sm")
                config.cc_model_filenames[f"{number[:-1]}.{number[-1]}"] = f"model_{target}.plan"


def _engine(artifact: Artifact) -> EngineFacts:
    if artifact.engine is None:
        raise StageError(
            f"{artifact.path.name}: its passport has no data about the engine; expected an engine of optkit. Build it with optkit build-engine."
        )
    return artifact.engine
