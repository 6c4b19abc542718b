"""A stand-in for TensorRT 8.6, 10 or 11 (STANDIN_TENSORRT): its classes have the members that the real bindings have, and no other.

`members.json` holds the lists and where they come from. A member that a release does not have is taken off its class here, and setting one that
it does not have is an AttributeError: so a call that does not exist in a release fails the test. What the members do follows the real ones:
errors go to the logger, calls answer None, False or -1. An "engine" is the ONNX model itself, computed by onnx's reference evaluator.
"""

import base64
import enum
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pycuda import driver as cuda

if TYPE_CHECKING:
    import onnx

_RELEASE = os.environ["STANDIN_TENSORRT"]
__version__ = {"8.6": "8.6.0", "10": "10.14.1.48", "11": "11.4.1.5"}[_RELEASE]
_MEMBERS: dict[str, list[str]] = json.loads((Path(__file__).parents[1] / "members.json").read_text())[_RELEASE]
_UNKNOWN = {"Det"}  # an operator that TensorRT does not have
_LOG: list[str] = []  # every builder's flags and settings, for the tests


def _onnx() -> Any:
    """Return onnx, which takes a part of a second to import, so that who only asks for the version need not wait."""
    import onnx
    import onnx.reference

    return onnx


class ILogger:
    """As the real one: subclassed by the user."""

    class Severity(enum.Enum):
        INTERNAL_ERROR = 0
        ERROR = 1
        WARNING = 2
        INFO = 3
        VERBOSE = 4

    def log(self, severity: "ILogger.Severity", message: str) -> None:
        raise NotImplementedError


def _enum(name: str) -> Any:
    """Return an enumeration with the members that this release has; None where it has not got it at all."""
    return enum.IntEnum(name, {member: i for i, member in enumerate(_MEMBERS[name])}) if name in _MEMBERS else None


BuilderFlag = _enum("BuilderFlag")
NetworkDefinitionCreationFlag = _enum("NetworkDefinitionCreationFlag")
MemoryPoolType = _enum("MemoryPoolType")
HardwareCompatibilityLevel = _enum("HardwareCompatibilityLevel")
ProfilingVerbosity = _enum("ProfilingVerbosity")
TensorIOMode = _enum("TensorIOMode")
LayerInformationFormat = _enum("LayerInformationFormat")
PreviewFeature = _enum("PreviewFeature")


class DataType(enum.Enum):
    """The element types."""

    FLOAT = 0
    HALF = 1
    INT8 = 2
    INT32 = 3
    BOOL = 4
    UINT8 = 5
    INT64 = 8


_NUMPY = {
    DataType.FLOAT: np.float32,
    DataType.HALF: np.float16,
    DataType.INT8: np.int8,
    DataType.INT32: np.int32,
    DataType.BOOL: np.bool_,
    DataType.UINT8: np.uint8,
    DataType.INT64: np.int64,
}


def nptype(dtype: DataType) -> Any:
    return _NUMPY[dtype]


def _dtype(elem_type: int) -> DataType:
    found = np.dtype(_onnx().helper.tensor_dtype_to_np_dtype(elem_type))
    if found == np.int64 and _RELEASE == "8.6":
        return DataType.INT32  # it has no INT64
    return next(kind for kind, dtype in _NUMPY.items() if np.dtype(dtype) == found)


class _Strict:
    """An object on which only members of the real class can be set."""

    def __setattr__(self, name: str, value: Any) -> None:
        if not name.startswith("_") and name not in _MEMBERS[type(self).__name__]:
            raise AttributeError(f"{type(self).__name__!r} of TensorRT {__version__} has no attribute {name!r}")
        object.__setattr__(self, name, value)


class ITensor(_Strict):
    def __init__(self, value: "onnx.ValueInfoProto") -> None:
        self.name = value.name
        self.dtype = _dtype(value.type.tensor_type.elem_type)
        self.shape = tuple(d.dim_value if d.HasField("dim_value") else -1 for d in value.type.tensor_type.shape.dim)

    @property
    def is_shape_tensor(self) -> bool:
        return False


class INetworkDefinition(_Strict):
    def __init__(self, flags: int) -> None:
        self._flags = flags
        self._model = _onnx().ModelProto()

    @property
    def _inputs(self) -> "list[onnx.ValueInfoProto]":
        weights = {tensor.name for tensor in self._model.graph.initializer}
        return [value for value in self._model.graph.input if value.name not in weights]

    @property
    def num_inputs(self) -> int:
        return len(self._inputs)

    @property
    def num_outputs(self) -> int:
        return len(self._model.graph.output)

    def get_input(self, index: int) -> ITensor:
        return ITensor(self._inputs[index])

    def get_output(self, index: int) -> ITensor:
        return ITensor(self._model.graph.output[index])


class ParserError(_Strict):
    """8.6 knows the number of the node; later releases its name and operator too, as methods."""

    def __init__(self, number: int, node: "onnx.NodeProto") -> None:
        self._number, self._node = number, node

    def node(self) -> int:
        return self._number

    def desc(self) -> str:
        return f"no importer registered for op: {self._node.op_type}"

    def node_name(self) -> str:
        return self._node.name

    def node_operator(self) -> str:
        return self._node.op_type


class OnnxParser(_Strict):
    def __init__(self, network: INetworkDefinition, logger: ILogger) -> None:
        self._network, self._logger = network, logger
        self._errors: list[ParserError] = []

    def parse_from_file(self, model: str) -> bool:
        try:
            self._network._model = _onnx().load(model)
        except Exception as e:
            self._logger.log(ILogger.Severity.ERROR, f"Failed to open file: {e}")
            return False
        nodes = enumerate(self._network._model.graph.node)
        self._errors = [ParserError(i, node) for i, node in nodes if not self.supports_operator(node.op_type)]
        if _RELEASE == "8.6":
            del self._errors[1:]
        return not self._errors

    def supports_operator(self, op_name: str) -> bool:
        return op_name not in _UNKNOWN

    @property
    def num_errors(self) -> int:
        return len(self._errors)

    def get_error(self, index: int) -> ParserError:
        return self._errors[index]


class IOptimizationProfile(_Strict):
    def __init__(self) -> None:
        self._shapes: dict[str, list[list[int]]] = {}

    def set_shape(self, input: str, min: Any, opt: Any, max: Any) -> None:
        self._shapes[input] = [list(min), list(opt), list(max)]  # whatever it is: the real one answers None too


class ITimingCache:
    def __init__(self, blob: bytes) -> None:
        self._blob = blob

    def serialize(self) -> bytes:
        return self._blob or f"timings of {__version__}".encode()


class IBuilderConfig(_Strict):
    def __init__(self, logger: ILogger) -> None:
        self._logger = logger
        self._flags: set[Any] = {BuilderFlag.TF32}  # as the real ones begin
        self._profiles: list[IOptimizationProfile] = []
        self._pools: dict[str, int] = {}
        self._previews: list[str] = []
        self._cache: ITimingCache | None = None
        self.profiling_verbosity = ProfilingVerbosity.LAYER_NAMES_ONLY
        self.builder_optimization_level = 3
        self.hardware_compatibility_level = HardwareCompatibilityLevel.NONE
        if "progress_monitor" in _MEMBERS["IBuilderConfig"]:
            self.progress_monitor: Any = None

    def set_flag(self, flag: Any) -> None:
        self._flags.add(flag)

    def clear_flag(self, flag: Any) -> None:
        self._flags.discard(flag)

    def get_flag(self, flag: Any) -> bool:
        return flag in self._flags

    def set_memory_pool_limit(self, pool: Any, pool_size: int) -> None:
        self._pools[pool.name] = pool_size

    def add_optimization_profile(self, profile: IOptimizationProfile) -> int:
        if any(
            not a <= b <= c
            for low, opt, high in profile._shapes.values()
            for a, b, c in zip(low, opt, high, strict=True)
        ):
            self._logger.log(ILogger.Severity.ERROR, "Invalid optimization profiles")
            return -1
        self._profiles.append(profile)
        return len(self._profiles) - 1

    def create_timing_cache(self, serialized_timing_cache: bytes) -> ITimingCache:
        return ITimingCache(bytes(serialized_timing_cache))

    def set_timing_cache(self, cache: ITimingCache, ignore_mismatch: bool) -> bool:
        if cache._blob and cache._blob != f"timings of {__version__}".encode():
            self._logger.log(ILogger.Severity.ERROR, "timing cache mismatch")
            return False
        self._cache = cache
        return True

    def get_timing_cache(self) -> ITimingCache | None:
        return self._cache

    def set_preview_feature(self, feature: Any, enable: bool) -> None:
        self._previews.append(feature.name)


class IProgressMonitor:
    """Subclassed by the user."""


class IOutputAllocator:
    """Subclassed by the user."""


class IProfiler:
    """Subclassed by the user."""


class Builder(_Strict):
    def __init__(self, logger: ILogger) -> None:
        self._logger = logger

    def create_network(self, flags: int = 0) -> INetworkDefinition:
        return INetworkDefinition(flags)

    def create_builder_config(self) -> IBuilderConfig:
        return IBuilderConfig(self._logger)

    def create_optimization_profile(self) -> IOptimizationProfile:
        return IOptimizationProfile()

    def build_serialized_network(self, network: INetworkDefinition, config: IBuilderConfig) -> bytes | None:
        if _RELEASE == "8.6" and not network._flags & 1 << NetworkDefinitionCreationFlag.EXPLICIT_BATCH:
            self._logger.log(
                ILogger.Severity.ERROR, "the ONNX parser only supports networks with an explicit batch dimension"
            )
            return None
        typed = "STRONGLY_TYPED" in NetworkDefinitionCreationFlag.__members__
        if typed and any(flag.name in ("FP16", "INT8") for flag in config._flags):
            self._logger.log(ILogger.Severity.ERROR, "a strongly typed network takes no precision flags")
            return None
        monitor = getattr(config, "progress_monitor", None)
        if monitor is not None:
            monitor.phase_start("Building engine", None, 2)
            if False in [monitor.step_complete("Building engine", step) for step in range(2)]:
                return None
            monitor.phase_finish("Building engine")
        self._logger.log(ILogger.Severity.WARNING, "a warning of the stand-in")
        engine = {
            "onnx": base64.b64encode(network._model.SerializeToString()).decode(),
            "release": __version__,
            "profiles": [profile._shapes for profile in config._profiles],
            "network_flags": network._flags,
            "flags": sorted(flag.name for flag in config._flags),
            "pools": config._pools,
            "previews": config._previews,
            "verbosity": config.profiling_verbosity.name,
            "level": config.builder_optimization_level,
            "hardware": config.hardware_compatibility_level.name,
        }
        return json.dumps(engine).encode()


class Runtime(_Strict):
    def __init__(self, logger: ILogger) -> None:
        self._logger = logger
        self.engine_host_code_allowed = False

    def deserialize_cuda_engine(self, serialized_engine: bytes) -> "ICudaEngine | None":
        content = json.loads(serialized_engine)
        if content["release"] != __version__ and "VERSION_COMPATIBLE" not in content["flags"]:
            self._logger.log(ILogger.Severity.ERROR, f"Version tag does not match: {content['release']}")
            return None
        return ICudaEngine(content)


class ICudaEngine(_Strict):
    def __init__(self, content: dict[str, Any]) -> None:
        self._content = content
        self._network = INetworkDefinition(0)
        self._network._model = _onnx().load_from_string(base64.b64decode(content["onnx"]))
        network = self._network
        inputs = [network.get_input(i) for i in range(network.num_inputs)]
        outputs = [network.get_output(i) for i in range(network.num_outputs)]
        self._modes = {t.name: TensorIOMode.INPUT for t in inputs} | {t.name: TensorIOMode.OUTPUT for t in outputs}
        self._tensors = {t.name: t for t in (*inputs, *outputs)}

    @property
    def num_io_tensors(self) -> int:
        return len(self._tensors)

    @property
    def num_optimization_profiles(self) -> int:
        return max(len(self._content["profiles"]), 1)

    @property
    def num_layers(self) -> int:
        return len(self._network._model.graph.node)

    @property
    def device_memory_size(self) -> int:
        return 1024

    @property
    def device_memory_size_v2(self) -> int:
        return 2048

    def get_tensor_name(self, index: int) -> str:
        return list(self._tensors)[index]

    def get_tensor_mode(self, name: str) -> Any:
        return self._modes[name]

    def get_tensor_dtype(self, name: str) -> DataType:
        return self._tensors[name].dtype

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return self._tensors[name].shape

    def get_tensor_profile_shape(self, name: str, profile_index: int) -> list[tuple[int, ...]]:
        shapes = self._content["profiles"][profile_index].get(name) if self._content["profiles"] else None
        return [tuple(shape) for shape in shapes] if shapes else [self._tensors[name].shape] * 3

    def create_execution_context(self) -> "IExecutionContext":
        return IExecutionContext(self)

    def create_engine_inspector(self) -> "EngineInspector":
        return EngineInspector(self)


class EngineInspector(_Strict):
    """8.6 and 10 say Format/Datatype of a tensor in words, 11 its type alone; none without a context where shapes are dynamic.

    8.6 writes the control character 30 between the parts of its metadata as it is, which is no JSON; both were seen on an H200.
    """

    def __init__(self, engine: ICudaEngine) -> None:
        self._engine = engine
        self.execution_context: IExecutionContext | None = None

    def get_engine_information(self, format: Any) -> str:
        half = {
            t.name for t in self._engine._network._model.graph.initializer if t.data_type == _onnx().TensorProto.FLOAT16
        }
        layers = []
        for node in self._engine._network._model.graph.node:
            kind = "Half" if half & set(node.input) else "Float"
            words = {"8.6": f"Row major linear {'FP16' if kind == 'Half' else 'FP32'} format", "10": kind, "11": kind}[
                _RELEASE
            ]
            dynamic = any(-1 in self._engine.get_tensor_shape(name) for name in self._engine._tensors)
            if dynamic and (self.execution_context is None or not self.execution_context._shapes):
                words = "N/A due to dynamic shapes"
            end = [{"Name": "t", ("Datatype" if _RELEASE == "11" else "Format/Datatype"): words}]
            about = {"Name": node.output[0], "LayerType": "CaskGemm", "Inputs": end, "Outputs": end}
            layers.append({**about, "Metadata": f"[ONNX Layer: {node.name}]\x1e[ONNX Layer: {node.name}]"})
        if os.environ.get("STANDIN_INSPECTOR") == "broken":
            return "{"
        text = json.dumps({"Layers": layers, ("I/O Tensors" if _RELEASE == "11" else "Bindings"): []})
        return text.replace("\\u001e", "\x1e") if _RELEASE == "8.6" else text


class IExecutionContext(_Strict):
    def __init__(self, engine: ICudaEngine) -> None:
        self._engine = engine
        self._profile = 0
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._addresses: dict[str, int] = {}
        self._allocators: dict[str, Any] = {}
        self._evaluator = _onnx().reference.ReferenceEvaluator(engine._network._model)
        self.profiler: Any = None

    def set_optimization_profile_async(self, profile_index: int, stream_handle: int) -> bool:
        self._profile, self._shapes = profile_index, {}
        return profile_index < self._engine.num_optimization_profiles and stream_handle in cuda.STREAMS

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        low, _, high = self._engine.get_tensor_profile_shape(name, self._profile)
        self._shapes[name] = tuple(shape)
        return all(a <= b <= c for a, b, c in zip(low, shape, high, strict=True))

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        feed = {
            n: np.zeros(self._shapes[n], _onnx().helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type))
            for n, value in ((v.name, v) for v in self._engine._network._inputs)
        }
        if self._values_decide(name):
            return (-1,) * len(self._engine.get_tensor_shape(name))
        return tuple(self._run(feed)[name].shape)

    def _values_decide(self, name: str) -> bool:
        """Whether a size of this output depends on values, as that of NonZero does."""
        return any(
            node.op_type == "NonZero" and name in node.output for node in self._engine._network._model.graph.node
        )

    def set_tensor_address(self, name: str, memory: int) -> bool:
        self._addresses[name] = memory
        return memory in cuda.MEMORY

    def set_output_allocator(self, name: str, output_allocator: Any) -> bool:
        self._allocators[name] = output_allocator
        return True

    def infer_shapes(self) -> list[str]:
        return [
            name
            for name, mode in self._engine._modes.items()
            if mode == TensorIOMode.INPUT and name not in self._shapes
        ]

    def execute_async_v3(self, stream_handle: int) -> bool:
        if self.infer_shapes():
            return False
        cuda.STREAMS[stream_handle].put(self._execute)
        return True

    def _execute(self) -> None:
        feed = {}
        for value in self._engine._network._inputs:
            shape, dtype = self._shapes[value.name], nptype(self._engine.get_tensor_dtype(value.name))
            array = np.empty(shape, dtype)
            cuda.memcpy_dtoh(array, self._addresses[value.name])
            feed[value.name] = array.astype(_onnx().helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type))
        for name, array in self._run(feed).items():
            array = np.ascontiguousarray(array.astype(nptype(self._engine.get_tensor_dtype(name))))
            if name in self._allocators:
                address = self._allocators[name].reallocate_output(name, 0, array.nbytes, 256)
                self._allocators[name].notify_shape(name, array.shape)
                cuda.write(address, array)
            else:
                cuda.write(self._addresses[name], array)
        if self.profiler is not None:
            for i, node in enumerate(self._engine._network._model.graph.node):
                self.profiler.report_layer_time(node.output[0], 1.0 + i)

    def _run(self, feed: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        names = [value.name for value in self._engine._network._model.graph.output]
        return dict(zip(names, self._evaluator.run(None, feed), strict=True))


for _name, _class in list(globals().items()):
    if isinstance(_class, type) and issubclass(_class, _Strict) and _class is not _Strict:
        for _member in [m for m in vars(_class) if not m.startswith("_") and m not in _MEMBERS[_name]]:
            delattr(_class, _member)
if "IProgressMonitor" not in _MEMBERS:
    del IProgressMonitor
