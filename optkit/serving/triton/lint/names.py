"""Names and values that Triton and its backends know, by their sources of June 2026 (release 26.06).

Platforms are a closed list (core/src/model_config_utils.cc). Backends are open to anyone, so an unknown one is at most a guess. The forms of
parameters are those of onnxruntime.cc, pytorch's pt/model_state.cc, python_be.cc and tensorrt's model_state.cc.
"""

import re
from collections.abc import Callable
from types import MappingProxyType

FILES = MappingProxyType({  # backend -> its model file, in the order in which the server looks for them
    "tensorrt": "model.plan",
    "onnxruntime": "model.onnx",
    "openvino": "model.xml",
    "pytorch": "model.pt",
    "python": "model.py",
    "tensorflow": "model.savedmodel",
})  # fmt: skip
PLATFORM_FILES = MappingProxyType({"tensorflow_graphdef": "model.graphdef", "torch_aoti": "model.pt2"})
PLATFORMS = MappingProxyType({
    "onnxruntime_onnx": "onnxruntime",
    "pytorch_libtorch": "pytorch",
    "libtorch": "pytorch",
    "torch_aoti": "pytorch",
    "tensorrt_plan": "tensorrt",
    "tensorflow_savedmodel": "tensorflow",
    "tensorflow_graphdef": "tensorflow",
    "ensemble": "",
})  # fmt: skip
BACKENDS = frozenset({  # server/build.py
    *FILES, "armnn_tflite", "dali", "fastertransformer", "fil", "identity", "repeat", "square", "tensorrtllm", "vllm",
})  # fmt: skip
_WITH_PLATFORM = frozenset({"tensorflow", "tensorrt", "onnxruntime", "pytorch"})  # of which the server compares the two
MISNAMED = MappingProxyType({  # other names of the same, which are no backends of Triton
    "onnx": "onnxruntime", "onnx_runtime": "onnxruntime", "ort": "onnxruntime", "onnxruntime_onnx": "onnxruntime",
    "libtorch": "pytorch", "torch": "pytorch", "torchscript": "pytorch", "pytorch_libtorch": "pytorch",
    "trt": "tensorrt", "tensorrt_plan": "tensorrt", "python3": "python", "py": "python", "tf": "tensorflow",
})  # fmt: skip

GPU_ACCELERATORS = MappingProxyType({  # backend -> names; a backend that is not listed ignores them
    "onnxruntime": frozenset({"tensorrt", "cuda"}),
    "tensorflow": frozenset({"tensorrt", "auto_mixed_precision", "gpu_io"}),
})  # fmt: skip
CPU_ACCELERATORS = MappingProxyType({"onnxruntime": frozenset({"openvino"}), "tensorflow": frozenset()})

Form = Callable[[str], str | None]  # the fault of a value: an expectation, or None


def contradict(platform: str, backend: str) -> bool:
    """Return whether the server refuses this platform with this backend."""
    if backend in _WITH_PLATFORM:
        return bool(platform) and PLATFORMS.get(platform) != backend
    return bool(backend) and platform == "ensemble"


def _boolean(value: str) -> str | None:
    return None if value.lower() in ("true", "on", "1", "false", "off", "0") else "true or false"


def _integer(value: str) -> str | None:
    return None if re.fullmatch(r"\s*[+-]?\d+", value) else "an integer"


def _one_of(*values: str) -> Form:
    return lambda value: None if value in values else " or ".join(values)


def _any(_: str) -> None:
    return None


PARAMETERS = MappingProxyType({  # backend -> parameter -> its form
    "onnxruntime": MappingProxyType({
        "execution_mode": _one_of("0", "1"),
        "intra_op_thread_count": _integer, "inter_op_thread_count": _integer,
        "enable_mem_arena": _boolean, "enable_mem_pattern": _boolean,
        "cudnn_conv_algo_search": _one_of("0", "1", "2"), "arena_extend_strategy": _one_of("0", "1"),
        "gpu_mem_limit": _integer, "do_copy_in_default_stream": _boolean,
    }),
    "pytorch": MappingProxyType({
        **dict.fromkeys((
            "DISABLE_OPTIMIZED_EXECUTION", "ENABLE_CACHE_CLEANING", "INFERENCE_MODE", "DISABLE_CUDNN", "ENABLE_TENSOR_FUSER",
            "ENABLE_WEIGHT_SHARING", "ENABLE_JIT_PROFILING", "ENABLE_JIT_EXECUTOR",
        ), _boolean),
        "INTRA_OP_THREAD_COUNT": _integer, "INTER_OP_THREAD_COUNT": _integer,
    }),
    "python": MappingProxyType({"FORCE_CPU_ONLY_INPUT_TENSORS": _one_of("yes", "no")}),
    "tensorrt": MappingProxyType({"execution_context_allocation_strategy": _one_of("STATIC", "ON_PROFILE_CHANGE")}),
})  # fmt: skip
_TENSORRT = MappingProxyType({
    "precision_mode": _one_of("FP32", "FP16", "BF16", "INT8"),
    **dict.fromkeys((
        "max_workspace_size_bytes", "trt_max_partition_iterations", "trt_min_subgraph_size", "trt_dla_core",
        "trt_builder_optimization_level", "trt_auxiliary_streams", "trt_ep_context_embed_mode",
    ), _integer),
    **dict.fromkeys((
        "int8_use_native_calibration_table", "trt_dla_enable", "trt_engine_cache_enable", "trt_dump_subgraphs",
        "trt_force_sequential_engine_build", "trt_context_memory_sharing_enable", "trt_layer_norm_fp32_fallback",
        "trt_timing_cache_enable", "trt_force_timing_cache", "trt_detailed_build_log", "trt_build_heuristics_enable",
        "trt_sparsity_enable", "trt_cuda_graph_enable", "trt_dump_ep_context_model",
    ), _boolean),
    **dict.fromkeys((
        "int8_calibration_table_name", "trt_engine_cache_path", "trt_engine_cache_prefix", "trt_timing_cache_path",
        "trt_tactic_sources", "trt_extra_plugin_lib_paths", "trt_profile_min_shapes", "trt_profile_max_shapes",
        "trt_profile_opt_shapes", "trt_ep_context_file_path",
    ), _any),
})  # fmt: skip
ACCELERATOR_PARAMETERS = MappingProxyType(
    {"tensorrt": _TENSORRT}
)  # of the ONNX Runtime backend; CUDA's are ONNX Runtime's own
CUDA_PARAMETERS = MappingProxyType({"do_copy_in_default_stream": _boolean, "use_ep_level_unified_stream": _boolean})

TORCHSCRIPT_TYPES = frozenset(
    f"TYPE_{name}" for name in ("BOOL", "UINT8", "INT8", "INT16", "INT32", "INT64", "FP16", "FP32", "FP64", "STRING")
)
