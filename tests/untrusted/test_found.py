"""What the fuzzing of `test_fuzz.py` found: each case ended as a fault of optkit, and is an error of the file now."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from optkit.api.compare import compare
from optkit.artifact import Passport, passport_path
from optkit.artifact.tensors import DimRange, TensorSpec
from optkit.data import Feeds
from optkit.errors import ArtifactError, FeedError, OptkitError
from optkit.pipeline.records import RunRecord
from optkit.pytorch.source import open_artifact
from optkit.serving.migrate.repository import TorchServeBatching
from tests.support.fuzz_targets import sealed
from tests.support.repositories import onnx_linear
from tests.support.runs import run_record


def test_an_image_folder_of_a_name_that_is_too_long(tmp_path: Path) -> None:
    (tmp_path / "images.yaml").write_text(json.dumps({"images": "x" * 300}))
    with pytest.raises(FeedError, match=r"images\.yaml: images: .*no such folder"):
        list(Feeds(str(tmp_path / "images.yaml"), (TensorSpec(name="x", dtype="float32", shape=("batch", 3, 4, 4)),)))


@pytest.mark.parametrize("name", ["..", "../x", "a:b", "[None]", "1e+308", ""])
def test_an_archive_with_the_name_of_no_model(name: str) -> None:
    for batch_size in (1, 2):
        with pytest.raises(ArtifactError, match=r"settings for Triton: name: .* cannot be a model name"):
            TorchServeBatching(batch_size, 100, 1).serving(name)


def first(content: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = content["bench"]["measurements"][0]
    return found


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda content: first(content)["blocks_p50_ms"].__setitem__(0, 0.0), "a time is 0 or less"),
        (lambda content: first(content)["times_ms"][0].__setitem__(0, -1.0), "a time is 0 or less"),
        (lambda content: first(content).update(samples_per_s=0), "a time is 0 or less"),
        (lambda content: first(content)["blocks_p50_ms"].pop(), "the artifacts have different numbers of blocks"),
        (lambda content: first(content)["times_ms"].pop(), "the artifacts have different numbers of blocks"),
        (lambda content: first(content).update(p50_ms="nan"), "p50_ms: Input should be a finite number"),
        (lambda content: first(content).update(mean_ms="inf"), "mean_ms: Input should be a finite number"),
    ],
)  # fmt: skip
def test_an_edited_measurement(change: Callable[[dict[str, Any]], object], says: str, tmp_path: Path) -> None:
    run_record().write(tmp_path / "good.json")
    content = json.loads((tmp_path / "good.json").read_text())
    change(content)
    (tmp_path / "run.json").write_bytes(sealed(json.dumps(content).encode()))
    for pair in (("run.json", "good.json"), ("good.json", "run.json")):
        with pytest.raises(ArtifactError, match=rf"run\.json: .*{says}"):
            compare(*(tmp_path / name for name in pair))


def test_the_text_nan_in_a_passport(tmp_path: Path) -> None:
    model = tmp_path / "m.onnx"
    model.write_bytes(onnx_linear())
    artifact = open_artifact(model, {"batch": DimRange(min=1, opt=2, max=4)})
    Passport(artifact=artifact, seconds=1.0).save()
    content = json.loads(passport_path(model).read_text())
    passport_path(model).write_bytes(sealed(json.dumps(content | {"seconds": "nan"}).encode()))
    with pytest.raises(OptkitError, match=r"seconds: Input should be a finite number"):
        open_artifact(model)


def test_a_good_record_is_read(tmp_path: Path) -> None:
    run_record().write(tmp_path / "good.json")
    assert RunRecord.read(tmp_path / "good.json") == run_record()
