"""One defect each: what is broken in the good repository, the one rule that names it, and whether the real server refuses it."""

from collections.abc import Callable
from dataclasses import dataclass

from onnx import TensorProto

from tests.support.repositories import Repository, onnx_linear, onnx_sums, onnx_two_inputs


@dataclass(frozen=True)
class Defect:
    """`model` is the one to load; `refused` None: only a real backend or a GPU could tell."""

    name: str
    rule: str
    model: str
    refused: bool | None
    make: Callable[[Repository], object]


def _edit(model: str, old: str, new: str) -> Callable[[Repository], object]:
    return lambda r: r.edit(model, old, new)


def _cut(model: str, pattern: str) -> Callable[[Repository], object]:
    return lambda r: r.cut(model, pattern)


def _add(model: str, text: str) -> Callable[[Repository], object]:
    return lambda r: r.add(model, text)


def _both(*changes: Callable[[Repository], object]) -> Callable[[Repository], object]:
    return lambda r: [change(r) for change in changes]


def _other_model(content: bytes) -> Callable[[Repository], object]:
    return lambda r: [r.write(f"classifier/{version}/model.onnx", content) for version in (1, 2)]


def _tensorrt(key: str, value: str) -> Callable[[Repository], object]:
    """Serve the classifier by TensorRT within ONNX Runtime, with one option."""
    option = f'name: "tensorrt" parameters {{ key: "{key}" value: "{value}" }}'
    accelerator = f"optimization {{ execution_accelerators {{ gpu_execution_accelerator {{ {option} }} }} }}"
    return _both(_edit("classifier", "kind: KIND_CPU", "kind: KIND_GPU"), _add("classifier", accelerator))


_C, _P, _E, _T = "classifier", "pre", "pipeline", "talk"
_STEP_1 = 'output_map { key: "image" value: "scaled" }'

DEFECTS = (
    # files and folders
    Defect("no-config-python", "T101", _T, True, lambda r: r.remove("talk/config.pbtxt")),
    Defect("no-config-onnx", "T102", "total", True, lambda r: r.remove("total/config.pbtxt")),
    Defect("other-name", "T110", _C, True, _edit(_C, 'name: "classifier"', 'name: "classifier-v2"')),
    Defect("no-version-folder", "T111", _C, True, lambda r: [r.remove("classifier/1"), r.remove("classifier/2")]),
    Defect("v1", "T111", _T, True, lambda r: r.rename("talk/1", "talk/v1")),
    Defect("01", "T111", _T, True, lambda r: r.rename("talk/1", "talk/01")),
    Defect("v2-beside-1", "T112", _T, False, lambda r: r.write("talk/v2/model.py", "")),
    Defect("ensemble-without-version", "T111", _E, True, lambda r: r.remove("pipeline/1")),
    Defect("ensemble-empty-version", "T116", _E, False, lambda r: r.remove("pipeline/1/.keep")),
    Defect("no-model-file", "T113", _T, None, lambda r: r.rename("talk/1/model.py", "talk/1/main.py")),
    Defect("onnx-under-another-name", "T113", "total", True, lambda r: r.rename("total/1/model.onnx", "total/1/net.onnx")),
    Defect("default-filename-missing", "T113", "total", True, _add("total", 'default_model_filename: "net.onnx"')),
    Defect("policy-names-no-version", "T114", _C, False, _edit(_C, "{ all {} }", "{ specific { versions: [ 2, 7 ] } }")),
    Defect("latest-of-none", "T220", _C, True, _edit(_C, "{ all {} }", "{ latest { num_versions: 0 } }")),
    Defect("stray-folder", "T115", "notes", True, lambda r: r.write("notes/todo.txt", "buy milk")),
    Defect("label-file-missing", "T117", _C, True, lambda r: r.remove("classifier/labels.txt")),
    Defect("warmup-file-missing", "T117", _C, True, lambda r: r.remove("classifier/warmup/image.raw")),
    Defect("model-file-outside", "T118", _T, False, _add(_T, 'default_model_filename: "../../pre/1/model.py"')),
    Defect("absolute-model-file", "T113", "total", True, _add("total", 'default_model_filename: "/dev/zero"')),
    Defect("model-file-of-a-gpu-outside", "T118", "total", False, _add("total", 'default_model_filename: "model.onnx" cc_model_filenames { key: "8.6" value: "../model.onnx" }')),
    Defect("label-file-outside", "T118", _C, False, _edit(_C, '"labels.txt"', '"../pre/config.pbtxt"')),
    Defect("warmup-file-outside", "T118", _C, False, _edit(_C, '"image.raw"', '"../warmup/image.raw"')),
    Defect("label-file-of-a-long-name", "T117", _C, True, _edit(_C, '"labels.txt"', f'"{"x" * 300}"')),
    Defect("environment-missing", "T117", _T, True, _add(_T, 'parameters { key: "EXECUTION_ENV_PATH" value: { string_value: "$$TRITON_MODEL_DIRECTORY/env.tar.gz" } }')),
    Defect("config-in-version-folder", "T119", _T, True, lambda r: r.rename("talk/config.pbtxt", "talk/1/config.pbtxt")),
    Defect("config-in-version-folder-too", "T119", _T, False, lambda r: r.write("talk/1/config.pbtxt", "max_batch_size: 9")),
    # what the parser refuses
    Defect("brace-missing", "T103", _C, True, _add(_C, "optimization { cuda { graphs: false }")),
    Defect("colon-missing", "T103", _C, True, _edit(_C, "max_batch_size: 8", "max_batch_size 8")),
    Defect("byte-order-mark", "T103", _C, True, _edit(_C, 'name: "classifier"', '\ufeffname: "classifier"')),
    Defect("unknown-field", "T104", _C, True, _edit(_C, "max_batch_size: 8", "max_batchsize: 8")),
    Defect("unknown-field-in-message", "T104", _C, True, _edit(_C, "preferred_batch_size:", "preferred_batch_sizes:")),
    Defect("unknown-type", "T105", _C, True, _edit(_C, 'name: "scores"\n    data_type: TYPE_FP32', 'name: "scores"\n    data_type: TYPE_FLOAT32')),
    Defect("unknown-kind", "T105", _C, True, _edit(_C, "KIND_CPU", "KIND_CUDA")),
    Defect("number-as-text", "T106", _C, True, _edit(_C, "max_batch_size: 8", 'max_batch_size: "8"')),
    Defect("number-with-fraction", "T106", _C, True, _edit(_C, "dims: [ 3 ]", "dims: [ 3.5 ]")),
    Defect("text-without-quotes", "T106", _C, True, _edit(_C, 'name: "classifier"', "name: classifier")),
    Defect("two-schedulers", "T107", _C, True, _add(_C, "sequence_batching {}")),
    Defect("two-names", "T107", _C, True, _add(_C, 'name: "classifier"')),
    # fields
    Defect("negative-batch", "T201", _P, True, _edit(_P, "max_batch_size: 8", "max_batch_size: -1")),
    Defect("platform-typo", "T202", _C, True, _edit(_C, "onnxruntime_onnx", "onnxruntime_onxx")),
    Defect("backend-misnamed", "T202", "total", True, _edit("total", '"onnxruntime"', '"onnx"')),
    Defect("platform-against-backend", "T203", _C, True, _edit(_C, 'platform: "onnxruntime_onnx"', 'platform: "onnxruntime_onnx"\nbackend: "pytorch"\ndefault_model_filename: "model.onnx"')),
    Defect("preferred-above-max", "T205", _C, True, _edit(_C, "[ 4, 8 ]", "[ 4, 16 ]")),
    Defect("preferred-of-0", "T205", _C, True, _edit(_C, "[ 4, 8 ]", "[ 0, 8 ]")),
    Defect("batching-without-batch", "T206", "fixed", False, _add("fixed", "dynamic_batching { }")),
    Defect("preferred-without-batch", "T206", "fixed", True, _add("fixed", "dynamic_batching { preferred_batch_size: 4 }")),
    Defect("tensor-without-name", "T207", _T, True, _edit(_T, 'name: "reply", ', "")),
    Defect("tensor-without-type", "T207", _T, True, _edit(_T, 'name: "reply", data_type: TYPE_STRING', 'name: "reply"')),
    Defect("tensor-without-dims", "T207", _T, True, _edit(_T, 'data_type: TYPE_STRING, dims: [ 1 ]', "data_type: TYPE_STRING")),
    Defect("dimension-of-0", "T208", _T, True, _edit(_T, "dims: [ 1 ]", "dims: [ 0 ]")),
    Defect("dimension-of-minus-2", "T208", _T, True, _edit(_T, "dims: [ 1 ]", "dims: [ -2 ]")),
    Defect("input-twice", "T209", _T, None, _edit(_T, 'name: "hint"', 'name: "text"')),
    Defect("reshape-loses-elements", "T210", _P, True, _edit(_P, 'name: "image" data_type: TYPE_FP32 dims: 4', 'name: "image" data_type: TYPE_FP32 dims: 4 reshape { shape: [ 2, 3 ] }')),
    Defect("empty-reshape-without-batch", "T210", "stream", True, _edit("stream", 'name: "n" data_type: TYPE_INT32 dims: [ 1 ]', 'name: "n" data_type: TYPE_INT32 dims: [ 1 ] reshape { }')),
    Defect("instances-of-0", "T211", _C, False, _edit(_C, "count: 1", "count: 0")),
    Defect("instances-of-minus-1", "T211", _C, False, _edit(_C, "count: 1", "count: -1")),
    Defect("instances-of-ensemble", "T212", _E, True, _add(_E, "instance_group { kind: KIND_CPU }")),
    Defect("gpus-on-cpu", "T213", _C, True, _edit(_C, "kind: KIND_CPU", "kind: KIND_CPU gpus: [ 0 ]")),
    Defect("default-priority-outside", "T214", _C, True, _edit(_C, "default_priority_level: 1", "default_priority_level: 3")),
    Defect("no-default-priority", "T214", _C, True, _cut(_C, r"  default_priority_level: 1\n")),
    Defect("policy-of-unknown-priority", "T214", _C, True, _edit(_C, "key: 2", "key: 5")),
    Defect("warmup-of-unknown-input", "T215", _C, False, _edit(_C, 'key: "image"\n', 'key: "image"\n      value: { data_type: TYPE_FP32 dims: [ 4 ] zero_data: true }\n    }\n    inputs {\n      key: "picture"\n')),
    Defect("warmup-of-other-type", "T215", _C, True, _edit(_C, "data_type: TYPE_FP32 dims: [ 4 ] input_data_file", "data_type: TYPE_INT32 dims: [ 4 ] input_data_file")),
    Defect("warmup-of-other-shape", "T215", _C, True, _edit(_C, 'dims: [ 4 ] input_data_file: "image.raw"', "dims: [ 5 ] zero_data: true")),
    Defect("warmup-batch-above-max", "T215", _C, True, _edit(_C, "batch_size: 2", "batch_size: 9")),
    Defect("warmup-file-too-short", "T215", _C, True, lambda r: r.write("classifier/warmup/image.raw", b"1234")),
    Defect("tensorrt-on-cpu", "T216", _C, False, _add(_C, 'optimization { execution_accelerators { gpu_execution_accelerator { name: "tensorrt" } } }')),
    Defect("unknown-accelerator", "T216", "total", None, _edit("total", '"openvino"', '"openvin"')),
    Defect("cuda-graphs-on-cpu", "T216", _C, False, _add(_C, "optimization { cuda { graphs: true } }")),
    Defect("cache-of-decoupled", "T217", "stream", True, _add("stream", "response_cache { enable: true }")),
    Defect("nhwc-with-one-dim", "T218", _P, True, _edit(_P, 'name: "raw"', 'name: "raw" format: FORMAT_NHWC')),
    Defect("control-without-values", "T219", _T, True, _edit(_T, "int32_false_true: [ 0, 1 ]", "")),
    Defect("control-with-one-value", "T219", _T, True, _edit(_T, "[ 0, 1 ]", "[ 1 ]")),
    Defect("control-twice", "T219", _T, True, _edit(_T, "kind: CONTROL_SEQUENCE_CORRID data_type: TYPE_UINT64", "kind: CONTROL_SEQUENCE_START int32_false_true: [ 0, 1 ]")),
    Defect("ragged-without-batch", "T221", "stream", None, _edit("stream", 'name: "n"', 'name: "n" allow_ragged_batch: true')),
    Defect("warmup-without-batch-size", "T215", _C, False, _edit(_C, "    batch_size: 2\n", "")),
    Defect("warmup-without-dims", "T215", _C, True, _edit(_C, 'dims: [ 4 ] input_data_file: "image.raw"', "zero_data: true")),
    Defect("cache-of-sequences", "T217", _T, True, _add(_T, "response_cache { enable: true }")),
    Defect("control-tensor-twice", "T219", _T, True, _edit(_T, 'name: "id"', 'name: "start"')),
    Defect("correlation-id-of-float", "T219", _T, True, _edit(_T, "TYPE_UINT64", "TYPE_FP32")),
    Defect("cpu-tensors-true", "T222", _T, True, _add(_T, 'parameters { key: "FORCE_CPU_ONLY_INPUT_TENSORS" value: { string_value: "true" } }')),
    Defect("threads-auto", "T222", _C, None, _add(_C, 'parameters { key: "intra_op_thread_count" value: { string_value: "auto" } }')),
    Defect("arena-yes", "T222", _C, None, _add(_C, 'parameters { key: "enable_mem_arena" value: { string_value: "yes" } }')),
    Defect("parallel-mode-by-name", "T222", _C, None, _add(_C, 'parameters { key: "execution_mode" value: { string_value: "parallel" } }')),
    Defect("unknown-tensorrt-option", "T222", _C, None, _tensorrt("trt_fp16_enable", "1")),
    Defect("tensorrt-precision-half", "T222", _C, None, _tensorrt("precision_mode", "half")),
    Defect("tensorrt-workspace-in-words", "T222", _C, None, _tensorrt("max_workspace_size_bytes", "all")),
    Defect("batch-input-without-source", "T223", _P, True, _add(_P, 'batch_input { kind: BATCH_ELEMENT_COUNT target_name: "count" data_type: TYPE_FP32 }')),
    Defect("batch-input-of-unknown-source", "T223", _P, True, _add(_P, 'batch_input { kind: BATCH_ELEMENT_COUNT target_name: "count" data_type: TYPE_FP32 source_input: "row" }')),
    Defect("batch-input-of-int64", "T223", _P, True, _add(_P, 'batch_input { kind: BATCH_ELEMENT_COUNT target_name: "count" data_type: TYPE_INT64 source_input: "raw" }')),
    Defect("batch-output-on-unknown-target", "T223", _P, True, _add(_P, 'batch_output { kind: BATCH_SCATTER_WITH_INPUT_SHAPE target_name: "picture" source_input: "raw" }')),
    Defect("batch-output-twice", "T223", _P, True, _add(_P, 'batch_output { kind: BATCH_SCATTER_WITH_INPUT_SHAPE target_name: [ "image", "image" ] source_input: "raw" }')),
    Defect("shape-tensor-of-onnx", "T224", "fixed", True, _edit("fixed", 'name: "x"', 'name: "x", is_shape_tensor: true')),
    Defect("profile-of-onnx", "T224", _C, True, _edit(_C, "kind: KIND_CPU", 'kind: KIND_CPU profile: "0"')),
    Defect("resource-global-and-of-device", "T225", _T, None, _edit(_T, "{ kind: KIND_CPU }", '{ kind: KIND_CPU rate_limiter { resources [ { name: "R" global: true count: 1 }, { name: "R" count: 1 } ] } }')),
    Defect("resource-of-two-models", "T225", "stream", None, lambda r: [r.edit(name, "kind: KIND_CPU", f'kind: KIND_CPU rate_limiter {{ resources {{ name: "R" {text} count: 1 }} }}') for name, text in (("stream", "global: true"), ("pre", ""))]),
    Defect("ordering-with-priorities", "T226", _C, True, _edit(_C, "  priority_levels: 2", "  preserve_ordering: true\n  priority_levels: 2")),
    Defect("ordering-with-delay", "T226", "total", True, _add("total", "dynamic_batching { preserve_ordering: true default_queue_policy { timeout_action: DELAY default_timeout_microseconds: 9 } }")),
    # the model file
    Defect("control-not-in-the-model", "T301", "sums", None, lambda r: _sums(r, 'name: "START"', 'name: "BEGIN"')),
    Defect("state-not-in-the-model", "T301", "sums", None, lambda r: _sums(r, 'output_name: "state_out"', 'output_name: "state_new"')),
    Defect("control-of-other-type", "T304", "sums", None, lambda r: _sums(r, "fp32_false_true", "int32_false_true")),
    Defect("state-of-other-type", "T304", "sums", None, lambda r: _sums(r, 'output_name: "state_out" data_type: TYPE_FP32', 'output_name: "state_out" data_type: TYPE_FP64')),
    Defect("control-not-declared", "T302", "sums", None, lambda r: (_sums(r), r.cut("sums", r"  control_input [^\n]*\n"))),
    Defect("ragged-input-of-rank-2", "T305", "total", None, lambda r: _ragged(r)),
    Defect("optional-without-default", "T302", "fixed", None, _edit("fixed", 'name: "x"', 'name: "x", optional: true')),
    Defect("input-misnamed", "T301", "total", None, _edit("total", 'name: "x"', 'name: "X"')),
    Defect("output-misnamed", "T301", "total", None, _edit("total", 'name: "y"', 'name: "z"')),
    Defect("input-left-out", "T302", "extra", None, lambda r: _extra(r, 'output { name: "norm" data_type: TYPE_FP32 dims: 3 }')),
    Defect("output-left-out", "T303", "extra", None, lambda r: _extra(r, 'input { name: "bias" data_type: TYPE_FP32 dims: 3 }')),
    Defect("type-unlike-the-model", "T304", "total", None, _edit("total", 'name: "x" data_type: TYPE_FP32', 'name: "x" data_type: TYPE_INT32')),
    Defect("model-of-other-type", "T304", _C, None, lambda r: _half(r)),
    Defect("dims-unlike-the-model", "T305", "fixed", None, _edit("fixed", "dims: 2, dims: -1", "dims: 3, dims: -1")),
    Defect("dims-of-other-rank", "T305", "fixed", None, _edit("fixed", "dims: 2, dims: -1", "dims: -1")),
    Defect("batch-in-dims", "T306", "image", None, lambda r: _image(r, "-1, 4")),
    Defect("fixed-batch-in-dims", "T306", "image", None, lambda r: _image(r, "1, 4")),
    Defect("model-of-fixed-batch", "T307", "single", None, lambda r: _single(r)),
    Defect("damaged-model", "T308", "total", None, lambda r: r.write("total/1/model.onnx", b"no onnx at all")),
    Defect("pointer-of-git-lfs", "T308", "total", None, lambda r: r.write("total/1/model.onnx", "version https://git-lfs.github.com/spec/v1\noid sha256:7fc1\nsize 9\n")),
    Defect("external-data-missing", "T308", "total", None, lambda r: _without_data(r)),
    Defect("external-data-outside", "T308", "total", None, lambda r: _data_at(r, "../../../outside.bin")),
    Defect("external-data-in-a-device", "T308", "total", None, lambda r: _data_at(r, "/dev/zero")),
    Defect("text-that-is-not-utf8", "T308", "total", None, lambda r: r.write("total/1/model.onnx", onnx_linear().replace(b"MatMul", b"Mat\xfful"))),
    Defect("python-nested-too-deeply", "T310", _T, None, lambda r: r.write("talk/1/model.py", "x = " + "-" * 100_000 + "1\n")),
    Defect("python-syntax", "T310", _T, None, lambda r: r.write("talk/1/model.py", "class TritonPythonModel(:\n")),
    Defect("python-without-class", "T310", _T, None, lambda r: r.write("talk/1/model.py", "class Model:\n    pass\n")),
    Defect("python-without-execute", "T310", _T, None, lambda r: r.write("talk/1/model.py", "class TritonPythonModel:\n    def run(self): ...\n")),
    Defect("python-asks-for-other-input", "T311", _P, False, lambda r: r.edit_code("pre/1/model.py", '"raw"', '"pixels"')),
    Defect("unsigned-of-torchscript", "T312", "script", None, lambda r: _script(r, "TYPE_FP32", "TYPE_UINT32")),
    Defect("number-as-argument", "T313", "script", None, lambda r: _script(r, source="def forward(self, x: Tensor, k: float) -> Tensor:\n  return torch.mul(x, k)")),
    Defect("dict-as-result", "T313", "script", None, lambda r: _script(r, source='def forward(self, x: Tensor) -> Dict[str, Tensor]:\n  return {"y": x}')),
    Defect("decoupled-returns-list", "T314", "stream", False, lambda r: r.write("stream/1/model.py", "class TritonPythonModel:\n    def execute(self, requests):\n        answers = []\n        return answers\n")),
    Defect("handler-of-torchserve", "T316", _T, False, lambda r: r.write("talk/1/mar/MAR-INF/MANIFEST.json", '{"model": {"handler": "image_classifier"}}')),
    Defect("calls-missing-model", "T315", _P, False, lambda r: r.edit_code("pre/1/model.py", "        answers = []", '        answers = []\n        pb_utils.InferenceRequest(model_name="classify", inputs=[], requested_output_names=[])')),
    # ensembles
    Defect("no-steps", "T401", _E, True, _cut(_E, r"  step \[.*\]\n(?=})")),
    Defect("no-scheduling", "T401", _E, True, _cut(_E, r"ensemble_scheduling \{.*")),
    Defect("unknown-member", "T402", _E, True, _edit(_E, 'model_name: "pre"', 'model_name: "prepare"')),
    Defect("unknown-version", "T403", _E, True, _edit(_E, "model_version: 2", "model_version: 5")),
    Defect("wrong-input-key", "T404", _E, True, _edit(_E, 'input_map { key: "raw"', 'input_map { key: "raw" value: "RAW" }\n input_map { key: "raws"')),
    Defect("wrong-output-key", "T404", _E, True, _edit(_E, _STEP_1, _STEP_1 + ' output_map { key: "picture" value: "spare" }')),
    Defect("input-not-mapped", "T405", _E, True, _edit(_E, 'input_map { key: "image" value: "scaled" }', "")),
    Defect("dangling-tensor", "T406", _E, True, _edit(_E, 'input_map { key: "image" value: "scaled" }', 'input_map { key: "image" value: "Scaled" }')),
    Defect("output-nobody-writes", "T406", _E, True, _edit(_E, 'value: "SCORES"', 'value: "scores"')),
    Defect("tensor-written-twice", "T407", _E, True, _edit(_E, _STEP_1, _STEP_1 + "\n    },\n    {\n      model_name: \"pre\"\n      model_version: -1\n      input_map { key: \"raw\" value: \"RAW\" }\n      " + _STEP_1)),
    Defect("types-differ", "T408", _E, True, _edit(_E, "TYPE_UINT8", "TYPE_INT8")),
    Defect("output-type-differs", "T408", _E, True, _edit(_E, 'name: "SCORES" data_type: TYPE_FP32', 'name: "SCORES" data_type: TYPE_FP64')),
    Defect("shapes-differ", "T409", _E, True, _edit(_E, "dims: [ 4 ]", "dims: [ 2, 2 ]")),
    Defect("shapes-differ-inside", "T409", _E, True, _edit(_P, 'data_type: TYPE_FP32 dims: 4', "data_type: TYPE_FP32 dims: 5")),
    Defect("batch-above-member", "T410", _E, True, _edit(_E, "max_batch_size: 8", "max_batch_size: 16")),
    Defect("no-batch-over-batching-members", "T411", _E, False, _both(_edit(_E, "max_batch_size: 8", "max_batch_size: 0"), _edit(_E, "dims: [ 4 ]", "dims: [ 1, 4 ]"), _edit(_E, "dims: [ 3 ]", "dims: [ 1, 3 ]"))),
    Defect("circle", "T412", _E, True, lambda r: _circle(r)),
    Defect("steps-into-itself", "T412", _E, True, lambda r: r.write("pipeline/config.pbtxt", ENSEMBLE.format(_step("pipeline", {"IN": "IN"}, {"OUT": "OUT"})))),
    Defect("two-ensembles-in-a-circle", "T412", "inner", True, lambda r: _inner(r)),
    Defect("two-decoupled-models-meet", "T414", "joined", True, lambda r: _joined(r, "stream", "twice", second="stream2")),
    Defect("branch-after-decoupled", "T414", "joined", True, lambda r: _joined(r, "stream", "twice")),
    Defect("optimization-of-ensemble", "T415", _E, True, _add(_E, "optimization { priority: PRIORITY_MAX }")),
    Defect("warmup-of-ensemble", "T415", _E, True, _add(_E, 'model_warmup { name: "w" batch_size: 1 inputs { key: "RAW" value: { data_type: TYPE_UINT8 dims: 4 zero_data: true } } }')),
    Defect("step-output-unused", "T413", _E, True, lambda r: _spare(r)),
    Defect("input-unused", "T413", _E, True, _edit(_E, "dims: [ 4 ] } ]", 'dims: [ 4 ] }, { name: "SPARE" data_type: TYPE_FP32 dims: [ 1 ] } ]')),
)  # fmt: skip


def _extra(r: Repository, line: str) -> None:
    r.write("extra/1/model.onnx", onnx_two_inputs())
    declared = (
        'input { name: "image" data_type: TYPE_FP32 dims: 4 }\noutput { name: "scores" data_type: TYPE_FP32 dims: 3 }\n'
    )
    r.write("extra/config.pbtxt", f'backend: "onnxruntime"\nmax_batch_size: 2\n{declared}{line}\n')


def _spare(r: Repository) -> None:
    """Give `pre` a second output, which the ensemble names and nobody takes."""
    r.add("pre", 'output { name: "mean" data_type: TYPE_FP32 dims: 1 }')
    r.edit("pipeline", _STEP_1, _STEP_1 + ' output_map { key: "mean" value: "spare" }')


def _half(r: Repository) -> None:
    r.write("half/1/model.onnx", onnx_linear(dtype=TensorProto.DOUBLE))
    tensors = (
        'input { name: "image" data_type: TYPE_FP64 dims: 4 }\noutput { name: "scores" data_type: TYPE_FP32 dims: 3 }\n'
    )
    r.write("half/config.pbtxt", f'backend: "onnxruntime"\nmax_batch_size: 2\n{tensors}')


def _image(r: Repository, dims: str) -> None:
    r.write("image/1/model.onnx", onnx_linear())
    tensors = f'input {{ name: "image" data_type: TYPE_FP32 dims: [ {dims} ] }}\noutput {{ name: "scores" data_type: TYPE_FP32 dims: 3 }}\n'
    r.write("image/config.pbtxt", f'backend: "onnxruntime"\nmax_batch_size: 2\n{tensors}')


def _single(r: Repository) -> None:
    """Write a model whose input alone varies in its batch."""
    r.write("single/1/model.onnx", onnx_linear(batch=1))
    tensors = (
        'input { name: "image" data_type: TYPE_FP32 dims: 4 }\noutput { name: "scores" data_type: TYPE_FP32 dims: 3 }\n'
    )
    r.write("single/config.pbtxt", f'backend: "onnxruntime"\nmax_batch_size: 2\n{tensors}')


def _without_data(r: Repository) -> None:
    import onnx

    path = r.folder / "total/1/model.onnx"
    model = onnx.load_from_string(onnx_linear())
    path.unlink()
    onnx.save_model(model, str(path), save_as_external_data=True, location="weights.bin", size_threshold=0)
    (path.parent / "weights.bin").unlink()


def _data_at(r: Repository, location: str) -> None:
    import onnx

    model = onnx.load_from_string(onnx_linear())
    for tensor in model.graph.initializer:
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value=location)
    r.write("total/1/model.onnx", model.SerializeToString())


def _circle(r: Repository) -> None:
    step = 'step {{ model_name: "pre" model_version: -1 input_map {{ key: "raw" value: "{}" }} output_map {{ key: "image" value: "{}" }} }}'
    tensor = 'name: "raw" data_type: TYPE_FP32 dims: 4'
    r.edit("pre", 'name: "raw" data_type: TYPE_UINT8 dims: 4', tensor)
    r.write(
        "pipeline/config.pbtxt",
        'platform: "ensemble"\nmax_batch_size: 8\ninput { name: "IN" data_type: TYPE_FP32 dims: 4 }\n'
        'output { name: "OUT" data_type: TYPE_FP32 dims: 4 }\nensemble_scheduling {\n'
        + "\n".join(step.format(a, b) for a, b in (("IN", "OUT"), ("one", "two"), ("two", "one")))
        + "\n}\n",
    )


SUMS = """\
backend: "onnxruntime"
max_batch_size: 4
input { name: "x" data_type: TYPE_FP32 dims: 2 }
output { name: "y" data_type: TYPE_FP32 dims: 2 }
sequence_batching {
  control_input { name: "START" control { kind: CONTROL_SEQUENCE_START fp32_false_true: [ 0, 1 ] } }
  state { input_name: "state_in" output_name: "state_out" data_type: TYPE_FP32 dims: 2 }
}
"""


def _sums(r: Repository, old: str = "", new: str = "") -> None:
    """Write a sequence model with a control and a state, which no client sends."""
    r.write("sums/1/model.onnx", onnx_sums())
    assert not old or SUMS.count(old) == 1
    r.write("sums/config.pbtxt", SUMS.replace(old, new) if old else SUMS)


def _ragged(r: Repository) -> None:
    """Serve a model of rows as one of ragged rows."""
    r.write("total/1/model.onnx", onnx_linear())
    tensors = (
        'input { name: "image" data_type: TYPE_FP32 dims: -1 allow_ragged_batch: true }\n'
        'output { name: "scores" data_type: TYPE_FP32 dims: 3 }\n'
    )
    r.write("total/config.pbtxt", f'backend: "onnxruntime"\nmax_batch_size: 2\n{tensors}')


SCRIPT = """\
backend: "pytorch"
max_batch_size: 4
input { name: "x" data_type: TYPE_FP32 dims: 3 }
output { name: "OUTPUT__0" data_type: TYPE_INT64 dims: 3 }
"""


_RELU = "def forward(self, x: Tensor) -> Tensor:\n  return torch.relu(x)"


def write_script(r: Repository, source: str = _RELU) -> None:
    """Write a TorchScript model with this forward, and a configuration for one of [batch, 3]."""
    import torch

    name = f"Script{sum(map(ord, source))}"  # torch takes one definition of forward a class
    module = type(torch.jit.ScriptModule)(name, (torch.jit.ScriptModule,), {})()
    module.define(f"{source}\n")
    path = r.folder / "script/1/model.pt"
    path.parent.mkdir(parents=True)
    module.save(str(path))
    r.write("script/config.pbtxt", SCRIPT)


def _script(r: Repository, old: str = "", new: str = "", *, source: str = _RELU) -> None:
    write_script(r, source)
    if old:
        r.edit("script", old, new)


ENSEMBLE = """\
platform: "ensemble"
input {{ name: "IN" data_type: TYPE_INT32 dims: 1 }}
output {{ name: "OUT" data_type: TYPE_INT32 dims: 1 }}
ensemble_scheduling {{
{}
}}
"""


def _step(model: str, inputs: dict[str, str], outputs: dict[str, str]) -> str:
    maps = "".join(f' input_map {{ key: "{key}" value: "{name}" }}' for key, name in inputs.items())
    maps += "".join(f' output_map {{ key: "{key}" value: "{name}" }}' for key, name in outputs.items())
    return f'  step {{ model_name: "{model}" model_version: -1{maps} }}'


def _inner(r: Repository) -> None:
    """Write two ensembles of which each is a step of the other."""
    for name, other in (("inner", "outer"), ("outer", "inner")):
        r.write(f"{name}/config.pbtxt", ENSEMBLE.format(_step(other, {"IN": "IN"}, {"OUT": "OUT"})))
        r.write(f"{name}/1/.keep", "")


def _joined(r: Repository, decoupled: str, join: str, *, second: str = "") -> None:
    """Write an ensemble whose last step takes an output of a decoupled model, and the request or another decoupled model's output."""
    for extra in filter(None, [second]):
        for name in ("config.pbtxt", "1/model.py"):
            r.write(
                f"{extra}/{name}", (r.folder / decoupled / name).read_text().replace(f'"{decoupled}"', f'"{extra}"')
            )
    tensor = '{ name: "%s" data_type: TYPE_INT32 dims: [ 1 ] }'
    two = f'backend: "python"\ninput [ {tensor % "a"}, {tensor % "b"} ]\noutput {tensor % "c"}\ninstance_group {{ kind: KIND_CPU }}\n'
    r.write(f"{join}/config.pbtxt", two)
    r.write(f"{join}/1/model.py", "class TritonPythonModel:\n    def execute(self, requests):\n        return []\n")
    steps = [_step(decoupled, {"n": "IN"}, {"item": "one"})]
    steps += [_step(second, {"n": "IN"}, {"item": "two"})] if second else []
    steps += [_step(join, {"a": "one", "b": "two" if second else "IN"}, {"c": "OUT"})]
    r.write("joined/config.pbtxt", ENSEMBLE.format("\n".join(steps)))
    r.write("joined/1/.keep", "")
