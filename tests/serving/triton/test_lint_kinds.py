"""What is right and was called wrong, what a fix may touch, and what a server completes by itself."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from optkit.serving.triton.lint import Severity, lint
from tests.support.defects import SCRIPT, SUMS, write_script
from tests.support.repositories import PYTHON, Repository, onnx_linear, onnx_sums, write_good


@pytest.fixture
def repository(tmp_path):
    return Repository(write_good(tmp_path / "models"))


def found(repository, **options):
    return [(f.rule, str(f.severity)) for f in lint(repository.folder, **options).findings]


def model(nodes, inputs, outputs, weights=(), opset=17):
    graph = helper.make_graph(nodes, "g", inputs, outputs, list(weights))
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    onnx.checker.check_model(made, full_check=True)
    return made.SerializeToString()


value = helper.make_tensor_value_info


class TestSuppliedTensors:
    """Point 2: inputs that no client sends."""

    def test_controls_and_states_of_onnx(self, repository):
        repository.write("sums/1/model.onnx", onnx_sums())
        repository.write("sums/config.pbtxt", SUMS)
        assert found(repository) == []

    def test_batch_input_of_onnx(self, repository):
        """Ragged rows: the model gets one row of elements and their numbers, and its output is cut by the server."""
        rows = model(
            [
                helper.make_node("Cast", ["counts"], ["whole"], to=TensorProto.INT64),
                helper.make_node("ReduceSum", ["x"], ["total"], keepdims=1),
                helper.make_node("Reshape", ["whole", "flat"], ["length"]),
                helper.make_node("Expand", ["total", "length"], ["y"]),
            ],
            [value("x", TensorProto.FLOAT, ["n"]), value("counts", TensorProto.FLOAT, ["b"])],
            [value("y", TensorProto.FLOAT, ["m"])],
            [numpy_helper.from_array(np.array([-1], np.int64), "flat")],
        )
        repository.write("ragged/1/model.onnx", rows)
        repository.write(
            "ragged/config.pbtxt",
            'backend: "onnxruntime"\nmax_batch_size: 8\n'
            'input { name: "x" data_type: TYPE_FP32 dims: -1 allow_ragged_batch: true }\n'
            'output { name: "y" data_type: TYPE_FP32 dims: 1 }\n'
            'batch_input { kind: BATCH_ELEMENT_COUNT target_name: "counts" data_type: TYPE_FP32 source_input: "x" }\n'
            'batch_output { kind: BATCH_SCATTER_WITH_INPUT_SHAPE target_name: "y" source_input: "x" }\n',
        )
        assert found(repository) == []
        repository.edit("ragged", '"counts"', '"count"')
        assert ("T301", "error") in found(repository)

    @pytest.mark.parametrize(
        ("control", "expected"),
        [("INPUT__1", []), ("START", [("T309", "error")]), ("INPUT__2", [("T309", "error")])],
    )
    def test_control_of_torchscript(self, repository, control, expected):
        write_script(repository, "def forward(self, x: Tensor, start: Tensor) -> Tensor:\n  return x * start")
        repository.write(
            "script/config.pbtxt",
            SCRIPT.replace('"x"', '"INPUT__0"').replace("TYPE_INT64", "TYPE_FP32")
            + f'sequence_batching {{ control_input {{ name: "{control}" control {{ kind: CONTROL_SEQUENCE_START '
            "fp32_false_true: [ 0, 1 ] } } }\n",
        )
        assert found(repository) == expected

    @pytest.mark.parametrize(("state", "expected"), [("STATE__1", []), ("state", [("T309", "error")])])
    def test_state_of_torchscript(self, repository, state, expected):
        write_script(
            repository, "def forward(self, x: Tensor, s: Tensor) -> Tuple[Tensor, Tensor]:\n  return x + s, x + s"
        )
        repository.write(
            "script/config.pbtxt",
            SCRIPT.replace('"x"', '"INPUT__0"').replace("TYPE_INT64", "TYPE_FP32")
            + f'sequence_batching {{ state {{ input_name: "{state}" output_name: "OUT__1" data_type: TYPE_FP32 dims: 3 }} }}\n',
        )
        assert found(repository) == expected

    def test_control_that_python_reads(self, repository):
        code = PYTHON.replace("return []", 'return [pb_utils.get_input_tensor_by_name(r, "start") for r in requests]')
        repository.write("talk/1/model.py", code)
        assert found(repository) == []
        repository.write("talk/1/model.py", code.replace('"start"', '"begin"'))
        assert found(repository) == [("T311", "error")]


class TestEnsembles:
    """Point 3."""

    def test_member_with_the_batch_in_its_dims(self, repository):
        """The server compares whole shapes where a member does not batch."""
        repository.edit("pre", "max_batch_size: 8", "max_batch_size: 0")
        repository.edit(
            "pre", 'name: "raw" data_type: TYPE_UINT8 dims: 4', 'name: "raw" data_type: TYPE_UINT8 dims: [ -1, 4 ]'
        )
        repository.edit(
            "pre", 'name: "image" data_type: TYPE_FP32 dims: 4', 'name: "image" data_type: TYPE_FP32 dims: [ -1, 4 ]'
        )
        assert found(repository) == []
        repository.edit("pre", "data_type: TYPE_FP32 dims: [ -1, 4 ]", "data_type: TYPE_FP32 dims: [ -1, 5 ]")
        assert found(repository) == [("T409", "error")]

    def test_reshape_of_an_ensemble_input(self, repository):
        """The server passes on the shape that a reshape gives."""
        repository.edit("pipeline", "TYPE_UINT8 dims: [ 4 ]", "TYPE_UINT8 dims: [ 2, 2 ] reshape { shape: [ 4 ] }")
        assert found(repository) == []

    def test_diamond_after_one_decoupled_step(self, repository):
        """Two branches of the same decoupled step come in the same number of responses."""
        tensor = '{ name: "%s" data_type: TYPE_INT32 dims: [ 1 ] }'
        for name, inputs in (("neg", "a"), ("add", "ab")):
            declared = ", ".join(tensor % one for one in inputs)
            repository.write(f"{name}/1/model.py", PYTHON)
            repository.write(
                f"{name}/config.pbtxt", f'backend: "python"\ninput [ {declared} ]\noutput {tensor % "c"}\n'
            )
        step = 'step {{ model_name: "{}" model_version: -1 {} output_map {{ key: "{}" value: "{}" }} }}\n'
        maps = 'input_map {{ key: "{}" value: "{}" }}'.format
        repository.write("both/1/.keep", "")
        repository.write(
            "both/config.pbtxt",
            'platform: "ensemble"\ninput { name: "IN" data_type: TYPE_INT32 dims: 1 }\n'
            'output { name: "OUT" data_type: TYPE_INT32 dims: 1 }\nensemble_scheduling {\n'
            + step.format("stream", maps("n", "IN"), "item", "one")
            + step.format("neg", maps("a", "one"), "c", "two")
            + step.format("add", maps("a", "one") + maps("b", "two"), "c", "OUT")
            + "}\n",
        )
        assert found(repository) == []


class TestCompletion:
    """Point 4: what is completed when the model loads."""

    COMPLETES = PYTHON + "    @staticmethod\n    def auto_complete_config(config):\n        return config\n"

    @pytest.mark.parametrize("code", [COMPLETES, "from base import TritonPythonModel\n"])
    def test_python_without_a_configuration(self, repository, code):
        repository.write("auto/1/model.py", code)
        assert found(repository) == [("T102", "warning")]
        assert found(repository, strict=True) == [("T102", "error")]

    @pytest.mark.parametrize(
        "fields",
        [
            "max_batch_size: 4",
            'input { name: "x" data_type: TYPE_FP32 dims: 1 }',
            'input { name: "x" }\noutput { name: "y" data_type: TYPE_FP32 dims: 1 }',
            'input { name: "x" data_type: TYPE_FP32 }\noutput { name: "y" dims: 1 }',
        ],
    )
    def test_python_that_completes_some_fields(self, repository, fields):
        repository.write("auto/1/model.py", self.COMPLETES)
        repository.write("auto/config.pbtxt", f'backend: "python"\n{fields}\n')
        rules = found(repository)
        assert rules
        assert set(rules) == {("T102", "warning")}
        assert set(found(repository, strict=True)) == {("T102", "error")}

    def test_ensemble_over_a_member_that_completes_itself(self, repository):
        repository.write("pre/1/model.py", self.COMPLETES)
        repository.write("pre/config.pbtxt", 'backend: "python"\ninput { name: "raw" data_type: TYPE_UINT8 dims: 4 }\n')
        assert found(repository) == [("T102", "warning")]

    @pytest.mark.parametrize("folder", ["model.dali", "m.mybackend"])
    def test_folder_that_names_the_backend(self, repository, folder):
        repository.write(f"{folder}/1/model.{folder.partition('.')[2]}", "x")
        assert found(repository) == [("T102", "warning")]
        repository.write(f"{folder}/config.pbtxt", "max_batch_size: 4\n")
        assert found(repository) == []

    def test_onnx_whose_outputs_and_batch_are_completed(self, repository):
        """The backend sets max_batch_size too, so that the dims are those of one sample."""
        repository.write("auto/1/model.onnx", onnx_linear())
        repository.write(
            "auto/config.pbtxt", 'backend: "onnxruntime"\ninput { name: "image" data_type: TYPE_FP32 dims: 4 }\n'
        )
        assert found(repository) == [("T102", "warning")]

    def test_torchscript_is_not_completed(self, repository):
        write_script(repository)
        repository.write("script/config.pbtxt", 'backend: "pytorch"\nmax_batch_size: 2\n')
        assert found(repository) == [("T102", "error"), ("T102", "error")]


class TestNames:
    """Point 5."""

    @pytest.mark.parametrize(
        ("accelerator", "expected"),
        [
            ('gpu_execution_accelerator { name: "cuda" parameters { key: "cudnn_conv_use_max_workspace" value: "0" } }', []),
            ('gpu_execution_accelerator { name: "tensorrt" parameters { key: "precision_mode" value: "FP16" } }', []),
            ('cpu_execution_accelerator { name: "openvino" }', []),
            ('gpu_execution_accelerator { name: "migraphx" }', [("T216", "warning")]),
            ('gpu_execution_accelerator { name: "tensorrt_" }', [("T216", "error")]),
            ('gpu_execution_accelerator { name: "openvino" }', [("T216", "error")]),
            ('gpu_execution_accelerator { name: "cuda" parameters { key: "do_copy_in_default_stream" value: "yes" } }', [("T222", "error")]),
        ],
    )  # fmt: skip
    def test_accelerators_of_onnx_runtime(self, repository, accelerator, expected):
        repository.edit("classifier", "kind: KIND_CPU", "kind: KIND_GPU")
        repository.add("classifier", f"optimization {{ execution_accelerators {{ {accelerator} }} }}")
        assert found(repository) == expected

    @pytest.mark.parametrize("declared", ['platform: "libtorch"', 'platform: "libtorch" backend: "pytorch"'])
    def test_libtorch(self, repository, declared):
        write_script(repository)
        repository.write("script/config.pbtxt", SCRIPT.replace('backend: "pytorch"', declared))
        assert found(repository) == []

    @pytest.mark.parametrize("declared", ['platform: "torch_aoti"', 'platform: "torch_aoti" backend: "pytorch"', ""])
    def test_package_of_aot_inductor(self, repository, declared):
        repository.write("aoti/1/model.pt2", "a package")
        repository.write("aoti/config.pbtxt", SCRIPT.replace('backend: "pytorch"', declared))
        assert found(repository) == []

    def test_graphdef_of_tensorflow(self, repository):
        repository.write("old/1/model.graphdef", "x")
        repository.write("old/config.pbtxt", SCRIPT.replace('backend: "pytorch"', 'platform: "tensorflow_graphdef"'))
        assert found(repository) == []

    @pytest.mark.parametrize("platform", ["custom", "onnxruntime_onnx", "python"])
    def test_platform_of_a_backend_of_ones_own(self, repository, platform):
        """The server compares platform and backend only for four backends of its own."""
        repository.write("mine/1/x", "")
        repository.write("mine/config.pbtxt", f'backend: "acme_recommender"\nplatform: "{platform}"\n')
        assert found(repository) == []

    def test_torchscript_that_takes_a_dict(self, repository):
        write_script(repository, 'def forward(self, x: Dict[str, Tensor]) -> Tensor:\n  return x["left"] + x["right"]')
        tensor = 'input {{ name: "{}" data_type: TYPE_FP32 dims: 3 }}\n'
        declared = tensor.format("left") + tensor.format("right")
        repository.write("script/config.pbtxt", SCRIPT.replace(tensor.format("x"), declared))
        assert found(repository) == []

    def test_torchscript_by_order(self, repository):
        """The backend takes tensors whose names say nothing in the order of the configuration."""
        write_script(repository)
        repository.write("script/config.pbtxt", SCRIPT.replace('"x"', '"image"').replace("OUTPUT__0", "scores"))
        assert found(repository) == [("T309", "warning"), ("T309", "warning")]
        repository.edit("script", '"image"', '"INPUT__1"')
        assert found(repository) == [("T309", "error"), ("T309", "warning")]

    @pytest.mark.parametrize(("batch", "expected"), [(0, []), (4, [("T302", "error")])])
    def test_optional_input_with_a_default(self, repository, batch, expected):
        """An initializer that is an input too can be overridden; the backend allows it without batching."""
        scaled = model(
            [helper.make_node("Mul", ["x", "scale"], ["y"])],
            [value("x", TensorProto.FLOAT, ["n", 2]), value("scale", TensorProto.FLOAT, ["m", 2])],
            [value("y", TensorProto.FLOAT, ["n", 2])],
            [numpy_helper.from_array(np.ones((1, 2), np.float32), "scale")],
        )
        dims = "[ 2 ]" if batch else "[ -1, 2 ]"
        repository.write("scaled/1/model.onnx", scaled)
        repository.write(
            "scaled/config.pbtxt",
            f'backend: "onnxruntime"\nmax_batch_size: {batch}\ninput {{ name: "x" data_type: TYPE_FP32 dims: {dims} }}\n'
            f'input {{ name: "scale" data_type: TYPE_FP32 dims: {dims} optional: true }}\n'
            f'output {{ name: "y" data_type: TYPE_FP32 dims: {dims} }}\n',
        )
        assert found(repository) == expected

    def test_name_of_a_parameter_in_other_letters(self, repository):
        repository.add("talk", 'parameters { key: "force_cpu_only_input_tensors" value: { string_value: "no" } }')
        assert found(repository) == [("T222", "warning")]

    def test_number_with_words_behind_it(self, repository):
        """The backend reads the digits and says nothing of the rest."""
        repository.add("classifier", 'parameters { key: "intra_op_thread_count" value: { string_value: "4 cores" } }')
        assert found(repository) == [("T222", "warning")]


class TestFixes:
    """Point 6: a fix is only what is certain."""

    @pytest.mark.parametrize("backend", ["onnxruntime2", "pythons", "tensorrt_llm", "torch"])
    def test_backend_near_one_of_tritons_is_left(self, repository, backend):
        repository.write("mine/1/weights.bin", "x")
        repository.write("mine/config.pbtxt", f'backend: "{backend}"\nmax_batch_size: 1\n')
        record = lint(repository.folder, fix=True)
        assert [(f.rule, f.severity) for f in record.findings] == [("T202", Severity.WARNING)]
        assert "did you mean" in record.findings[0].message
        assert f'"{backend}"' in (repository.folder / "mine/config.pbtxt").read_text()

    def test_platform_that_the_file_does_not_prove_is_left(self, repository):
        repository.write("mine/1/weights.onnx", onnx_linear())
        text = 'platform: "onnxruntime_onxx"\ndefault_model_filename: "weights.onnx"\nmax_batch_size: 1\n'
        repository.write("mine/config.pbtxt", text)
        assert [f.rule for f in lint(repository.folder, fix=True).findings] == ["T202"]
        assert (repository.folder / "mine/config.pbtxt").read_text() == text

    def test_name_that_an_ensemble_uses_is_left(self, repository):
        repository.rename("pre", "prepare")
        repository.add("prepare", 'name: "pre"')
        record = lint(repository.folder, fix=True)
        assert {f.rule for f in record.findings} == {"T110", "T402"}
        assert record.fixed == ()

    def test_versions_that_differ_are_left(self, repository):
        """A correction for one version would be a mistake for the other."""
        repository.write("classifier/1/model.onnx", onnx_linear(dtype=TensorProto.DOUBLE))
        record = lint(repository.folder, fix=True)
        assert {f.rule for f in record.findings} == {"T304"}
        assert record.fixed == ()

    def test_dims_of_another_rank_are_left(self, repository):
        """max_batch_size can be what is wrong."""
        repository.edit("classifier", "max_batch_size: 8", "max_batch_size: 0")
        repository.cut("classifier", r"dynamic_batching \{.*\n\}\n(?=model_warmup)")
        repository.cut("classifier", r"model_warmup .*")
        record = lint(repository.folder, fix=True)
        assert {f.rule for f in record.findings if f.model == "classifier"} == {"T305"}
        assert record.fixed == ()

    def test_version_folder_that_the_policy_does_not_load_is_not_made(self, repository):
        repository.remove("pipeline/1")
        repository.add("pipeline", "version_policy { specific { versions: 3 } }")
        assert lint(repository.folder, fix=True).fixed == ()
