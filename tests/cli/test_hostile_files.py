"""Files that name other files outside their folder, through the whole command line: refused within a time limit, nothing touched."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from optkit.artifact import Passport, passport_path
from optkit.hashing import sha256_of
from optkit.pytorch.source import open_artifact
from tests.support import hostile
from tests.support.hostile import CANARY, EXTENTS, LOCATIONS, WEIGHT, Location, within
from tests.support.project import BENCH, CommandLine, write_recipe
from tests.support.seal import sealed

DIM = ("--dim", "batch=1:2:4")
COMMANDS = {
    "inspect": lambda path: ("inspect", path),
    "run": lambda path: ("run", recipe(path), "-o", "out"),
    "quantize": lambda path: ("quantize", path, "-o", "out.onnx", *DIM),
    "convert": lambda path: ("convert", "fp16", path, "-o", "out.onnx", *DIM),
    "package-triton": lambda path: ("package", "triton", path, "-o", "repository", *DIM),
    "package-torchserve": lambda path: ("package", "torchserve", path, "-o", "store", *DIM),
    "check-reference": lambda path: ("check", path, good(), *DIM),
    "check-candidate": lambda path: ("check", good(), path, *DIM),
    "bench": lambda path: ("bench", path, *DIM),
    "build-engine": lambda path: ("build-engine", path, "-o", "out.plan", *DIM),
}
Command = Callable[[Path], tuple[object, ...]]


def recipe(model: Path) -> Path:
    """Write a recipe that starts at an ONNX file."""
    keys = {"model": {"source": str(model)}, "inputs": None, "dims": {"batch": "1:2:4"}}
    return write_recipe(Path("recipe.yaml"), **keys, steps=[{"stage": "convert-fp16"}], bench=BENCH)


def good() -> Path:
    """Write a model with its data in a folder below, as it may lie."""
    path = hostile.write(Path("good/model.onnx"), {"location": "weights/x.bin"})
    (path.parent / "weights").mkdir(exist_ok=True)
    (path.parent / "weights" / "x.bin").write_bytes(WEIGHT.tobytes())
    return path.absolute()


def refused(optkit: CommandLine, arguments: tuple[object, ...], says: str) -> None:
    with within(60):
        found = optkit(*arguments)
    assert found.code == 2, found
    assert found.out == ""
    assert re.search(says, found.err), found.err
    assert "Traceback" not in found.err
    assert not {"out", "out.onnx", "out.plan", "repository", "store"} & {file.name for file in Path().iterdir()}


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("location", LOCATIONS, ids=lambda location: location.name)
def test_a_location_outside_is_refused(optkit: CommandLine, location: Location, command: str, tmp_path: Path) -> None:
    path = location.write(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    refused(optkit, COMMANDS[command](path), rf"model\.onnx: external data .*{location.says}")
    assert (tmp_path / "canary.bin").read_bytes() == CANARY
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(("entries", "says"), EXTENTS)
def test_a_part_of_a_file_that_is_not_there_is_refused(
    optkit: CommandLine, entries: dict[str, str], says: str, tmp_path: Path
) -> None:
    path = hostile.write(tmp_path / "model.onnx", {"location": "w.bin", **entries})
    (tmp_path / "w.bin").write_bytes(WEIGHT.tobytes() * 2)
    refused(optkit, ("quantize", path, "-o", "out.onnx", *DIM), says)


def test_data_in_a_folder_below_goes_through_a_whole_run(optkit: CommandLine) -> None:
    path = good()
    found = optkit("run", recipe(path), "-o", "run")
    assert found.code == 0, found.err
    assert Path("run/source/weights/x.bin").read_bytes() == WEIGHT.tobytes()
    assert optkit("run", recipe(path), "-o", "run").code == 0
    assert optkit("inspect", "run/source/model.onnx").code == 0
    packaged = optkit("package", "triton", "run/source/model.onnx", "-o", "repository")
    assert packaged.code == 0, packaged.err
    assert Path("repository/model/1/model.onnx/weights/x.bin").read_bytes() == WEIGHT.tobytes()
    assert optkit("lint", "repository").code == 0


def with_passport(folder: Path, *files: str) -> Path:
    """Write a model with a passport, and put other names into this by hand."""
    folder.mkdir(parents=True, exist_ok=True)
    model = hostile.write(folder / "model.onnx", {"location": "w.bin"})
    (folder / "w.bin").write_bytes(WEIGHT.tobytes())
    Passport(artifact=open_artifact(model)).save()
    passport = passport_path(model)
    content = json.loads(passport.read_text())
    content["artifact"]["files"] = list(files)
    passport.write_text(json.dumps(sealed(content)))
    return model


@pytest.mark.parametrize("command", ["inspect", "quantize", "package-triton", "check-candidate"])
@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("../canary.bin", r"passport\.json: artifact\.files\.0: '\.\./canary\.bin' leads out of its folder by '\.\.'"),
        ("/dev/zero", r"passport\.json: artifact\.files\.0: '/dev/zero' is an absolute path"),
        ("a\0b", r"artifact\.files\.0: 'a\\x00b' holds a control character"),
        ("\ud800", r"artifact\.files\.0: '\\ud800' is not valid UTF-8"),
        ("", r"artifact\.files\.0: '' names no file"),
        ("x" * 300, r"artifact\.files\.0: 'x+\.\.\. \(300 characters\) is too long"),
        ("none.bin", r"model\.onnx: its file 'none\.bin' is missing; .* Make the artifact again, or copy it"),
        ("fifo", r"model\.onnx: its file 'fifo' is a FIFO"),
        ("link.bin", r"model\.onnx: its file 'link\.bin' is a link; .* `cp -rL`"),
        ("up/canary.bin", r"model\.onnx: its file 'up/canary\.bin' lies behind the link 'up'"),
    ],
)
def test_a_passport_that_names_a_file_outside_is_refused(
    optkit: CommandLine, name: str, says: str, command: str, tmp_path: Path
) -> None:
    (tmp_path / "canary.bin").write_bytes(CANARY)
    folder = tmp_path / "model"
    path = with_passport(folder, name)
    hostile.fifo(folder)
    (folder / "link.bin").symlink_to("../canary.bin")
    (folder / "up").symlink_to("..")
    refused(optkit, COMMANDS[command](path), says)
    assert (tmp_path / "canary.bin").read_bytes() == CANARY


def test_a_passport_that_hides_the_data_of_its_model_is_refused(optkit: CommandLine, tmp_path: Path) -> None:
    path = with_passport(tmp_path)
    passport = passport_path(path)
    content = json.loads(passport.read_text())
    content["artifact"]["sha256"] = sha256_of(path)
    passport.write_text(json.dumps(sealed(content)))
    refused(
        optkit, ("inspect", path), r"model\.onnx: names the external data w\.bin; its passport names none\. Make the"
    )


def test_what_is_replaced_takes_nothing_outside_with_it(optkit: CommandLine, tmp_path: Path) -> None:
    """`--force` deletes the data of what it replaces, by the passport that lies there."""
    (tmp_path / "canary.bin").write_bytes(CANARY)
    path = with_passport(tmp_path / "model", "link/canary.bin", "w.bin")
    (path.parent / "link").symlink_to("..")
    source = good()
    assert optkit("convert", "fp16", source, "-o", path, "--force", *DIM).code == 0
    assert (tmp_path / "canary.bin").read_bytes() == CANARY
    assert not (path.parent / "w.bin").exists()

    shutil.rmtree(path.parent)
    nested = with_passport(tmp_path / "model", "w.bin", "more/w.bin")
    (nested.parent / "more").mkdir()
    (nested.parent / "more" / "w.bin").write_bytes(b"1")
    assert optkit("convert", "fp16", source, "-o", nested, "--force", *DIM).code == 0
    assert not (nested.parent / "w.bin").exists()
    assert not (nested.parent / "more" / "w.bin").exists()


@pytest.mark.parametrize("name", ["../../victim", "/tmp/victim", "..", "a/b", "a\0b", "x" * 300, ""])
def test_a_step_whose_name_leads_out_of_the_run_is_refused(optkit: CommandLine, name: str, tmp_path: Path) -> None:
    steps = [{"stage": "convert-fp16", "name": name}]
    keys = {"model": {"source": str(good())}, "inputs": None, "dims": {"batch": "1:2:4"}}
    (tmp_path / "victim").mkdir()
    recipe = write_recipe(tmp_path / "recipe.yaml", **keys, steps=steps)
    refused(
        optkit,
        ("run", recipe, "-o", "out"),
        r"steps\.0\.name: .* cannot name a step; expected up to 100 letters|contains the character NUL",
    )
    assert (tmp_path / "victim").is_dir()


@pytest.mark.parametrize("command", ["inspect", "quantize", "check-candidate"])
def test_a_model_that_is_no_regular_file_is_refused(optkit: CommandLine, command: str, tmp_path: Path) -> None:
    hostile.fifo(tmp_path)
    (tmp_path / "model.onnx").symlink_to("fifo")
    for path in (tmp_path / "model.onnx", Path("/dev/zero")):
        refused(optkit, COMMANDS[command](path), r": is a FIFO, a socket or a device; expected a model file")
    refused(
        optkit, COMMANDS[command](Path("a" * 300)), r": cannot be looked at \(File name too long\); expected a model"
    )
