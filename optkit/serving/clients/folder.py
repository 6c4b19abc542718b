"""The folder of a generated client. It lies beside the repository or model store, because servers load every folder inside as a model."""

import hashlib
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from optkit.errors import ArtifactError, OutputError
from optkit.record import Document, atomic_path
from optkit.serving.clients.generate import ModelClass, identifier, own_code
from optkit.untrusted.paths import FileName, exists, file_fault, is_file, new_file_fault

FILE = "optkit.json"


class ClientRecord(Document):
    """The files that optkit wrote to a client's folder: name -> hash."""

    schema_id: ClassVar[str] = "optkit/client/1"

    model: str
    files: dict[FileName, str]


def client_folder(package: Path, model: str) -> Path:
    """Return the folder for the client of a model: `REPOSITORY_clients/MODEL`, where MODEL is a valid Python name.

    Args:
        package: the model repository or model store.
        model: the name of the model in it.
    """
    package = package.absolute()
    return package.with_name(f"{package.name}_clients") / identifier(model)


def check_writable(package: Path, model: str) -> None:
    """Create the folder of a client, so that a failure shows before the package is written.

    Raises:
        OutputError: the folder cannot be created.
    """
    if not _takes_files(package):
        return  # writing the package fails too and reports the error
    folder = client_folder(package, model)
    if fault := new_file_fault(folder):
        raise OutputError(f"{folder}: {fault}; expected a folder to write to")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as e:
        raise OutputError(
            f"{folder}: the client cannot be written ({e.strerror or e}). "
            f"To package without a client, use --no-client, or client: false in the serve entry."
        ) from e


def _takes_files(package: Path) -> bool:
    """Return whether a file can be created in a folder or, if the folder does not exist, in its nearest parent."""
    nearest = next((path for path in (package, *package.absolute().parents) if exists(path)), package)
    try:
        with tempfile.TemporaryFile(dir=nearest):
            return True
    except OSError:
        return False


def write_package(package: Path, described: ModelClass, sample: Mapping[str, bytes]) -> tuple[Path | None, str | None]:
    """Write the client of a model beside its repository or model store.

    Returns:
        The folder, or None if it holds no client of this model; and the reason if nothing was written.

    Raises:
        OutputError: the folder cannot be written.
    """
    folder = client_folder(package, described.model)
    files = {
        "__init__.py": described.init(),
        "client.py": described.text(),
        "router.py": own_code("router").encode(),
        **sample,
    }
    left = write_client(folder, described.model, files)
    there = _record(folder)
    return folder if there is not None and there.model == described.model else None, left


def write_client(folder: Path, model: str, files: Mapping[str, bytes]) -> str | None:
    """Write a client, unless the folder holds a file that a person edited or that optkit did not write.

    Returns:
        The reason why nothing was written, or None.

    Raises:
        OutputError: the folder cannot be written.
    """
    before = _record(folder)
    if before is not None and before.model != model:
        return f"no client was written: {folder} holds the client of the model {before.model!r}"
    known = before.files if before is not None else {}
    own = [name for name, content in files.items() if _is_anothers(folder, name, known.get(name), content)]
    if own:
        names = ", ".join(own)
        return f"no client was written: {names} in {folder} was edited or is not from optkit. To get a new client, move the folder away"
    for name in known.keys() - files.keys():
        if _hash(folder, name) == known[name]:
            (folder / name).unlink()
    for name, content in files.items():
        with atomic_path(folder / name) as temporary:
            temporary.write_bytes(content)
    hashes = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    ClientRecord(model=model, files=hashes).write(folder / FILE)
    return None


def _record(folder: Path) -> ClientRecord | None:
    """Read the record, or return None if there is none or it cannot be read."""
    try:
        return ClientRecord.read(folder / FILE) if is_file(folder / FILE) else None
    except ArtifactError:
        return None


def _is_anothers(folder: Path, name: str, known: str | None, content: bytes) -> bool:
    """Return whether the path exists and optkit did not write it. optkit does not write links or FIFOs."""
    found = _hash(folder, name)
    if found is None:
        return os.path.lexists(folder / name)
    return found not in (known, hashlib.sha256(content).hexdigest())


def _hash(folder: Path, name: str) -> str | None:
    """Return the hash of a regular file, or None if there is none."""
    return None if file_fault(folder, name) else hashlib.sha256((folder / name).read_bytes()).hexdigest()
