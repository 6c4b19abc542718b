"""ONNX -> TensorRT engine, built by TensorRT or ahead of time by TensorRT-RTX, in a separate process."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import AfterValidator, Field

from optkit import deps, onnx_file
from optkit.artifact import Artifact, Format, Precision, environment, platforms
from optkit.artifact.engine import EngineFacts, Profile, default_profile, hull, profile_dims, profiles_faults
from optkit.artifact.tensors import DType, TensorSpec
from optkit.data import absolute_data
from optkit.errors import StageError
from optkit.stages.base import Stage
from optkit.system.temporary import sweep, temporary_name
from optkit.tensorrt.installed import name_interpreter, remember_why_no_gpu
from optkit.tensorrt.process import TensorRtProcess, WorkerFault
from optkit.tensorrt.unsupported_ops import describe_unsupported
from optkit.untrusted.paths import user_path

TIMING_CACHE = Path("~/.cache/optkit/tensorrt")
EnginePrecision = Literal["fp32", "fp16", "int8", "int8+fp16"]


def _targets(given: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(platforms.compute_capability(name) for name in given))


class BuildTensorRt(Stage):
    """Build an engine with the precision of the ONNX file; nothing is converted here.

    `runtime: auto` uses TensorRT if it is installed and there is a GPU, else TensorRT-RTX, which needs no GPU.
    """

    accepts: ClassVar[frozenset[Format]] = frozenset({Format.ONNX})
    produces: ClassVar[Format] = Format.TENSORRT
    filename: ClassVar[str] = "model.plan"

    stage: Literal["build-tensorrt"] = "build-tensorrt"
    runtime: Literal["auto", "tensorrt", "tensorrt-rtx"] = "auto"
    python: str | None = None  # the interpreter that has TensorRT; None: this one
    precision: EnginePrecision | None = None  # None: that of the file; else the file is converted first
    calibration: str | None = None  # for int8: file.py:function or a folder of .npz; None: a recipe's data.calibration
    profiles: tuple[Profile, ...] = ()  # empty: one profile with the declared ranges
    gpu: Annotated[tuple[str, ...], AfterValidator(_targets)] = ()  # compute capabilities or names: sm86, T4, RTX 4090
    workspace_mib: int | None = Field(default=None, ge=1)
    optimization_level: int | None = Field(default=None, ge=0, le=5)
    tf32: bool = False  # allow TF32 (10-bit mantissa) for FP32 math on sm80 and newer
    timing_cache: str = "auto"  # auto: one for each GPU, release and driver; none; or a file
    version_compatible: bool = False
    hardware_compatible: Literal["ampere-plus", "same-compute-capability"] | None = None
    refit: bool = False
    strip: bool = False
    require: dict[Literal["fp32", "fp16", "bf16", "int8", "fp8"], Annotated[float, Field(ge=0, le=1)]] = Field(
        default_factory=dict
    )  # precision -> the smallest share of layers that must compute in it, by TensorRT's inspector

    def requires(self) -> Sequence[str]:
        """Return the missing runtime; for another interpreter nothing, because only its worker can check."""
        wanted = {"auto": ("tensorrt", "tensorrt_rtx", "tensorrt_rtx_bindings"), "tensorrt": ("tensorrt",)}
        names = wanted.get(self.runtime, ("tensorrt_rtx", "tensorrt_rtx_bindings"))
        if self.python or any(map(deps.installed, names)):
            return ()
        return ("tensorrt",) if self.runtime == "tensorrt" else ("tensorrt_rtx",)

    @property
    def data(self) -> str | None:
        """The calibration data, where the stage has to quantize."""
        return self.calibration if self.quantizes else None

    @property
    def quantizes(self) -> bool:
        """Whether the requested precision includes INT8."""
        return self.precision in ("int8", "int8+fp16")

    def with_data(self, base: Path, calibration: str | None) -> Self:
        """Return the stage with absolute paths of its own calibration data, or with the recipe's calibration data."""
        own = absolute_data(self.calibration, base) if self.calibration else calibration
        python = str(base / self.python) if self.python else None
        return self.model_copy(update={"calibration": own, "python": python})

    def versions(self) -> dict[str, str]:
        """Return the installed releases that can build the engine."""
        found = {name: deps.version(name, f"{name}-cu13-bindings") for name in ("tensorrt", "tensorrt-rtx")}
        if self.python:  # its packages are in a folder beside it; starting it would take seconds
            elsewhere = Path(self.python).parent.parent.glob("[lL]ib/**/site-packages/tensorrt*.dist-info")
            found[self.python] = ", ".join(sorted(folder.name for folder in elsewhere))
        return {name: text for name, text in found.items() if text}

    def hardware(self) -> dict[str, str]:
        """Return the GPU, whose kernels are measured during the build."""
        return environment.hardware(gpu=True)

    def make(self, source: Artifact, path: Path) -> Artifact:
        """Check names, profiles and precision, build in a separate process, and collect the facts for the passport."""
        facts = onnx_file.facts(source.path)
        precision = self._checked_precision(source.path, facts)
        profiles = self._profiles(source)
        python = Path(self.python) if self.python else None
        if python:
            name_interpreter(python)
        try:
            with TensorRtProcess(self._job(source, path, profiles, precision, sorted(facts.nodes)), python) as worker:
                built = worker.answer()
        except BaseException as e:
            path.unlink(missing_ok=True)  # a build that was cancelled at its end may have written the engine
            if isinstance(e, WorkerFault):
                raise StageError(f"{e}{describe_unsupported(source.path, e.nodes) if e.nodes else ''}") from e
            raise
        remember_why_no_gpu(python, built["no_gpu"])
        ranges = [profile_dims(source.inputs, profile) for profile in profiles]
        engine = self._facts(built, source, profiles, precision)
        notes = [
            f"built by {engine.built_by} for {', '.join(engine.targets)} in {built['build_s']:.1f} s",
            *built["notes"],
        ]
        artifact = self.artifact(source, path, source.precision, notes=notes, sha256=built["sha256"])
        return artifact.model_copy(update={"engine": engine, "dims": hull(ranges)})

    def _checked_precision(self, path: Path, facts: onnx_file.OnnxFacts) -> EnginePrecision:
        """Return the precision of the file, which the engine will have.

        Raises:
            StageError: another precision was requested, or TensorRT does not support the file's.
        """
        precision = engine_precision(path, facts.precision)
        if self.precision not in (None, precision):
            raise StageError(
                f"{path.name} is {precision}; an engine has the precision of its ONNX file, so an engine in {self.precision} cannot be "
                f"built from it. Use optkit convert fp16, or optkit quantize --target tensorrt, first."
            )
        if onnx_file.DYNAMIC_OPS & set(facts.nodes):
            raise StageError(
                f"{path.name} is quantized dynamically ({', '.join(sorted(onnx_file.DYNAMIC_OPS & set(facts.nodes)))}), "
                f"which TensorRT does not support. Quantize it with --target tensorrt and calibration data."
            )
        return precision

    def _profiles(self, source: Artifact) -> tuple[Profile, ...]:
        profiles = self.profiles or (default_profile(source.inputs, source.dims),)
        faults = profiles_faults(source.inputs, profiles)
        if faults:
            raise StageError("; ".join(faults))
        return tuple(profile for profile in profiles if profile)

    def _job(
        self, source: Artifact, path: Path, profiles: Sequence[Profile], precision: str, ops: Sequence[str]
    ) -> dict[str, Any]:
        return {
            "task": "build",
            "runtime": self.runtime,
            "onnx": str(source.path),
            "plan": str(path),
            "inputs": [_described(spec) for spec in source.inputs],
            "outputs": [spec.name for spec in source.outputs],
            "profiles": [{name: (r.min, r.opt, r.max) for name, r in profile.items()} for profile in profiles],
            "targets": self.gpu,
            "types": [kind for kind in ("int8", "fp16") if kind in precision],
            "ops": ops,
            "workspace_mib": self.workspace_mib,
            "optimization_level": self.optimization_level,
            "tf32": self.tf32,
            "version_compatible": self.version_compatible,
            "hardware_compatible": self.hardware_compatible,
            "refit": self.refit,
            "strip": self.strip,
            "timing_cache": None if self.timing_cache == "none" else self._timing_cache(),
            "timing_cache_default": self.timing_cache == "auto",
            "timing_cache_temporary": temporary_name("timing"),
        }

    def _timing_cache(self) -> str:
        path = user_path(TIMING_CACHE if self.timing_cache == "auto" else self.timing_cache).absolute()
        sweep(path if self.timing_cache == "auto" else path.parent)
        return str(path)

    def _facts(
        self, built: dict[str, Any], source: Artifact, profiles: tuple[Profile, ...], precision: str
    ) -> EngineFacts:
        gpu = built["gpu"] or {}
        unproven = (
            ()
            if gpu
            else (f"no output of the engine was compared, and no layer's precision was read: {built['no_gpu']}",)
        )
        settings = {"workspace_mib", "optimization_level", "tf32", "timing_cache", "refit", "strip"}
        return EngineFacts(
            runtime=built["runtime"],
            version=built["version"],
            targets=tuple(built["targets"]),
            gpu=gpu.get("name"),
            driver=gpu.get("driver"),
            precision=precision,
            typed=built["typed"],
            profiles=profiles,
            inputs=_as_built(source.inputs, built["inputs"]),
            outputs=_as_built(source.outputs, built["outputs"]),
            onnx_sha256=source.sha256,
            settings=self.model_dump(mode="json", include=settings) | {"flags": " ".join(built["flags"])},
            python=self.python,
            version_compatible=self.version_compatible,
            hardware_compatible=self.hardware_compatible,
            warnings=tuple(built["warnings"]),
            required={str(kind): share for kind, share in self.require.items()},
            unproven=unproven,
        )


def engine_precision(path: Path, lowest: Precision) -> EnginePrecision:
    """Return the engine's precision for an ONNX file: around INT8 there may be FP16 or FP32.

    Raises:
        StageError: engines are not built in that precision.
    """
    match lowest:
        case Precision.INT8:
            return "int8+fp16" if onnx_file.has_half(path) else "int8"
        case Precision.FP16:
            return "fp16"
        case Precision.FP32:
            return "fp32"
        case Precision.BF16:
            raise StageError(f"{path.name} is bf16; expected fp32, fp16 or int8. Export the model in FP32.")


def _described(spec: TensorSpec) -> dict[str, Any]:
    return {"name": spec.name, "dtype": spec.dtype, "shape": [d if isinstance(d, int) else -1 for d in spec.shape]}


def _as_built(specs: Sequence[TensorSpec], built: Sequence[dict[str, Any]]) -> tuple[TensorSpec, ...]:
    """Return the specs with TensorRT's dtypes."""
    dtypes = {tensor["name"]: DType(tensor["dtype"]) for tensor in built}
    return tuple(spec.model_copy(update={"dtype": dtypes[spec.name]}) for spec in specs)
