"""A TorchServe archive: a zip of flat files with a manifest, the same byte for byte whenever its content is the same."""

import zipfile
from collections.abc import Mapping
from pathlib import Path

from optkit.serving.staging import as_json

MANIFEST = "MAR-INF/MANIFEST.json"
_DATE = (1980, 1, 1, 0, 0, 0)  # the earliest date of the zip format


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
