import os
import re
import subprocess
import sys
import types
from pathlib import Path

import pytest

from optkit import user_code
from optkit.errors import ModelError


def write(folder: Path, name: str, body: str) -> Path:
    file = folder / name
    file.write_text(body)
    return file


def target_of(folder: Path, body: str, name: str) -> str:
    return f"{write(folder, 'm.py', body)}:{name}"


@pytest.mark.parametrize(
    ("target", "parts"),
    [
        ("model.py:build", ("model.py", "build")),
        ("a/b.py:build", ("a/b.py", "build")),
        ("package.module:build", ("package.module", "build")),
        (r"C:\models\m.py:build", (r"C:\models\m.py", "build")),
    ],
)
def test_a_target_has_two_parts(target: str, parts: tuple[str, str]) -> None:
    assert user_code.split_target(target) == parts


@pytest.mark.parametrize("target", ["", "model.py", "model.py:", ":build", "model.py:build()", "model.py:a.b"])
def test_what_is_no_target_is_refused(target: str) -> None:
    message = f"{target!r}: expected file.py:function or package.module:function, as in model.py:build"
    with pytest.raises(ModelError, match=re.escape(message)):
        user_code.split_target(target)


@pytest.fixture
def bytecode(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let Python cache bytecode, which takes a file of the same size and second for the same; CI may have it off."""
    monkeypatch.setattr(sys, "dont_write_bytecode", False)


@pytest.mark.usefixtures("bytecode")
def test_a_function_is_loaded_and_a_changed_file_loaded_anew(tmp_path: Path) -> None:
    target = target_of(tmp_path, "def build():\n    return 1\n", "build")
    assert user_code.load(target)() == 1
    assert user_code.load(target) is user_code.load(target)
    write(tmp_path, "m.py", "def build():\n    return 2\n")
    assert user_code.load(target)() == 2


@pytest.mark.usefixtures("bytecode")
def test_changed_neighbours_are_loaded_anew_through_those_that_import_them(tmp_path: Path) -> None:
    (tmp_path / "pack_of_m").mkdir()
    write(tmp_path, "pack_of_m/__init__.py", "from pack_of_m.inner import VALUE\n")
    inner = write(tmp_path, "pack_of_m/inner.py", "VALUE = 1\n")
    target = target_of(tmp_path, "from pack_of_m import VALUE\n", "VALUE")
    stamp = inner.stat()
    assert user_code.load(target) == 1
    package = user_code.load(f"{write(tmp_path, 'n.py', 'import pack_of_m')}:pack_of_m")
    assert (
        user_code.load(f"{write(tmp_path, 'o.py', 'import pack_of_m')}:pack_of_m") is package
    )  # nothing changed: it is shared
    write(tmp_path, "pack_of_m/inner.py", "VALUE = 2\n")
    os.utime(inner, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    assert user_code.load(target) == 2
    assert not list(tmp_path.rglob("__pycache__"))


def test_bytecode_that_lies_there_already_is_not_taken(tmp_path: Path) -> None:
    file = write(tmp_path, "m.py", "VALUE = 1\n")
    stamp = file.stat()
    subprocess.run([sys.executable, "-m", "compileall", "-q", str(tmp_path)], check=True)
    write(tmp_path, "m.py", "VALUE = 2\n")
    os.utime(file, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    assert user_code.load(f"{file}:VALUE") == 2


def test_a_neighbour_is_part_of_the_code(tmp_path: Path) -> None:
    write(tmp_path, "neighbour_of_m.py", "VALUE = 1\n")
    target = target_of(tmp_path, "from neighbour_of_m import VALUE\n", "VALUE")
    assert user_code.load(target) == 1
    assert set(user_code.code_files(str(tmp_path / "m.py"))) == {"m.py", "neighbour_of_m.py"}
    before = user_code.code_sha256(target)
    write(tmp_path, "neighbour_of_m.py", "VALUE = 2\n")
    assert user_code.code_sha256(target) != before


def test_the_hash_is_that_of_the_content_and_not_of_the_place(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    first, second = (write(tmp_path / folder, "m.py", "x = 1\n") for folder in "ab")
    assert user_code.code_sha256(f"{first}:x") == user_code.code_sha256(f"{second}:x")
    assert user_code.code_sha256(f"{first}:x") != user_code.code_sha256(f"{first}:y")


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("def build(:\n", r"m\.py:1: invalid syntax"),
        (
            "\nimport no_such_module_here\n",
            r"import failed: .*m\.py:2: ModuleNotFoundError: No module named 'no_such_mod",
        ),
        ("x = 1\n1 / 0\n", r"import failed: .*m\.py:2: ZeroDivisionError: division by zero"),
        ("def other(): ...\n_hidden = 1\n", r"m\.py: has no 'build'; it defines other$"),
        ("", r"m\.py: has no 'build'; it defines nothing$"),
    ],
)
def test_faults_of_a_file_name_their_line(tmp_path: Path, body: str, message: str) -> None:
    target = target_of(tmp_path, body, "build")
    with pytest.raises(ModelError, match=message):
        user_code.load(target)


def test_bytes_that_are_no_text_are_told(tmp_path: Path) -> None:
    (tmp_path / "m.py").write_bytes(b"\xff\xfe\x00x = 1")
    with pytest.raises(ModelError, match=r"m\.py"):
        user_code.load(f"{tmp_path / 'm.py'}:x")


def test_a_missing_file_and_a_folder_are_told_apart(tmp_path: Path) -> None:
    (tmp_path / "folder.py").mkdir()
    with pytest.raises(ModelError, match=r"none\.py: no such file; expected a Python file\. Check the path before"):
        user_code.load(f"{tmp_path / 'none.py'}:build")
    with pytest.raises(ModelError, match=r"folder\.py: is a directory; expected a Python file"):
        user_code.load(f"{tmp_path / 'folder.py'}:build")


def test_a_missing_module_is_told() -> None:
    with pytest.raises(ModelError, match=r"^no_such_module_here: "):
        user_code.load("no_such_module_here:build")
    with pytest.raises(
        ModelError, match=r"^no_such_module_here: no such module, neither installed nor below .*; expected file\.py"
    ):
        user_code.code_sha256("no_such_module_here:build")


def test_a_package_is_hashed_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "pack_of_test"
    package.mkdir()
    write(package, "__init__.py", "")
    write(package, "model.py", "build = 3\n")
    write(package, "layers.py", "")
    monkeypatch.syspath_prepend(tmp_path)
    assert user_code.load("pack_of_test.model:build") == 3
    assert set(user_code.code_files("pack_of_test.model")) == {
        f"pack_of_test/{name}.py" for name in ("__init__", "layers", "model")
    }


def test_faults_are_found_without_running_the_code(tmp_path: Path) -> None:
    file = write(tmp_path, "m.py", "raise RuntimeError\n")
    assert user_code.target_fault(f"{file}:build") is None
    assert "no such file" in str(user_code.target_fault(f"{tmp_path / 'none.py'}:build"))
    assert "expected file.py:function" in str(user_code.target_fault("build"))


def test_a_failed_import_leaves_no_module(tmp_path: Path) -> None:
    with pytest.raises(ModelError):
        user_code.load(f"{write(tmp_path, 'broken_m.py', '1 / 0')}:x")
    assert not [name for name in sys.modules if name.endswith(".broken_m")]


def test_a_relative_target_starts_at_its_base(tmp_path: Path) -> None:
    assert user_code.absolute_target("m.py:build", tmp_path) == f"{tmp_path / 'm.py'}:build"
    assert user_code.absolute_target("package.m:build", tmp_path) == "package.m:build"


def test_an_error_is_told_by_the_users_last_line(tmp_path: Path) -> None:
    body = "import json\n\ndef build():\n    return json.loads('{')\n"
    build: types.FunctionType = user_code.load(target_of(tmp_path, body, "build"))
    with pytest.raises(ValueError, match="Expecting") as caught:
        build()
    assert re.match(r".*m\.py:4: JSONDecodeError: Expecting", user_code.describe(caught.value))


def test_a_package_below_the_current_folder_is_found(tmp_path: Path) -> None:
    """As with `python -m`; the console script has its own folder on the path and not the current one."""
    (tmp_path / "pack_here").mkdir()
    (tmp_path / "pack_here" / "__init__.py").touch()
    (tmp_path / "pack_here" / "net.py").write_text("def build(): return 7\n")
    code = (
        "import os, sys; sys.path[:] = [p for p in sys.path if p not in ('', os.getcwd())]; "
        "from optkit import user_code as u; print(u.target_fault('pack_here.net:build'), u.load('pack_here.net:build')())"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.stdout == "None 7\n", done.stderr


@pytest.mark.parametrize("hides", ["onnx/__init__.py", "onnx.py"])
def test_what_is_called_as_a_package_of_optkit_does_not_hide_it(hides: str, tmp_path: Path) -> None:
    (tmp_path / hides).parent.mkdir(exist_ok=True)
    (tmp_path / hides).write_text("raise RuntimeError('this is not ONNX')\n")
    (tmp_path / "m.py").write_text("def build(): return 7\n")
    code = (
        "from optkit import user_code as u; print(u.load('m.py:build')()); import onnx; print(hasattr(onnx, 'checker'))"
    )
    done = subprocess.run([sys.executable, "-P", "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.stdout == "7\nTrue\n", done.stderr


def test_two_files_have_neighbours_of_the_same_name(tmp_path: Path) -> None:
    body = "from neighbour import NUMBER\ndef build():\n    from neighbour import NUMBER as later\n    return NUMBER, later\n"
    for folder, number in (("a", 1), ("b", 2)):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "neighbour.py").write_text(f"NUMBER = {number}\n")
        (tmp_path / folder / f"model_{folder}.py").write_text(body)
    for folder, number in (("a", 1), ("b", 2), ("a", 1)):
        assert user_code.load(f"{tmp_path}/{folder}/model_{folder}.py:build")() == (number, number)


def test_a_file_without_a_name_is_answered_with_one_of_its_own(tmp_path: Path) -> None:
    file = write(tmp_path, "net.py", "import os\nclass Net: ...\ndef build(): ...\n")
    with pytest.raises(ModelError, match=rf"^'{re.escape(str(file))}': expected .*, as in {re.escape(str(file))}:Net$"):
        user_code.split_target(str(file))


@pytest.mark.parametrize("installed", [False, True], ids=["below the current folder", "on the path"])
@pytest.mark.parametrize(
    "target",
    ["package.inner.model:build", "package:build", "model.py:build", "model.py:build:x", "model.py:build.x:y", "model:build:x"],
)  # fmt: skip
def test_a_target_is_checked_without_running_anything(
    target: str, installed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What `--dry-run` does: `importlib.util.find_spec` would import the packages around a module."""
    monkeypatch.chdir(tmp_path)
    if installed:
        monkeypatch.syspath_prepend(str(tmp_path))
    ran = "import pathlib\npathlib.Path('ran').touch()\ndef build(): pass\n"
    for file in ("model.py", "package/__init__.py", "package/inner/__init__.py", "package/inner/model.py"):
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_text(ran)
    fault = user_code.target_fault(target)
    assert (fault is None) == (target.count(":") == 1 and ".x" not in target)
    if fault is None:
        assert user_code.code_sha256(target)
    assert not (tmp_path / "ran").exists()
