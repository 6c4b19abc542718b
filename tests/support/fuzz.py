"""Inputs changed at random, what reads them, and a watch over what the reading does: no file outside its folder, no process, no network."""

import contextlib
import json
import os
import random
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from optkit.errors import OptkitError
from tests.support.hostile import within

LIMIT_S = 10
VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 7, 2**31, 2**63, 2**64 - 1, -(2**63), 0.0, -0.5, 1e308, 1e-320, "", "x", "x" * 300, "x" * 5000, "é\u202e", "\x1b[2J", "../x",
    "/dev/zero", "/etc/passwd", "a:b", "model.py:build", "C:\\x", ".", "..", "~nobody/x", "1:2:3", "float32[batch,4]", "auto", "nan", "[b]x[/b]", "{0}", [], {},
    [None], [[]], {"": ""}, {"a": {"b": [1]}}, ["x"] * 50, [0] * 50, [1e308, -1e308],
)  # fmt: skip
WORDS = (
    b"\0", b"\xff\xfe", b"\xef\xbb\xbf", b"\xed\xa0\x80", b"[", b"]", b"{", b"}", b'"', b"'", b":", b": ", b",", b"\n", b"- ", b"&a ", b"*a", b"<<: ", b"!!int ",
    b"!!python/object:x ", b"| ", b"? ", b"# ", b"%YAML 1.1\n", b"---\n", b"2001-99-99", b"0b_", b"1e999", b".nan", b"NaN", b"-Infinity", b"\\u0000", b"\\ud800",
    b"9" * 30, b"9" * 5000, b"../", b"/dev/zero", b"[" * 100, b"{a: " * 60, b"true", b"null", b"-1", b"\x80\x02c", b"PK\x03\x04", b"\x0a\x7f",
)  # fmt: skip


@dataclass(frozen=True)
class Target:
    """Something that reads files of others.

    `start` writes valid files into a folder and returns the contents to change; `read` gets the folder and one changed content, and reads it.
    """

    name: str
    start: Callable[[Path], Sequence[bytes]]
    read: Callable[[Path, bytes], object]


def changed(content: bytes, rng: random.Random, others: Sequence[bytes]) -> bytes:
    """Return other content: in half of the cases one that is still JSON, if it was, with other values; else with other bytes."""
    if rng.random() < 0.5:
        try:
            return json.dumps(_other_values(json.loads(content), rng)).encode("utf-8", "surrogatepass")
        except ValueError:
            pass
    data = bytearray(content)
    for _ in range(rng.choice((1, 1, 1, 2, 4, 16))):
        at, end = sorted(rng.randrange(len(data) + 1) for _ in range(2))
        match rng.randrange(8):
            case 0 if data:
                data[rng.randrange(len(data))] = rng.randrange(256)
            case 1 if data:
                data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
            case 2:
                del data[at : min(end, at + rng.choice((1, 8, 1000)))]
            case 3:
                del data[at:]
            case 4:
                data[at:at] = data[at : min(end, at + 200)] * rng.choice((1, 2, 30))
            case 5:
                other = rng.choice(others)
                cut = rng.randrange(len(other) + 1)
                data[at:at] = other[cut : cut + rng.choice((4, 40, 400))]
            case _:
                data[at : at + rng.choice((0, 0, 1, 5))] = rng.choice(WORDS)
    return bytes(data)


def _other_values(value: Any, rng: random.Random) -> Any:
    """Return a JSON value in which one to three inner values were replaced, left out, or moved."""
    for _ in range(rng.choice((1, 1, 2, 3))):
        places = list(_places(value))
        if not places:
            return rng.choice(VALUES)
        holder, key = rng.choice(places)
        match rng.randrange(6):
            case 0:
                del holder[key]
            case 1:
                other_holder, other_key = rng.choice(places)
                with contextlib.suppress(KeyError, IndexError):  # it was inside of what is gone
                    holder[key] = json.loads(json.dumps(other_holder[other_key]))
            case 2 if isinstance(holder, dict):
                holder[str(rng.choice(VALUES))[:400]] = holder.pop(key)
            case _:
                holder[key] = rng.choice(VALUES)
    return value


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield value, key
        yield from _places(inner)


class Watch:
    """Notes what Python does while it is on; an audit hook stays for good, so there is one."""

    def __init__(self) -> None:
        self.folder: Path | None = None
        self.seen: list[str] = []
        sys.addaudithook(self._note)

    def _note(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self.folder is None:
            return
        if event == "open":
            path, _, flags = arguments
            writes = isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
            if writes and isinstance(path, str | bytes | os.PathLike):
                self._check(event, path)
        elif event in (
            "os.remove",
            "os.rename",
            "os.mkdir",
            "os.rmdir",
            "os.link",
            "os.symlink",
            "os.chmod",
            "os.truncate",
            "shutil.rmtree",
        ):
            for path in arguments[: 2 if event == "os.rename" else 1]:
                self._check(event, path)
        elif event in (
            "subprocess.Popen",
            "os.system",
            "os.exec",
            "os.posix_spawn",
            "os.fork",
            "socket.connect",
            "socket.getaddrinfo",
        ):
            self.seen.append(f"{event} {arguments!r:.200}")

    def _check(self, event: str, path: object) -> None:
        assert self.folder is not None
        if isinstance(path, str | bytes | os.PathLike):
            where = os.path.realpath(os.fsdecode(path))
            if not where.startswith((f"{self.folder}/", "/dev/null")) and where != str(self.folder):
                self.seen.append(f"{event} {where}")


WATCH = Watch()


def run(target: Target, folder: Path, numbers: range) -> None:
    """Read changed inputs; a failure names the number of the input, which gives it again.

    Raises:
        AssertionError: one ended otherwise than well or with an OptkitError, took too long, or touched something else.
    """
    folder = Path(os.path.realpath(folder))
    seeds = list(target.start(folder))
    for seed in seeds:
        target.read(folder, seed)  # what was not changed is good, and its libraries are loaded now
    before, temporary = Path.cwd(), tempfile.tempdir
    os.chdir(folder)
    tempfile.tempdir = str(folder)
    try:
        for number in numbers:
            rng = random.Random(f"{target.name} {number}")
            _read(target, folder, number, changed(rng.choice(seeds), rng, seeds))
    finally:
        os.chdir(before)
        tempfile.tempdir = temporary


def _read(target: Target, folder: Path, number: int, content: bytes) -> None:
    where = f"{target.name} {number}: {content[:300]!r} ({len(content)} bytes)"
    message = "none"
    WATCH.seen.clear()
    WATCH.folder = folder
    try:
        with within(LIMIT_S):
            target.read(folder, content)
    except OptkitError as e:
        message = str(e)
    except Exception as e:
        raise AssertionError(f"{where} ended with {e!r}") from e
    finally:
        WATCH.folder = None
    assert 0 < len(message) < 100_000, where
    assert not WATCH.seen, f"{where} did {WATCH.seen}"
