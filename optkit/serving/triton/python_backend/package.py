"""A Python function as a model of its own in a Triton repository, written only when the function keeps what it declares."""

import ast
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from optkit.artifact.tensors import DimRange, dimension_faults
from optkit.checks import compare_outputs
from optkit.data import Samples
from optkit.errors import StageError
from optkit.messages import listed
from optkit.serving.clients.folder import check_writable
from optkit.serving.golden import Golden, read_golden, write_golden
from optkit.serving.names import model_name
from optkit.serving.package import Packaged
from optkit.serving.settings import TritonPythonServing
from optkit.serving.triton.command import serve_command
from optkit.serving.triton.config import backend_config, warmup_files, warmup_of
from optkit.serving.triton.contract import described_contract
from optkit.serving.triton.folder import TritonModel, write_files, write_model
from optkit.serving.triton.package import seen_by_clients, unloaded_note, write_client_of
from optkit.serving.triton.python_backend.folder import python_files
from optkit.serving.triton.python_backend.functions import FunctionModel, prove_function
from optkit.user_code import module_name, split_target

_TRIAL_LIMIT_S = 300.0
_TRIAL = """
import importlib, sys
import numpy as np
folder, module, function, feed, answer = sys.argv[1:]
sys.path.insert(0, folder)
with np.load(feed) as arrays:
    inputs = {name.partition("/")[2]: arrays[name] for name in arrays.files}
given = getattr(importlib.import_module(module), function)(inputs)
np.savez(answer, **{"output/" + name: array for name, array in given.items()})
"""


def package_function(
    settings: TritonPythonServing, repository: Path, dims: Mapping[str, DimRange], samples: Samples, *, force: bool
) -> Packaged:
    """Prove a function and add it to a repository as one version of a model.

    Args:
        settings: the serve entry; its paths are absolute.
        repository: the folder of models; made if need be.
        dims: the ranges of its named dimensions.
        samples: where the values come from that it is proven on.
        force: as in `package_triton`.

    Raises:
        StageError: a dimension has no range, the answers change, batching is asked for and not proven, or the code that is carried
            does not run by itself.
        RunnerError: the function fails, or gives something else than it declares.
        FeedError: the real data does not fit the inputs.
        ModelError: it cannot be imported.
        OutputError: as `package_triton`. Nothing was written.
    """
    name = model_name(settings.name, split_target(settings.function)[1])
    model = FunctionModel(settings.function, settings.inputs, settings.outputs, dims)
    if faults := dimension_faults(model.inputs, dims):
        raise StageError(f"{model.title}: {'; '.join(faults)}")
    golden, independence = prove_function(model, samples, batching=settings.batching)
    contract = described_contract(model.title, model, settings, independence)
    files = python_files(
        settings.function,
        settings.inputs,
        settings.outputs,
        batched=bool(contract.max_batch_size),
        together=bool(contract.max_batch_size),
        extra_files=settings.extra_files,
    )
    _try_alone(model, files, golden)
    sample = samples.at({dim: r.opt for dim, r in dims.items()}) if settings.warmup else None
    warmup = warmup_of(model, contract, sample) if settings.warmup else None
    served = TritonModel(
        name=name,
        version=settings.version,
        config=backend_config(name, "python", settings, contract, warmup, reshape=False),
        files=files,
        warmup={file: warmup.files[tensor] for tensor, file in warmup_files(warmup).items()} if warmup else {},
        golden=seen_by_clients(golden, model.inputs, model.outputs, contract),
    )
    if settings.client:
        check_writable(repository, name)
    written, merging = write_model(repository, served, force=force)
    client, left = write_client_of(served, repository, contract, dims) if settings.client else (None, [])
    return Packaged(
        target=settings.target,
        name=name,
        version=str(settings.version),
        path=(repository / name).absolute(),
        files=written,
        notes=(*_needs(files), *contract.notes, *merging, *unloaded_note(repository / name, settings), *left),
        command=serve_command(repository, on_gpu=settings.instances.kind == "gpu", cached=settings.response_cache),
        client=client,
    )


def _try_alone(model: FunctionModel, files: Mapping[str, Path | bytes], golden: Golden) -> None:
    """Call the function in a new process that sees the carried files and what is installed, and compare.

    Raises:
        StageError: it fails there, or gives another answer: it needs a file that is not carried.
    """
    where, function = split_target(model.target)
    with tempfile.TemporaryDirectory(prefix="optkit-function-") as name:
        folder = Path(name)
        write_files(folder, files)
        write_golden(Golden(golden.inputs, {}, golden.tolerance), folder / "feed.npz")
        arguments = [
            str(folder / "code"),
            module_name(where),
            function,
            str(folder / "feed.npz"),
            str(folder / "answer.npz"),
        ]
        try:
            done = subprocess.run(
                [sys.executable, "-I", "-c", _TRIAL, *arguments],
                cwd=folder,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=_TRIAL_LIMIT_S,
                check=False,
            )
        except subprocess.TimeoutExpired as e:
            raise StageError(f"{model.title}: the carried code gave no answer within {_TRIAL_LIMIT_S:g} s") from e
        if done.returncode:
            said = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
            raise StageError(f"{model.title}: does not run by itself from the carried files: {said}. {_MISSING}")
        answer = read_golden(folder / "answer.npz", golden.tolerance).outputs
    kept = {key: array for key, array in answer.items() if key in golden.outputs}
    for found in compare_outputs(golden.outputs, kept, {}, golden.tolerance):
        if found.failure:
            raise StageError(
                f"{model.title}: output {found.output!r} is another one from the carried files: {found.failure}. {_MISSING}"
            )


_MISSING = "Name the files that it reads as extra_files (--extra-file), and open them beside __file__."


def _needs(files: Mapping[str, Path | bytes]) -> list[str]:
    """Say which packages the server's Python must have."""
    code = [path for name, path in files.items() if name.startswith("code/") and isinstance(path, Path)]
    own = {name.removeprefix("code/").partition("/")[0].removesuffix(".py") for name in files}
    imported: set[str] = {"numpy"}
    for path in code:
        for node in ast.walk(ast.parse(path.read_bytes())) if path.suffix == ".py" else ():
            if isinstance(node, ast.Import):
                imported |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
                imported.add(node.module.partition(".")[0])
    return [f"Triton's Python must have {listed(sorted(imported - own - sys.stdlib_module_names))}"]
