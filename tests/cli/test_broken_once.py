"""What a stranger broke once: each case gave a wrong file, a crash, or a wrong word, and must not again."""

import json
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import torch

from optkit import user_code
from optkit.artifact import read_passport
from optkit.artifact.tensors import DimRange
from optkit.checks import Prover, Requirements, check_batch_independence
from optkit.choose.stage import run_stage
from optkit.data import Feeds, Samples
from optkit.errors import FeedError, ModelError, StageError
from optkit.pytorch.forward import torchscript_notices_off
from optkit.pytorch.source import make_source
from optkit.runners import open_runner
from optkit.stages import ExportOnnx
from tests.support import zoo
from tests.support.project import CommandLine

CODE = """
    import sys
    import numpy as np
    import torch
    from torch import nn
    class Difference(nn.Module):
        def forward(self, a, b): return a - 2 * b
    class Threshold(nn.Module):
        def forward(self, x):
            if x.abs().max() > 10:
                x = x / 10
            return x
    class Unscriptable(nn.Module):
        def forward(self, x):
            return torch.cat([*x.split(1)]) if x.abs().max() > 10 else x
    class Integers(nn.Module):
        def forward(self, x): return x // 2
    class Mixes(nn.Module):
        def forward(self, x): return x - x.mean(0, keepdim=True)
    class Shorter(nn.Module):
        def forward(self, x): return x[:, :, 1:]
    class Recurrent(nn.Module):
        def __init__(self):
            super().__init__()
            self.lstm = nn.LSTM(4, 3, batch_first=True)
        def forward(self, x):
            y, (h, _) = self.lstm(x)
            return y, h
    class WithNone(nn.Module):
        def forward(self, x): return x * 2, None
    class Talks(nn.Module):
        def forward(self, x):
            print("forward!")
            return x * 2
    def quits(): sys.exit(5)
    def one_sample(): return [{"x": np.arange(4, dtype=np.float32)[None]}]
    class Breaks:
        def __iter__(self):
            yield {"x": np.zeros((1, 4), np.float32)}
            raise OSError("the disk went away")
    def breaks(): return Breaks()
"""
X = zoo.specs("x:float32[batch,4]")
TORCHSCRIPT = ("--exporter", "torchscript", "--opset", "17")


@pytest.fixture
def code(tmp_path: Path) -> Path:
    path = tmp_path / "m.py"
    path.write_text(textwrap.dedent(CODE))
    return path


def source(code: Path, name: str, inputs=X, dims=zoo.BATCH):
    return make_source(f"{code}:{name}", code.parent / f"source-{name}", inputs, dims)


def auto(artifact, out: Path):
    prover = Prover(artifact, Samples(artifact.inputs, artifact.dims), Requirements())
    return prover, run_stage(ExportOnnx(opset=18), artifact, out, prover)


def test_names_of_a_torchscript_file_decide_over_the_order_of_declaration(code: Path, tmp_path: Path) -> None:
    module = user_code.load(f"{code}:Difference")()
    with torchscript_notices_off():
        torch.jit.script(module).save(str(tmp_path / "d.pt"))
    swapped = make_source(
        str(tmp_path / "d.pt"), tmp_path / "s", zoo.specs("b:float32[batch]", "a:float32[batch]"), zoo.BATCH
    )
    exported = ExportOnnx(exporter="torchscript", opset=17).run(swapped, tmp_path / "onnx")
    for artifact in (swapped, exported):
        with open_runner(artifact) as runner:
            feed = {"a": np.array([10.0], np.float32), "b": np.array([1.0], np.float32)}
            assert runner.infer(feed)["output"] == [8.0]


def test_auto_does_not_take_a_trace_where_dynamo_saw_a_branch_on_values(code: Path, tmp_path: Path) -> None:
    _, artifact = auto(source(code, "Threshold"), tmp_path / "out")
    assert artifact.notes[0].startswith("exported by the script exporter")
    assert any("GuardOnDataDependentSymNode" in note for note in artifact.notes)
    assert any("not chosen: the torchscript exporter kept only one branch: " in note for note in artifact.notes)
    assert (
        "forward branches on values: parity was checked only for the branches that the checked values took"
        in artifact.notes
    )
    with open_runner(artifact) as runner:  # the branch that random values never take
        loud = np.array([[20, 1, 1, 1]], np.float32)
        assert np.allclose(runner.infer({"x": loud})["output"], loud / 10)


def test_a_branch_that_can_be_neither_kept_nor_traced_is_refused(code: Path, tmp_path: Path) -> None:
    with pytest.raises(StageError) as caught:
        auto(source(code, "Unscriptable"), tmp_path / "out")
    assert "GuardOnDataDependentSymNode" in str(caught.value)
    assert "To accept this, use --exporter torchscript" in str(caught.value)
    assert "the model cannot be scripted: " in str(caught.value)


def test_integers_beyond_0_and_1_are_compared_where_the_model_takes_them(code: Path, tmp_path: Path) -> None:
    whole = source(code, "Integers", zoo.specs("x:int64[batch,4]"))
    prover, _ = auto(whole, tmp_path / "dynamo")
    wrong = ExportOnnx(exporter="torchscript", opset=17).run(
        whole, tmp_path / "torchscript"
    )  # it truncates towards zero
    assert not prover.parity(wrong).passed
    embedding = zoo.SAMPLES["embedding"].source(
        tmp_path / "embedding"
    )  # refuses -8 as an index, and then nothing is asked
    prover, artifact = auto(embedding, tmp_path / "embedding-onnx")
    assert prover.parity(artifact).passed


def test_one_real_sample_does_not_hide_that_a_model_mixes_its_batch(code: Path) -> None:
    mixes = source(code, "Mixes")
    one = Samples(mixes.inputs, mixes.dims, Feeds(f"{code}:one_sample", mixes.inputs))
    with open_runner(mixes) as runner:
        assert not check_batch_independence(runner, one, mixes.dims).passed


@pytest.mark.parametrize("text", ["1:1:2", "1:2:2", "1:4:8"])
def test_the_contract_of_the_outputs_holds_in_narrow_ranges(text: str, tmp_path: Path) -> None:
    linear = make_source(
        zoo.SAMPLES["linear"].target, tmp_path, zoo.SAMPLES["linear"].inputs, {"batch": DimRange.parse(text)}
    )
    assert [str(spec) for spec in linear.outputs] == ["output:float32[batch,3]"]


def test_a_length_less_one_is_not_taken_for_the_batch(code: Path) -> None:
    dims = {"batch": DimRange.parse("1:4:8"), "seq": DimRange.parse("2:8:32")}
    shorter = source(code, "Shorter", zoo.specs("x:float32[batch,4,seq]"), dims)
    assert [spec.shape for spec in shorter.outputs] == [("batch", 4, "output_dim_2")]


def test_a_state_with_the_batch_second_is_exported_and_not_batched(code: Path, tmp_path: Path) -> None:
    lstm = source(code, "Recurrent", zoo.specs("x:float32[batch,seq,4]"), zoo.BATCH | {"seq": DimRange.parse("2:3:5")})
    with open_runner(lstm) as runner:
        found = check_batch_independence(runner, Samples(lstm.inputs, lstm.dims), lstm.dims)
    assert not found.passed
    assert found.dim is None
    assert "'batch' is not the first dimension of output 'output_1'" in str(found.failure)


def test_none_among_the_outputs_is_left_out(code: Path) -> None:
    assert [spec.name for spec in source(code, "WithNone").outputs] == ["output_0"]


def test_a_range_of_any_length_has_an_odd_point_at_once() -> None:
    assert DimRange(min=1, opt=99_999_999_999, max=99_999_999_999).odd_point() == 50_000_000_001


def test_a_folder_without_init_is_watched(tmp_path: Path) -> None:
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "net.py").write_text("WIDTH = 3\n")
    (tmp_path / "model.py").write_text("from lib.net import WIDTH\ndef build(): return WIDTH\n")
    target = f"{tmp_path / 'model.py'}:build"
    before = user_code.code_sha256(target)
    (tmp_path / "lib" / "net.py").write_text("WIDTH = 4\n")
    assert user_code.code_sha256(target) != before


def test_sys_exit_in_a_factory_is_told_and_does_not_set_the_exit_code(code: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"quits: raised .*m\.py:\d+: SystemExit: 5"):
        source(code, "quits")


def test_data_that_break_off_name_the_feed_and_the_line(code: Path) -> None:
    with pytest.raises(FeedError, match=r"breaks: feed 1: raised .*m\.py:\d+: OSError: the disk went away"):
        list(Feeds(f"{code}:breaks", X))


def export(code: Path, name: str, *more: str) -> list[str]:
    common = ["--input", "x:float32[batch,4]", "--dim", "batch=1:2:4", *TORCHSCRIPT]
    return ["export", "onnx", f"{code}:{name}", "-o", str(code.parent / "m.onnx"), *common, *more]


def test_what_the_model_prints_stays_out_of_the_answer(code: Path, optkit: CommandLine) -> None:
    found = optkit(*export(code, "Talks", "--json"))
    assert found.code == 0
    assert json.loads(found.out)["schema"] == "optkit/passport/4"
    assert "forward!" in found.err


@pytest.mark.parametrize("value", ["nan", "-1", "inf"])
def test_a_tolerance_that_is_none_is_refused_at_once(value: str, code: Path, optkit: CommandLine) -> None:
    found = optkit(*export(code, "WithNone", "--atol", value))
    assert found.code == 2
    assert "--atol" in found.err
    assert not (code.parent / "m.onnx").exists()


def test_a_mixing_model_is_written_only_when_it_allow_batch_dependence(code: Path, optkit: CommandLine) -> None:
    assert optkit(*export(code, "Mixes")).code == 1
    assert optkit(*export(code, "Mixes", "--allow-batch-dependence")).code == 0
    passport = read_passport(code.parent / "m.onnx")
    assert passport is not None
    assert passport.batch_independence is not None
    assert not passport.batch_independence.passed


def test_options_of_static_quantization_without_data_are_refused(optkit: CommandLine, onnx_copy: Path) -> None:
    found = optkit(
        "quantize", onnx_copy, "-o", onnx_copy.with_name("q.onnx"), "--method", "entropy", "--dim", "batch=1:2:4"
    )
    assert found.code == 2
    assert "--method: applies only to static quantization, which needs --calibration DATA" in found.err


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full on this system")
def test_a_full_disk_under_stdout_is_no_bug(onnx_copy: Path) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "optkit", "inspect", str(onnx_copy), "--json"],
            stdout=full, stderr=subprocess.PIPE, text=True, check=False,
        )  # fmt: skip
    assert done.returncode == 2
    assert "error: standard output: cannot be written (No space left on device)" in done.stderr


def test_what_an_exporter_prints_from_c_does_not_come_out_later(tmp_path: Path) -> None:
    (tmp_path / "b.py").write_text(
        "import torch\nclass Bessel(torch.nn.Module):\n    def forward(self, x): return torch.special.bessel_j0(x)\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "optkit", *export(tmp_path / "b.py", "Bessel")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert "Torch IR graph" not in done.stderr


def test_a_reader_that_has_seen_enough_does_not_change_the_exit_code(onnx_copy: Path) -> None:
    command = f"{sys.executable} -m optkit inspect {onnx_copy} --json | true; exit ${{PIPESTATUS[0]}}"
    assert subprocess.run(["bash", "-c", command], check=False, capture_output=True).returncode == 0
