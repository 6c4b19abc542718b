"""A good Triton repository as people write it by hand, and the tools to break one thing in it."""

import re
import shutil
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

CLASSIFIER = """\
# the classifier; both versions are served
name: "classifier"
platform: "onnxruntime_onnx"
max_batch_size: 8  # as exported
input [
  {
    name: "image"
    data_type: TYPE_FP32
    dims: [ 4 ]
  }
]
output [
  {
    name: "scores"
    data_type: TYPE_FP32
    dims: [ 3 ]
    label_filename: "labels.txt"
  }
]
version_policy: { all {} }
instance_group [ { count: 1 kind: KIND_CPU } ]
dynamic_batching {
  preferred_batch_size: [ 4, 8 ]
  max_queue_delay_microseconds: 100
  priority_levels: 2
  default_priority_level: 1
  priority_queue_policy {
    key: 2
    value: { timeout_action: REJECT, default_timeout_microseconds: 1000000 }
  }
}
model_warmup [
  {
    name: "real"
    batch_size: 2
    inputs {
      key: "image"
      value: { data_type: TYPE_FP32 dims: [ 4 ] input_data_file: "image.raw" }
    }
  }
]
"""

PRE = """\
backend: "python"
max_batch_size: 8
input { name: "raw" data_type: TYPE_UINT8 dims: 4 }
output { name: "image" data_type: TYPE_FP32 dims: 4 }
instance_group { kind: KIND_CPU }
"""
PRE_CODE = '''\
"""Scale raw values to 0..1."""

import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def execute(self, requests):
        answers = []
        for request in requests:
            raw = pb_utils.get_input_tensor_by_name(request, "raw").as_numpy()
            answers.append(pb_utils.InferenceResponse([pb_utils.Tensor("image", raw.astype(np.float32) / 255)]))
        return answers
'''

PIPELINE = """\
name: "pipeline"
platform: "ensemble"
max_batch_size: 8
input [ { name: "RAW" data_type: TYPE_UINT8 dims: [ 4 ] } ]
output [ { name: "SCORES" data_type: TYPE_FP32 dims: [ 3 ] } ]
ensemble_scheduling {
  step [
    {
      model_name: "pre"
      model_version: -1
      input_map { key: "raw" value: "RAW" }
      output_map { key: "image" value: "scaled" }
    },
    {
      model_name: "classifier"
      model_version: 2
      input_map { key: "image" value: "scaled" }
      output_map { key: "scores" value: "SCORES" }
    }
  ]
}
"""

TALK = """\
name: "talk"
backend: "python"
max_batch_size: 4
input [
  { name: "text", data_type: TYPE_STRING, dims: [ 1 ] },
  { name: "hint", data_type: TYPE_STRING, dims: [ -1 ], optional: true }
]
output [ { name: "reply", data_type: TYPE_STRING, dims: [ -1 ] } ]
instance_group [ { kind: KIND_CPU } ]
sequence_batching {
  max_sequence_idle_microseconds: 5000000
  control_input [
    {
      name: "start"
      control [ { kind: CONTROL_SEQUENCE_START int32_false_true: [ 0, 1 ] } ]
    },
    {
      name: "id"
      control [ { kind: CONTROL_SEQUENCE_CORRID data_type: TYPE_UINT64 } ]
    }
  ]
  oldest { max_candidate_sequences: 4 preferred_batch_size: [ 2 ] }
}
"""
STREAM = """\
name: "stream"
backend: "python"
max_batch_size: 0
input { name: "n" data_type: TYPE_INT32 dims: [ 1 ] }
output { name: "item" data_type: TYPE_INT32 dims: [ 1 ] }
model_transaction_policy { decoupled: true }
instance_group { kind: KIND_CPU }
parameters { key: "LIMIT" value: { string_value: "10" } }
"""
PYTHON = "class TritonPythonModel:\n    def execute(self, requests):\n        return []\n"
DECOUPLED = PYTHON.replace("[]", "None")

TOTAL = """\
name: "total"
backend: "onnxruntime"
max_batch_size: 4
input { name: "x" data_type: TYPE_FP32 dims: [ 1 ] reshape { shape: [ ] } }
output { name: "y" data_type: TYPE_FP32 dims: [ 1 ] reshape { shape: [ ] } }
instance_group { kind: KIND_CPU }
optimization {
  execution_accelerators {
    cpu_execution_accelerator: [ { name: "openvino" } ]
  }
}
"""
FIXED = """\
name: 'fixed'
platform: "onnxruntime_onnx"
max_batch_size: 0
input: { name: "x", data_type: TYPE_INT64, dims: 2, dims: -1 };
output: < name: "y", data_type: TYPE_INT64, dims: [2, -1] >;
output: < name: "size", data_type: TYPE_INT64, dims: 1 >;
instance_group: [{kind: KIND_CPU}]
version_policy { specific { versions: 3 } }
"""


def write_good(folder: Path) -> Path:
    """Write the repository."""
    linear = onnx_linear()
    for version in (1, 2):
        _write(folder / "classifier" / str(version) / "model.onnx", linear)
    _write(folder / "classifier/config.pbtxt", CLASSIFIER)
    _write(folder / "classifier/labels.txt", "red\ngreen\nblue\n")
    _write(folder / "classifier/warmup/image.raw", np.zeros(4, np.float32).tobytes())
    _write(folder / "pre/config.pbtxt", PRE)
    _write(folder / "pre/1/model.py", PRE_CODE)
    _write(folder / "pipeline/config.pbtxt", PIPELINE)
    _write(folder / "pipeline/1/.keep", "")
    for name, text, code in (("talk", TALK, PYTHON), ("stream", STREAM, DECOUPLED)):
        _write(folder / name / "config.pbtxt", text)
        _write(folder / name / "1/model.py", code)
    _write(folder / "total/config.pbtxt", TOTAL)
    _write(folder / "total/1/model.onnx", onnx_identity())
    _write(folder / "fixed/config.pbtxt", FIXED)
    _write(folder / "fixed/3/model.onnx", onnx_fixed())
    _write(folder / "README.md", "files beside the models do no harm\n")
    return folder


def onnx_linear(batch: int | str = "batch", dtype: int = TensorProto.FLOAT) -> bytes:
    """Return a model image[batch, 4] -> scores[batch, 3]."""
    weight = np.arange(12).reshape(4, 3).astype(helper.tensor_dtype_to_np_dtype(dtype))
    return _model(
        [helper.make_node("MatMul", ["image", "weight"], ["scores"])],
        [helper.make_tensor_value_info("image", dtype, [batch, 4])],
        [helper.make_tensor_value_info("scores", dtype, [batch, 3])],
        [numpy_helper.from_array(weight, "weight")],
    )


def onnx_identity() -> bytes:
    """Return a model x[batch] -> y[batch]: one number for each sample."""
    return _model(
        [helper.make_node("Neg", ["x"], ["y"])],
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch"])],
    )


def onnx_fixed() -> bytes:
    """Return a model x[2, n] -> y[2, n] and the scalar size."""
    return _model(
        [helper.make_node("Neg", ["x"], ["y"]), helper.make_node("Size", ["x"], ["size"])],
        [helper.make_tensor_value_info("x", TensorProto.INT64, [2, "n"])],
        [
            helper.make_tensor_value_info("y", TensorProto.INT64, [2, "n"]),
            helper.make_tensor_value_info("size", TensorProto.INT64, []),
        ],
    )


def onnx_two_inputs() -> bytes:
    """Return a model image + bias -> scores and norm."""
    value = helper.make_tensor_value_info
    return _model(
        [
            helper.make_node("MatMul", ["image", "weight"], ["product"]),
            helper.make_node("Add", ["product", "bias"], ["scores"]),
            helper.make_node("Neg", ["scores"], ["norm"]),
        ],
        [value("image", TensorProto.FLOAT, ["batch", 4]), value("bias", TensorProto.FLOAT, ["batch", 3])],
        [value("scores", TensorProto.FLOAT, ["batch", 3]), value("norm", TensorProto.FLOAT, ["batch", 3])],
        [numpy_helper.from_array(np.ones((4, 3), np.float32), "weight")],
    )


def onnx_sums() -> bytes:
    """Return a model of sequences: x and state_in, with START that clears the state, -> y and state_out."""
    value = helper.make_tensor_value_info
    rows = ["batch", 2]
    return _model(
        [
            helper.make_node("Sub", ["one", "START"], ["kept"]),
            helper.make_node("Mul", ["state_in", "kept"], ["before"]),
            helper.make_node("Add", ["x", "before"], ["y"]),
            helper.make_node("Identity", ["y"], ["state_out"]),
        ],
        [
            value("x", TensorProto.FLOAT, rows),
            value("START", TensorProto.FLOAT, ["batch", 1]),
            value("state_in", TensorProto.FLOAT, rows),
        ],
        [value("y", TensorProto.FLOAT, rows), value("state_out", TensorProto.FLOAT, rows)],
        [numpy_helper.from_array(np.ones((1, 1), np.float32), "one")],
    )


def _model(nodes, inputs, outputs, weights=()) -> bytes:
    graph = helper.make_graph(nodes, "model", inputs, outputs, list(weights))
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString()


def _write(path: Path, content: str | bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())


class Repository:
    """A copy of the good repository, in which one thing is broken."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def edit(self, model: str, old: str, new: str) -> None:
        """Replace a text that stands in the configuration once."""
        path = self.folder / model / "config.pbtxt"
        text = path.read_text()
        assert text.count(old) == 1, (model, old, text.count(old))
        path.write_text(text.replace(old, new))

    def cut(self, model: str, pattern: str) -> None:
        """Take out what a pattern finds once, over lines."""
        path = self.folder / model / "config.pbtxt"
        text, count = re.subn(pattern, "", path.read_text(), flags=re.DOTALL)
        assert count == 1, (model, pattern, count)
        path.write_text(text)

    def add(self, model: str, text: str) -> None:
        """Write behind the configuration."""
        path = self.folder / model / "config.pbtxt"
        path.write_text(path.read_text() + text + "\n")

    def edit_code(self, name: str, old: str, new: str) -> None:
        path = self.folder / name
        assert old in path.read_text()
        path.write_text(path.read_text().replace(old, new))

    def write(self, name: str, content: str | bytes) -> None:
        _write(self.folder / name, content)

    def remove(self, name: str) -> None:
        path = self.folder / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()

    def rename(self, name: str, new: str) -> None:
        (self.folder / name).rename(self.folder / new)
