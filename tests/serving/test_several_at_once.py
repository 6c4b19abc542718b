"""Several packagings into one repository or model store: nothing of any is lost, and no file is left half-written."""

import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from optkit.artifact import Artifact
from optkit.artifact.findings import BatchIndependence
from optkit.data import Samples
from optkit.serving import TorchServeServing, TritonServing, make_golden, package_torchserve, package_triton
from optkit.serving.golden import read_golden
from optkit.serving.torchserve.config import installed_models
from optkit.serving.torchserve.golden import archive_golden, golden_files
from optkit.serving.triton.package_record import read_record
from optkit.system.lock import LOCK_FILE
from tests.support.project import files_below

PROVEN = BatchIndependence(dim="batch")
COUNT = 6


def at_once(calls: Sequence[Callable[[], object]]) -> None:
    failures: list[BaseException] = []
    begin = threading.Barrier(len(calls))

    def work(call: Callable[[], object]) -> None:
        begin.wait()
        try:
            call()
        except BaseException as e:
            failures.append(e)

    threads = [threading.Thread(target=work, args=(call,)) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


def hidden(folder: Path) -> list[str]:
    return [name for name in files_below(folder) if "optkit-" in name or name.endswith(LOCK_FILE)]


def test_versions_of_one_model_of_a_triton_repository(onnx: Artifact, tmp_path: Path) -> None:
    golden = make_golden(onnx, Samples(onnx.inputs, onnx.dims))

    def write(version: int) -> Callable[[], object]:
        settings = TritonServing(version=version)
        return lambda: package_triton(
            onnx, tmp_path / "models", settings, name="m", independence=PROVEN, sample=None, golden=golden
        )

    at_once([write(version) for version in range(1, COUNT + 1)])
    record = read_record(tmp_path / "models" / "m")
    assert record is not None
    assert record.golden.keys() == {str(version) for version in range(1, COUNT + 1)}
    for version, entry in record.golden.items():
        assert (tmp_path / "models" / "m" / version / "model.onnx").is_file()
        assert (
            read_golden(tmp_path / "models" / "m" / entry.file, entry.tolerance).outputs.keys() == golden.outputs.keys()
        )
    assert (tmp_path / "models_clients" / "m" / "client.py").is_file()
    assert hidden(tmp_path) == []


def test_models_of_a_torchserve_store(onnx: Artifact, tmp_path: Path) -> None:
    golden = archive_golden(onnx, Samples(onnx.inputs, onnx.dims), None)
    names = [f"m{i}" for i in range(COUNT)]

    def write(name: str) -> Callable[[], object]:
        settings = TorchServeServing()
        return lambda: package_torchserve(
            onnx, tmp_path / "store", settings, name=name, independence=PROVEN, golden=golden
        )

    at_once([write(name) for name in names])
    assert installed_models(tmp_path / "store" / "config.properties").keys() == {f"{name}.mar" for name in names}
    for name in names:
        assert all(file.is_file() for file in golden_files(tmp_path / "store" / f"{name}.mar"))
        assert (tmp_path / "store_clients" / name / "client.py").is_file()
    assert hidden(tmp_path) == []
