"""The keys of a recipe: model, data, steps, gates, benchmark and serving."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import BeforeValidator, Field, model_validator

from optkit.artifact import Precision
from optkit.artifact.findings import Tolerance
from optkit.artifact.gates import Gates
from optkit.artifact.tensors import DimRange, TensorSpec
from optkit.benchmark import BenchSettings
from optkit.choose.winner import Choice
from optkit.data import absolute_data, data_fault
from optkit.pytorch.source import absolute_source, source_fault
from optkit.pytorch.weights import weights_fault
from optkit.record import Record
from optkit.serving import AnyServing
from optkit.serving.triton.ensemble.package import EnsembleSettings
from optkit.stages import AnyStage, BuildTensorRt
from optkit.untrusted.names import TensorName
from optkit.user_code import absolute_target, target_fault


def _specs(value: Any) -> Any:
    """Parse `name: dtype[dims]` pairs."""
    if not isinstance(value, Mapping):
        raise ValueError("expected name: dtype[dim,...] pairs, as in image: float32[batch,3,224,224]")
    if not value:
        raise ValueError("is empty; omit the key to derive the inputs from example inputs")
    return tuple(TensorSpec.parse(str(text), name=str(name)) for name, text in value.items())


def _range(value: Any) -> Any:
    """Parse a range in the form min:opt:max."""
    return DimRange.parse(value) if isinstance(value, str) else value


class ModelKeys(Record):
    """The source of the model."""

    source: str  # file.py:build, package.module:factory, a model file or a folder; paths are relative to the recipe
    weights: str | None = None  # file with a state dict, relative to the recipe
    weights_key: str | None = None  # key of the state dict in that file
    args: dict[str, str | int | float | bool | None] = Field(default_factory=dict)
    example: str | None = None  # file.py:function that returns example inputs; used if `inputs` is not given

    def faults(self) -> Iterator[str]:
        """Yield a fault for each key whose source cannot be found or read."""
        if fault := source_fault(self.source):
            yield f"source: {fault}"
        if self.weights and (fault := weights_fault(Path(self.weights))):
            yield f"weights: {fault}"
        if self.example and (fault := target_fault(self.example)):
            yield f"example: {fault}"


class DataKeys(Record):
    """The sources of real data."""

    calibration: str | None = None  # data source of feeds, such as file.py:function, .npz files or images.yaml
    evaluation: str | None = None  # file.py:function that takes predict and returns a number; larger is better

    def faults(self) -> Iterator[str]:
        """Yield a fault for each key whose source cannot be found or read."""
        if self.calibration and (fault := data_fault(self.calibration)):
            yield f"calibration: {fault}"
        if self.evaluation and (fault := target_fault(self.evaluation)):
            yield f"evaluation: {fault}"


class TensorRtKeys(Record):
    """The TensorRT installation."""

    python: str | None = None  # interpreter with TensorRT, relative to the recipe; None uses the interpreter of optkit


class Recipe(Record):
    """A recipe, as read from its file."""

    name: str = Field(pattern=r"^[A-Za-z0-9][\w.-]*$", max_length=200)
    model: ModelKeys
    inputs: Annotated[tuple[TensorSpec, ...], BeforeValidator(_specs)] = ()  # empty: derived from example inputs
    outputs: tuple[TensorName, ...] | None = None  # names of the outputs, in order
    dims: dict[TensorName, Annotated[DimRange, BeforeValidator(_range)]] = Field(default_factory=dict)
    data: DataKeys = DataKeys()
    steps: tuple[AnyStage, ...] = Field(min_length=1)
    tolerances: dict[Precision, Tolerance] = Field(default_factory=dict)
    gates: Gates = Gates()
    tensorrt: TensorRtKeys = TensorRtKeys()
    bench: BenchSettings = BenchSettings()
    choose: Choice = Choice()
    serve: tuple[AnyServing, ...] = ()
    ensembles: tuple[EnsembleSettings, ...] = ()

    @model_validator(mode="after")
    def _outputs_differ(self) -> Self:
        if self.outputs and len(set(self.outputs)) < len(self.outputs):
            raise ValueError(f"outputs: {', '.join(self.outputs)}; output names must be unique")
        return self

    def with_absolute_paths(self, base: Path) -> Self:
        """Return the recipe with absolute paths, and with its data source and interpreter set in the steps that use them.

        Args:
            base: folder that relative paths start at.

        Raises:
            ModelError: a target is not a valid source of a model or function.
        """
        weights = str((base / self.model.weights).absolute()) if self.model.weights else None
        example = absolute_target(self.model.example, base) if self.model.example else None
        model = {"source": absolute_source(self.model.source, base), "weights": weights, "example": example}
        calibration = absolute_data(self.data.calibration, base) if self.data.calibration else None
        evaluation = absolute_target(self.data.evaluation, base) if self.data.evaluation else None
        return self.model_copy(
            update={
                "model": self.model.model_copy(update=model),
                "data": DataKeys(calibration=calibration, evaluation=evaluation),
                "gates": self.gates.with_absolute_paths(base),
                "steps": tuple(self._with_python(stage).with_data(base, calibration) for stage in self.steps),
                "serve": tuple(serving.with_absolute_paths(base) for serving in self.serve),
                "ensembles": tuple(ensemble.with_absolute_paths(base) for ensemble in self.ensembles),
            }
        )

    def _with_python(self, stage: AnyStage) -> AnyStage:
        """Return a stage with the recipe's TensorRT interpreter, if the stage does not set one."""
        if self.tensorrt.python and isinstance(stage, BuildTensorRt) and not stage.python:
            return stage.model_copy(update={"python": self.tensorrt.python})
        return stage
