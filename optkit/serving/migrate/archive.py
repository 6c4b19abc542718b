"""Open an archive that somebody else made: what it holds and what its manifest says. Nothing of it is executed."""

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

MAX_BYTES = 64 * 2**30  # of all files together, unpacked
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
        """What handles requests: a file of the archive, `file.py:function`, or the name of a handler of TorchServe's own."""
        return str(self.model["handler"])

    def file(self, key: str) -> Path | None:
        """Return the file that an entry of the manifest names; None where there is no such entry.

        Raises:
            ArtifactError: the archive has no such file.
        """
        if not self.model.get(key):
            return None
        name = PurePosixPath(str(self.model[key])).name  # TorchServe puts all files into one folder
        if file_fault(self.folder, name):
            named = shown(str(self.model[key]))
            raise ArtifactError(f"{self.archive}: {MANIFEST} names {key} {named}, which the archive lacks")
        return self.folder / name


def open_mar(archive: Path, folder: Path) -> OpenedMar:
    """Unpack an archive into an empty folder and read its manifest.

    Raises:
        ArtifactError: it is no TorchServe archive, is damaged, or holds what must not be unpacked: a path that leads out of the
            folder, a link, more than `MAX_FILES` files or `MAX_BYTES` bytes.
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
        # RuntimeError: encrypted; NotImplementedError: a compression that zipfile does not know.
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
                f"{archive}: holds {shown(info.filename)}, which {fault}; expected names below one folder. Nothing was unpacked"
            )
        if stat.S_ISLNK(info.external_attr >> 16):
            raise ArtifactError(
                f"{archive}: holds the link {info.filename!r}; expected files alone. Nothing was unpacked"
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
        raise ArtifactError(f"{archive}: {MANIFEST} is no JSON ({e})") from e
    model = content.get("model") if isinstance(content, dict) else None
    if not isinstance(model, dict) or not {"modelName", "handler"} <= set(model):
        raise ArtifactError(f"{archive}: {MANIFEST} does not say model.modelName and model.handler, as TorchServe's do")
    return model
