"""A TorchServe archive: a zip of flat files with a manifest, the same byte for byte whenever its content is the same."""

import zipfile
from collections.abc import Mapping
from pathlib import Path

from optkit.serving.staging import as_json

MANIFEST = "MAR-INF/MANIFEST.json"
_DATE = (1980, 1, 1, 0, 0, 0)  # the first that a zip can hold


def manifest(model: Mapping[str, str]) -> bytes:
    """Return the manifest as the official archiver 0.12.0 writes it, but for its time, which is fixed.

    Args:
        model: modelName, serializedFile, handler, modelVersion, and those of requirementsFile and configFile that exist.
    """
    content = {"createdOn": "01/01/1980 00:00:00", "runtime": "python", "model": model, "archiverVersion": "0.12.0"}
    return as_json(content)


def write_mar(path: Path, members: Mapping[str, Path | bytes]) -> None:
    """Write the members in the order of their names, uncompressed: weights hardly shrink, and zlib's output varies."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name in sorted(members):
            member = members[name]
            info = zipfile.ZipInfo(name, _DATE)
            info.create_system = 3  # Unix, on every system
            info.external_attr = 0o100644 << 16
            if isinstance(member, bytes):
                archive.writestr(info, member)
                continue
            info.file_size = member.stat().st_size  # zipfile decides by it whether the entry needs zip64
            with member.open("rb") as source, archive.open(info, "w") as target:
                while chunk := source.read(1 << 20):
                    target.write(chunk)
