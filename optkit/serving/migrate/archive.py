"""Unpack a TorchServe archive from an untrusted source and read its manifest. No code of the archive is executed."""

import shutil
import stat
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from optkit.errors import ArtifactError, OptkitError, first_line
from optkit.serving.torchserve.mar import MANIFEST
from optkit.untrusted.archives import size_fault
from optkit.untrusted.documents import MAX_JSON_BYTES, parse_json
from optkit.untrusted.paths import file_fault, is_file, name_fault, path_fault, shown
from optkit.untrusted.reading import read_text


@dataclass(frozen=True)
class OpenedMar:
    """An unpacked archive and the `model` entry of its manifest."""

    archive: Path
    folder: Path
    model: Mapping[str, Any]

    @property
    def name(self) -> str:
        """The name that the archive gives its model."""
        return str(self.model["modelName"])

    @property
    def handler(self) -> str:
        """The handler: a file of the archive, `file.py:function`, or the name of one of TorchServe's handlers."""
        return str(self.model["handler"])

    def file(self, key: str) -> Path | None:
        """Return the file that an entry of the manifest names, or None if there is no such entry.

        Raises:
            ArtifactError: the archive has no such file.
        """
        if not self.model.get(key):
            return None
        name = PurePosixPath(str(self.model[key])).name  # TorchServe puts all files into one folder
        if file_fault(self.folder, name):
            named = shown(str(self.model[key]))
            raise ArtifactError(
                f"{self.archive}: {MANIFEST}: {key} names {named}; expected a file of the archive. Make the archive again."
            )
        return self.folder / name


def open_mar(archive: Path, folder: Path) -> OpenedMar:
    """Unpack an archive into an empty folder and read its manifest.

    Raises:
        ArtifactError: the file is not a TorchServe archive, is damaged, or is unsafe to unpack: it holds a path outside the folder,
            a link, or too many files or bytes.
    """
    if fault := path_fault(archive):
        raise ArtifactError(f"{archive}: {fault}; expected a TorchServe archive")
    try:
        with zipfile.ZipFile(archive) as opened:
            infos = [info for info in opened.infolist() if not info.is_dir()]
            _check(archive, folder, infos)
            for info in infos:
                _unpack(opened, info, folder / info.filename)
    except OptkitError:
        raise
    except (
        Exception
    ) as e:  # BadZipFile, zlib.error, RuntimeError (encrypted), NotImplementedError (compression) and more
        raise ArtifactError(
            f"{archive}: cannot be read as a TorchServe archive, which is a zip file ({first_line(e)})"
        ) from e
    return OpenedMar(archive, folder, _model(archive, folder / MANIFEST))


def _check(archive: Path, folder: Path, infos: list[zipfile.ZipInfo]) -> None:
    if fault := size_fault(infos, archive.stat().st_size):
        raise ArtifactError(f"{archive}: {fault}")
    total, free = sum(info.file_size for info in infos), shutil.disk_usage(folder).free
    if total > free:
        raise ArtifactError(
            f"{archive}: needs {total} bytes unpacked, and {folder} has {free} free. Set TMPDIR to a larger disk."
        )
    for info in infos:
        fault = name_fault(info.filename) or ("is a path of Windows" if ":" in info.filename else None)
        if fault:
            raise ArtifactError(
                f"{archive}: holds {shown(info.filename)}, which {fault}; expected names below one folder. No file was unpacked."
            )
        if stat.S_ISLNK(info.external_attr >> 16):
            raise ArtifactError(
                f"{archive}: holds the link {info.filename!r}; expected only files. No file was unpacked."
            )


def _unpack(opened: zipfile.ZipFile, info: zipfile.ZipInfo, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with opened.open(info) as source, target.open("xb") as written:  # zipfile stops at the size that the entry states
        shutil.copyfileobj(source, written, 1 << 20)


def _model(archive: Path, manifest: Path) -> Mapping[str, Any]:
    if not is_file(manifest):
        raise ArtifactError(f"{archive}: has no {MANIFEST}; expected a TorchServe archive")
    content = parse_json(read_text(manifest, "JSON", MAX_JSON_BYTES), f"{archive}: {MANIFEST}")
    model = content.get("model") if isinstance(content, dict) else None
    if not isinstance(model, dict) or not {"modelName", "handler"} <= set(model):
        raise ArtifactError(
            f"{archive}: {MANIFEST} lacks model.modelName or model.handler; expected a TorchServe manifest"
        )
    return model
