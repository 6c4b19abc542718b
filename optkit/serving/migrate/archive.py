"""Unpack a TorchServe archive from an untrusted source and read its manifest. No code of the archive is executed."""

import json
import shutil
import stat
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from optkit.errors import ArtifactError
from optkit.serving.torchserve.mar import MANIFEST
from optkit.untrusted.paths import file_fault, name_fault, path_fault, shown

MAX_BYTES = 64 * 2**30  # of all unpacked files together
MAX_FILES = 10_000


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
            a link, more than `MAX_FILES` files or more than `MAX_BYTES` bytes.
    """
    if fault := path_fault(archive):
        raise ArtifactError(f"{archive}: {fault}; expected a TorchServe archive")
    try:
        with zipfile.ZipFile(archive) as opened:
            infos = [info for info in opened.infolist() if not info.is_dir()]
            _check(archive, infos)
            for info in infos:
                _unpack(opened, info, folder / info.filename)
    except (zipfile.BadZipFile, OSError, EOFError, RuntimeError, NotImplementedError) as e:
        # RuntimeError: encrypted; NotImplementedError: a compression method that zipfile does not support.
        raise ArtifactError(f"{archive}: cannot be read as a TorchServe archive, which is a zip file ({e})") from e
    return OpenedMar(archive, folder, _model(archive, folder / MANIFEST))


def _check(archive: Path, infos: list[zipfile.ZipInfo]) -> None:
    if len(infos) > MAX_FILES:
        raise ArtifactError(f"{archive}: holds {len(infos)} files; expected at most {MAX_FILES}")
    total = sum(info.file_size for info in infos)
    if total > MAX_BYTES:
        raise ArtifactError(f"{archive}: holds {total} bytes unpacked; expected at most {MAX_BYTES}")
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
    if not manifest.is_file():
        raise ArtifactError(f"{archive}: has no {MANIFEST}; expected a TorchServe archive")
    try:
        content = json.loads(manifest.read_text(encoding="utf-8"))
    except ValueError as e:
        raise ArtifactError(f"{archive}: {MANIFEST} is not JSON ({e})") from e
    model = content.get("model") if isinstance(content, dict) else None
    if not isinstance(model, dict) or not {"modelName", "handler"} <= set(model):
        raise ArtifactError(
            f"{archive}: {MANIFEST} lacks model.modelName or model.handler; expected a TorchServe manifest"
        )
    return model
