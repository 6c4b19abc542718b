"""The only file that imports tensorrt, tensorrt_rtx and pycuda: a process of its own that builds, inspects and runs engines.

    python tensorrt_worker.py JOB.json [RUNTIME]

TensorRT's objects can crash the interpreter, and its releases want other Pythons: so this file knows nothing of optkit, needs the standard
library, numpy and TensorRT alone (pycuda for running), and works with Python 3.8 and later. It says what it does as one JSON object a line on the
standard output that it was given: `progress`, `log`, and at the end `result`, `fault` or `cancelled`. The end of its standard input means that
nobody waits for it any more: a build is cancelled, and a session ends. With RUNTIME it imports that while the job is still being written, and
reads the job at the first line of its input.

TensorRT raises nothing: its calls return None, False or -1 and say why to a logger. So every one is checked here, and what a release can do is
asked of its objects (`hasattr`), never of its version.
"""

from __future__ import annotations

import sys

if __name__ == "__main__":
    del sys.path[0]  # optkit's own folder: its modules must not stand in for others of their names

import contextlib
import ctypes
import hashlib
import importlib.util
import json
import os
import threading
import time
import traceback
from typing import Any, Callable, Dict, Sequence

Json = Dict[str, Any]

MODULES = {"tensorrt": ("tensorrt",), "tensorrt-rtx": ("tensorrt_rtx", "tensorrt_rtx_bindings")}
EXTRAS = {"tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt-rtx"}
# What TensorRT-RTX builds for when no target is named: https://docs.nvidia.com/deeplearning/tensorrt-rtx, "CPU-Only AOT Engines"
PORTABLE = ("sm80", "sm86", "sm89", "sm120", "sm121")
GRACE_S = 5.0  # between the end of the input and the end of this process, when TensorRT does not come back

_DTYPES = {"FLOAT": "float32", "HALF": "float16", "INT8": "int8", "INT32": "int32", "INT64": "int64", "BOOL": "bool", "UINT8": "uint8"}  # fmt: skip

_ADVICE = (
    ("for Turing (SM75): FP32", "TensorRT-RTX computes matrix products in FP16 only on sm_75: use --precision fp16."),
    ("workspace limit", "Give it more with --workspace-mib."),
    ("out of memory", "Free memory on the GPU, or lower --workspace-mib and the max of the profile."),
    ("invalid weights", "A weight holds NaN or infinity: mend the model."),
)


class FaultError(Exception):
    """Something that the user can mend; `nodes` are the operators that TensorRT does not have."""

    def __init__(self, text: str, nodes: Sequence[Json] = ()) -> None:
        super().__init__(text)
        self.nodes = list(nodes)


class CancelledError(Exception):
    """The build was cancelled from outside."""


class Channel:
    """The lines to the process that waits; what C++ prints goes to the standard error."""

    def __init__(self) -> None:
        self._out = os.fdopen(os.dup(1), "w", encoding="utf-8")
        os.dup2(2, 1)
        self._lock = threading.Lock()

    def __call__(self, **message: Any) -> None:
        """Send one message."""
        with self._lock:
            self._out.write(json.dumps(message) + "\n")
            self._out.flush()


# ---------------------------------------------------------------------------------------------- what is here


def driver() -> tuple[Json | None, str]:
    """Return the first GPU as its driver describes it, and otherwise why there is none."""
    try:
        cuda = ctypes.CDLL("nvcuda.dll" if os.name == "nt" else "libcuda.so.1")
    except OSError:
        return None, "no NVIDIA driver here (libcuda cannot be loaded)"
    code = cuda.cuInit(0)
    if code:
        return None, f"the NVIDIA driver finds no usable GPU here (cuInit gives error {code})"
    device, version, major, minor = (ctypes.c_int() for _ in range(4))
    name = ctypes.create_string_buffer(256)
    if cuda.cuDeviceGet(ctypes.byref(device), 0):
        return None, "the NVIDIA driver shows no GPU here"
    cuda.cuDeviceGetName(name, 256, device)
    cuda.cuDriverGetVersion(ctypes.byref(version))
    cuda.cuDeviceGetAttribute(ctypes.byref(major), 75, device)  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR
    cuda.cuDeviceGetAttribute(ctypes.byref(minor), 76, device)
    return {
        "name": name.value.decode(),
        "sm": f"sm{major.value}{minor.value}",
        "driver": f"{version.value // 1000}.{version.value % 1000 // 10}",
    }, ""


def load_runtime(asked: str, gpu: Json | None, no_gpu: str) -> tuple[str, Any]:
    """Import the runtime that was asked for; `auto` takes TensorRT where it and a GPU are there, else TensorRT-RTX.

    Raises:
        FaultError: it is not installed, or cannot work here.
    """
    if asked == "auto":
        found = [name for name in MODULES if _import(name) is not None]
        asked = "tensorrt" if "tensorrt" in found and gpu else "tensorrt-rtx" if "tensorrt-rtx" in found else "tensorrt"
        if not found:
            raise FaultError(
                f"neither tensorrt nor tensorrt-rtx is installed for {sys.executable}. Run: pip install 'optkit[tensorrt-rtx]' to build without a "
                "GPU, or 'optkit[tensorrt]'; or name the interpreter that has it with --tensorrt-python."
            )
    module = _import(asked)
    if module is None:
        raise FaultError(
            f"{asked} is not installed for {sys.executable}. Run: pip install 'optkit[{EXTRAS[asked]}]', or name the interpreter that has it with "
            "--tensorrt-python."
        )
    if asked == "tensorrt" and gpu is None:
        raise FaultError(
            f"tensorrt {module.__version__} builds and runs on a GPU only: {no_gpu}. Use --runtime tensorrt-rtx, which builds without one."
        )
    return asked, module


def _import(runtime: str) -> Any:
    for name in MODULES[runtime]:
        try:
            return importlib.import_module(name)
        except ImportError as e:
            if e.name != name:  # it is there, and something that it needs is not
                raise FaultError(f"{name} cannot be imported by {sys.executable}: {e}") from e
    return None


def title(trt: Any) -> str:
    """Return the name and release of a runtime, as NVIDIA writes them."""
    return "{} {}".format("TensorRT" if trt.__name__ == "tensorrt" else "TensorRT-RTX", trt.__version__)


def make_logger(trt: Any, tell: Callable[..., None], kept: list[str]) -> Any:
    """Return a logger that keeps warnings and errors, once each, and passes on the rest for `-vv`."""
    verbose = trt.ILogger.Severity.VERBOSE

    class Log(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, message: str) -> None:
            if severity == verbose:  # ten thousand of ResNet-50
                return
            name = severity.name
            line = "{}: {}".format(name.lower().replace("internal_error", "error"), message.strip())
            if name in ("WARNING", "ERROR", "INTERNAL_ERROR") and line not in kept:
                kept.append(line)
            tell(log=line)

    return Log()


def last_error(kept: Sequence[str]) -> str:
    """Return the first error of the log: those that follow are its consequences."""
    errors = [line.partition(": ")[2] for line in kept if line.startswith("error: ") and "cudaError 35" not in line]
    return errors[0] if errors else "TensorRT gives no reason"


def advice(kept: Sequence[str]) -> str:
    """Return what usually mends a build that failed, where its errors tell."""
    text = "\n".join(kept)
    return next((f". {mend}" for sign, mend in _ADVICE if sign in text), "")


# ---------------------------------------------------------------------------------------------- build


def build(job: Json, tell: Callable[..., None], cancelled: threading.Event) -> Json:
    """Build one engine and write it to `job["plan"]`.

    Raises:
        FaultError: it cannot be built; says what names the input, node or limit.
        CancelledError: somebody stopped it.
    """
    gpu, no_gpu = driver()
    runtime, trt = load_runtime(job["runtime"], gpu, no_gpu)
    refuse_impossible(job, runtime, trt, gpu, no_gpu)
    log: list[str] = []
    logger = make_logger(trt, tell, log)
    try:
        builder = trt.Builder(logger)
    except TypeError as e:  # pybind11's "factory function returned nullptr"
        raise FaultError(f"{title(trt)} cannot start: {last_error(log)}") from e
    started = time.perf_counter()
    network, _parser = parse(trt, builder, logger, job, log)
    parsed = time.perf_counter()
    typed = hasattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED")
    config = builder.create_builder_config()
    flags = configure(trt, config, job, typed)
    targets = set_targets(trt, config, job["targets"], runtime, gpu)
    add_profiles(builder, config, network, job["profiles"])
    notes: list[str] = []
    cache_file = open_timing_cache(config, job, runtime, trt, gpu, notes)
    if hasattr(config, "progress_monitor"):
        config.progress_monitor = make_monitor(trt, tell, cancelled)
    plan = builder.build_serialized_network(network, config)
    if cancelled.is_set():
        raise CancelledError
    if plan is None:
        raise FaultError(f"{title(trt)} could not build the engine: {last_error(log)}{advice(log)}")
    sha256 = write(plan, job["plan"])
    if cache_file:
        keep_timing_cache(config, cache_file, notes)
    return {
        "runtime": runtime,
        "version": trt.__version__,
        "gpu": gpu,
        "no_gpu": no_gpu,
        "targets": targets,
        "typed": typed,
        "flags": flags,
        "inputs": [tensor(network.get_input(i)) for i in range(network.num_inputs)],
        "outputs": [tensor(network.get_output(i)) for i in range(network.num_outputs)],
        "sha256": sha256,
        "warnings": [line.partition(": ")[2] for line in log if line.startswith("warning: ")],
        "notes": notes,
        "parse_s": parsed - started,
        "build_s": time.perf_counter() - parsed,
    }


def write(plan: Any, path: str) -> str:
    """Write an engine, and return the SHA-256 of its bytes, which is computed meanwhile."""
    digest = hashlib.sha256()
    hashing = threading.Thread(target=digest.update, args=(plan,))
    hashing.start()
    try:
        with open(path, "wb") as file:
            file.write(plan)
    except OSError as e:
        raise FaultError(
            f"the engine of {memoryview(plan).nbytes / 1e6:.1f} MB cannot be written ({e.strerror})"
        ) from e
    finally:
        hashing.join()
    return digest.hexdigest()


def refuse_impossible(job: Json, runtime: str, trt: Any, gpu: Json | None, no_gpu: str) -> None:
    """Refuse what the chosen runtime cannot do here, before any work.

    Raises:
        FaultError: names the option and the reason.
    """
    where = f"{runtime} {trt.__version__}"
    refusals = []
    if runtime == "tensorrt-rtx":
        if job["hardware_compatible"]:
            refusals.append("--hardware-compatible: its engines run on every target of one build; name them with --gpu")
        if job["timing_cache"] and not job["timing_cache_default"]:
            refusals.append("--timing-cache: it measures nothing when it builds, so it keeps no timing cache")
        if job["version_compatible"]:
            refusals.append("--version-compatible: its wheels come without the lean runtime that such an engine needs")
        if gpu is None:
            refusals += [
                f"--{option}: it needs a GPU for that: {no_gpu}" for option in ("refit", "strip") if job[option]
            ]
    else:
        if job["targets"] and list(job["targets"]) != [gpu["sm"] if gpu else ""]:
            refusals.append(
                "--gpu {}: it builds for the GPU that it runs on, which is {}; build there, or use --runtime tensorrt-rtx".format(
                    ",".join(job["targets"]), gpu["sm"] if gpu else "none"
                )
            )
        refusals += [
            "--{}: this release does not have it".format(option.replace("_", "-"))
            for option, flag in (
                ("strip", "STRIP_PLAN"),
                ("refit", "REFIT"),
                ("version_compatible", "VERSION_COMPATIBLE"),
            )
            if job[option] and not hasattr(trt.BuilderFlag, flag)
        ]
        wanted = job["hardware_compatible"]
        level = wanted and wanted.upper().replace("-", "_")
        if wanted and not hasattr(getattr(trt, "HardwareCompatibilityLevel", None), level):
            refusals.append(f"--hardware-compatible {wanted}: this release does not have it")
    typed = hasattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED")
    refusals += [
        f"precision {kind}: this release is not strongly typed and has no builder flag for it"
        for kind in job["types"]
        if not typed and not hasattr(trt.BuilderFlag, kind.upper())
    ]
    if refusals:
        raise FaultError("{} cannot do what is asked: {}".format(where, "; ".join(refusals)))


def parse(trt: Any, builder: Any, logger: Any, job: Json, log: list[str]) -> tuple[Any, Any]:
    """Read the ONNX file; the parser is returned too, because what it made dies with it.

    Raises:
        FaultError: operators that TensorRT does not have, all at once; or a file that holds nothing.
    """
    creation = trt.NetworkDefinitionCreationFlag
    flags = 0
    for name in ("EXPLICIT_BATCH", "STRONGLY_TYPED"):
        if hasattr(creation, name):
            flags |= 1 << int(getattr(creation, name))
    network = builder.create_network(flags)
    parser = trt.OnnxParser(network, logger)
    # By its path, so that external data is found beside it.
    read = parser.parse_from_file(job["onnx"])
    nodes = refused_nodes(trt, parser, job["ops"]) if not read or parser.num_errors else []
    if nodes:
        raise FaultError(f"{title(trt)} does not take {len(nodes)} of its nodes", nodes)
    if not read:
        raise FaultError(f"TensorRT cannot read the model: {last_error(log)}")
    if not network.num_outputs:  # it answers True to a file of zeros
        raise FaultError("TensorRT finds no output in the model, so the file is damaged or empty. Export it again.")
    check_tensors(network, job)
    return network, parser


def refused_nodes(trt: Any, parser: Any, ops: Sequence[str]) -> list[Json]:
    """Return what the parser says of every node that it refuses; older ones stop at the first, and are asked about each operator."""
    errors = [parser.get_error(i) for i in range(parser.num_errors)]
    # Read to text at once: they belong to the parser. 8.6 knows the number of the node only; -1 is no node, but the file.
    found = [
        {
            "node": error.node(),
            "name": str(error.node_name()) if hasattr(error, "node_name") else None,
            "op": str(error.node_operator()) if hasattr(error, "node_operator") else None,
            "why": str(error.desc()),
        }
        for error in errors
        if error.node() >= 0
    ]
    if found and not hasattr(trt.ParserError, "node_operator"):
        missing = [op for op in ops if not parser.supports_operator(op)]
        found += [{"node": None, "name": None, "op": op, "why": "no such operator"} for op in missing]
    return found


def check_tensors(network: Any, job: Json) -> None:
    """Compare the inputs and outputs that TensorRT sees with those declared.

    Raises:
        FaultError: names differ, a rank or a dtype differs, or an input is a shape.
    """
    inputs = {t.name: t for t in (network.get_input(i) for i in range(network.num_inputs))}
    outputs = [network.get_output(i).name for i in range(network.num_outputs)]
    declared = {spec["name"]: spec for spec in job["inputs"]}
    if set(inputs) != set(declared):
        raise FaultError("TensorRT sees the inputs {}; declared are {}".format(", ".join(inputs), ", ".join(declared)))
    if set(outputs) != set(job["outputs"]):
        raise FaultError(
            "TensorRT sees the outputs {}; declared are {}".format(", ".join(outputs), ", ".join(job["outputs"]))
        )
    for name, spec in declared.items():
        found = tensor(inputs[name])
        # 8.6 has no INT64 and takes INT32 in its place.
        same = found["dtype"] == spec["dtype"] or (found["dtype"], spec["dtype"]) == ("int32", "int64")
        if not same or len(found["shape"]) != len(spec["shape"]):
            raise FaultError("input {!r}: TensorRT sees {}{}; declared is {}{}".format(
                name, found["dtype"], found["shape"], spec["dtype"], spec["shape"]))  # fmt: skip
        if inputs[name].is_shape_tensor:
            raise FaultError(
                f"input {name!r}: its values give a shape; an engine of optkit takes shapes from its inputs' shapes"
            )


def tensor(found: Any) -> Json:
    """Return the name, dtype and shape of a network's tensor; -1 is dynamic."""
    kind = found.dtype.name
    return {"name": found.name, "dtype": _DTYPES.get(kind, kind.lower()), "shape": [int(d) for d in found.shape]}


def configure(trt: Any, config: Any, job: Json, typed: bool) -> list[str]:
    """Set limits and flags, and return the names of the flags.

    Raises:
        FaultError: TensorRT refuses one.
    """
    flags = [
        flag
        for option, flag in (("refit", "REFIT"), ("strip", "STRIP_PLAN"), ("version_compatible", "VERSION_COMPATIBLE"))
        if job[option]
    ]
    if not typed:  # 8.6: the types of the file are obeyed only where a flag allows them
        flags += [kind.upper() for kind in job["types"]]
    if job["tf32"]:
        flags.append("TF32")
    else:  # TensorRT sets it by itself, and FP32 then means products of 10 bits
        config.clear_flag(trt.BuilderFlag.TF32)
    for flag in flags:
        config.set_flag(getattr(trt.BuilderFlag, flag))
        if not config.get_flag(getattr(trt.BuilderFlag, flag)):
            raise FaultError(f"{title(trt)} did not take the flag {flag}")
    if job["workspace_mib"]:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, job["workspace_mib"] << 20)
    if job["optimization_level"] is not None:
        config.builder_optimization_level = job["optimization_level"]
    if job["hardware_compatible"]:
        level = job["hardware_compatible"].upper().replace("-", "_")
        config.hardware_compatibility_level = getattr(trt.HardwareCompatibilityLevel, level)
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED  # the inspector then tells the types of every layer
    sharing = getattr(trt.PreviewFeature, "PROFILE_SHARING_0806", None)
    if sharing is not None and not typed:  # 8.6: several contexts on one profile; always so later
        config.set_preview_feature(sharing, True)
    return flags


def set_targets(trt: Any, config: Any, targets: Sequence[str], runtime: str, gpu: Json | None) -> list[str]:
    """Name the GPUs to build for, and return them all.

    Raises:
        FaultError: the runtime does not build for one.
    """
    if runtime == "tensorrt":
        return [gpu["sm"]] if gpu else []
    if not targets:
        return list(PORTABLE)
    known = [name for name in dir(trt.ComputeCapability) if name.startswith("SM")]
    unknown = [t for t in targets if t.upper() not in known]
    if unknown:
        raise FaultError("--gpu {}: {} builds for {}".format(
            ",".join(unknown), title(trt), ", ".join(sorted((k.lower() for k in known), key=lambda k: int(k[2:])))))  # fmt: skip
    config.num_compute_capabilities = len(targets)
    for i, target in enumerate(targets):
        if not config.set_compute_capability(getattr(trt.ComputeCapability, target.upper()), i):
            raise FaultError(f"--gpu {target}: TensorRT-RTX refused it")
    return list(targets)


def add_profiles(builder: Any, config: Any, network: Any, profiles: Sequence[Json]) -> None:
    """Add the optimization profiles.

    Raises:
        FaultError: TensorRT refuses one, which it says by an index of -1.
    """
    names = {network.get_input(i).name for i in range(network.num_inputs)}
    for number, ranges in enumerate(profiles):
        unknown = sorted(set(ranges) - names)
        if unknown:  # it would be taken, and the engine would fail later
            raise FaultError(f"profile {number}: no input is named {unknown[0]!r}")
        profile = builder.create_optimization_profile()
        for name, (low, opt, high) in ranges.items():
            profile.set_shape(name, low, opt, high)
        if config.add_optimization_profile(profile) < 0:
            raise FaultError(f"profile {number}: TensorRT refuses {json.dumps(ranges)}")


def open_timing_cache(config: Any, job: Json, runtime: str, trt: Any, gpu: Json | None, notes: list[str]) -> str | None:
    """Give the builder the timings of earlier builds on this GPU, and return the file where they go; None where there are none."""
    if not job["timing_cache"] or runtime == "tensorrt-rtx" or not hasattr(config, "set_timing_cache"):
        return None
    path = str(job["timing_cache"])
    if job["timing_cache_default"] and gpu:  # a folder: one file for each GPU, release and driver
        key = "{}-{}-driver{}".format(gpu["name"], trt.__version__, gpu["driver"])
        path = os.path.join(path, "".join(c if c.isalnum() or c in "-._" else "_" for c in key) + ".timing")
    try:
        with open(path, "rb") as file:
            blob = file.read()
    except OSError:
        blob = b""
    cache = config.create_timing_cache(blob)
    if cache is None or not config.set_timing_cache(cache, ignore_mismatch=False):
        notes.append(f"timing cache {path}: made by another TensorRT, GPU or driver; ignored, and written anew")
        config.set_timing_cache(config.create_timing_cache(b""), ignore_mismatch=False)
    return path


def keep_timing_cache(config: Any, path: str, notes: list[str]) -> None:
    """Write the timings for the next build, whole or not at all; where that fails, the engine is there all the same."""
    cache = config.get_timing_cache()
    if cache is None:
        return
    temporary = f"{path}.{os.getpid()}"
    try:
        os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
        with open(temporary, "wb") as file:
            file.write(cache.serialize())
        os.replace(temporary, path)
    except OSError as e:
        notes.append(f"timing cache {path}: could not be written ({e.strerror})")


def make_monitor(trt: Any, tell: Callable[..., None], cancelled: threading.Event) -> Any:
    """Return a monitor that tells each phase as it goes, and stops the build once `cancelled` is set."""

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            tell(progress="start", phase=phase_name, parent=parent_phase, steps=num_steps)

        def step_complete(self, phase_name: str, step: int) -> bool:
            tell(progress="step", phase=phase_name, step=step)
            return not cancelled.is_set()

        def phase_finish(self, phase_name: str) -> None:
            tell(progress="finish", phase=phase_name)

    return Monitor()


def facts(job: Json) -> Json:
    """Return what would build or run an engine here; without `versions`, the GPU alone, for which TensorRT need not be imported."""
    gpu, no_gpu = driver()
    if not job["versions"]:
        return {"gpu": gpu, "no_gpu": no_gpu}
    versions = {}
    for name in MODULES:
        try:
            module = _import(name)
        except FaultError:
            module = None
        versions[name] = module.__version__ if module else None
    return {
        "gpu": gpu,
        "no_gpu": no_gpu,
        "versions": versions,
        "pycuda": importlib.util.find_spec("pycuda") is not None,
    }


# ---------------------------------------------------------------------------------------------- run


class Lane:
    """One execution context with a stream and its own buffers, allocated once for the largest shapes of all profiles."""

    def __init__(self, trt: Any, cuda: Any, engine: Any) -> None:
        self._trt, self._cuda, self._engine = trt, cuda, engine
        self.context = engine.create_execution_context()
        if self.context is None:
            raise FaultError("TensorRT could not make an execution context; the GPU may be out of memory")
        self.stream = cuda.Stream()
        names = [engine.get_tensor_name(i) for i in range(engine.num_io_tensors)]
        modes = trt.TensorIOMode
        self.inputs = [name for name in names if engine.get_tensor_mode(name) == modes.INPUT]
        self.outputs = [name for name in names if engine.get_tensor_mode(name) == modes.OUTPUT]
        self._memory: Json = {}
        self._pinned: Json = {}
        self._allocators: Json = {}
        self._profile = 0
        for name in self.inputs:
            largest = [max(volume(shapes[2]), 1) for shapes in self._ranges(name)]
            self._allocate(name, max(largest) * self._itemsize(name))
        for name in self.outputs:
            self._allocate_output(name)

    def _ranges(self, name: str) -> list[list[tuple[int, ...]]]:
        """Return (min, opt, max) of an input for every profile."""
        count = self._engine.num_optimization_profiles
        return [[tuple(s) for s in self._engine.get_tensor_profile_shape(name, i)] for i in range(count)]

    def _itemsize(self, name: str) -> int:
        return int(self.dtype(name).itemsize)

    def dtype(self, name: str) -> Any:
        """Return the numpy dtype of a tensor."""
        import numpy as np

        return np.dtype(self._trt.nptype(self._engine.get_tensor_dtype(name)))

    def _allocate(self, name: str, size: int) -> None:
        self._memory[name] = self._cuda.mem_alloc(max(size, 1))
        if not self.context.set_tensor_address(name, int(self._memory[name])):
            raise FaultError(f"tensor {name!r}: TensorRT refused its address")

    def _allocate_output(self, name: str) -> None:
        """Allocate an output for the largest of the profiles, or let TensorRT ask for memory where its size depends on values."""
        largest = 0
        for index in range(self._engine.num_optimization_profiles):
            self.use_profile(index)
            for entry in self.inputs:
                self.set_shape(entry, self._ranges(entry)[index][2])
            shape = tuple(self.context.get_tensor_shape(name))
            if any(d < 0 for d in shape):
                self._allocators[name] = make_allocator(self._trt, self._cuda)
                self.context.set_output_allocator(name, self._allocators[name])
                return
            largest = max(largest, volume(shape))
        self._allocate(name, largest * self._itemsize(name))

    def use_profile(self, index: int) -> None:
        """Switch to a profile; switching is asynchronous and must be done before shapes are set."""
        if index != self._profile:
            if not self.context.set_optimization_profile_async(index, self.stream.handle):
                raise FaultError(f"TensorRT could not switch to profile {index}")
            self.stream.synchronize()
            self._profile = index

    def set_shape(self, name: str, shape: Sequence[int]) -> None:
        """Set the shape of an input within the profile that is in use."""
        if not self.context.set_input_shape(name, tuple(shape)):
            raise FaultError(f"input {name!r}: the engine refuses the shape {list(shape)}")

    def place(self, feed: Json) -> None:
        """Pick the profile that takes the shapes, and put the inputs into pinned memory, from which they are copied.

        Raises:
            FaultError: no profile takes them.
        """
        import numpy as np

        shapes = {name: feed[name].shape for name in self.inputs}
        self.use_profile(self._fitting(shapes))
        for name in self.inputs:
            self.set_shape(name, shapes[name])
            self._pinned[name] = self._cuda.pagelocked_empty(shapes[name], self.dtype(name))
            np.copyto(self._pinned[name], narrowed(name, feed[name], self.dtype(name)))
        left = self.context.infer_shapes()
        if left:
            raise FaultError("TensorRT needs the shape of {}".format(", ".join(left)))
        for name in self.outputs:
            if name not in self._allocators:
                shape = tuple(self.context.get_tensor_shape(name))
                self._pinned[name] = self._cuda.pagelocked_empty(shape, self.dtype(name))

    def _fitting(self, shapes: Json) -> int:
        count = self._engine.num_optimization_profiles
        for index in [self._profile, *range(count)]:
            ranges = {name: self._ranges(name)[index] for name in self.inputs}
            if all(fits(shapes[name], ranges[name][0], ranges[name][2]) for name in self.inputs):
                return int(index)
        told = "; ".join(
            f"{name} from {list(self._ranges(name)[i][0])} to {list(self._ranges(name)[i][2])}"
            for i in range(count)
            for name in self.inputs
        )
        asked = ", ".join(f"{name} {list(shape)}" for name, shape in shapes.items())
        raise FaultError(f"no profile of the engine takes {asked}; it was built for {told}")

    def copy_in(self) -> None:
        """Copy the inputs to the GPU, on the stream."""
        for name in self.inputs:
            self._cuda.memcpy_htod_async(self._memory[name], self._pinned[name], self.stream)

    def enqueue(self) -> None:
        """Put one inference on the stream."""
        if not self.context.execute_async_v3(self.stream.handle):
            raise FaultError("TensorRT failed to run the engine")

    def copy_out(self) -> None:
        """Copy the outputs of known size to the host, on the stream."""
        for name in self.outputs:
            if name not in self._allocators:
                self._cuda.memcpy_dtoh_async(self._pinned[name], self._memory[name], self.stream)

    def results(self) -> Json:
        """Return the outputs after the stream has come to its end; those of unknown size are copied only now."""
        import numpy as np

        found = {}
        for name in self.outputs:
            allocator = self._allocators.get(name)
            if allocator is None:
                found[name] = np.array(self._pinned[name])
                continue
            found[name] = np.empty(allocator.shape, self.dtype(name))
            if found[name].size:
                self._cuda.memcpy_dtoh(found[name], allocator.address)
        return found

    def capture(self) -> Graph:
        """Record one inference as a CUDA graph.

        Raises:
            FaultError: the engine or the driver cannot.
        """
        if self._allocators:
            raise FaultError(
                "a CUDA graph cannot hold an output whose size depends on values: {}".format(
                    ", ".join(self._allocators)
                )
            )
        self.enqueue()  # the first call after a change of shape may do what must not be captured
        self.stream.synchronize()
        return Graph(self)

    def free(self) -> None:
        """Give the memory and the context back."""
        for memory in self._memory.values():
            memory.free()
        self._pinned.clear()
        self.context = None


class Graph:
    """One captured inference. pycuda has no graphs, so the driver is called by its own names."""

    def __init__(self, lane: Lane) -> None:
        self._driver = ctypes.CDLL("nvcuda.dll" if os.name == "nt" else "libcuda.so.1")
        self._stream = ctypes.c_void_p(lane.stream.handle)
        graph, self._executable = ctypes.c_void_p(), ctypes.c_void_p()
        self._checked("cuStreamBeginCapture_v2", self._stream, 1)  # CU_STREAM_CAPTURE_MODE_THREAD_LOCAL
        try:
            lane.enqueue()
        finally:
            self._checked("cuStreamEndCapture", self._stream, ctypes.byref(graph))
        self._checked("cuGraphInstantiateWithFlags", ctypes.byref(self._executable), graph, ctypes.c_ulonglong(0))
        self._checked("cuGraphDestroy", graph)

    def _checked(self, name: str, *arguments: Any) -> None:
        code = getattr(self._driver, name)(*arguments)
        if code:
            raise FaultError(f"CUDA graph: {name} gives error {code}")

    def launch(self) -> None:
        """Put one replay on the stream."""
        self._checked("cuGraphLaunch", self._executable, self._stream)

    def free(self) -> None:
        """Give the graph back."""
        self._checked("cuGraphExecDestroy", self._executable)


def make_allocator(trt: Any, cuda: Any) -> Any:
    """Return what gives TensorRT memory for an output whose size depends on values; it only grows."""

    class Allocator(trt.IOutputAllocator):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.IOutputAllocator.__init__(self)
            self._memory: Any = None
            self._size = 0
            self.shape: tuple[int, ...] = ()

        @property
        def address(self) -> int:
            return int(self._memory)

        def reallocate_output(self, tensor_name: str, memory: int, size: int, alignment: int) -> int:
            if size > self._size or self._memory is None:
                if self._memory is not None:
                    self._memory.free()
                self._memory, self._size = (
                    cuda.mem_alloc(max(size, 1)),
                    size,
                )  # 256-byte aligned, as cuMemAlloc gives it
            return int(self._memory)

        def reallocate_output_async(self, tensor_name: str, memory: int, size: int, alignment: int, stream: int) -> int:
            return self.reallocate_output(tensor_name, memory, size, alignment)

        def notify_shape(self, tensor_name: str, shape: Any) -> None:
            self.shape = tuple(shape)

    return Allocator()


def volume(shape: Sequence[int]) -> int:
    """Return the number of elements of a shape."""
    count = 1
    for size in shape:
        count *= int(size)
    return count


def fits(shape: Sequence[int], low: Sequence[int], high: Sequence[int]) -> bool:
    """Say whether a shape lies between two others."""
    return len(shape) == len(low) and all(a <= b <= c for a, b, c in zip(low, shape, high))


def narrowed(name: str, array: Any, dtype: Any) -> Any:
    """Return an array in the engine's dtype, which is INT32 for INT64 in 8.6.

    Raises:
        FaultError: a value does not fit.
    """
    import numpy as np

    if array.dtype == dtype:
        return array
    cast = array.astype(dtype)
    if not np.array_equal(cast, array):
        raise FaultError(f"input {name!r}: values of {array.dtype} do not fit into the engine's {dtype}")
    return cast


class Session:
    """An engine that is loaded once and answers requests: infer, time, parts, layers."""

    def __init__(self, job: Json, tell: Callable[..., None]) -> None:
        """Load the engine on the primary context of the GPU, which torch uses too.

        Raises:
            FaultError: no GPU, no pycuda, or TensorRT refuses the engine.
        """
        gpu, no_gpu = driver()
        if gpu is None:
            raise FaultError(f"an engine runs on a GPU only: {no_gpu}")
        _, trt = load_runtime(job["runtime"], gpu, no_gpu)
        try:
            import pycuda.driver as cuda
        except ImportError as e:
            raise FaultError(f"pycuda is not installed for {sys.executable} ({e}). Run: pip install pycuda") from e
        cuda.init()
        self._trt, self._cuda = trt, cuda
        self._cuda_context = cuda.Device(0).retain_primary_context()
        self._cuda_context.push()
        self._log: list[str] = []
        self._runtime = trt.Runtime(make_logger(trt, tell, self._log))
        if job["version_compatible"] and hasattr(self._runtime, "engine_host_code_allowed"):
            self._runtime.engine_host_code_allowed = True
        with open(job["plan"], "rb") as file:
            self.engine = self._runtime.deserialize_cuda_engine(file.read())
        if self.engine is None:
            raise FaultError(f"{title(trt)} cannot load the engine: {last_error(self._log)}")
        self.lanes = [Lane(trt, cuda, self.engine) for _ in range(job["streams"])]
        self.gpu = gpu

    def about(self) -> Json:
        """Return what the engine says of itself."""
        engine, lane = self.engine, self.lanes[0]
        memory = engine.device_memory_size_v2 if hasattr(engine, "device_memory_size_v2") else engine.device_memory_size
        return {
            "version": self._trt.__version__,
            "gpu": self.gpu,
            "inputs": [self._tensor(name) for name in lane.inputs],
            "outputs": [self._tensor(name) for name in lane.outputs],
            "profiles": [
                {name: [list(s) for s in engine.get_tensor_profile_shape(name, i)] for name in lane.inputs}
                for i in range(engine.num_optimization_profiles)
            ],
            "layers": engine.num_layers,
            "device_memory_bytes": memory,
        }

    def _tensor(self, name: str) -> Json:
        kind = self.engine.get_tensor_dtype(name).name
        return {
            "name": name,
            "dtype": _DTYPES.get(kind, kind.lower()),
            "shape": [int(d) for d in self.engine.get_tensor_shape(name)],
        }

    def infer(self, request: Json) -> Json:
        """Run one inference; the arrays travel as .npy files in the request's folder."""
        import numpy as np

        lane = self.lanes[0]
        lane.place(read_feed(request))
        lane.copy_in()
        lane.enqueue()
        lane.copy_out()
        lane.stream.synchronize()
        for i, array in enumerate(lane.results().values()):
            np.save(os.path.join(request["folder"], f"output_{i}.npy"), array)
        return {"outputs": list(lane.outputs)}

    def time(self, request: Json) -> Json:
        """Time calls on inputs that are placed once; every number is taken inside this process.

        `times_ms` holds one inference each, awaited, without copies. With several contexts, `per_second` counts inferences of all of them.
        """
        graphs = self._prepare(request)
        calls = [graph.launch for graph in graphs] or [lane.enqueue for lane in self.lanes]

        def once() -> None:
            calls[0]()
            self.lanes[0].stream.synchronize()

        dropped = timed(once, request["drop_s"], request["drop_calls"])
        found: Json = {
            "dropped_calls": len(dropped),
            "times_ms": timed(once, request["block_s"], request["block_calls"]),
        }
        if len(calls) > 1:
            found["per_second"] = self._throughput(calls, request["block_s"])
        for graph in graphs:
            graph.free()
        return found

    def _prepare(self, request: Json) -> list[Graph]:
        """Put the inputs of a request on the GPU for every context, and capture the graphs that are asked for."""
        for lane in self.lanes:
            lane.place(read_feed(request))
            lane.copy_in()
            lane.stream.synchronize()
        return [lane.capture() for lane in self.lanes] if request["cuda_graph"] else []

    def parts(self, request: Json, rounds: int = 50) -> Json:
        """Return the medians of the parts of a call in ms: enqueue on the host's clock, the others by events on the stream."""
        graphs = self._prepare(request)
        lane, cuda = self.lanes[0], self._cuda
        call = graphs[0].launch if graphs else lane.enqueue
        parts: dict[str, list[float]] = {"enqueue_ms": [], "copy_in_ms": [], "compute_ms": [], "copy_out_ms": []}
        for _ in range(rounds):
            marks = [cuda.Event() for _ in range(4)]
            marks[0].record(lane.stream)
            lane.copy_in()
            marks[1].record(lane.stream)
            before = time.perf_counter()
            call()
            parts["enqueue_ms"].append((time.perf_counter() - before) * 1000)
            marks[2].record(lane.stream)
            lane.copy_out()
            marks[3].record(lane.stream)
            marks[3].synchronize()
            for part, start, end in zip(("copy_in_ms", "compute_ms", "copy_out_ms"), marks, marks[1:]):
                parts[part].append(end.time_since(start))
        for graph in graphs:
            graph.free()
        return {part: sorted(values)[rounds // 2] for part, values in parts.items()}

    def _throughput(self, calls: Sequence[Callable[[], None]], duration_s: float) -> float:
        started, done = time.perf_counter(), 0
        while time.perf_counter() - started < max(duration_s, 0.01):
            for call in calls:
                call()
            for lane in self.lanes:
                lane.stream.synchronize()
            done += len(calls)
        return done / (time.perf_counter() - started)

    def layers(self, request: Json) -> Json:
        """Return name, type, types of the tensors, and the time of every layer, from the inspector and the profiler."""
        trt, lane = self._trt, self.lanes[0]
        inspector = self.engine.create_engine_inspector()
        lane.place(read_feed(request))
        lane.copy_in()
        inspector.execution_context = lane.context  # without its shapes, types are "N/A due to dynamic shapes"
        # 8.6 writes the control characters between the parts of its metadata as they are.
        try:
            told = json.loads(inspector.get_engine_information(trt.LayerInformationFormat.JSON), strict=False)
        except ValueError as e:
            raise FaultError(f"the inspector's JSON cannot be read ({e})") from e
        times: dict[str, list[float]] = {}

        class Profile(trt.IProfiler):  # type: ignore[misc, name-defined]
            def __init__(self) -> None:
                trt.IProfiler.__init__(self)

            def report_layer_time(self, layer_name: str, ms: float) -> None:
                times.setdefault(layer_name, []).append(ms)

        lane.context.profiler = Profile()
        for _ in range(10):
            lane.enqueue()
            lane.stream.synchronize()
        found = []
        for layer in told["Layers"]:
            layer = (
                layer if isinstance(layer, dict) else {"Name": str(layer)}
            )  # names alone, from an engine without details
            seen = sorted(times.get(layer["Name"], [0.0]))
            found.append({
                "name": layer["Name"],
                "type": layer.get("LayerType", ""),
                "types": types_of(layer),
                "ms": seen[len(seen) // 2],
            })  # fmt: skip
        return {"layers": found}

    def close(self) -> None:
        """Free the engine and leave the GPU context as it was."""
        for lane in self.lanes:
            lane.free()
        self.lanes.clear()
        self.engine = self._runtime = None
        self._cuda_context.pop()


def types_of(layer: Json) -> list[str]:
    """Return the types of what a layer reads and writes; where the inspector does not tell them, those of its weights."""
    ends = [
        end.get("Datatype") or end.get("Format/Datatype")
        for name in ("Inputs", "Outputs")
        for end in layer.get(name, [])
    ]
    weights = layer.get("Weights")
    told = {type_of(end) for end in ends} - {""} or {
        type_of(weights.get("Type") if isinstance(weights, dict) else None)
    }
    return sorted(told - {""})


def type_of(told: Any) -> str:
    """Return fp32, fp16, int8 and so on from what the inspector says of a type, in the words of 8.6 and of later releases."""
    text = str(told or "").lower()
    words = (("int8", "int8"), ("bf16", "bf16"), ("bfloat16", "bf16"), ("fp8", "fp8"), ("fp16", "fp16"), ("half", "fp16"), ("fp32", "fp32"), ("float", "fp32"))  # fmt: skip
    return next((kind for word, kind in words if word in text), "")


def timed(call: Callable[[], None], shortest_s: float, fewest: int) -> list[float]:
    """Call until both limits are reached, as optkit's own loop does; return the time of each call in ms."""
    clock = time.perf_counter_ns
    times: list[float] = []
    before = clock()
    end = before + int(shortest_s * 1e9)
    while len(times) < fewest or before < end:
        before = clock()
        call()
        after = clock()
        times.append((after - before) / 1e6)
        before = after
    return times


def read_feed(request: Json) -> Json:
    """Read the arrays of a request."""
    import numpy as np

    return {
        name: np.load(os.path.join(request["folder"], f"input_{i}.npy"), allow_pickle=False)
        for i, name in enumerate(request["inputs"])
    }


# ---------------------------------------------------------------------------------------------- the process


def watch_input(cancelled: threading.Event) -> None:
    """Set `cancelled` at the end of the input, and end the process when TensorRT does not come back in time."""
    sys.stdin.buffer.read()
    cancelled.set()
    time.sleep(GRACE_S)
    os._exit(1)


def serve(session: Session, tell: Callable[..., None]) -> None:
    """Answer one request a line until the input ends; a request that fails is answered, and the next one is taken."""
    for line in sys.stdin:
        request = json.loads(line)
        try:
            tell(
                result=getattr(session, {name: name for name in ("infer", "time", "parts", "layers")}[request["do"]])(
                    request
                )
            )
        except FaultError as e:
            tell(fault=str(e), nodes=[])


def main(path: str) -> int:
    """Carry out one job, and return the exit code: 0 when it was answered."""
    tell = Channel()
    with open(path, encoding="utf-8") as file:
        job = json.load(file)
    try:
        if job["task"] == "build":
            cancelled = threading.Event()
            threading.Thread(target=watch_input, args=(cancelled,), daemon=True).start()
            tell(result=build(job, tell, cancelled))
        elif job["task"] == "run":
            session = Session(job, tell)
            tell(result=session.about())
            serve(session, tell)
            session.close()
        else:
            tell(result=facts(job))
    except FaultError as e:
        tell(fault=str(e), nodes=e.nodes)
    except CancelledError:
        tell(cancelled=True)
    return 0


def preload(runtime: str) -> bool:
    """Import a runtime, and wait for the line that says that the job is there; False where the input ends instead."""
    with contextlib.suppress(FaultError):  # told when the job asks for it
        load_runtime(runtime, *driver())
    return bool(sys.stdin.buffer.readline())


def run(path: str, runtime: str | None = None) -> None:
    """Carry out one job, and end the process: TensorRT's objects may crash when the interpreter tears them down in its own order."""
    try:
        code = main(path) if runtime is None or preload(runtime) else 0
    except BaseException:  # told by its last line, which a crash of the tear-down would cover
        traceback.print_exc()
        code = 1
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    run(*sys.argv[1:3])
