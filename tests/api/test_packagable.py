"""Model files that optkit did not make, packaged by what they say or by declared inputs."""

import shutil

import numpy as np
import onnx
import pytest
import torch
from torch import nn

import optkit
from optkit.errors import ArtifactError, OutputError, RecipeError, StageError
from tests.support.repositories import onnx_linear

DIMS = {"batch": (1, 2, 4)}
INPUTS = {"x": "float32[batch,4]"}


class Model(nn.Module):
    """Returns what `form` makes of one result and its double."""

    def __init__(self, form):
        super().__init__()
        self.linear = nn.Linear(4, 3)
        self.form = form

    def forward(self, x):
        y = self.linear(x)
        return self.form(y, y * 2)


FORMS = {
    "one": lambda a, b: a,
    "tuple": lambda a, b: (a, b),
    "list": lambda a, b: [a, b],
    "dict": lambda a, b: {"logits": a, "double": b},
    "nested": lambda a, b: (a, [b, a]),
}


def traced(form, path):
    module = Model(FORMS[form]).eval()
    torch.jit.trace(module, torch.randn(2, 4), strict=False).save(str(path))
    return module


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::torch.jit.TracerWarning")
class TestTorchScript:
    @pytest.mark.parametrize("form", FORMS)
    def test_results_of_any_form_are_served_as_a_tuple(self, tmp_path, form):
        module = traced(form, tmp_path / "net.pt")
        [done] = optkit.package_triton(tmp_path / "net.pt", tmp_path / "repository", inputs=INPUTS, dims=DIMS).packages
        served = torch.jit.load(str(done.path / "1/model.pt"))
        x = torch.randn(3, 4)
        own, found = module(x), served(x)
        flat = torch.utils._pytree.tree_leaves
        for a, b in zip(flat(own), flat(found), strict=True):
            np.testing.assert_array_equal(a.detach().numpy(), b.detach().numpy())
        assert isinstance(found, (torch.Tensor, tuple))
        assert any("was wrapped" in note for note in done.notes) == (form in ("list", "dict", "nested"))
        assert optkit.lint(tmp_path / "repository").findings == ()

    def test_the_same_name_twice_in_one_process(self, tmp_path):
        for i in range(2):
            traced("dict", tmp_path / "net.pt")
            optkit.package_triton(tmp_path / "net.pt", tmp_path / f"r{i}", inputs=INPUTS, dims=DIMS)
            assert optkit.lint(tmp_path / f"r{i}").passed

    def test_arguments_with_defaults_that_are_no_tensors(self, tmp_path):
        class Scaled(torch.jit.ScriptModule):
            @torch.jit.script_method
            def forward(self, x, k: float = 2.0):
                return x * k

        Scaled().save(str(tmp_path / "scaled.pt"))
        [done] = optkit.package_triton(tmp_path / "scaled.pt", tmp_path / "r", inputs=INPUTS, dims=DIMS).packages
        assert any("was wrapped" in note for note in done.notes)
        assert optkit.lint(tmp_path / "r").findings == ()

    def test_without_inputs_the_message_names_the_arguments(self, tmp_path):
        traced("one", tmp_path / "net.pt")
        with pytest.raises(
            RecipeError, match=r'is TorchScript without a passport.*"x": "float32\[batch,4\]".*your own values'
        ):
            optkit.package_triton(tmp_path / "net.pt", tmp_path / "r", dims=DIMS)
        with pytest.raises(RecipeError, match="'batch': used by an input but has no range"):
            optkit.package_triton(tmp_path / "net.pt", tmp_path / "r", inputs=INPUTS)

    def test_weights_alone_are_no_model(self, tmp_path):
        torch.save(nn.Linear(4, 3).state_dict(), tmp_path / "net.pt")
        with pytest.raises(ArtifactError, match=r"cannot be loaded as TorchScript .*Weights alone need their module"):
            optkit.package_triton(tmp_path / "net.pt", tmp_path / "r", inputs=INPUTS, dims=DIMS)

    def test_for_torchserve_too(self, tmp_path):
        traced("dict", tmp_path / "net.pt")
        [done] = optkit.package_torchserve(tmp_path / "net.pt", tmp_path / "store", inputs=INPUTS, dims=DIMS).packages
        assert done.path.name == "net.mar"


def test_a_saved_program_states_its_inputs(tmp_path):
    batch = torch.export.Dim("batch", min=1, max=16)
    program = torch.export.export(Model(FORMS["dict"]).eval(), (torch.randn(2, 4),), dynamic_shapes={"x": {0: batch}})
    torch.export.save(program, tmp_path / "net.pt2")
    [done] = optkit.package_triton(tmp_path / "net.pt2", tmp_path / "r").packages
    assert done.name == "net"
    assert any("was exported to ONNX" in note for note in done.notes)
    names = [output.name for output in onnx.load(str(done.path / "1/model.onnx")).graph.output]
    assert len(names) == 2
    assert optkit.lint(tmp_path / "r").findings == ()


def test_only_the_suffix_of_a_name_goes(tmp_path):
    for name in ("net.v1.onnx", "net.v2.onnx"):
        (tmp_path / name).write_bytes(onnx_linear())
    both = [tmp_path / "net.v1.onnx", tmp_path / "net.v2.onnx"]
    done = optkit.package_triton(both, tmp_path / "r", dims=DIMS).packages
    assert [one.name for one in done] == ["net.v1", "net.v2"]
    assert optkit.lint(tmp_path / "r").findings == ()
    [archive] = optkit.package_torchserve(both[0], tmp_path / "store", dims=DIMS).packages
    assert archive.name == "net.v1"
    (tmp_path / "other").mkdir()
    shutil.copy(both[0], tmp_path / "other")
    with pytest.raises(OutputError, match=r"2 models would be named 'net\.v1'"):
        optkit.package_triton([both[0], tmp_path / "other/net.v1.onnx"], tmp_path / "r2", dims=DIMS)


def test_inputs_of_a_file_that_states_them_are_refused(tmp_path):
    (tmp_path / "net.onnx").write_bytes(onnx_linear())
    with pytest.raises(RecipeError, match="states its inputs"):
        optkit.package_triton(tmp_path / "net.onnx", tmp_path / "r", inputs=INPUTS, dims=DIMS)


def custom(functions=()):
    node = onnx.helper.make_node("Fancy", ["x"], ["y"], domain="my.ops")
    tensors = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["batch", 4]) for name in "xy"]
    graph = onnx.helper.make_graph([node], "g", tensors[:1], tensors[1:])
    opsets = [onnx.helper.make_opsetid("", 17), onnx.helper.make_opsetid("my.ops", 1)]
    made = onnx.helper.make_model(graph, opset_imports=opsets, ir_version=8, functions=list(functions))
    return made.SerializeToString()


def test_operators_of_a_library_are_named(tmp_path):
    (tmp_path / "net.onnx").write_bytes(custom())
    with pytest.raises(StageError, match=r"Fancy of domain 'my\.ops', .* model_operations .* op_library_filename"):
        optkit.package_triton(tmp_path / "net.onnx", tmp_path / "r", dims=DIMS)


def test_functions_of_the_model_itself_need_no_library(tmp_path):
    body = [onnx.helper.make_node("Neg", ["x"], ["y"])]
    own = onnx.helper.make_function("my.ops", "Fancy", ["x"], ["y"], body, [onnx.helper.make_opsetid("", 17)])
    (tmp_path / "net.onnx").write_bytes(custom([own]))
    [done] = optkit.package_triton(tmp_path / "net.onnx", tmp_path / "r", dims=DIMS).packages
    assert done.name == "net"


def test_a_batch_that_was_never_run_is_named(tmp_path):
    (tmp_path / "net.onnx").write_bytes(onnx_linear())
    [done] = optkit.package_triton(tmp_path / "net.onnx", tmp_path / "r", dims={"batch": (1, 8, 64)}).packages
    assert any("a batch of 64, which the server may send, was never run" in note for note in done.notes)
    [none] = optkit.package_triton(tmp_path / "net.onnx", tmp_path / "r2", dims=DIMS, batching=False).packages
    assert not any("was never run" in note for note in none.notes)
    made = optkit.export_onnx(nn.Linear(4, 3), tmp_path / "own.onnx", inputs={"image": "float32[batch,4]"}, dims=DIMS)
    [ran] = optkit.package_triton(made, tmp_path / "r3").packages
    assert not any("was never run" in note for note in ran.notes)
