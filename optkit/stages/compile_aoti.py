"""nn.Module or ExportedProgram -> a package of native code by AOTInductor, torch's compiler ahead of time.

Loading a package executes it. The code checks no shape: the passport has the ranges that it was compiled for, and the runner holds calls
to them.
"""

import time
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from optkit.aoti.host import find_compiler, this_host
from optkit.aoti.process import run_job
from optkit.artifact import Artifact, Format, Precision
from optkit.artifact.compiled import CompiledFacts
from optkit.artifact.tensors import corners, example_sizes
from optkit.errors import StageError, first_line
from optkit.hashing import hash_of
from optkit.progress import doing
from optkit.pt2_file import native_code_fault, read_package
from optkit.pytorch.program import capture, changed_buffers
from optkit.pytorch.source import load_module
from optkit.stages.base import Stage
from optkit.system.temporary import temporary_folder

if TYPE_CHECKING:
    import torch


class CompileAoti(Stage):
    """Compile the model for one device. FP32 is FP32: TF32 is off. In FP16 and BF16 the inputs and outputs keep their types."""

    accepts: ClassVar[frozenset[Format]] = frozenset({Format.PYTORCH, Format.EXPORTED_PROGRAM})
    produces: ClassVar[Format] = Format.AOTI
    filename: ClassVar[str] = "model.pt2"

    stage: Literal["compile-aoti"] = "compile-aoti"
    device: Literal["cpu", "cuda"] = "cpu"
    precision: Literal["fp32", "fp16", "bf16"] = "fp32"
    max_autotune: bool = False  # measure more ways to compute each operator; takes minutes
    freezing: bool = False  # fold weights into constants, so that they can be packed for the device
    time_limit_s: float | None = Field(default=None, gt=0)

    def requires(self) -> Sequence[str]:
        """Return torch."""
        return ("torch",)

    def versions(self) -> Mapping[str, str]:
        """Return the compiler and the processor or GPU: the code is for them alone."""
        host = this_host(gpu=self.device == "cuda")
        here = {"processor": hash_of({"features": host.processor_features})[:16], "gpu": host.target}
        try:
            here["compiler"] = find_compiler()[1]
        except StageError:  # `make` says it
            here["compiler"] = None
        return {name: text for name, text in here.items() if text}

    def make(self, source: Artifact, path: Path) -> Artifact:
        """Capture the model here, compile it in a process of its own, and load and call the package in a fresh one."""
        if path.suffix != ".pt2":
            raise StageError(f"{path.name}: does not end in .pt2; torch loads a package only under such a name")
        compiler = find_compiler()[1]
        host = this_host(gpu=self.device == "cuda")
        if self.device == "cuda" and host.target is None:
            raise StageError(
                "device 'cuda': torch finds no usable GPU here, and code is compiled on the GPU that runs it. Use --device cpu"
            )
        started = time.monotonic()
        with temporary_folder(path.parent, "aoti") as work:
            notes = self._capture(source, work / "program.pt2")
            package = work / "package.pt2"
            with doing(f"compiling for {self.device} in {self.precision}"):
                built = run_job(self._job(work, package), work, "compiling", time_limit_s=self.time_limit_s)
            _check_dims(source, built["constants"])
            left = None if self.time_limit_s is None else max(1.0, self.time_limit_s - (time.monotonic() - started))
            with doing("loading the package in a fresh process"):
                checked = run_job(
                    self._check(source, work, package), work, "the package", time_limit_s=left, alone=True
                )
            _check_outputs(source, checked["outputs"])
            read = read_package(package)
            package.replace(path)
        compiled = CompiledFacts(
            torch=built["torch"],
            device=self.device,
            target=host.target,
            gpu=built["gpu"],
            machine=host.machine,
            processor_features=host.processor_features,
            instruction_set=read.instruction_set,
            glibc=read.glibc,
            needed=read.needed,
            compiler=compiler,
            dims=source.dims,
            settings=self.model_dump(include={"precision", "max_autotune", "freezing"}),
            compile_s=built["seconds"],
            load_s=checked["load_s"],
            first_call_s=checked["first_call_s"],
        )
        notes = [
            f"compiled by AOTInductor of torch {compiled.torch} for {self.device} in {compiled.compile_s:.1f} s",
            "native code: loading it executes it",
            *notes,
        ]
        artifact = self.artifact(source, path, Precision(self.precision), notes=notes)
        return artifact.model_copy(update={"compiled": compiled})

    def _capture(self, source: Artifact, path: Path) -> list[str]:
        """Write the captured program, and return notes on it."""
        import torch

        dtype = {"fp32": None, "fp16": torch.float16, "bf16": torch.bfloat16}[self.precision]
        # Sizes above 1 also when divided by their factor: torch takes 1 for a constant.
        feed = self.example(source, example_sizes(source.dims, turn=1))
        program = capture(
            _module(source), feed, source.inputs, source.outputs, source.dims, dtype=dtype, device=self.device
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                torch.export.save(program, path)
            except Exception as e:  # zip, json and torch each raise their own here
                raise StageError(f"the captured program cannot be written: {first_line(e)}") from e
        names = ", ".join(name.removeprefix("module.") for name in changed_buffers(program))
        return [f"each call changes {names}, which the loaded package keeps between calls"] if names else []

    def _job(self, work: Path, package: Path) -> dict[str, Any]:
        cache = work / "cache"
        cache.mkdir()
        return {
            "task": "compile",
            "device": self.device,
            "program": str(work / "program.pt2"),
            "package": str(package),
            "cache": str(cache),
            "settings": {
                # Else the number of threads of this machine is compiled in.
                "cpp.dynamic_threads": True,
                "max_autotune": self.max_autotune,
                "freezing": self.freezing,
            },
            "needed": [name for name in ("max_autotune", "freezing") if getattr(self, name)],
        }

    def _check(self, source: Artifact, work: Path, package: Path) -> dict[str, Any]:
        import numpy as np

        files = []
        for i, sizes in enumerate(corners(source.dims)):
            files.append(work / f"corner-{i}.npz")
            feed = self.example(source, sizes)
            np.savez(files[-1], *(feed[spec.name] for spec in source.inputs))
        return {
            "task": "check",
            "device": self.device,
            "package": str(package),
            "names": [f"arr_{n}" for n in range(len(source.inputs))],
            "inputs": list(map(str, files)),
        }


def _module(source: Artifact) -> "torch.nn.Module":
    if source.format is Format.PYTORCH:
        return load_module(source)
    import torch

    if fault := native_code_fault(source.path):
        raise StageError(f"{source.path}: {fault}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.export.load(source.path).module()
    except Exception as e:  # zip, json and torch each raise their own here
        raise StageError(f"{source.path}: cannot be loaded as an ExportedProgram ({first_line(e)})") from e


def _check_dims(source: Artifact, constants: Sequence[tuple[int, int, int]]) -> None:
    """Check that no named dimension became a constant in the compiled code, which has no guard and would compute something wrong.

    Raises:
        StageError: one did.
    """
    for number, axis, size in constants:
        spec = source.inputs[number]
        name = spec.shape[axis]
        allowed = source.dims.get(str(name))
        if allowed and allowed.min != allowed.max:
            raise StageError(
                f"input {spec.name!r}: the compiler turned its dimension {name!r} (axis {axis}) into the constant {size}; expected "
                f"{allowed.min} to {allowed.max}. The model uses that size as a constant: compute with x.shape[{axis}] instead"
            )


def _check_outputs(source: Artifact, found: Sequence[Sequence[tuple[str, list[int]]]]) -> None:
    """Check the types and shapes of the outputs at each corner.

    Raises:
        StageError: one is not as the model's.
    """
    for sizes, outputs in zip(corners(source.dims), found, strict=True):
        at = ", ".join(f"{name}={size}" for name, size in sizes.items()) or "its one size"
        if len(outputs) != len(source.outputs):
            raise StageError(f"at {at} the package returns {len(outputs)} outputs; expected {len(source.outputs)}")
        for spec, (dtype, shape) in zip(source.outputs, outputs, strict=True):
            fits = len(shape) == len(spec.shape) and all(
                size == (sizes.get(dim, size) if isinstance(dim, str) else dim)
                for dim, size in zip(spec.shape, shape, strict=True)
            )
            if dtype != spec.dtype or not fits:
                raise StageError(
                    f"output {spec.name!r}: at {at} the package returns {dtype}{shape}; expected {spec.type_text}, as the model"
                )
