"""Smoke test of TorchServe archives: send their golden samples to a running server."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from optkit.artifact.findings import OutputParity
from optkit.checks import compare_outputs
from optkit.errors import ArtifactError, RecipeError, RunnerError
from optkit.progress import track
from optkit.serving.golden import Golden
from optkit.serving.server.http import ask, check_url
from optkit.serving.smoke import Replay, SmokeRecord
from optkit.serving.torchserve.golden import ClassScores, TorchServeGolden, read_archive_golden
from optkit.serving.torchserve.handler import TOP, probabilities
from optkit.serving.torchserve.server import authorization, serving
from optkit.untrusted.paths import is_file


def smoke_torchserve(
    archives: Sequence[Path], urls: Sequence[str], limit_s: float = 30.0, token: str | None = None
) -> SmokeRecord:
    """Send the golden samples of every archive to every URL, and compare the answers.

    Args:
        archives: .mar files with golden samples beside them.
        urls: URLs of inference APIs, as http://host:port.
        limit_s: time limit for each answer.
        token: the inference key, if the server requires one.

    Raises:
        ArtifactError: an archive is missing, no archive has golden samples, or they are damaged.
        RunnerError: no TorchServe responds at a URL.
        RecipeError: a URL has another form, or the server requires a key.
    """
    missing = next((archive for archive in archives if not is_file(archive)), None)
    if missing is not None:
        raise ArtifactError(f"{missing}: no such file; expected a TorchServe archive")
    found = {archive: read_archive_golden(archive) for archive in archives}
    samples = [golden for golden in found.values() if golden is not None]
    if not samples:
        raise ArtifactError(
            f"{archives[0].parent}: holds no golden samples; expected the samples that optkit package stores beside an archive with a "
            f"generated handler. Package the models again."
        )
    for url in urls:
        check_url(url)
        _check_server(url, limit_s)
    jobs = [(url.rstrip("/"), *golden) for url in urls for golden in samples]
    replays = [_replay(*job, limit_s, token) for job in track(jobs, "test TorchServe", len(jobs))]
    notes = tuple(f"{archive.name}: not tested: no golden samples" for archive in archives if not found[archive])
    return SmokeRecord(replays=tuple(replays), notes=notes)


def start_and_smoke_torchserve(archives: Sequence[Path], limit_s: float = 60.0) -> SmokeRecord:
    """Start a local TorchServe for the archives of one model store, test it, and stop it.

    Raises:
        RunnerError: TorchServe is not installed, or does not start within the limit.
        ArtifactError: as `smoke_torchserve`.
    """
    with serving(archives[0].parent, limit_s, [archive.name for archive in archives]) as server:
        return smoke_torchserve(archives, (server.inference_url,), limit_s, server.token)


def _check_server(url: str, limit_s: float) -> None:
    try:
        answer = ask("GET", f"{url.rstrip('/')}/ping", limit_s)
        found = answer.json()
    except RunnerError as e:
        raise RunnerError(f"{url}: no working TorchServe: {e}") from e
    if not isinstance(found, dict) or not {"status", "code"} & set(found):
        raise RunnerError(f"{url}: is not TorchServe: /ping returned {answer.text[:200]!r}")


def _replay(url: str, record: TorchServeGolden, golden: Golden, limit_s: float, token: str | None) -> Replay:
    try:
        answers = [_send(url, record, body, limit_s, token) for body in _bodies(record, golden)]
        compare = _compare_classes if record.classes else _compare_outputs
        outputs = compare(record, golden, answers)
    except RunnerError as e:
        return Replay(model=record.model, version=record.version, url=url, failure=str(e))
    return Replay(model=record.model, version=record.version, url=url, outputs=tuple(outputs))


def _bodies(record: TorchServeGolden, golden: Golden) -> Iterator[tuple[bytes, str]]:
    """Yield the body and the content type of every request: the image, each row, or the complete feed."""
    if record.image is not None:
        yield golden.inputs[record.image].tobytes(), "application/octet-stream"
        return
    rows = len(next(iter(golden.inputs.values()))) if record.batched else 1
    for i in range(rows):
        feed = {name: (array[i] if record.batched else array).tolist() for name, array in golden.inputs.items()}
        yield json.dumps(feed).encode(), "application/json"


def _send(url: str, record: TorchServeGolden, body: tuple[bytes, str], limit_s: float, token: str | None) -> Any:
    """Send one request and return the JSON of the answer.

    Raises:
        RunnerError: the answer is not JSON, or its status is not 200.
        RecipeError: the server requires a key.
    """
    where = f"{url}/predictions/{record.model}/{record.version}"
    answer = ask("POST", where, limit_s, body=body[0], headers={"Content-Type": body[1], **authorization(token)})
    if answer.status == 400 and "InvalidKeyException" in answer.text:
        raise RecipeError(
            f"{url}: {'refuses the key in --token' if token else 'requires a key'}; expected the inference key from "
            f"key_file.json in TorchServe's working folder. Give it as --token, or in OPTKIT_TOKEN."
        )
    if answer.status != 200:
        raise RunnerError(f"{where}: got status {answer.status}: {' '.join(answer.text[:300].split())}")
    return answer.json()


def _compare_outputs(record: TorchServeGolden, golden: Golden, answers: Sequence[Any]) -> list[OutputParity]:
    """Compare the outputs: the rows of all answers together, or the only answer."""
    found: dict[str, np.ndarray] = {}
    for answer in answers:
        if not isinstance(answer, dict):
            raise RunnerError(f"the answer is {_short(answer)}; expected a JSON object of outputs")
    for name in {name: None for answer in answers for name in answer}:
        dtype = golden.outputs[name].dtype if name in golden.outputs else None
        try:
            rows = [np.asarray(answer[name], dtype) for answer in answers]
            found[name] = np.stack(rows) if record.batched else rows[0]
        except (KeyError, ValueError, TypeError, OverflowError) as e:
            raise RunnerError(f"output {name!r}: a row is not an array of {dtype} ({e})") from e
    return compare_outputs(golden.outputs, found, {}, record.tolerance)


def _compare_classes(record: TorchServeGolden, golden: Golden, answers: Sequence[Any]) -> list[OutputParity]:
    """Compare the most probable classes: the probability of each class, and the order of the classes.

    Two classes may change places if their probabilities are equal within the tolerance.
    """
    assert record.classes is not None
    scores = golden.outputs[record.classes.output]
    rows = [probabilities(row, record.classes.scores) for row in (scores if record.batched else [scores])]
    named, expected, ranked = [], [], []
    for answer, row in zip(answers, rows, strict=True):
        entries = _entries(answer, record.classes)
        named.append([probability for _, probability in entries])
        expected.append([_nearest(row, record.classes, name, probability) for name, probability in entries])
        ranked.append(np.sort(row)[::-1][:TOP])
    got = {"probability of each class": np.asarray(named), "classes in order": np.asarray(named)}
    reference = {"probability of each class": np.asarray(expected), "classes in order": np.asarray(ranked)}
    return compare_outputs(reference, got, {}, record.tolerance)


def _entries(answer: Any, classes: ClassScores) -> list[tuple[str, float]]:
    """Return the classes of an answer with their probabilities.

    Raises:
        RunnerError: the answer does not hold the most probable classes.
    """
    try:
        entries = [(str(entry["class"]), float(entry["probability"])) for entry in answer["classes"]]
    except (KeyError, TypeError, ValueError) as e:
        raise RunnerError(f"the answer is {_short(answer)}; expected classes with probabilities") from e
    names = [name for name, _ in entries]
    wrong = next((name for name in names if names.count(name) > classes.names.count(name)), None)
    if wrong is not None:
        raise RunnerError(f"the answer holds class {wrong!r} more often than the model; expected each class once")
    if len(entries) != min(TOP, len(classes.names)):
        raise RunnerError(f"the answer holds {len(entries)} classes; expected {min(TOP, len(classes.names))}")
    return entries


def _nearest(row: np.ndarray, classes: ClassScores, name: str, probability: float) -> float:
    """Return the golden probability of a class. If several classes have this name, return the nearest value."""
    values = [float(row[i]) for i, known in enumerate(classes.names) if known == name]
    return min(values, key=lambda value: abs(value - probability))


def _short(answer: Any) -> str:
    return repr(answer)[:200]
