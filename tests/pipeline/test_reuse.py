"""What a second run makes again: only what something that went into it has changed for."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from optkit import deps
from optkit.artifact import environment
from optkit.errors import ModelError
from tests.support.project import (
    DYNAMIC,
    ONNX,
    STATIC,
    TORCHSCRIPT,
    carry_out,
    edit,
    files_below,
    forget_modules,
    statuses,
    write_project,
)

FP16 = {"stage": "convert-fp16", "after": "export-onnx"}
STEPS = [TORCHSCRIPT, ONNX, FP16, DYNAMIC]
SERVE = [{"target": "triton", "artifact": "export-onnx"}, {"target": "torchserve", "artifact": "export-onnx"}]
NAMES = ["source", "export-torchscript", "export-onnx", "convert-fp16", "quantize-dynamic"]


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    """Return a recipe that was run once."""
    path = write_project(tmp_path / "project", steps=STEPS, serve=SERVE)
    assert statuses(carry_out(path)) == dict.fromkeys(NAMES, "built")
    return path


def rebuilt(path: Path, **options: Any) -> set[str]:
    """Run the recipe again and return which artifacts were made."""
    record = carry_out(path, **options)
    assert record.exit_code == 0
    found = statuses(record)
    assert set(found.values()) <= {"built", "reused"}
    return {name for name, status in found.items() if status == "built"}


def times(folder: Path) -> dict[str, int]:
    return {name: (folder / name).stat().st_mtime_ns for name in files_below(folder) if (folder / name).is_file()}


def test_an_unchanged_recipe_makes_nothing_again(recipe: Path) -> None:
    out = recipe.parent / "out"
    before = times(out)
    record = carry_out(recipe)
    assert statuses(record) == dict.fromkeys(NAMES, "reused")
    assert record.rebuilt == 0
    assert record.bench_reused
    changed = {name for name, time in times(out).items() if before.get(name) != time}
    assert changed == {"run.json", "packages.json"}


def test_a_changed_option_makes_its_step_again_and_what_is_behind_it_only(recipe: Path) -> None:
    write_project(recipe.parent, steps=[TORCHSCRIPT, ONNX, FP16, DYNAMIC | {"per_channel": False}], serve=SERVE)
    assert rebuilt(recipe) == {"quantize-dynamic"}
    write_project(recipe.parent, steps=[TORCHSCRIPT, ONNX | {"opset": 16}, FP16, DYNAMIC], serve=SERVE)
    assert rebuilt(recipe) == {"export-onnx", "convert-fp16", "quantize-dynamic"}


@pytest.mark.parametrize(
    ("old", "new"), [("SCALE = 2.0", "SCALE = 3.0"), ("return SCALE * self.linear(x)", "return self.linear(x) / SCALE")]
)
def test_changed_code_makes_everything_again(recipe: Path, old: str, new: str) -> None:
    edit(recipe.parent / "model.py", old, new)
    assert rebuilt(recipe) == set(NAMES)


def test_changed_code_of_a_neighbour_makes_everything_again(tmp_path: Path) -> None:
    recipe = write_project(tmp_path, steps=[TORCHSCRIPT])
    (tmp_path / "sizes.py").write_text("SCALE = 2.0\n")
    edit(tmp_path / "model.py", "SCALE = 2.0", "from sizes import SCALE")
    carry_out(recipe)
    (tmp_path / "sizes.py").write_text("SCALE = 5.0\n")
    assert rebuilt(recipe) == {"source", "export-torchscript"}


def test_another_contract_makes_everything_again(recipe: Path) -> None:
    write_project(recipe.parent, steps=STEPS, serve=SERVE, dims={"batch": "1:4:16"})
    assert rebuilt(recipe) == set(NAMES)


def test_other_calibration_data_makes_again_what_was_calibrated(tmp_path: Path) -> None:
    recipe = write_project(
        tmp_path,
        steps=[ONNX, STATIC, DYNAMIC],
        data={"calibration": "data.py:feeds"},
        gates={"batch_independence": False},
    )
    code = "import numpy as np\ndef feeds():\n    return [{{'x': {} * np.eye(4, dtype=np.float32)}}]\n"
    (tmp_path / "data.py").write_text(code.format(1))
    carry_out(recipe)
    (tmp_path / "data.py").write_text(code.format(2))
    assert rebuilt(recipe) == {"quantize-static"}


def test_another_judge_makes_again_what_it_judged(tmp_path: Path) -> None:
    limited = DYNAMIC | {"name": "limited", "max_drop": 0.5}
    (tmp_path / "judge.py").write_text("def evaluate(predict):\n    return 1.0\n")
    recipe = write_project(tmp_path, steps=[ONNX, DYNAMIC, limited], data={"evaluation": "judge.py:evaluate"})
    carry_out(recipe)
    (tmp_path / "judge.py").write_text("def evaluate(predict):\n    return 2.0\n")
    assert rebuilt(recipe) == {"limited"}


def test_a_changed_artifact_is_made_again(recipe: Path) -> None:
    path = recipe.parent / "out" / "export-onnx" / "model.onnx"
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + b"\0")
    assert rebuilt(recipe) == {"export-onnx"}  # to the same bytes, so what is behind it is kept
    assert path.read_bytes() == whole


@pytest.mark.parametrize("name", ["model.pt", "model.pt.passport.json"])
def test_a_part_that_is_missing_is_made_again(recipe: Path, name: str) -> None:
    (recipe.parent / "out" / "export-torchscript" / name).unlink()
    assert rebuilt(recipe) == {"export-torchscript"}


@pytest.mark.parametrize("name", ["bench.json", "packages.json", "run.json", "export-onnx/model.onnx.passport.json"])
def test_a_damaged_record_is_made_again(recipe: Path, name: str) -> None:
    path = recipe.parent / "out" / name
    path.write_text("{")
    assert rebuilt(recipe) == ({"export-onnx"} if "onnx" in name else set())
    assert path.read_text() != "{"


@pytest.mark.parametrize(
    ("name", "made"),
    [
        ("bench.json", set()),
        ("packages.json", set()),
        ("export-onnx/model.onnx.passport.json", {"export-onnx"}),
        ("source/model.source.json.passport.json", {"source"}),
    ],
)
def test_an_edited_record_is_not_believed(
    recipe: Path, name: str, made: set[str], caplog: pytest.LogCaptureFixture
) -> None:
    path = recipe.parent / "out" / name
    whole = path.read_text()
    number = re.search(r"\d\.\d+", whole)
    assert number or "packages" in name
    edited = whole.replace(number[0], "0.125", 1) if number else whole.replace("tiny", "tinz", 1)
    path.write_text(edited)
    assert rebuilt(recipe) == made
    assert f"not reused: {path}: was changed after optkit wrote it" in caplog.text
    assert path.read_text() != edited


def test_a_changed_package_is_made_again_and_keeps_what_a_person_wrote(recipe: Path) -> None:
    package = recipe.parent / "out" / "model_repository" / "tiny"
    edited = (package / "config.pbtxt").read_text() + "# mine\nparameters { key: 'a' value { string_value: 'b' } }\n"
    model = (package / "1" / "model.onnx").read_bytes()
    (package / "config.pbtxt").write_text(edited)
    (package / "1" / "model.onnx").write_bytes(b"damaged")
    rebuilt(recipe)
    assert (package / "config.pbtxt").read_text() == edited
    assert (package / "1" / "model.onnx").read_bytes() == model


def test_a_record_of_packages_that_names_another_folder_is_not_followed(recipe: Path, tmp_path: Path) -> None:
    record = recipe.parent / "out" / "packages.json"
    content = json.loads(record.read_text())
    elsewhere = tmp_path / "elsewhere"
    for kept in content["packages"]:
        if kept["packaged"]["target"] == "triton":
            shutil.copytree(kept["packaged"]["path"], elsewhere)
            kept["packaged"]["path"] = str(elsewhere)
    record.write_text(json.dumps(content))
    rebuilt(recipe)
    assert elsewhere.is_dir()
    assert str(elsewhere) not in record.read_text()


def test_the_project_can_be_moved(recipe: Path, tmp_path: Path) -> None:
    moved = tmp_path / "elsewhere" / "deeper"
    moved.parent.mkdir()
    shutil.move(recipe.parent, moved)
    forget_modules()
    record = carry_out(moved / "recipe.yaml")
    assert statuses(record) == dict.fromkeys(NAMES, "reused")
    assert record.bench_reused
    assert record.exit_code == 0


def test_a_copied_project_has_packages_of_its_own(recipe: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(recipe.parent, copy)
    record = carry_out(copy / "recipe.yaml")
    assert statuses(record) == dict.fromkeys(NAMES, "reused")
    assert [packaged.path for packaged in record.packaged] == [
        copy / "out" / "model_repository" / "tiny",
        copy / "out" / "model_store" / "tiny.mar",
    ]
    assert all(str(copy) in packaged.command for packaged in record.packaged)


def test_fresh_makes_everything_again_and_the_same_archive(recipe: Path) -> None:
    archive = recipe.parent / "out" / "model_store" / "tiny.mar"
    before = archive.read_bytes()
    mine = recipe.parent / "out" / "notes.txt"
    mine.write_text("mine")
    inode = archive.stat().st_ino
    assert rebuilt(recipe, fresh=True) == set(NAMES)
    assert archive.stat().st_ino != inode
    assert archive.read_bytes() == before
    assert mine.read_text() == "mine"


def test_what_a_killed_run_left_is_cleared_away(tmp_path: Path) -> None:
    recipe = write_project(tmp_path, steps=[ONNX], serve=SERVE[:1])
    gone = "optkit-1-1-00000000-00000001"  # a process of another system
    left = [
        tmp_path / "out" / f".export-onnx.{gone}",
        tmp_path / "out" / "model_repository" / f".staged.{gone}" / "tiny",
    ]
    left.append(tmp_path / "out" / "export-onnx" / f".passport.{gone}")
    for folder in left:
        folder.mkdir(parents=True)
        (folder / "model.onnx").write_bytes(b"half")
    carry_out(recipe)
    assert [name for name in files_below(tmp_path / "out") if Path(name).name.startswith(".")] == []


def test_a_model_that_is_built_otherwise_each_time_is_refused(tmp_path: Path) -> None:
    recipe = write_project(tmp_path)
    edit(
        tmp_path / "model.py",
        "return Model()",
        "model = Model()\n    model.linear.bias.data += torch.from_numpy(np.random.default_rng().random(3)).float()\n    return model",
    )
    carry_out(recipe)
    forget_modules()
    write_project(tmp_path, steps=[TORCHSCRIPT | {"method": "trace"}])
    record = carry_out(recipe)
    assert record.exit_code == 2
    assert [step.status for step in record.steps] == ["failed"]
    assert "built different weights than last time, so results cannot be compared" in str(record.steps[0].reason)


def test_a_model_that_is_gone_ends_the_run(recipe: Path) -> None:
    (recipe.parent / "model.py").write_text("")
    with pytest.raises(ModelError, match="has no 'build'; it defines nothing"):
        carry_out(recipe)


def test_a_new_release_of_a_runtime_makes_the_steps_and_the_benchmark_again(
    recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed = deps.version
    monkeypatch.setattr(deps, "version", lambda *names: "99.0" if "onnxruntime" in names else installed(*names))
    record = carry_out(recipe)
    assert statuses(record) == dict.fromkeys(NAMES, "built")
    assert not record.bench_reused


def test_a_benchmark_of_another_runtime_is_not_reused_with_artifacts_of_the_same_bytes(
    recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TensorRT and torchao run artifacts and make none of these, so only what was found by running is found again."""
    installed = deps.version
    before = inodes(recipe)
    monkeypatch.setattr(deps, "version", lambda *names: "99.0" if "torchao" in names else installed(*names))
    record = carry_out(recipe)
    assert statuses(record) == dict.fromkeys(NAMES, "reused")
    assert not record.bench_reused
    assert {name for name, inode in inodes(recipe).items() if before[name] != inode} >= {"model.pt.passport.json"}


def test_a_proof_of_int8_does_not_travel_to_another_processor(recipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    proven = [step.passport.proof_key for step in carry_out(recipe).steps if step.passport]
    monkeypatch.setattr(environment, "processor", lambda: "x86_64 avx2")
    record = carry_out(recipe)
    assert {name for name, status in statuses(record).items() if status == "built"} == {"quantize-dynamic"}
    assert not set(proven) & {step.passport.proof_key for step in record.steps if step.passport}
    assert not record.bench_reused


@pytest.mark.parametrize("packages", [False, True])
def test_another_optkit_makes_everything_again(recipe: Path, monkeypatch: pytest.MonkeyPatch, packages: bool) -> None:
    """Its own code is in the keys, so that a development version of the same number is another one; code for servers only in packages."""
    own, only_packages = environment.own_code_sha256, packages

    def hashed(*, packages: bool = False) -> str:
        return "other" if packages or not only_packages else own()

    monkeypatch.setattr(environment, "own_code_sha256", hashed)
    archive = recipe.parent / "out" / "model_store" / "tiny.mar"
    inode = archive.stat().st_ino
    record = carry_out(recipe)
    assert statuses(record) == dict.fromkeys(NAMES, "reused" if packages else "built")
    assert record.bench_reused == packages
    assert archive.stat().st_ino != inode


def inodes(recipe: Path) -> dict[str, int]:
    return {path.name: path.stat().st_ino for path in (recipe.parent / "out" / "export-torchscript").iterdir()}


def test_an_unchanged_run_imports_no_heavy_library(tmp_path: Path) -> None:
    recipe = write_project(tmp_path, steps=[ONNX], serve=SERVE, data={"calibration": "model.py:calibration"})
    code = """import atexit, sys
atexit.register(lambda: print("imported:", sorted({"torch", "onnx", "onnxruntime"} & set(sys.modules))))
from optkit.cli import main
main()"""
    for imported in (["onnx", "onnxruntime", "torch"], []):
        command = [sys.executable, "-c", code, "run", str(recipe), "-o", str(tmp_path / "out"), "-q"]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert f"imported: {imported}" in done.stdout
