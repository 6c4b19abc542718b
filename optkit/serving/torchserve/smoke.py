"""Golden samples of TorchServe archives, replayed against a running server."""

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


def smoke_torchserve(
    archives: Sequence[Path], urls: Sequence[str], limit_s: float = 30.0, token: str | None = None
) -> SmokeRecord:
    """Ask for every archive that has golden samples, at every URL of an inference API, and compare.

    Args:
        archives: .mar files; their golden samples lie beside them.
        urls: where servers run, as http://host:port.
        limit_s: for each answer.
        token: the inference key of the server, where it wants one.

    Raises:
        ArtifactError: there is no such archive, none has golden samples, or they are damaged.
        RunnerError: no TorchServe answers at a URL, or it wants a key.
        RecipeError: a URL is of another form.
    """
    missing = next((archive for archive in archives if not archive.is_file()), None)
    if missing is not None:
        raise ArtifactError(f"{missing}: no such file; expected a TorchServe archive")
    found = {archive: read_archive_golden(archive) for archive in archives}
    asked = [golden for golden in found.values() if golden is not None]
    if not asked:
        raise ArtifactError(
            f"{archives[0].parent}: holds no golden samples; expected those that optkit package stores beside an archive with a "
            f"generated handler. Package its models again."
        )
    for url in urls:
        check_url(url)
        _check_server(url, limit_s)
    jobs = [(url.rstrip("/"), *golden) for url in urls for golden in asked]
    replays = [_replay(*job, limit_s, token) for job in track(jobs, "ask TorchServe", len(jobs))]
    notes = tuple(f"{archive.name}: not asked, it has no golden samples" for archive in archives if not found[archive])
    return SmokeRecord(replays=tuple(replays), notes=notes)


def start_and_smoke_torchserve(archives: Sequence[Path], limit_s: float = 60.0) -> SmokeRecord:
    """Start a local TorchServe over the archives, which lie in one model store, ask it, and end it.

    Raises:
        RunnerError: it is not installed, or does not start within the limit.
        ArtifactError: as `smoke_torchserve`.
    """
    with serving(archives[0].parent, limit_s, [archive.name for archive in archives]) as server:
        return smoke_torchserve(archives, (server.inference_url,), limit_s, server.token)


def _check_server(url: str, limit_s: float) -> None:
    try:
        answer = ask("GET", f"{url.rstrip('/')}/ping", limit_s)
        found = answer.json()
    except RunnerError as e:
        raise RunnerError(f"{url}: is no TorchServe that answers: {e}") from e
    if not isinstance(found, dict) or not {"status", "code"} & set(found):
        raise RunnerError(f"{url}: is no TorchServe: its /ping says {answer.text[:200]!r}")


def _replay(url: str, record: TorchServeGolden, golden: Golden, limit_s: float, token: str | None) -> Replay:
    try:
        answers = [_send(url, record, body, limit_s, token) for body in _bodies(record, golden)]
        compare = _compare_classes if record.classes else _compare_outputs
        outputs = compare(record, golden, answers)
    except RunnerError as e:
        return Replay(model=record.model, version=record.version, url=url, failure=str(e))
    return Replay(model=record.model, version=record.version, url=url, outputs=tuple(outputs))


def _bodies(record: TorchServeGolden, golden: Golden) -> Iterator[tuple[bytes, str]]:
    """Return the body and content type of every request: the image, each row, or the whole feed."""
    if record.image is not None:
        yield golden.inputs[record.image].tobytes(), "application/octet-stream"
        return
    rows = len(next(iter(golden.inputs.values()))) if record.batched else 1
    for i in range(rows):
        feed = {name: (array[i] if record.batched else array).tolist() for name, array in golden.inputs.items()}
        yield json.dumps(feed).encode(), "application/json"


def _send(url: str, record: TorchServeGolden, body: tuple[bytes, str], limit_s: float, token: str | None) -> Any:
    """Return the answer to one request as JSON.

    Raises:
        RunnerError: it is none, or another status than 200.
        RecipeError: the server wants a key.
    """
    where = f"{url}/predictions/{record.model}/{record.version}"
    answer = ask("POST", where, limit_s, body=body[0], headers={"Content-Type": body[1], **authorization(token)})
    if answer.status == 400 and "InvalidKeyException" in answer.text:
        raise RecipeError(
            f"{url}: {'refuses the key of --token' if token else 'wants a key'}: expected the inference key of the "
            f"key_file.json in the folder where TorchServe was started. Give it as --token, or in OPTKIT_TOKEN."
        )
    if answer.status != 200:
        raise RunnerError(f"{where}: got status {answer.status}: {' '.join(answer.text[:300].split())}")
    return answer.json()


def _compare_outputs(record: TorchServeGolden, golden: Golden, answers: Sequence[Any]) -> list[OutputParity]:
    """Compare tensors: those of each row put together, or those of the one answer."""
    found: dict[str, np.ndarray] = {}
    for answer in answers:
        if not isinstance(answer, dict):
            raise RunnerError(f"answered {_short(answer)}; expected an object of outputs")
    for name in {name: None for answer in answers for name in answer}:
        dtype = golden.outputs[name].dtype if name in golden.outputs else None
        try:
            rows = [np.asarray(answer[name], dtype) for answer in answers]
            found[name] = np.stack(rows) if record.batched else rows[0]
        except (KeyError, ValueError, TypeError, OverflowError) as e:
            raise RunnerError(f"output {name!r}: answered what is no array of {dtype} in each row ({e})") from e
    return compare_outputs(golden.outputs, found, {}, record.tolerance)


def _compare_classes(record: TorchServeGolden, golden: Golden, answers: Sequence[Any]) -> list[OutputParity]:
    """Compare the most probable classes: each probability with that of its class, and their order with that of the golden ones.

    Two classes may change places where their probabilities are as near as the tolerance.
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
    """Return class and probability of an answer.

    Raises:
        RunnerError: it is another answer than the most probable classes.
    """
    try:
        entries = [(str(entry["class"]), float(entry["probability"])) for entry in answer["classes"]]
    except (KeyError, TypeError, ValueError) as e:
        raise RunnerError(f"answered {_short(answer)}; expected classes with their probabilities") from e
    names = [name for name, _ in entries]
    wrong = next((name for name in names if names.count(name) > classes.names.count(name)), None)
    if wrong is not None:
        raise RunnerError(f"answered the class {wrong!r} more often than the model has it")
    if len(entries) != min(TOP, len(classes.names)):
        raise RunnerError(f"answered {len(entries)} classes; expected {min(TOP, len(classes.names))}")
    return entries


def _nearest(row: np.ndarray, classes: ClassScores, name: str, probability: float) -> float:
    """Return the golden probability of a class; of several with one name that which is nearest."""
    values = [float(row[i]) for i, known in enumerate(classes.names) if known == name]
    return min(values, key=lambda value: abs(value - probability))


def _short(answer: Any) -> str:
    return repr(answer)[:200]
