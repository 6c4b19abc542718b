"""Unpack a TorchServe archive from an untrusted source and read its manifest. No code of the archive is executed."""

import itertools
import shutil
import stat
import tarfile
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any

from optkit.errors import ArtifactError, OptkitError, first_line
from optkit.serving.torchserve.mar import MANIFEST
from optkit.system.space import check_space
from optkit.untrusted.archives import MAX_BYTES, MAX_FILES, size_fault
from optkit.untrusted.documents import MAX_JSON_BYTES, parse_json
from optkit.untrusted.paths import file_fault, is_file, is_folder, name_fault, path_fault, shown
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

    The three forms of torch-model-archiver are read: a zip file (.mar), a tar file (.tar.gz), and a folder (no-archive).

    Raises:
        ArtifactError: it is not a TorchServe archive, is damaged, or is unsafe to unpack: it holds a path outside the folder,
            a link, more than `MAX_FILES` files or more than `MAX_BYTES` bytes.
    """
    if is_folder(archive):
        _copy_folder(archive, folder)
    elif fault := path_fault(archive):
        raise ArtifactError(f"{archive}: {fault}; expected a TorchServe archive")
    elif tarfile.is_tarfile(archive):
        _unpack_tar(archive, folder)
    else:
        _unpack_zip(archive, folder)
    inside = [part for part in folder.iterdir() if is_folder(part)]
    if not is_file(folder / MANIFEST) and len(inside) == 1 and is_file(inside[0] / MANIFEST):
        folder = inside[0]  # the archiver puts a folder with the model's name into a tar file
    return OpenedMar(archive, folder, _model(archive, folder / MANIFEST))


def _unpack_zip(archive: Path, folder: Path) -> None:
    try:
        with zipfile.ZipFile(archive) as opened:
            infos = [info for info in opened.infolist() if not info.is_dir()]
            links = [f"link {shown(info.filename)}" for info in infos if stat.S_ISLNK(info.external_attr >> 16)]
            _check(archive, folder, [(info.filename, info.file_size) for info in infos], links)
            for info in infos:
                with opened.open(info) as source:  # zipfile stops at the size that the entry states
                    _write(source, folder / info.filename)
    except OptkitError:
        raise
    except (
        Exception
    ) as e:  # BadZipFile, zlib.error, RuntimeError (encrypted), NotImplementedError (compression) and more
        raise ArtifactError(
            f"{archive}: cannot be read as a TorchServe archive, which is a zip file ({first_line(e)})"
        ) from e


def _unpack_tar(archive: Path, folder: Path) -> None:
    try:
        with tarfile.open(archive) as opened:
            members = list(itertools.islice((one for one in opened if not one.isdir()), MAX_FILES + 1))
            kinds = [(one, "link" if one.issym() or one.islnk() else "device") for one in members if not one.isreg()]
            links = [f"{kind} {shown(one.name)}" for one, kind in kinds]
            names = [(one.name.removeprefix("./"), one.size) for one in members]
            _check(archive, folder, names, links)
            for one, (name, _) in zip(members, names, strict=True):
                source = opened.extractfile(one)
                assert source is not None  # it is a regular file
                with source:
                    _write(source, folder / name)
    except OptkitError:
        raise
    except Exception as e:  # TarError, zlib.error, LZMAError, OSError and more
        raise ArtifactError(
            f"{archive}: cannot be read as a TorchServe archive, here a tar file ({first_line(e)})"
        ) from e


def _copy_folder(archive: Path, folder: Path) -> None:
    try:
        files = list(
            itertools.islice(
                (path for path in archive.rglob("*") if path.is_symlink() or not is_folder(path)), MAX_FILES + 1
            )
        )
        kinds = [
            (path, "link" if path.is_symlink() else "device")
            for path in files
            if path.is_symlink() or not is_file(path)
        ]
        links = [f"{kind} {shown(path.relative_to(archive).as_posix())}" for path, kind in kinds]
        names = [path.relative_to(archive).as_posix() for path in files]
        _check(archive, folder, [(name, path.lstat().st_size) for name, path in zip(names, files, strict=True)], links)
        for path, name in zip(files, names, strict=True):
            with path.open("rb") as source:
                _write(source, folder / name)
    except OSError as e:
        raise ArtifactError(f"{archive}: cannot be read as an unpacked TorchServe archive ({e})") from e


def _check(archive: Path, folder: Path, files: Sequence[tuple[str, int]], links: Sequence[str]) -> None:
    """Check the names and sizes before anything is written; `links` says which files are none."""
    packed = archive.stat().st_size if is_file(archive) else MAX_BYTES  # a folder is not packed
    if fault := size_fault([size for _, size in files], packed):
        raise ArtifactError(f"{archive}: {fault}")
    check_space(folder, sum(size for _, size in files), f"the unpacked {archive.name}")
    for name, _ in files:
        fault = name_fault(name) or ("is a path of Windows" if ":" in name else None)
        if fault:
            raise ArtifactError(
                f"{archive}: holds {shown(name)}, which {fault}; expected names below one folder. No file was unpacked."
            )
    if links:
        raise ArtifactError(f"{archive}: holds the {links[0]}; expected only files. No file was unpacked.")


def _write(source: IO[bytes], target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.open("xb") as written:
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
