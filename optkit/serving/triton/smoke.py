"""Smoke test of a Triton repository: send its golden samples to a running server."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from optkit.checks import compare_outputs
from optkit.errors import ArtifactError, RunnerError
from optkit.progress import track
from optkit.serving.golden import Golden, read_golden
from optkit.serving.smoke import Replay, SmokeRecord
from optkit.serving.triton.connection import TritonClient
from optkit.serving.triton.lint import loaded_versions
from optkit.serving.triton.package_record import FILE, read_record
from optkit.serving.triton.server import TritonServer, find_triton
from optkit.untrusted.paths import file_in, is_folder


def smoke_triton(repository: Path, urls: Sequence[str], limit_s: float = 30.0) -> SmokeRecord:
    """Send the golden samples of every loaded version to every URL, and compare the answers.

    Raises:
        ArtifactError: the folder is not a repository, or holds no golden samples.
        RunnerError: no server responds at a URL.
    """
    samples = list(_golden(repository))
    if not samples:
        raise ArtifactError(
            f"{repository}: holds no golden samples; expected the samples that optkit package stores. Package the models again."
        )
    replays: list[Replay] = []
    for url in urls:
        with TritonClient(url, limit_s) as client:
            for model, version, golden in track(samples, f"test {url}", len(samples)):
                replays.append(_replay(client, model, version, golden))
    known = {model for model, _, _ in samples}
    without = [folder.name for folder in sorted(repository.iterdir()) if is_folder(folder) and folder.name not in known]
    notes = tuple(f"{name}: not tested: no golden samples" for name in without)
    return SmokeRecord(replays=tuple(replays), notes=notes)


def start_and_smoke(repository: Path, limit_s: float = 60.0) -> SmokeRecord:
    """Start a local server for the repository, test it over HTTP and gRPC, and stop it.

    Raises:
        MissingDependency: no server is installed.
        RunnerError: the server does not start within the limit.
        ArtifactError: as `smoke_triton`.
    """
    install = find_triton()
    with TritonServer(install, repository, limit_s=limit_s) as server:
        return smoke_triton(repository, (f"http://{server.http}", f"grpc://{server.grpc}"), limit_s)


def _golden(repository: Path) -> Iterator[tuple[str, str, Golden]]:
    for name, versions in loaded_versions(repository).items():
        record = read_record(repository / name)
        for version in versions:
            entry = record.golden.get(str(version)) if record else None
            if entry is not None:
                said = f"{repository / name / FILE}: golden samples"
                file = file_in(repository / name, entry.file, said, "Package the model again.")
                yield name, str(version), read_golden(file, entry.tolerance)


def _replay(client: TritonClient, model: str, version: str, golden: Golden) -> Replay:
    try:
        answer = client.infer(model, version, golden.inputs, list(golden.outputs))
    except RunnerError as e:
        return Replay(model=model, version=version, url=client.url, failure=str(e))
    found = compare_outputs(golden.outputs, answer, {}, golden.tolerance)
    return Replay(model=model, version=version, url=client.url, outputs=tuple(found))
