"""Packaging of a Python function as a Triton model, after a check that the function fits its declaration."""

import ast
import sys
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
from optkit.serving.packaged import Packaged
from optkit.serving.settings import TritonPythonServing
from optkit.serving.staging import writing
from optkit.serving.triton.command import serve_command
from optkit.serving.triton.config import backend_config, warmup_files, warmup_of
from optkit.serving.triton.contract import described_contract
from optkit.serving.triton.folder import RepositoryModel, write_files, write_model
from optkit.serving.triton.package import seen_by_clients, unloaded_note, write_client_of
from optkit.serving.triton.python_backend.folder import python_files
from optkit.serving.triton.python_backend.functions import FunctionModel, prove_function
from optkit.system.child import ChildProcess, death
from optkit.system.temporary import temporary_folder
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
    """Check a function and add it to a repository as one version of a model.

    Args:
        settings: the serve entry, with absolute paths.
        repository: the folder of models; created if it does not exist.
        dims: the ranges of its named dimensions.
        samples: the source of the values for the check.
        force: as in `package_triton`.

    Raises:
        StageError: a dimension has no range, the outputs change between calls, the check for batch independence failed, or the
            packaged code does not run alone.
        RunnerError: the function fails, or its outputs do not fit the declaration.
        FeedError: the real data does not fit the inputs.
        ModelError: the function cannot be imported.
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
    served = RepositoryModel(
        name=name,
        version=settings.version,
        config=backend_config(name, "python", settings, contract, warmup, reshape=False),
        files=files,
        warmup={file: warmup.files[tensor] for tensor, file in warmup_files(warmup).items()} if warmup else {},
        golden=seen_by_clients(golden, model.inputs, model.outputs, contract),
    )
    with writing(repository):
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
    """Call the packaged function in a new process that has only the packaged files and installed packages, and compare the outputs.

    Raises:
        StageError: the function fails there or gives different outputs, because it needs a file that is not packaged.
    """
    where, function = split_target(model.target)
    with temporary_folder() as folder:
        write_files(folder, files)
        write_golden(Golden(golden.inputs, {}, golden.tolerance), folder / "feed.npz")
        arguments = [
            str(folder / "code"),
            module_name(where),
            function,
            str(folder / "feed.npz"),
            str(folder / "answer.npz"),
        ]
        process = ChildProcess([sys.executable, "-I", "-c", _TRIAL, *arguments], folder=folder)
        try:
            code = process.wait(_TRIAL_LIMIT_S)
            said = process.last_lines()
        finally:
            process.stop()
        if code is None:
            raise StageError(f"{model.title}: the packaged code did not finish within {_TRIAL_LIMIT_S:g} s")
        if code:
            said = said or f"the process {death(code)}"
            raise StageError(f"{model.title}: the packaged files do not run alone: {said}. {_MISSING}")
        answer = read_golden(folder / "answer.npz", golden.tolerance).outputs
    kept = {key: array for key, array in answer.items() if key in golden.outputs}
    for found in compare_outputs(golden.outputs, kept, {}, golden.tolerance):
        if found.failure:
            raise StageError(
                f"{model.title}: output {found.output!r} differs with the packaged files: {found.failure}. {_MISSING}"
            )


_MISSING = "Name the files that it reads as extra_files (--extra-file), and open them beside __file__."


def _needs(files: Mapping[str, Path | bytes]) -> list[str]:
    """Return a note on the packages that the server's Python needs."""
    code = [path for name, path in files.items() if name.startswith("code/") and isinstance(path, Path)]
    own = {name.removeprefix("code/").partition("/")[0].removesuffix(".py") for name in files}
    imported: set[str] = {"numpy"}
    for path in code:
        for node in ast.walk(ast.parse(path.read_bytes())) if path.suffix == ".py" else ():
            if isinstance(node, ast.Import):
                imported |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
                imported.add(node.module.partition(".")[0])
    return [f"Triton's Python needs {listed(sorted(imported - own - sys.stdlib_module_names))}"]
