"""`optkit inspect` and `optkit doctor`: examine a model file, and examine this machine."""

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from optkit import deps, onnx_file
from optkit._version import __version__
from optkit.api.arguments import ModelFile, StrPath, model_path
from optkit.artifact import Artifact, Format, Passport, read_passport
from optkit.artifact.engine import load_refusal
from optkit.artifact.platforms import compute_capability, platforms
from optkit.benchmark import Machine, this_machine
from optkit.errors import ArtifactError, RecipeError
from optkit.onnx_file import OnnxFacts
from optkit.pytorch.source import open_artifact
from optkit.record import Document, Record
from optkit.runners import why_not_runnable
from optkit.tensorrt.installed import find_installed


class Inspection(Document):
    """The description of a model file, and its passport if it has one."""

    schema_id: ClassVar[str] = "optkit/inspection/1"

    artifact: Artifact
    size_bytes: int
    onnx: OnnxFacts | None
    passport: Passport | None
    loads_here: str | None = (
        None  # for an engine or a compiled package: why it cannot run on this machine; empty if it can
    )


class Library(Record):
    """A library: its version, its purpose, and the problem with its fix if there is one."""

    name: str
    version: str | None
    needed: bool
    purpose: str
    problem: str | None = None


class TensorRtHere(Record):
    """The TensorRT installation and the GPU of this machine."""

    gpu: str | None
    target: str | None
    versions: dict[str, str]
    no_gpu: str


class TritonRelease(Record):
    """The TensorRT version of a Triton release, and the source of this information."""

    release: str
    tensorrt: str
    source: str


class EngineVerdict(Record):
    """Why an engine cannot be loaded, here and in the given Triton release; None if it can, or if no release is given."""

    file: str
    built_by: str
    targets: tuple[str, ...]
    here: str | None
    triton: str | None


class Examination(Document):
    """This machine and its libraries."""

    schema_id: ClassVar[str] = "optkit/doctor/1"

    optkit: str
    machine: Machine
    libraries: tuple[Library, ...]
    onnxruntime_providers: tuple[str, ...]  # the providers that ran a tiny model, not only the available ones
    tensorrt: TensorRtHere | None  # None if TensorRT is not installed
    triton: TritonRelease | None  # the release to check engines for
    engines: tuple[EngineVerdict, ...]

    @property
    def healthy(self) -> bool:
        """Whether no required library has a problem."""
        return all(lib.problem is None for lib in self.libraries if lib.needed)


def inspect(model: ModelFile) -> Inspection:
    """Describe a model file: contract, precision, operators, and recorded measurements.

    Args:
        model: model file.

    Raises:
        ArtifactError: the file is not a model file.
    """
    path = model_path(model)
    artifact = open_artifact(path)
    return Inspection(
        artifact=artifact,
        size_bytes=artifact.size_bytes,
        onnx=onnx_file.facts(path) if artifact.format is Format.ONNX else None,
        passport=read_passport(path),
        loads_here=(why_not_runnable(artifact) or "") if artifact.engine or artifact.compiled else None,
    )


# name, import name, distributions, extra, needed, purpose
_LIBRARIES = (
    ("torch", "torch", ("torch",), None, True, "load and export models"),
    ("onnx", "onnx", ("onnx",), None, True, "check ONNX files"),
    ("onnxscript", "onnxscript", ("onnxscript",), None, True, "the dynamo exporter"),
    ("onnxruntime", "onnxruntime", ("onnxruntime-gpu", "onnxruntime"), None, True, "run and quantize ONNX"),
    ("tritonclient", "tritonclient", ("tritonclient",), None, True, "the schema of config.pbtxt"),
    ("safetensors", "safetensors", ("safetensors",), None, False, "weights in .safetensors"),
    ("tensorrt", "tensorrt", ("tensorrt",), "tensorrt", False, "TensorRT engines, on a GPU"),
    (
        "tensorrt-rtx",
        "tensorrt_rtx_bindings",
        ("tensorrt-rtx-cu13-bindings",),
        "tensorrt-rtx",
        False,
        "TensorRT-RTX engines, also without a GPU",
    ),
    ("pycuda", "pycuda", ("pycuda",), "tensorrt", False, "run TensorRT engines"),
)


def doctor(engines: Sequence[StrPath] = (), *, triton: str | None = None, gpu: str | None = None) -> Examination:
    """Describe this machine and its libraries, and check which engines can be loaded.

    Each ONNX Runtime provider runs a tiny model, because the list of available providers does not show that they work.

    Args:
        engines: engine files to check.
        triton: Triton release to check the engines for, for example 25.10.
        gpu: GPU of the Triton server, for example A10 or sm86; None uses the GPU of this machine.

    Raises:
        RecipeError: the release or the GPU is unknown.
        ArtifactError: a file cannot be read, or is not an engine.
    """
    release = _triton(triton) if triton else None
    libraries = []
    for name, module, distributions, extra, needed, purpose in _LIBRARIES:
        found = deps.version(*distributions) if deps.installed(module) else None
        problem = None if found else deps.missing(module, extra)
        libraries.append(Library(name=name, version=found, needed=needed, purpose=purpose, problem=problem))
    if deps.version("onnxruntime") and deps.version("onnxruntime-gpu"):
        both = "onnxruntime and onnxruntime-gpu are both installed, in one folder. Uninstall both, then install one of them."
        libraries = [
            lib.model_copy(update={"problem": both}) if lib.name == "onnxruntime" else lib for lib in libraries
        ]
    return Examination(
        optkit=__version__,
        machine=this_machine(),
        libraries=tuple(libraries),
        onnxruntime_providers=_working_providers() if deps.installed("onnxruntime") and deps.installed("onnx") else (),
        tensorrt=_tensorrt(),
        triton=release,
        engines=tuple(_verdict(Path(path), release, gpu) for path in engines),
    )


def _tensorrt() -> TensorRtHere | None:
    if not any(map(deps.installed, ("tensorrt", "tensorrt_rtx", "tensorrt_rtx_bindings"))):
        return None
    found = find_installed()
    versions = {name: version for name, version in found.versions.items() if version}
    return TensorRtHere(gpu=found.gpu, target=found.target, versions=versions, no_gpu=found.no_gpu)


def _triton(release: str) -> TritonRelease:
    known, sources = platforms().triton, platforms().sources
    if release not in known:
        raise RecipeError(
            f"--triton {release}: unknown Triton release; optkit knows {', '.join(sorted(known))}. Give one of these, or look up "
            f"the TensorRT version in the release notes of Triton."
        )
    return TritonRelease(
        release=release, tensorrt=known[release], source=": ".join((sources["triton"], sources["triton_images"]))
    )


def _verdict(path: Path, release: TritonRelease | None, gpu: str | None) -> EngineVerdict:
    artifact = open_artifact(path)
    engine = artifact.engine
    if engine is None:
        raise ArtifactError(f"{path}: is {artifact.format}; expected an engine made by optkit build-engine")
    triton_refusal = None
    if release:
        try:
            target = compute_capability(gpu) if gpu else find_installed().target
        except ValueError as e:
            raise RecipeError(f"--gpu: {e}") from e
        if target is None:
            raise RecipeError(
                "--triton: no GPU was found on this machine, and an engine depends on the GPU. Give the GPU of the server, as --gpu A10."
            )
        triton_refusal = load_refusal(engine, "tensorrt", release.tensorrt, target)
    return EngineVerdict(
        file=str(path),
        built_by=engine.built_by,
        targets=engine.targets,
        here=why_not_runnable(artifact),
        triton=triton_refusal,
    )


def _working_providers() -> tuple[str, ...]:
    """Return the ONNX Runtime providers that load a tiny model on this machine."""
    import onnxruntime
    from onnx import TensorProto, helper

    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])
    out = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])
    graph = helper.make_graph([helper.make_node("Neg", ["x"], ["y"])], "probe", [value], [out])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()
    onnxruntime.set_default_logger_severity(4)  # a library that cannot be loaded is a result, not a log message
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    working = []
    for provider in onnxruntime.get_available_providers():
        if provider not in ("CPUExecutionProvider", "CUDAExecutionProvider"):
            continue
        try:
            session = onnxruntime.InferenceSession(model, options, providers=[provider])
        except Exception:
            continue
        if session.get_providers()[0] == provider:
            working.append(provider)
    return tuple(working)
