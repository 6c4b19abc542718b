"""A TorchServe archive: a zip of flat files with a manifest, the same byte for byte whenever its content is the same."""

import hashlib
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import ClassVar

from optkit.errors import ArtifactError
from optkit.hashing import sha256_of
from optkit.record import Document
from optkit.serving.staging import as_json
from optkit.system.temporary import temporary_folder
from optkit.untrusted.paths import FileName, path_fault

MANIFEST = "MAR-INF/MANIFEST.json"
RECORD = "optkit-archive.json"
_MAX_RECORD_BYTES = 16 << 20
_DATE = (1980, 1, 1, 0, 0, 0)  # the earliest date of the zip format


class ArchiveRecord(Document):
    """The hash of every other member of an archive, for `optkit verify`."""

    schema_id: ClassVar[str] = "optkit/archive/1"
    sealed: ClassVar[bool] = True

    files: dict[FileName, str]


def manifest(model: Mapping[str, str]) -> bytes:
    """Return the manifest in the format of the official archiver 0.12.0, with a fixed time.

    Args:
        model: modelName, serializedFile, handler and modelVersion, and optionally requirementsFile and configFile.
    """
    content = {"createdOn": "01/01/1980 00:00:00", "runtime": "python", "model": model, "archiverVersion": "0.12.0"}
    return as_json(content)


def write_mar(path: Path, members: Mapping[str, Path | bytes]) -> None:
    """Write the members in the order of their names. They are not compressed: weights hardly shrink, and zlib's output varies."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name in sorted(members):
            member = members[name]
            info = zipfile.ZipInfo(name, _DATE)
            info.create_system = 3  # Unix, on every system
            info.external_attr = 0o100644 << 16
            if isinstance(member, bytes):
                archive.writestr(info, member)
                continue
            info.file_size = member.stat().st_size  # zipfile uses zip64 for large entries only if it knows the size
            with member.open("rb") as source, archive.open(info, "w") as target:
                while chunk := source.read(1 << 20):
                    target.write(chunk)


def record_of(members: Mapping[str, Path | bytes]) -> bytes:
    """Return the member that has the hashes of all others."""
    hashes = {
        name: hashlib.sha256(member).hexdigest() if isinstance(member, bytes) else sha256_of(member)
        for name, member in sorted(members.items())
    }
    return f"{ArchiveRecord(files=hashes).to_json()}\n".encode()


def archive_faults(path: Path) -> list[str] | None:
    """Return what differs between an archive and its record; None where it has none, because optkit did not make it.

    Raises:
        ArtifactError: it is no archive.
    """
    if fault := path_fault(path):
        raise ArtifactError(f"{path}: {fault}; expected a TorchServe archive")
    try:
        with zipfile.ZipFile(path) as archive:
            return list(_faults(archive)) if RECORD in archive.namelist() else None
    except (zipfile.BadZipFile, zlib.error, OSError, EOFError, RuntimeError, NotImplementedError) as e:
        raise ArtifactError(f"{path}: cannot be read as a TorchServe archive, which is a zip file ({e})") from e


def _faults(archive: zipfile.ZipFile) -> Iterator[str]:
    with temporary_folder() as folder, archive.open(RECORD) as stream:
        file = folder / RECORD
        file.write_bytes(stream.read(_MAX_RECORD_BYTES))
        try:
            recorded = ArchiveRecord.read(file).files
        except ArtifactError as e:
            yield f"{RECORD} {str(e).removeprefix(f'{file}: ').partition('. Make the file again')[0]}"
            return
    for info in archive.infolist():
        if info.filename == RECORD:
            continue
        if info.filename not in recorded:
            yield f"has {info.filename!r}, which {RECORD} does not name"
            continue
        expected, digest = recorded.pop(info.filename), hashlib.sha256()
        try:
            with archive.open(info) as stream:
                while chunk := stream.read(1 << 20):
                    digest.update(chunk)
        except (zipfile.BadZipFile, zlib.error, EOFError) as e:
            yield f"{info.filename!r} cannot be read ({e})"
            continue
        if digest.hexdigest() != expected:
            yield f"{info.filename!r} is not the file that optkit wrote"
    yield from (f"lacks {name!r}, which {RECORD} names" for name in recorded)
