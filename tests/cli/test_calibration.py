"""`optkit quantize` and its calibration data: what is refused, what the doctor says, what is reused, what Ctrl-C leaves."""

import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.support.project import ONNX, STATIC, CommandLine, files_below, write_project, write_recipe

EXPORT = ("export", "onnx", "model.py:build", "-o", "m.onnx", "--input", "x:float32[batch,4]", "--dim", "batch=1:4:8",
          "--exporter", "torchscript", "--opset", "17")  # fmt: skip
REUSED = "calibration reused: the model, the data and the settings are unchanged"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, optkit: CommandLine) -> Path:
    """Return a project's folder, which is the working directory, with its model exported."""
    write_project(tmp_path)
    monkeypatch.chdir(tmp_path)
    assert optkit(*EXPORT).code == 0
    return tmp_path


def write_data(folder: Path, body: str) -> str:
    (folder / "data.py").write_text(
        "import numpy as np\n\ndef rows(n, seed=0):\n"
        f"    return np.random.default_rng(seed).standard_normal((n, 4)).astype(np.float32)\n\n{body}\n"
    )
    return "data.py:feeds"


SHARED = """
class Once:
    left = iter([{'x': rows(4)}, {'x': rows(4)}])
    def __iter__(self):
        return Once.left
feeds = Once()"""
SHORT = """
class Short:
    def __len__(self):
        return 8
    def __iter__(self):
        return iter([{'x': rows(4)}] * 5)
feeds = Short()"""
DYING = """
class Dying:
    def __iter__(self):
        yield {'x': rows(4)}
        raise OSError('connection lost')
feeds = Dying()"""


@pytest.mark.parametrize("mode", ["auto", "static"])
@pytest.mark.parametrize(
    ("body", "says"),
    [
        pytest.param("feeds = [{'x': rows(1)}]", r"calibration data: one sample; ranges need at least two", id="one-sample"),
        pytest.param(SHARED, r"data\.py:feeds: yielded (no feeds|0 feeds; expected 2)", id="empty-when-read-again"),
        pytest.param(SHORT, r"data\.py:feeds: yielded 5 feeds; expected 8, .* Give a list of feeds", id="shorter-than-it-says"),
        pytest.param(DYING, r"data\.py:feeds: feed 1: raised .*OSError: connection lost", id="ends-early"),
        pytest.param("feeds = [{'x': rows(4) * np.nan}]", r"feed 0: input 'x': contains NaN or infinity", id="nan"),
        pytest.param("feeds = [{'x': rows(4).astype('float64')}]", r"Cast the feed to float32", id="dtype"),
        pytest.param("feeds = [{'x': rows(4)[:, :3]}]", r"got float32\[4,3\]; the model takes", id="shape"),
        pytest.param("feeds = [{'y': rows(4)}]", r"got inputs y; the model takes x", id="name"),
    ],
)  # fmt: skip
def test_bad_data_is_refused(optkit: CommandLine, folder: Path, body: str, says: str, mode: str) -> None:
    data = write_data(folder, body)
    before = files_below(folder)
    found = optkit("quantize", "m.onnx", "-o", "q.onnx", "--calibration", data, "--mode", mode)
    assert found.code == 2, found
    assert found.out == ""
    assert re.search(says, found.err), found.err
    assert "Traceback" not in found.err
    assert files_below(folder) == before


def test_a_quantized_model_is_refused(optkit: CommandLine, folder: Path) -> None:
    data = write_data(folder, "feeds = [{'x': rows(8)}]")
    assert optkit("quantize", "m.onnx", "-o", "q.onnx", "--calibration", data).code == 0
    before = files_below(folder)
    found = optkit("quantize", "q.onnx", "-o", "qq.onnx", "--calibration", data)
    assert found.code == 2
    assert "q.onnx is int8; expected an FP32 model" in found.err
    assert files_below(folder) == before


def test_a_model_with_nothing_to_quantize_is_refused(optkit: CommandLine, folder: Path) -> None:
    (folder / "soft.py").write_text("import torch\n\ndef build():\n    return torch.nn.Softmax(dim=1)\n")
    export = [
        "soft.py:build" if part == "model.py:build" else "s.onnx" if part == "m.onnx" else part for part in EXPORT
    ]
    assert optkit(*export).code == 0
    data = write_data(folder, "feeds = [{'x': rows(8)}]")
    before = files_below(folder)
    found = optkit("quantize", "s.onnx", "-o", "q.onnx", "--calibration", data)
    assert found.code == 2
    assert "nothing would become INT8: the operators to quantize" in found.err
    assert files_below(folder) == before


def test_unknown_methods_and_settings_are_refused(optkit: CommandLine, folder: Path) -> None:
    data = write_data(folder, "feeds = [{'x': rows(8)}]")
    for options, says in (
        (("--method", "kl"), "'kl' is not one of 'minmax', 'moving-average', 'percentile', 'entropy', 'mse'"),
        (("--sample", "0"), "--sample: Input should be greater than or equal to 1"),
        (("--percentile", "20"), "--percentile: Input should be greater than 50"),
    ):
        found = optkit("quantize", "m.onnx", "-o", "q.onnx", "--calibration", data, *options)
        assert found.code == 2
        assert says in found.err


UNLIKE = """
def feeds():
    data = rows(64)
    data[10] = data[3]
    data[20] = 0.5
    data[30] *= 9
    return [{'x': data}]

def evaluate(predict):
    predict({'x': rows(8, 1) + 3})
    return 1.0"""


def test_the_doctor_shows_what_the_data_is_like(optkit: CommandLine, folder: Path) -> None:
    data = write_data(folder, UNLIKE)
    command = ("quantize", "m.onnx", "-o", "q.onnx", "--calibration", data, "--evaluate", "data.py:evaluate", "--force")
    plain = optkit(*command)
    assert plain.code == 0, plain.err
    assert "calibration data: 64 samples; the ranges" in plain.out
    assert "calibration data: 1 outlier: sample 30 stretches" in plain.out
    assert "calibration data: 1 duplicate: samples 3, 10 are equal" in plain.out
    assert "calibrate on data that resembles the evaluation data" in plain.out
    assert "share of the final width" not in plain.out
    shown = optkit(*command, "--doctor")
    assert shown.code == 0, shown.err
    for text in ("growth of the ranges", "unusual samples", "equal to sample 3", "is constant", "differs"):
        assert text in shown.out, shown.out
    document = json.loads(optkit(*command, "--doctor", "--json").out)
    diagnosis = document["artifact"]["calibration"]["diagnosis"]
    assert diagnosis["duplicates"] == [[3, 10]]
    assert diagnosis["constants"] == {"x": [20]}
    assert diagnosis["long_tails"] is not None
    assert document["shifts"][0]["evaluation"]["mean"] == pytest.approx(3, abs=1)


def test_ranges_are_reused_until_something_changes(optkit: CommandLine, folder: Path) -> None:
    data = write_data(folder, "feeds = [{'x': rows(8)}]")
    command = ("quantize", "m.onnx", "-o", "q.onnx", "--calibration", data, "--force", "--mode", "static",
               "--activation-type", "uint8")  # other types need other ranges, and the fastest type is measured each time  # fmt: skip
    assert REUSED not in optkit(*command).out
    assert REUSED in optkit(*command).out
    assert REUSED not in optkit(*command, "--fresh").out
    assert REUSED not in optkit(*command, "--method", "mse").out
    write_data(folder, "feeds = [{'x': rows(8, 7)}]")
    assert REUSED not in optkit(*command).out


def test_a_recipe_reuses_ranges_where_only_types_change(optkit: CommandLine, folder: Path) -> None:
    steps = [ONNX, STATIC]
    write_recipe(folder / "recipe.yaml", steps=steps, data={"calibration": "model.py:calibration"})
    assert optkit("run", "recipe.yaml", "-o", "out", "-v").code == 0
    write_recipe(
        folder / "recipe.yaml",
        steps=[ONNX, STATIC | {"per_channel": False}],
        data={"calibration": "model.py:calibration"},
    )
    found = optkit("run", "recipe.yaml", "-o", "out", "-v")
    assert found.code == 0
    assert REUSED in found.err


def test_a_folder_of_images_calibrates(optkit: CommandLine, folder: Path) -> None:
    (folder / "photos").mkdir()
    rng = np.random.default_rng(0)
    for number in range(6):
        pixels = rng.integers(0, 256, (10, 12, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / "photos" / f"{number}.png")
    (folder / "images.yaml").write_text("images: photos\nresize: 8\ncrop: 8\nmean: [0.5]\nstd: [0.25]\n")
    (folder / "cnn.py").write_text("import torch\n\ndef build():\n    return torch.nn.Conv2d(3, 4, 3)\n")
    export = ("export", "onnx", "cnn.py:build", "-o", "c.onnx", "--input", "image:float32[batch,3,8,8]",
              "--dim", "batch=1:2:4", "--exporter", "torchscript", "--opset", "17")  # fmt: skip
    assert optkit(*export).code == 0
    found = optkit("quantize", "c.onnx", "-o", "cq.onnx", "--calibration", "images.yaml", "--mode", "static")
    assert found.code == 0, found.err
    assert "calibration data: 6 samples" in found.out
    (folder / "images.yaml").write_text("images: nowhere\n")
    found = optkit("quantize", "c.onnx", "-o", "cr.onnx", "--calibration", "images.yaml")
    assert found.code == 2
    assert "nowhere: no such folder" in found.err
    assert not (folder / "cr.onnx").exists()


def test_ctrl_c_in_the_middle_of_calibration_leaves_nothing(folder: Path) -> None:
    body = """
class Slow:
    def __iter__(self):
        import pathlib, time
        for number in range(1000):
            if number == 600:
                pathlib.Path('started').touch()
                time.sleep(60)
            yield {'x': rows(4)}
feeds = Slow()"""
    write_data(folder, body)
    before = files_below(folder)
    command = [sys.executable, "-m", "optkit", "quantize", "m.onnx", "-o", "q.onnx", "--calibration", "data.py:feeds"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=folder)
    for _ in range(3000):
        if (folder / "started").exists() or process.poll() is not None:
            break
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "Traceback" not in err
    assert files_below(folder) == before | {"started"}
