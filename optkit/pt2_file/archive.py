"""A .pt2 archive: a captured program (torch.export), or a package of compiled code (AOTInductor). Both end in .pt2; the members tell."""

import shutil
import tempfile
import zipfile
from pathlib import Path

from optkit.errors import ArtifactError
from optkit.pt2_file.native_code import NativeCode, read_native_code, version_numbers
from optkit.record import Record
from optkit.untrusted.documents import parse_json
from optkit.untrusted.paths import name_fault, path_fault, shown

_COMPILED = "data/aotinductor/"  # torch.export.pt2_archive.constants.AOTINDUCTOR_DIR, below the archive's own folder
_MODEL = "model"  # of the packages that torch.export.save and aoti_compile_and_package write
_LARGEST_JSON = 1 << 20
_AGAIN = "Compile the model again with optkit compile, or copy the file again."


class PackageFacts(Record):
    """What a package of AOTInductor says of itself, read without loading it; None and empty where it does not say."""

    device: str | None  # cpu, cuda
    compute_capability: str | None  # of a GPU, as 90
    instruction_set: str | None  # as AVX512 AVX512_VNNI
    machine: str | None  # as x86_64
    libraries: int  # shared libraries with its native code
    glibc: str | None  # the newest symbol of the C library that they use
    needed: tuple[str, ...]  # the libraries that they need


def native_code_fault(path: Path) -> str | None:
    """Return why a .pt2 file must not be loaded as a captured program: it holds native code; None for all other files.

    torch.export.load loads every package of an archive, and loading executes it.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            compiled = any(_inner(name) is not None for name in archive.namelist())
    except (OSError, ValueError, zipfile.BadZipFile):
        return None  # torch says what is wrong with it
    if not compiled:
        return None
    return (
        "is an AOTInductor package: native code, which is executed when it is loaded; expected a file of torch.export.save. "
        "It was not loaded."
    )


def read_package(path: Path) -> PackageFacts:
    """Read a package of AOTInductor without loading it, and check what its loader would take from it.

    Raises:
        ArtifactError: it is none, is damaged, or a member has a name that leads out of the folder that the loader unpacks it to.
    """
    if fault := path_fault(path):
        raise ArtifactError(f"{path}: {fault}; expected a package of AOTInductor")
    try:
        with zipfile.ZipFile(path) as archive:
            return _read(path, archive)
    except (OSError, ValueError, EOFError, NotImplementedError, RuntimeError, zipfile.BadZipFile) as e:
        raise ArtifactError(
            f"{path}: is a damaged .pt2 archive ({e}); expected a package of AOTInductor. {_AGAIN}"
        ) from e


def check_members(path: Path) -> None:
    """Check the names and sizes of the members that the loader unpacks, without reading them.

    Raises:
        ArtifactError: it is no archive, or a member has a name that leads out of the folder that the loader unpacks it to.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            _checked(path, archive)
    except (OSError, ValueError, zipfile.BadZipFile) as e:
        raise ArtifactError(
            f"{path}: is a damaged .pt2 archive ({e}); expected a package of AOTInductor. {_AGAIN}"
        ) from e


def _checked(path: Path, archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    """Return the members with compiled code, by their names below its folder."""
    members = archive.infolist()
    for member in members:
        # The loader joins these names with a temporary folder, and does not look at them.
        if fault := name_fault(member.orig_filename):
            raise ArtifactError(
                f"{path}: its member {shown(member.orig_filename)} {fault}; expected names below one folder. Do not load it. {_AGAIN}"
            )
        if member.file_size > path.stat().st_size:
            raise ArtifactError(f"{path}: its member {shown(member.filename)} is larger than the archive. {_AGAIN}")
    inner = {name: member for member in members if (name := _inner(member.filename))}
    if not inner:
        raise ArtifactError(
            f"{path}: holds no compiled code; expected a package of AOTInductor. Compile the model first."
        )
    return inner


def _read(path: Path, archive: zipfile.ZipFile) -> PackageFacts:
    inner = _checked(path, archive)
    if damaged := archive.testzip():
        raise ArtifactError(f"{path}: its member {shown(damaged)} is damaged. {_AGAIN}")
    if others := sorted({name.partition("/")[0] for name in inner} - {_MODEL}):
        raise ArtifactError(f"{path}: holds the model {shown(others[0])}; expected one named {_MODEL!r}. {_AGAIN}")
    said: dict[str, str] = {}
    code = []
    for name, member in inner.items():
        if name.endswith("_metadata.json"):
            said |= _metadata(path, archive, member)
        elif name.endswith((".so", ".pyd", ".dll")):
            code.append(_native_code(path, archive, member))
    if not code:
        raise ArtifactError(f"{path}: holds no shared library; expected a package of AOTInductor. {_AGAIN}")
    newest = [one.glibc for one in code if one.glibc]
    return PackageFacts(
        device=said.get("AOTI_DEVICE_KEY") or None,
        compute_capability=said.get("AOTI_COMPUTE_CAPABILITY") or None,
        instruction_set=said.get("AOTI_CPU_ISA") or None,
        machine=said.get("AOTI_MACHINE") or None,
        libraries=len(code),
        glibc=max(newest, key=version_numbers, default=None),
        needed=tuple(dict.fromkeys(name for one in code for name in one.needed)),
    )


def _inner(name: str) -> str | None:
    """Return the part of a member's name below the folder of compiled code; None for other members."""
    root, found, rest = f"/{name}".replace("\\", "/").partition(f"/{_COMPILED}")
    return rest if found and root.count("/") <= 1 else None


def _metadata(path: Path, archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> dict[str, str]:
    if member.file_size > _LARGEST_JSON:
        raise ArtifactError(
            f"{path}: its member {shown(member.filename)} has {member.file_size} bytes of JSON. {_AGAIN}"
        )
    found = parse_json(archive.read(member).decode("utf-8"), f"{path}: {shown(member.filename)}")
    if not isinstance(found, dict):
        raise ValueError(f"{member.filename} is not a JSON object")
    return {key: value for key, value in found.items() if isinstance(value, str)}


def _native_code(path: Path, archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> NativeCode:
    with archive.open(member) as packed, tempfile.TemporaryFile(prefix="optkit-") as file:
        shutil.copyfileobj(packed, file)  # an ELF file is read from both of its ends
        file.seek(0)
        try:
            return read_native_code(file)
        except ValueError as e:
            raise ArtifactError(f"{path}: its member {shown(member.filename)} {e}. {_AGAIN}") from e
