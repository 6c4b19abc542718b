"""How the user's files see one another, and that nobody else sees them."""

import copy
import inspect
import math
import pickle
import subprocess
import sys
import textwrap
import threading
import typing
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import torch

from optkit import user_code
from optkit.errors import ModelError
from optkit.pytorch.forward import torchscript_notices_off

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Return write(name, body): a file of the user's folder."""

    def written(name: str, body: str = "") -> Path:
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(textwrap.dedent(body))
        return file

    return written


def globals_of_python() -> tuple[list[object], ...]:
    return list(sys.path), list(sys.path_hooks), list(sys.meta_path), [sys.path]


def known_to_path(folder: Path) -> list[str]:
    return [path for path in sys.path_importer_cache if Path(path).is_relative_to(folder)]


@pytest.fixture(autouse=True)
def unchanged(tmp_path: Path):
    """Whatever a test loads and calls, Python's import system is afterwards as it was, and has no module under a plain name."""
    before, modules = globals_of_python(), set(sys.modules)
    yield
    assert globals_of_python() == before
    assert known_to_path(tmp_path) == []
    files = {name: str(getattr(sys.modules[name], "__file__", "")) for name in set(sys.modules) - modules}
    assert [name for name, file in files.items() if file.startswith(str(tmp_path)) and "optkit_user" not in name] == []


def test_a_lazy_import_finds_its_neighbour_later_and_in_a_thread(write: Write) -> None:
    write("near.py", "import nearer\nVALUE = nearer.VALUE")
    write("nearer.py", "VALUE = 3")
    file = write("m.py", "def now():\n    import near\n    return near.VALUE\n")
    found: list[object] = []
    function = user_code.load(f"{file}:now")
    thread = threading.Thread(target=lambda: found.append(function()))
    thread.start()
    thread.join()
    assert found == [3]
    assert function() == 3


def test_threads_that_import_at_once_get_the_whole_module(write: Write) -> None:
    write("slow.py", "import time\ntime.sleep(0.2)\nVALUE = 5")
    function = user_code.load(f"{write('m.py', 'def now():' + chr(10) + '    import slow; return slow.VALUE')}:now")
    found: list[object] = []
    threads = [threading.Thread(target=lambda: found.append(function())) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [5] * 4


def test_a_pool_that_imports_while_its_file_is_imported_does_not_stand_still(write: Write) -> None:
    write("near.py", "VALUE = 3")
    body = """
    from concurrent.futures import ThreadPoolExecutor
    def late(_):
        import near
        return near.VALUE
    with ThreadPoolExecutor(2) as pool:
        VALUES = list(pool.map(late, range(2), timeout=20))
    """
    assert user_code.load(f"{write('m.py', body)}:VALUES") == [3, 3]


LIBRARIES = ("random", "types", "tokenizers", "datasets", "onnx", "utils", "json")


@pytest.mark.parametrize("form", ["{}.py", "{}/__init__.py"])
@pytest.mark.parametrize("name", LIBRARIES)
def test_the_users_files_see_their_neighbours_first(write: Write, name: str, form: str) -> None:
    write(form.format(name), "MINE = True")
    file = write(
        "m.py", f"import {name}\nfrom {name} import MINE\ndef lazy():\n    import {name}\n    return {name}.MINE"
    )
    assert user_code.load(f"{file}:MINE") is True
    assert user_code.load(f"{file}:lazy")() is True
    assert set(user_code.code_files(str(file))) == {"m.py", form.format(name)}


def test_libraries_do_not_see_the_users_files(write: Write, tmp_path: Path) -> None:
    """A new process, so that each library is imported after the user's code, by it and by optkit."""
    for name in ("random", "types", "utils", "onnx", "decimal", "colorsys", "datasets"):
        write(f"{name}.py", "raise RuntimeError('this is the user\\'s')")
    write("triton/model/config.pbtxt")
    write("m.py", "import fractions, torch.utils\ndef build():\n    import colorsys_of\n    return colorsys_of.found\n")
    write("colorsys_of.py", "import statistics as found\n")
    code = """
    import sys
    from optkit import user_code
    print(user_code.load("m.py:build")().__name__)
    import onnx, importlib.util
    triton = importlib.util.find_spec("triton")  # installed beside a CUDA build of torch
    print(hasattr(onnx, "checker"), triton is None or "packages" in triton.origin, importlib.util.find_spec("utils"))
    """
    done = subprocess.run(
        [sys.executable, "-P", "-c", textwrap.dedent(code)], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.stdout == "statistics\nTrue True None\n", done.stderr


def test_a_folder_of_files_that_is_called_as_a_library_is_no_package(write: Write) -> None:
    write("onnx/model.onnx")
    write("datasets/a.csv")
    write("plain/part.py", "VALUE = 1")
    file = write("m.py", "import onnx\nimport plain.part\nchecked = onnx.checker\nVALUE = plain.part.VALUE")
    assert isinstance(user_code.load(f"{file}:checked"), ModuleType)
    assert user_code.load(f"{file}:VALUE") == 1  # a package without __init__.py
    assert set(user_code.code_files(str(file))) == {"m.py", "plain/part.py"}


def test_a_file_that_is_called_as_a_library_can_import_it(write: Write) -> None:
    file = write("colorsys.py", "import colorsys\nfound = colorsys.rgb_to_hsv")
    assert callable(user_code.load(f"{file}:found"))
    assert set(user_code.code_files(str(file))) == {"colorsys.py"}


def test_two_folders_hold_modules_of_the_same_names(write: Write) -> None:
    body = "import utils\nfrom pack.part import NUMBER\ndef later():\n    import pack.part as p, utils\n    return utils.NUMBER, p.NUMBER\n"
    for folder, number in (("a", 1), ("b", 2)):
        write(f"{folder}/utils.py", f"NUMBER = {number}\nclass Thing: ...")
        write(f"{folder}/pack/__init__.py")
        write(f"{folder}/pack/part.py", f"from utils import NUMBER\nassert NUMBER == {number}")
        write(f"{folder}/m.py", body)
    first, second = (user_code.load(str(write(f"{f}/m.py", body)) + ":later") for f in "ab")
    assert [first(), second(), first()] == [(1, 1), (2, 2), (1, 1)]


MODEL = """
from __future__ import annotations
import dataclasses
import torch
from parts import Part

@dataclasses.dataclass
class Settings:
    part: Part
    size: int = 4

class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.part = Part()

    def forward(self, x):
        import lazily
        return self.part(x) * lazily.FACTOR

def build():
    return Net()
"""
PARTS = """
import torch

class Part(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not self.training:
            return x
        return x + 1
"""


@pytest.fixture
def model(write: Write) -> Path:
    write("parts.py", PARTS)
    write("lazily.py", "FACTOR = 2")
    return write("m.py", MODEL)


def test_what_python_and_torch_ask_of_a_module_is_answered(model: Path) -> None:
    net = user_code.load(f"{model}:build")()
    settings = user_code.load(f"{model}:Settings")
    part = type(net.part)
    assert typing.get_type_hints(settings) == {"part": part, "size": int}
    assert sys.modules[part.__module__].Part is part
    assert inspect.getsource(part).startswith("class Part(torch.nn.Module):")
    assert inspect.getmodule(part) is sys.modules[part.__module__]
    for copied in (pickle.loads(pickle.dumps(net)), copy.deepcopy(net)):
        assert copied(torch.ones(1)) == 4
    assert pickle.loads(pickle.dumps(settings(net.part))).size == 4
    with torchscript_notices_off():
        assert torch.jit.script(net.part)(torch.ones(1)) == 2
        assert torch.jit.trace(net, torch.ones(1))(torch.ones(1)) == 4
    assert torch.export.export(net, (torch.ones(1),)).module()(torch.ones(1)) == 4
    assert torch.fx.symbolic_trace(net)(torch.ones(1)) == 4


def test_a_model_that_was_pickled_under_plain_names_is_read(write: Write, tmp_path: Path) -> None:
    """As torch.save(model) writes it in a script beside `nets/`, and as checkpoints of YOLO are."""
    write("nets/__init__.py")
    write("nets/parts.py", PARTS)
    code = "import torch; from nets.parts import Part; torch.save(Part(), 'm.pt')"
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True, env={"PYTHONDONTWRITEBYTECODE": "1"})
    body = """
    import pickle, torch
    def build():
        from nets.parts import Part
        net = torch.load(PATH, weights_only=False)
        assert type(net) is Part
        return net
    def unpickled():
        return pickle.loads(b"cnets.parts\\nPart\\n.")
    """
    file = write("m.py", body.replace("PATH", repr(str(tmp_path / "m.pt"))))
    for name in ("build", "unpickled"):
        function = user_code.load(f"{file}:{name}")
        with user_code.running(function):
            assert function() is not None


def test_a_module_that_is_imported_by_its_name_is_found(write: Write) -> None:
    write("nets/__init__.py")
    write("nets/small.py", "SIZE = 1")
    write("nets/large.py", "from . import small\nSIZE = small.SIZE + 1")
    body = """
    import importlib, pkgutil
    import nets
    SIZES = {n: importlib.import_module(f"nets.{n}").SIZE for n in ("small", "large")}
    SAME = nets.small is importlib.import_module("nets.small") is importlib.import_module(".small", nets.__name__)
    def lazy():
        return importlib.import_module("late").VALUE, __import__("late").VALUE, __import__("nets.small", fromlist=["SIZE"]).SIZE
    """
    write("late.py", "VALUE = 7")
    file = write("m.py", body)
    assert user_code.load(f"{file}:SIZES") == {"small": 1, "large": 2}
    assert user_code.load(f"{file}:SAME") is True
    function = user_code.load(f"{file}:lazy")
    with user_code.running(function):
        assert function() == (7, 7, 1)


def test_a_library_that_looks_for_an_optional_package_does_not_find_the_users(write: Write, tmp_path: Path) -> None:
    """As transformers looks for `datasets`, while the user's code that imports it is on the stack."""
    write(
        "lib/optional.py",
        "try:\n    import tokenizers_of_nobody\nexcept ImportError:\n    tokenizers_of_nobody = None\n",
    )
    write("user/tokenizers_of_nobody/__init__.py")
    write(
        "user/m.py",
        "import optional, tokenizers_of_nobody\nFOUND = optional.tokenizers_of_nobody, tokenizers_of_nobody.__file__",
    )
    code = "import sys; sys.path.append('lib'); from optkit import user_code; print(user_code.load('user/m.py:FOUND'))"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.stdout == f"(None, '{tmp_path}/user/tokenizers_of_nobody/__init__.py')\n", done.stderr


def test_what_the_users_code_puts_on_the_path_holds_for_its_imports_alone(write: Write, tmp_path: Path) -> None:
    write("proj/config.py", "SIZE = 2")
    write("proj/src/net.py", "import config\ndef size():\n    import layers\n    return layers.SIZE + config.SIZE")
    write("proj/src/layers.py", "SIZE = 3")
    write("other/late.py", "SIZE = 10")
    body = f"""
    import os, sys
    sys.path.insert(0, os.path.join(os.path.dirname(__file__), "src"))
    import net
    def build():
        sys.path.append({str(tmp_path / "other")!r})
        import late
        return net.size() + late.SIZE
    """
    function = user_code.load(f"{write('proj/m.py', body)}:build")
    with user_code.running(function):
        assert function() == 15
    assert function.__globals__["net"].size() == 5


@pytest.mark.parametrize(
    "inside",
    ["from .layers import SIZE", "from net_pack.layers import SIZE", "from . import layers\nSIZE = layers.SIZE"],
)
def test_a_file_of_a_package_imports_as_one(write: Write, inside: str) -> None:
    write("net_pack/__init__.py", "STARTED = True")
    write("net_pack/layers.py", "from .sub.deep import SIZE")
    write("net_pack/sub/__init__.py")
    write("net_pack/sub/deep.py", "from ..base import SIZE")
    write("net_pack/base.py", "SIZE = 4")
    file = write(
        "net_pack/net.py", f"{inside}\ndef build():\n    from .base import SIZE as again\n    return SIZE + again\n"
    )
    assert user_code.load(f"{file}:build")() == 8
    parts = ("__init__", "base", "layers", "net", "sub/__init__", "sub/deep")
    assert set(user_code.code_files(str(file))) == {f"net_pack/{name}.py" for name in parts}
    assert user_code.module_name(str(file)) == "net_pack.net"
    target = f"{write('net_pack/__init__.py', 'from .base import SIZE')}:SIZE"
    assert user_code.load(target) == 4


def test_a_script_that_lies_in_a_package_imports_as_a_script(write: Write) -> None:
    write("net_pack/__init__.py", "raise RuntimeError")
    write("net_pack/layers.py", "SIZE = 4")
    file = write("net_pack/net.py", "from layers import SIZE")
    assert user_code.load(f"{file}:SIZE") == 4
    assert set(user_code.code_files(str(file))) == {"net.py", "layers.py"}


def test_a_name_that_is_no_identifier_is_loaded(write: Write) -> None:
    write("near.py", "VALUE = 1")
    for name in ("my-model.py", "model.v2.py", "1.py", "math.py"):
        assert user_code.load(f"{write(name, 'from near import VALUE')}:VALUE") == 1
    assert math.pi > 3


def test_a_missing_part_of_a_package_is_named_as_the_user_names_it(write: Write) -> None:
    write("pack/__init__.py")
    file = write("m.py", "try:\n    import pack.none\nexcept ModuleNotFoundError as e:\n    NAME = e.name, str(e)\n")
    assert user_code.load(f"{file}:NAME") == ("pack.none", "No module named 'pack.none'")
    write("near.py")
    with pytest.raises(ModelError, match=r"m2\.py:1: ImportError: cannot import name 'x' from 'near' \("):
        user_code.load(f"{write('m2.py', 'from near import x')}:x")


def test_a_script_that_parses_arguments_is_told_how_to_guard_them(
    write: Write, capfd: pytest.CaptureFixture[str]
) -> None:
    write(
        "train.py",
        "import argparse\np = argparse.ArgumentParser()\np.add_argument('--data', required=True)\nargs = p.parse_args()",
    )
    for name, line in (("train.py", r"train\.py:4"), ("m.py", r"train\.py:4")):
        file = write(name, "from train import args") if name == "m.py" else f"{write('x').parent}/train.py"
        with pytest.raises(
            ModelError,
            match=rf"{name}: import failed: .*{line}: SystemExit: 2\. .* parses .*`if __name__ == \"__main__\":`",
        ):
            user_code.load(f"{file}:args")


def test_ctrl_c_during_an_import_is_no_fault_of_the_file(write: Write) -> None:
    body = "class Stops:\n    def __set_name__(self, owner, name):\n        raise KeyboardInterrupt\nclass Net:\n    part = Stops()\n"
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            user_code.load(f"{write('m.py', body)}:Net")


@pytest.mark.parametrize("target", ["~/m.py:VALUE", "~/pack/../m.py:VALUE"])
def test_the_home_folder_is_written_short(
    write: Write, tmp_path: Path, target: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    write("m.py", "VALUE = 1")
    assert user_code.absolute_target(target, Path("/elsewhere")) == f"{tmp_path / 'm.py'}:VALUE"
    assert user_code.load(target) == 1
    assert user_code.target_fault(target) is None
    assert "~nobody_of_this_name/m.py: no such file" in str(user_code.target_fault("~nobody_of_this_name/m.py:x"))


def test_files_that_are_imported_in_every_way_belong_to_the_code(write: Write) -> None:
    for name in ("a", "b", "c/__init__", "c/d", "c/e", "f/__init__", "f/g", "h", "unused", "c/unused"):
        write(f"{name}.py")
    write("f/__init__.py", "__all__ = ['g']")
    write("c/d.py", "from . import e")
    body = """
    import a as first, os
    from c import d, nothing
    from f import *
    def later():
        import b
        import importlib
        importlib.import_module("h")
    """
    expected = {"a", "b", "c/__init__", "c/d", "c/e", "f/__init__", "f/g", "h", "m"}
    assert set(user_code.code_files(str(write("m.py", body)))) == {f"{name}.py" for name in expected}


def test_two_files_mean_different_things_by_the_name_of_one_of_them(write: Write) -> None:
    write("colorsys.py", "import colorsys\nMINE = colorsys.rgb_to_hsv")
    assert user_code.load(f"{write('m.py', 'import colorsys' + chr(10) + 'MINE = colorsys.MINE')}:MINE")


def test_files_whose_names_differ_in_a_dot_are_two(write: Write) -> None:
    for name in ("net.v2", "net_v2"):
        assert user_code.load(f"{write(f'{name}.py', f'NAME = {name!r}')}:NAME") == name


def test_a_neighbour_that_is_written_later_is_found(write: Write) -> None:
    body = "try:\n    import written_later as found\nexcept ImportError:\n    found = None\n"
    file = write("m.py", body)
    assert user_code.load(f"{file}:found") is None
    write("written_later.py")
    assert user_code.load(f"{file}:found") is not None
