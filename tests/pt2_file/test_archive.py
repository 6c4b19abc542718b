"""A .pt2 archive is read without loading it: loading a package executes its code."""

import _ctypes
import zipfile
from pathlib import Path

import pytest
import torch

from optkit.artifact import Format, Precision
from optkit.errors import ArtifactError, ModelError, RunnerError
from optkit.pt2_file import check_members, native_code_fault, read_package
from optkit.pytorch.origins import open_origin
from optkit.runners import open_runner
from optkit.stages import ExportProgram
from tests.support.zoo import Make

INNER = "model/data/aotinductor/model/"
CODE = Path(_ctypes.__file__).read_bytes()  # a shared library that uses the C library
METADATA = (
    b'{"AOTI_DEVICE_KEY": "cpu", "AOTI_CPU_ISA": "AVX2", "AOTI_MACHINE": "x86_64", "AOTI_COMPUTE_CAPABILITY": ""}'
)
MEMBERS = {
    f"{INNER}a.wrapper.so": CODE,
    f"{INNER}a.wrapper_metadata.json": METADATA,
    "model/archive_format": b"pt2",
    "model/archive_version": b"0",
    "model/byteorder": b"little",
    "model/.data/version": b"3",
}
EXECUTED = "native code, which is executed when it is loaded"


def package(path: Path, **changed: bytes | None) -> Path:
    """Write an archive with the members of a package; None leaves one out."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in ({**MEMBERS, **changed}).items():
            if data is not None:
                archive.writestr(name, data)
    return path


def test_a_package_says_what_it_needs(tmp_path: Path) -> None:
    facts = read_package(package(tmp_path / "model.pt2"))

    assert (facts.device, facts.instruction_set, facts.machine) == ("cpu", "AVX2", "x86_64")
    assert facts.compute_capability is None
    assert facts.libraries == 1
    assert "libc.so.6" in facts.needed
    assert facts.glibc is not None
    assert facts.glibc.startswith("2.")


def test_a_package_of_an_older_torch_says_less(tmp_path: Path) -> None:
    facts = read_package(package(tmp_path / "model.pt2", **{f"{INNER}a.wrapper_metadata.json": None}))
    assert facts.device is facts.machine is None


OUTSIDE = {
    "parent": f"{INNER}../../../../evil.so",
    "absolute": "/tmp/evil.so",
    "windows": f"{INNER}..\\evil.so",
}


@pytest.mark.parametrize("name", OUTSIDE.values(), ids=OUTSIDE)
@pytest.mark.parametrize("read", [read_package, check_members])
def test_a_member_whose_name_leads_outside_is_refused(name: str, read, tmp_path: Path) -> None:
    path = package(tmp_path / "model.pt2", **{name: CODE})
    with pytest.raises(
        ArtifactError, match=r"its member .* (leads out|is an absolute|is a path of Windows).*Do not load it"
    ):
        read(path)


DAMAGED = {
    "no package": ({f"{INNER}a.wrapper.so": None, f"{INNER}a.wrapper_metadata.json": None}, "holds no compiled code"),
    "no library": ({f"{INNER}a.wrapper.so": None}, "holds no shared library"),
    "no ELF": ({f"{INNER}a.wrapper.so": b"MZ" * 40}, r"a\.wrapper\.so' is no ELF file"),
    "cut ELF": ({f"{INNER}a.wrapper.so": CODE[: len(CODE) // 2]}, r"a\.wrapper\.so' is no ELF file"),
    "JSON": ({f"{INNER}a.wrapper_metadata.json": b"{"}, "cannot be read as JSON"),
    "JSON of another kind": ({f"{INNER}a.wrapper_metadata.json": b"[]"}, "is not a JSON object"),
    "long JSON": ({f"{INNER}a.wrapper_metadata.json": b" " * (1 << 21)}, "bytes of JSON"),
    "another model": ({"model/data/aotinductor/other/b.so": CODE}, "holds the model 'other'"),
}


@pytest.mark.parametrize("fault", DAMAGED)
def test_a_package_that_is_none_is_refused(fault: str, tmp_path: Path) -> None:
    changed, message = DAMAGED[fault]
    with pytest.raises(ArtifactError, match=rf"^{tmp_path}/model\.pt2: .*{message}"):
        read_package(package(tmp_path / "model.pt2", **changed))


@pytest.mark.parametrize("share", [0, 0.3, 0.9, 0.999])
def test_a_truncated_package_is_refused(share: float, tmp_path: Path) -> None:
    path = package(tmp_path / "model.pt2")
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    for read in (read_package, check_members):
        with pytest.raises(ArtifactError, match=r"damaged \.pt2 archive"):
            read(path)


def test_a_changed_byte_is_found(tmp_path: Path) -> None:
    path = package(tmp_path / "model.pt2")
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(ArtifactError, match=r"a\.wrapper\.so"):
        read_package(path)


def test_a_captured_program_has_no_native_code(make: Make) -> None:
    program = make("linear", ExportProgram()).path
    assert native_code_fault(program) is None
    with pytest.raises(ArtifactError, match="holds no compiled code"):
        read_package(program)


def test_native_code_is_not_loaded_as_a_captured_program(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: Make
) -> None:
    """torch.export.load loads every package that an archive holds."""
    monkeypatch.setattr(torch.export, "load", lambda *_: pytest.fail("it was loaded"))
    path = package(tmp_path / "model.pt2")
    with pytest.raises(ModelError, match=EXECUTED):
        open_origin(str(path)).build({})
    artifact = make("linear", ExportProgram()).model_copy(update={"path": path})
    assert (artifact.format, artifact.precision) == (Format.EXPORTED_PROGRAM, Precision.FP32)
    with pytest.raises(RunnerError, match=EXECUTED), open_runner(artifact):
        pass


def test_native_code_beside_a_captured_program_is_found(tmp_path: Path, make: Make) -> None:
    path = tmp_path / "model.pt2"
    path.write_bytes(make("linear", ExportProgram()).path.read_bytes())
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(f"{INNER}a.wrapper.so", CODE)
    assert EXECUTED in (native_code_fault(path) or "")
