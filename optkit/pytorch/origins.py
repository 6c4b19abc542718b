"""The origin of an nn.Module: a factory in Python, a TorchScript file, an ExportedProgram, a Hugging Face folder."""

import abc
import copy
import functools
import inspect
import os
import shutil
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from optkit import user_code
from optkit.deps import require
from optkit.errors import ModelError, OptkitError, first_line
from optkit.hashing import hash_of, sha256_of
from optkit.pt2_file import native_code_fault
from optkit.pytorch.forward import torchscript_notices_off
from optkit.pytorch.weights import state_sha256
from optkit.untrusted.archives import zip_fault
from optkit.untrusted.paths import exists, is_file, is_folder
from optkit.untrusted.quoting import is_python_name

if TYPE_CHECKING:
    import torch

Arguments = Mapping[str, str | int | float | bool | None]

_TORCHSCRIPT = (".pt", ".pth", ".ts")
_EXPECTED = "file.py:function, package.module:function, a TorchScript file, a .pt2 file, or a Hugging Face folder"


class ModuleOrigin(abc.ABC):
    """One origin of a module; `target` names it, with an absolute path for a file."""

    def __init__(self, target: str) -> None:
        self.target = target

    @abc.abstractmethod
    def fault(self) -> str | None:
        """Return the fault that can be found without running code, or None."""

    @abc.abstractmethod
    def sha256(self) -> str:
        """Return the hash of the code or files behind it.

        Raises:
            ModelError: they cannot be read.
        """

    @abc.abstractmethod
    def build(self, args: Arguments) -> "torch.nn.Module":
        """Return the module, in its original mode.

        Raises:
            ModelError: the module cannot be built or loaded.
        """

    @abc.abstractmethod
    def reproduce(self, folder: Path, args: Arguments) -> list[str]:
        """Copy the code or files of the module into a folder, and return the lines of Python that build `model` there."""

    def example(self, module: "torch.nn.Module") -> object:  # noqa: ARG002 - used by subclasses
        """Return the example inputs of the model; None where there are none."""
        return None

    def choice(self) -> str | None:
        """Return a note on the model that was chosen; None where there was no choice."""
        return None

    def relative_to(self, folder: Path) -> str:
        """Return the target with its path relative to a folder, so that both can be moved together."""
        return _relative(Path(self.target), folder)


class Factory(ModuleOrigin):
    """A function or class that returns a module, or a module itself; its file may define `example_inputs`."""

    def __init__(self, target: str, *, named: bool = True) -> None:
        """Store the target, and whether its name was given or found in the file."""
        super().__init__(target)
        self._named = named

    def choice(self) -> str | None:
        """Return a note on the model of the file that was used, where no name was given."""
        where, name = user_code.split_target(self.target)
        return None if self._named else f"used {name}, the model that {Path(where).name} defines"

    def fault(self) -> str | None:
        """Return the fault of the file or module name, or None."""
        return user_code.target_fault(self.target)

    def sha256(self) -> str:
        """Return the hash of the code."""
        return user_code.code_sha256(self.target)

    def build(self, args: Arguments) -> "torch.nn.Module":
        """Call the factory with a fixed random seed, so that random weights are the same each time."""
        import torch

        factory = user_code.load(self.target)
        self._check_arguments(factory, args)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            try:
                with user_code.running(factory):
                    module = factory if isinstance(factory, torch.nn.Module) else factory(**dict(args))
            except (Exception, SystemExit) as e:
                raise ModelError(f"{self.target}: raised {user_code.describe(e)}") from e
        if not isinstance(module, torch.nn.Module):
            found = type(module).__name__
            raise ModelError(f"{self.target}: returned a {found}; expected a torch.nn.Module. Return the model.")
        return module

    def _check_arguments(self, factory: Any, args: Arguments) -> None:
        """Refuse missing arguments with a message that mentions --set, which Python's error does not."""
        import torch

        try:
            called = callable(factory) and not isinstance(factory, torch.nn.Module)
            wanted = tuple(inspect.signature(factory).parameters.values()) if called else ()
        except (TypeError, ValueError):  # written in C
            return
        given = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
        missing = [p.name for p in wanted if p.default is p.empty and p.kind not in given and p.name not in args]
        if missing:
            raise ModelError(
                f"{self.target}: takes {', '.join(missing)} without a default. Give each with --set, or as model.args in a recipe; "
                f"or name a function without arguments that returns the model.",
                add=" ".join(f"--set {name}=VALUE" for name in missing),
            )

    def reproduce(self, folder: Path, args: Arguments) -> list[str]:
        """Copy the code of a file; an installed package is imported."""
        where, name = user_code.split_target(self.target)
        if where.endswith(".py"):
            for relative, file in user_code.code_files(where).items():
                (folder / relative).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(file, folder / relative)
        module = user_code.module_name(where)
        if all(map(is_python_name, module.split("."))):
            imported = [f"from {module} import {name}"]
        else:  # such as my-model.py
            imported = ["import importlib", "", f"{name} = importlib.import_module({module!r}).{name}"]
        named = ", ".join(f"{key}={value!r}" for key, value in args.items())
        made = named if all(map(is_python_name, args)) else f"**{dict(args)!r}"
        return [*imported, "", "torch.manual_seed(0)", f"model = {name}({made})"]

    def example(self, module: "torch.nn.Module") -> object:  # noqa: ARG002
        """Return the result of `example_inputs` in the factory's file."""
        target = f"{user_code.split_target(self.target)[0]}:example_inputs"
        return call_example(target) if user_code.defines(target) else None

    def relative_to(self, folder: Path) -> str:
        """Return the target with the path of its file relative to a folder."""
        where, name = user_code.split_target(self.target)
        return f"{_relative(Path(where), folder)}:{name}" if where.endswith(".py") else self.target


class InMemoryModule(ModuleOrigin):
    """A module in the caller's memory; nothing can build it again."""

    def fault(self) -> str | None:
        """Return the reason why it is not in memory; None where it is."""
        return user_code.in_memory_fault(self.target)

    def sha256(self) -> str:
        """Return the hash of the class's code, the structure of its submodules, and its state dict."""
        return _in_memory_sha256(self.target)

    def build(self, args: Arguments) -> "torch.nn.Module":
        """Return a copy of the module with shared weights; the caller's module keeps its mode, its device and its hooks."""
        if args:
            raise ModelError(
                f"{self.target}: takes no arguments ({', '.join(args)} given); it is a module, not a factory"
            )
        return _shared_copy(self.target, self._module)

    def choice(self) -> str | None:
        """Return a note on the module, because no file describes it."""
        kind = type(self._module)
        return (
            f"made of {kind.__module__}.{kind.__qualname__}, a module in memory with the state dict {state_sha256(self._module)}: "
            "nothing can build it again"
        )

    def reproduce(self, folder: Path, args: Arguments) -> list[str]:  # noqa: ARG002
        """Raise ModelError, because no file builds the module."""
        raise ModelError(
            f"{self.target}: is in memory, so no script can build it again. Give a file instead, as in --repro with model.py:build."
        )

    def example(self, module: "torch.nn.Module") -> object:
        """Return the dummy inputs of a Hugging Face model."""
        return getattr(module, "dummy_inputs", None) if hasattr(module, "config") else None

    def relative_to(self, folder: Path) -> str:  # noqa: ARG002
        """Return the target, which is not a path."""
        return self.target

    @property
    def _module(self) -> "torch.nn.Module":
        module: torch.nn.Module = user_code.load(self.target)
        return module


@functools.lru_cache(maxsize=1)
def _in_memory_sha256(target: str) -> str:
    """Return the hash of a module in memory; cached, because hashing gigabytes of weights takes seconds."""
    module = user_code.load(target)
    kind = type(module)
    return hash_of(
        {
            "class": f"{kind.__module__}.{kind.__qualname__}",
            "code": user_code.function_sha256(kind),
            "modules": str(module),
            "state": state_sha256(module),
        }
    )


def forget_modules_in_memory() -> None:
    """Clear the cached hashes of modules in memory."""
    _in_memory_sha256.cache_clear()


def _shared_copy(target: str, module: "torch.nn.Module") -> "torch.nn.Module":
    """Copy a module without copying weights that are on the CPU already.

    Raises:
        ModelError: the module cannot be copied.
    """
    import torch

    memo: dict[int, object] = {}
    for tensor in (*module.parameters(), *module.buffers()):
        data = tensor.detach().cpu()
        if type(tensor) is torch.nn.Parameter:
            memo[id(tensor)] = torch.nn.Parameter(data, requires_grad=tensor.requires_grad)
        elif type(tensor) is torch.Tensor:
            memo[id(tensor)] = data
    try:
        return copy.deepcopy(module, memo)
    except Exception as e:
        raise ModelError(
            f"{target}: cannot be copied: {first_line(e)}. optkit never changes your module, so it needs a copy."
        ) from e


class _ModelPath(ModuleOrigin):
    """A model on disk; it takes no arguments."""

    @property
    def path(self) -> Path:
        return Path(self.target)

    def fault(self) -> str | None:
        """Return the fault of the path, or None."""
        if not exists(self.path):
            return f"{self.path}: no such file or folder; expected {_EXPECTED}"
        fault = zip_fault(self.path)
        return f"{self.path}: {fault}" if fault else None

    def sha256(self) -> str:
        """Return the hash of the file."""
        return sha256_of(self.path)

    def _copy(self, folder: Path) -> str:
        (shutil.copytree if is_folder(self.path) else shutil.copyfile)(self.path, folder / self.path.name)
        return repr(self.path.name)

    def _no_arguments(self, args: Arguments) -> None:
        if args:
            raise ModelError(
                f"{self.path}: takes no arguments ({', '.join(args)} given); only a factory in Python does"
            )


class TorchScriptFile(_ModelPath):
    """A file of torch.jit.save; a state dict with the same suffix is an error."""

    def build(self, args: Arguments) -> "torch.nn.Module":
        """Load the file."""
        import torch

        self._no_arguments(args)
        try:
            with torchscript_notices_off():
                module: torch.nn.Module = torch.jit.load(str(self.path), map_location="cpu")
        except (RuntimeError, ValueError) as e:
            raise ModelError(
                f"{self.path}: is not a TorchScript file ({first_line(e)}); expected a file of torch.jit.save. A pickled "
                f"module (torch.save of a module) is never loaded, because that runs code in the file: save its state dict in Python. If it is a state "
                f"dict, name the code that builds the model, as in model.py:build, and give this file as the weights."
            ) from e
        return module

    def reproduce(self, folder: Path, args: Arguments) -> list[str]:  # noqa: ARG002
        """Copy the file."""
        return [f"model = torch.jit.load({self._copy(folder)})"]


class ExportedProgramFile(_ModelPath):
    """A file of torch.export.save; it has example inputs."""

    def build(self, args: Arguments) -> "torch.nn.Module":
        """Load the program and return it as a module."""
        self._no_arguments(args)
        return self.program().module()

    def reproduce(self, folder: Path, args: Arguments) -> list[str]:  # noqa: ARG002
        """Copy the file."""
        return [f"model = torch.export.load({self._copy(folder)}).module()"]

    def example(self, module: "torch.nn.Module") -> object:  # noqa: ARG002
        """Return the inputs that the program was captured with."""
        captured = self.program().example_inputs
        return tuple(captured[0]) if captured and not captured[1] else None

    def program(self) -> "torch.export.ExportedProgram":
        """Load the program.

        Raises:
            ModelError: the file is no exported program.
        """
        import torch

        if fault := native_code_fault(self.path):
            raise ModelError(f"{self.path}: {fault}")
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                return torch.export.load(self.path)
        except Exception as e:  # zip, json and torch each raise their own here
            raise ModelError(
                f"{self.path}: is not an ExportedProgram ({first_line(e)}); expected a file of torch.export.save"
            ) from e


class HuggingFaceFolder(_ModelPath):
    """A local folder with config.json and weights, loaded by transformers without the network.

    The class is the first of the configuration's `architectures`, or the argument `auto_class`.
    """

    def sha256(self) -> str:
        """Return the hash of every file of the folder."""
        files = sorted(p for p in self.path.rglob("*") if is_file(p))
        return hash_of({str(p.relative_to(self.path)): sha256_of(p) for p in files})

    def build(self, args: Arguments) -> "torch.nn.Module":
        """Load the model with FP32 weights and without its cache of past keys."""
        transformers = require("transformers")
        try:
            config = transformers.AutoConfig.from_pretrained(self.path, local_files_only=True)
            if hasattr(config, "use_cache"):
                config.use_cache = False  # a cache is not a tensor, and a server keeps none between requests
            name = str(args.get("auto_class") or (config.architectures or ["AutoModel"])[0])
            options = {key: value for key, value in args.items() if key != "auto_class"}
            module: torch.nn.Module = getattr(transformers, name).from_pretrained(
                self.path, config=config, local_files_only=True, dtype="float32", **options
            )
        except OptkitError:
            raise
        except Exception as e:  # transformers raises OSError, ValueError, AttributeError and more
            raise ModelError(f"{self.path}: transformers cannot load it ({user_code.describe(e)})") from e
        return module

    def reproduce(self, folder: Path, args: Arguments) -> list[str]:
        """Copy the folder; the class is the one that was built."""
        name = type(self.build(args)).__name__
        return [
            "import transformers",
            "",
            f"model = transformers.{name}.from_pretrained({self._copy(folder)}, use_cache=False)",
        ]

    def example(self, module: "torch.nn.Module") -> object:
        """Return the dummy inputs of the model."""
        return getattr(module, "dummy_inputs", None)


def open_origin(target: str, base: Path = Path()) -> ModuleOrigin:
    """Return the origin that a target names; a relative path starts at `base`.

    Raises:
        ModelError: the target has no known origin.
    """
    if user_code.is_in_memory(target):
        return InMemoryModule(target)
    path = Path(os.path.abspath(base / os.path.expanduser(target)))  # noqa: PTH100, PTH111 - resolves `..` without following links
    if is_folder(path):
        if not is_file(path / "config.json"):
            raise ModelError(f"{target}: is a directory without config.json; expected {_EXPECTED}")
        return HuggingFaceFolder(str(path))
    if path.suffix == ".pt2":
        return ExportedProgramFile(str(path))
    if path.suffix in _TORCHSCRIPT:
        return TorchScriptFile(str(path))
    if path.suffix == ".onnx":
        raise ModelError(f"{target}: an ONNX model contains no nn.Module; expected {_EXPECTED}")
    if path.suffix == ".py":
        return Factory(f"{path}:{user_code.the_model(path)}", named=False)
    return Factory(user_code.absolute_target(target, base))


def call_example(target: str) -> object:
    """Return the example inputs of a target; a function is called.

    Raises:
        ModelError: the target cannot be loaded, or raises.
    """
    found: Any = user_code.load(target)
    try:
        with user_code.running(found):
            return found() if callable(found) else found
    except (Exception, SystemExit) as e:
        raise ModelError(f"{target}: raised {user_code.describe(e)}") from e


def _relative(path: Path, folder: Path) -> str:
    try:
        return os.path.relpath(path, folder)
    except ValueError:  # another drive
        return str(path)
