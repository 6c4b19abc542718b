"""What a file is, and what this machine has."""

from pathlib import Path
from typing import ClassVar

from optkit import deps, onnx_file
from optkit._version import __version__
from optkit.artifact import Artifact, Format, Passport, read_passport
from optkit.bench import Machine, this_machine
from optkit.onnx_file import OnnxFacts
from optkit.record import Document, Record
from optkit.source import open_artifact


class Inspection(Document):
    """What a model file says of itself, and its passport where it has one."""

    schema_id: ClassVar[str] = "optkit/inspection/1"

    artifact: Artifact
    size_bytes: int
    onnx: OnnxFacts | None
    passport: Passport | None


class Library(Record):
    """A library: its version, or what to type when it is missing; and what it is for."""

    name: str
    version: str | None
    needed: bool
    purpose: str
    problem: str | None = None


class Examination(Document):
    """This machine and its libraries."""

    schema_id: ClassVar[str] = "optkit/doctor/1"

    optkit: str
    machine: Machine
    libraries: tuple[Library, ...]
    onnxruntime_providers: tuple[str, ...]  # that a tiny model really ran on, not the ones listed

    @property
    def healthy(self) -> bool:
        """Whether nothing is missing that the main job needs."""
        return all(lib.problem is None for lib in self.libraries if lib.needed)


def inspect_file(path: Path) -> Inspection:
    """Read a model file.

    Raises:
        ArtifactError: it is none.
    """
    artifact = open_artifact(path)
    return Inspection(
        artifact=artifact,
        size_bytes=artifact.size_bytes,
        onnx=onnx_file.facts(path) if artifact.format is Format.ONNX else None,
        passport=read_passport(path),
    )


# name, import name, distributions, extra, needed, purpose
_LIBRARIES = (
    ("torch", "torch", ("torch",), None, True, "load and export models"),
    ("onnx", "onnx", ("onnx",), None, True, "check ONNX files"),
    ("onnxscript", "onnxscript", ("onnxscript",), None, True, "the dynamo exporter"),
    ("onnxruntime", "onnxruntime", ("onnxruntime-gpu", "onnxruntime"), None, True, "run and quantize ONNX"),
    ("tritonclient", "tritonclient", ("tritonclient",), None, True, "the schema of config.pbtxt"),
    ("safetensors", "safetensors", ("safetensors",), None, False, "weights in .safetensors"),
    ("tensorrt", "tensorrt", ("tensorrt",), "tensorrt", False, "TensorRT engines"),
    (
        "tensorrt-rtx",
        "tensorrt_rtx",
        ("tensorrt-rtx-cu13",),
        "tensorrt-rtx",
        False,
        "TensorRT-RTX engines, also without a GPU",
    ),
    ("pycuda", "pycuda", ("pycuda",), "tensorrt", False, "run TensorRT engines"),
)


def examine() -> Examination:
    """Look at this machine; ONNX Runtime is asked to run a model on each provider, since its list proves nothing."""
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
    )


def _working_providers() -> tuple[str, ...]:
    """Return the providers of ONNX Runtime that take a tiny model here."""
    import onnxruntime
    from onnx import TensorProto, helper

    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])
    out = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])
    graph = helper.make_graph([helper.make_node("Neg", ["x"], ["y"])], "probe", [value], [out])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()
    onnxruntime.set_default_logger_severity(4)  # a library that cannot be loaded is the answer, not a log line
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
