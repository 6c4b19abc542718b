"""The folder of a generated client: beside the repository or model store, because a server takes every folder in those for a model."""

import hashlib
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from optkit.errors import ArtifactError, OutputError
from optkit.hashing import hash_of
from optkit.record import Document, atomic_path
from optkit.serving.clients.source import ModelClass, identifier, own_code
from optkit.untrusted.paths import FileName, file_fault

FILE = "optkit.json"
_CODE = ("triton", "torchserve", "router", "source", "samples")
_WRITERS = ("optkit.serving.triton", "optkit.serving.torchserve")  # whose client_source.py says what a client holds


class ClientRecord(Document):
    """What optkit wrote to a client's folder: name of the file -> its hash."""

    schema_id: ClassVar[str] = "optkit/client/1"

    model: str
    files: dict[FileName, str]


def client_folder(package: Path, model: str) -> Path:
    """Return where the client of a model lies: `REPOSITORY_clients/MODEL`, a name that Python can import.

    Args:
        package: the model repository or model store.
        model: the name of the model in it.
    """
    package = package.absolute()
    return package.with_name(f"{package.name}_clients") / identifier(model)


def check_writable(package: Path, model: str) -> None:
    """Make the folder of a client if need be, before the package is written.

    Raises:
        OutputError: that cannot be done.
    """
    if not _takes_files(package):
        return  # the package cannot be written either: its own error comes next
    folder = client_folder(package, model)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as e:
        raise OutputError(
            f"{folder}: the client cannot be written ({e.strerror or e}). "
            f"Use --no-client, or client: false in the serve entry, to leave it out."
        ) from e


def _takes_files(package: Path) -> bool:
    """Say whether a file can be made in a folder, or in the nearest one above where it is still to be made."""
    nearest = next((path for path in (package, *package.absolute().parents) if path.exists()), package)
    try:
        with tempfile.TemporaryFile(dir=nearest):
            return True
    except OSError:
        return False


def write_package(package: Path, described: ModelClass, sample: Mapping[str, bytes]) -> tuple[Path | None, str | None]:
    """Write the client of a model beside its repository or model store.

    Returns:
        the folder, None where no client of the model is there, and why nothing was written.

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
    """Write a client, unless what lies there is another's: a file that a person edited, or that optkit did not write.

    Returns:
        why nothing was written; None where the client is there as it is to be.

    Raises:
        OutputError: the folder cannot be written.
    """
    before = _record(folder)
    if before is not None and before.model != model:
        return f"no client was written: {folder} is that of the model {before.model!r}"
    known = before.files if before is not None else {}
    own = [name for name, content in files.items() if _is_anothers(folder, name, known.get(name), content)]
    if own:
        names = ", ".join(own)
        return f"the client in {folder} was left as it is, because {names} is not as optkit wrote it; move it away for a new one"
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
    """Read the record; one that cannot be read counts as none, and what lies there as another's."""
    try:
        return ClientRecord.read(folder / FILE) if (folder / FILE).is_file() else None
    except ArtifactError:
        return None


def _is_anothers(folder: Path, name: str, known: str | None, content: bytes) -> bool:
    """Say whether something lies where a file is to go that optkit did not write: a link or a FIFO is no file of optkit's."""
    found = _hash(folder, name)
    if found is None:
        return os.path.lexists(folder / name)
    return found not in (known, hashlib.sha256(content).hexdigest())


def _hash(folder: Path, name: str) -> str | None:
    """Return the hash of a file; None where there is none, or something else."""
    return None if file_fault(folder, name) else hashlib.sha256((folder / name).read_bytes()).hexdigest()


def code_sha256() -> str:
    """Return a hash of the code that clients are made of: a client that was written with other code is written anew."""
    writers = {package: own_code("client_source", package) for package in _WRITERS}
    return hash_of({name: own_code(name) for name in _CODE} | writers)
