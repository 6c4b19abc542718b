import contextlib
import io
import re
from pathlib import Path

import pytest
import torch
from torch import nn

from optkit.artifact import Artifact, Format, Passport, Precision
from optkit.artifact.tensors import DimRange
from optkit.errors import ArtifactError, ModelError
from optkit.pytorch.source import ModelSource, load_module, make_source, open_artifact
from tests.support import zoo

MODEL = """
import torch

def build(width: int = 3):
    return torch.nn.Linear(4, width)
"""


def user_model(folder: Path, body: str = MODEL) -> str:
    file = folder / "model.py"
    file.write_text(body)
    return f"{file}:build"


def make(target: str, folder: Path, **options: object) -> Artifact:
    return make_source(target, folder, zoo.specs("x:float32[batch,4]"), zoo.BATCH, **options)


def test_a_source_says_what_the_model_takes_and_returns(tmp_path: Path) -> None:
    artifact = make(user_model(tmp_path), tmp_path / "out")
    assert artifact.path == tmp_path / "out" / "model.source.json"
    assert artifact.format is Format.PYTORCH
    assert artifact.precision is Precision.FP32
    assert [str(spec) for spec in artifact.outputs] == ["output:float32[batch,3]"]
    assert ModelSource.read(artifact.path).target == "../model.py:build"
    assert isinstance(load_module(artifact), nn.Linear)
    assert not load_module(artifact).training


def test_the_weights_drawn_by_a_factory_are_the_same_each_time(tmp_path: Path) -> None:
    artifact = make(user_model(tmp_path), tmp_path)
    first = load_module(artifact).weight.clone()
    torch.rand(3)
    make(zoo.SAMPLES["linear"].target, tmp_path / "other")  # turns it out of the cache
    assert torch.equal(load_module(artifact).weight, first)


def test_building_leaves_the_users_random_numbers_alone(tmp_path: Path) -> None:
    torch.manual_seed(123)
    before = torch.random.get_rng_state()
    make(user_model(tmp_path), tmp_path)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_a_model_is_built_once_for_its_source_and_its_users(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Building may be training; a recipe names its files relative to itself, and an artifact relative to its folder."""
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    user_model(tmp_path, MODEL.replace("    return", "    print('built')\n    return"))
    torch.save({"weight": torch.ones(3, 4), "bias": torch.zeros(3)}, tmp_path / "w.pt")
    artifact = make("../model.py:build", Path("out"), weights=Path("../w.pt"))
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        load_module(artifact)
    assert printed.getvalue() == ""


def test_arguments_weights_and_names_are_taken(tmp_path: Path) -> None:
    torch.save({"weight": torch.ones(2, 4), "bias": torch.zeros(2)}, tmp_path / "w.pt")
    artifact = make(user_model(tmp_path), tmp_path, args={"width": 2}, weights=tmp_path / "w.pt", outputs=("score",))
    assert [str(spec) for spec in artifact.outputs] == ["score:float32[batch,2]"]
    assert (load_module(artifact).weight == 1).all()


def test_a_module_may_stand_for_its_factory(tmp_path: Path) -> None:
    target = user_model(tmp_path, "import torch\n\nbuild = torch.nn.Linear(4, 3)\n")
    assert isinstance(load_module(make(target, tmp_path)), nn.Linear)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("raises", r"zoo\.py:raises: raised .*zoo\.py:\d+: ValueError: no such checkpoint$"),
        ("no_module", r"zoo\.py:no_module: returned a int; expected a torch\.nn\.Module\. Return the model\.$"),
        ("none", r"zoo\.py: has no 'none'; it defines "),
    ],
)
def test_a_factory_that_gives_no_module_is_told(tmp_path: Path, name: str, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        zoo.bad(name).source(tmp_path)
    assert not list(tmp_path.iterdir())


def test_the_line_that_raised_is_the_users(tmp_path: Path) -> None:
    with pytest.raises(ModelError) as caught:
        zoo.bad("raises").source(tmp_path)
    line = int(re.search(r"zoo\.py:(\d+):", str(caught.value).split("raised ")[1])[1])
    assert "raise ValueError" in zoo.HERE.read_text().splitlines()[line - 1]


def test_wrong_arguments_of_a_factory_are_told(tmp_path: Path) -> None:
    with pytest.raises(
        ModelError, match=r"build: raised TypeError: build\(\) got an unexpected keyword argument 'depth'"
    ):
        make(user_model(tmp_path), tmp_path, args={"depth": 2})


def test_a_factory_that_builds_other_weights_each_time_is_told(tmp_path: Path) -> None:
    artifact = zoo.bad("unseeded").source(tmp_path / "a")
    zoo.SAMPLES["linear"].source(tmp_path / "b")  # turns it out of the cache, as a new process would
    with pytest.raises(ModelError, match=r"built different weights than last time, .* Set its random seed, or save"):
        load_module(artifact)


def test_changed_code_is_noticed(tmp_path: Path) -> None:
    artifact = make(user_model(tmp_path), tmp_path)
    user_model(tmp_path, MODEL + "# changed\n")
    with pytest.raises(
        ModelError, match=r"its code or weights have changed since its outputs were found\. Run it again"
    ):
        load_module(artifact)


def test_changed_weights_are_noticed(tmp_path: Path) -> None:
    path = tmp_path / "w.pt"
    torch.save({"weight": torch.ones(3, 4), "bias": torch.zeros(3)}, path)
    artifact = make(user_model(tmp_path), tmp_path, weights=path)
    torch.save({"weight": torch.ones(3, 4), "bias": torch.ones(3)}, path)
    with pytest.raises(ModelError, match=r"its code or weights have changed"):
        load_module(artifact)


def test_dimensions_without_a_range_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"model\.py:build: dimension 'batch': used by an input but has no range"):
        make_source(user_model(tmp_path), tmp_path, zoo.specs("x:float32[batch,4]"), {})


def test_an_artifact_is_opened_by_its_passport(tmp_path: Path) -> None:
    artifact = make(user_model(tmp_path), tmp_path)
    Passport(artifact=artifact).save()
    assert open_artifact(artifact.path) == artifact


def test_an_onnx_file_needs_no_passport(onnx_copy: Path) -> None:
    found = open_artifact(onnx_copy, {"batch": DimRange(min=1, opt=2, max=3)})
    assert found.format is Format.ONNX
    assert [str(spec) for spec in found.inputs] == ["input:float32[batch,4]"]
    assert found.is_intact()


def test_a_file_that_says_nothing_of_itself_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model.pt").write_bytes(b"")
    with pytest.raises(ArtifactError, match=r"has no passport beside it; only an \.onnx file declares its own inputs"):
        open_artifact(tmp_path / "model.pt")


def test_a_missing_artifact_and_a_folder_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"none\.onnx: no such file; expected a model file"):
        open_artifact(tmp_path / "none.onnx")
    with pytest.raises(ArtifactError, match=r"is a directory; expected a model file"):
        open_artifact(tmp_path)


def test_inputs_that_are_not_declared_are_asked_for_by_their_names(tmp_path: Path) -> None:
    with pytest.raises(
        ModelError, match=r'its inputs are not declared, and forward takes input\. .*--input "input:float32'
    ):
        make_source(user_model(tmp_path), tmp_path / "out")
