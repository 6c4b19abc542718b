"""A TensorRT engine: its profiles, the runtime and the GPUs that it was built for, and whether another installation would load it."""

import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from optkit.artifact import platforms
from optkit.artifact.tensors import DimRange, TensorSpec
from optkit.record import Record

Shape = tuple[int, ...]

AMPERE_SM = 80


class ShapeRange(Record):
    """The smallest, most common and largest shape of one input: min <= opt <= max in every dimension."""

    min: Shape
    opt: Shape
    max: Shape

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `1x3x224x224,8x3x224x224,64x3x224x224`; one shape alone is all three.

        Raises:
            ValueError: the text does not follow the grammar, or the shapes are not ordered.
        """
        shapes = [part.strip() for part in text.split(",")]
        if len(shapes) not in (1, 3) or not all(re.fullmatch(r"\d+(x\d+)*", shape) for shape in shapes):
            raise ValueError(
                f"{text!r} is not a range of shapes; expected min,opt,max, as in 1x3x224x224,8x3x224x224,64x3x224x224"
            )
        low, opt, high = ([tuple(int(n) for n in shape.split("x")) for shape in shapes] * 3)[:3]
        return cls(min=low, opt=opt, max=high)

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if not len(self.min) == len(self.opt) == len(self.max):
            raise ValueError(f"{self}: min, opt and max have different ranks; expected the same")
        for axis, sizes in enumerate(zip(self.min, self.opt, self.max, strict=True)):
            if not 1 <= sizes[0] <= sizes[1] <= sizes[2]:
                low, opt, high = sizes
                raise ValueError(f"{self}: axis {axis} has {low}, {opt}, {high}; expected 1 <= min <= opt <= max")
        return self

    def __str__(self) -> str:
        return ",".join("x".join(map(str, shape)) for shape in (self.min, self.opt, self.max))


def _shape_range(value: Any) -> Any:
    return ShapeRange.parse(value) if isinstance(value, str) else value


Profile = dict[str, Annotated[ShapeRange, BeforeValidator(_shape_range)]]  # input -> its shapes


class LayerShare(Record):
    """The layers of an engine in one precision: their share of all layers and of the time, 0 to 1."""

    precision: str
    layers: float
    time: float


class EngineFacts(Record):
    """How an engine was built, its targets, and its layers; `layers` is empty where no GPU could inspect it."""

    runtime: Literal["tensorrt", "tensorrt-rtx"]
    version: str
    targets: tuple[
        Annotated[str, Field(pattern=r"^sm[0-9]{2,3}$")], ...
    ]  # compute capabilities, which name files of a package too
    gpu: str | None  # that it was built on; None where it was built without one
    driver: str | None
    precision: str  # of the ONNX file: fp32, fp16, int8 or int8+fp16
    typed: bool  # strongly typed: every layer computes in the types of the file
    profiles: tuple[Profile, ...]
    inputs: tuple[TensorSpec, ...]  # as the engine has them: 8.6 takes INT32 for INT64
    outputs: tuple[TensorSpec, ...]
    onnx_sha256: str
    settings: dict[str, str | int | bool | None]
    python: str | None = None  # the interpreter whose TensorRT built it, where it was another than optkit's
    version_compatible: bool = False
    hardware_compatible: str | None = None
    warnings: tuple[str, ...] = ()
    layers: tuple[LayerShare, ...] = ()
    required: dict[str, float] = Field(default_factory=dict)  # precision -> the required share of layers
    unproven: tuple[str, ...] = ()

    @property
    def built_by(self) -> str:
        """The title of the runtime, and its version."""
        return f"{TITLES[self.runtime]} {self.version}"


TITLES = {"tensorrt": "TensorRT", "tensorrt-rtx": "TensorRT-RTX"}


def sm_text(target: str) -> str:
    """Return sm86 as sm_86, NVIDIA's spelling."""
    return target.replace("sm", "sm_", 1)


def load_refusal(engine: EngineFacts, runtime: str, version: str, target: str) -> str | None:
    """Return the reason why another installation would not load an engine, in one sentence; None where it would.

    An engine loads in the release that built it. A version-compatible engine also loads in later releases of the same major version,
    and one of version 10 in version 11. Without hardware compatibility the GPU must have the compute capability that it was built for.

    Args:
        engine: from its passport.
        runtime: the other runtime: tensorrt or tensorrt-rtx.
        version: its version.
        target: the compute capability of its GPU, such as `sm86`.
    """
    if not platforms.runs_on(runtime, target):
        takes = ", ".join(map(sm_text, platforms.platforms().tensorrt_rtx))
        return (
            f"built by {engine.built_by}, and {TITLES[runtime]} does not run on {sm_text(target)}, only on {takes} and later: rebuild "
            f"with --runtime tensorrt on that GPU"
        )
    fits = engine.runtime == runtime and _version_fits(engine, version) and _target_fits(engine, target)
    if fits:
        return None
    built_for = ", ".join(map(sm_text, engine.targets))
    again = "--runtime tensorrt-rtx --gpu " + target if runtime == "tensorrt-rtx" else "--runtime tensorrt on that GPU"
    return (
        f"built by {engine.built_by} for {built_for}, this is {TITLES[runtime]} {version} on {sm_text(target)}: "
        f"rebuild with {again}"
    )


def _version_fits(engine: EngineFacts, version: str) -> bool:
    built, here = _numbers(engine.version), _numbers(version)
    if built == here:
        return True
    majors = (built[0], here[0])
    return engine.version_compatible and here > built and (majors[0] == majors[1] or majors == (10, 11))


def _target_fits(engine: EngineFacts, target: str) -> bool:
    if target in engine.targets:
        return True
    return engine.hardware_compatible == "ampere-plus" and int(target.removeprefix("sm")) >= AMPERE_SM


def _numbers(version: str) -> tuple[int, ...]:
    """Return major, minor and patch; a build number does not change the format."""
    return tuple(int(n) for n in re.findall(r"\d+", version)[:3])


def default_profile(inputs: Sequence[TensorSpec], dims: Mapping[str, DimRange]) -> Profile:
    """Return the declared ranges as a profile; inputs without a named dimension need none."""
    low, opt, high = ({name: getattr(r, end) for name, r in dims.items()} for end in ("min", "opt", "max"))
    return {
        spec.name: ShapeRange(min=spec.shape_at(low), opt=spec.shape_at(opt), max=spec.shape_at(high))
        for spec in inputs
        if any(isinstance(dim, str) for dim in spec.shape)
    }


def profiles_faults(inputs: Sequence[TensorSpec], profiles: Sequence[Profile]) -> list[str]:
    """Return the faults of profiles that do not fit the inputs, each with the number of its profile."""
    return [f"profile {i}: {fault}" for i, profile in enumerate(profiles) for fault in _profile_faults(inputs, profile)]


def _profile_faults(inputs: Sequence[TensorSpec], profile: Profile) -> list[str]:
    """Return the faults of a profile that does not fit the inputs: names, ranks, fixed dimensions, and sizes that must agree."""
    specs = {spec.name: spec for spec in inputs}
    dynamic = {spec.name for spec in inputs if any(isinstance(dim, str) for dim in spec.shape)}
    faults = [
        f"no input is named {name!r}; the model takes {', '.join(specs)}" for name in profile if name not in specs
    ]
    faults += [
        f"input {name!r}: has dynamic dimensions, and the profile does not give its shapes"
        for name in sorted(dynamic - set(profile))
    ]
    bound: dict[str, tuple[int, int, int]] = {}
    for name, shapes in profile.items():
        if name not in specs:
            continue
        spec = specs[name]
        if len(shapes.min) != len(spec.shape):
            faults.append(f"input {name!r}: {shapes} has rank {len(shapes.min)}; the model takes {spec.type_text}")
            continue
        for axis, dim in enumerate(spec.shape):
            sizes = (shapes.min[axis], shapes.opt[axis], shapes.max[axis])
            if isinstance(dim, int) and set(sizes) != {dim}:
                faults.append(f"input {name!r}: {shapes} has {sizes} for axis {axis}; the model fixes it at {dim}")
            elif isinstance(dim, str) and bound.setdefault(dim, sizes) != sizes:
                faults.append(f"input {name!r}: {shapes} has {sizes} for {dim!r}; another input has {bound[dim]}")
    return faults


def profile_dims(inputs: Sequence[TensorSpec], profile: Profile) -> dict[str, DimRange]:
    """Return the ranges of the named dimensions in a profile that fits the inputs."""
    found: dict[str, DimRange] = {}
    for spec in inputs:
        if spec.name in profile:
            shapes = profile[spec.name]
            for axis, dim in enumerate(spec.shape):
                if isinstance(dim, str):
                    found[dim] = DimRange(min=shapes.min[axis], opt=shapes.opt[axis], max=shapes.max[axis])
    return found


def hull(ranges: Sequence[Mapping[str, DimRange]]) -> dict[str, DimRange]:
    """Return the smallest ranges that contain those of every profile; opt is that of the first."""
    return {
        name: DimRange(min=min(r[name].min for r in ranges), opt=first.opt, max=max(r[name].max for r in ranges))
        for name, first in (ranges[0].items() if ranges else ())
    }
