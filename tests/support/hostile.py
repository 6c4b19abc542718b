"""ONNX files with invalid external data, and a time limit for their readers."""

import contextlib
import os
import signal
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from onnx import ModelProto, TensorProto, helper, numpy_helper

WEIGHT = np.arange(512, dtype=np.float32).reshape(2, 256)  # 2048 bytes: above what an outline keeps
CANARY = b"must stay as it is" * 200  # longer than the weight, so that its bytes could be taken for it


def model(entries: Mapping[str, str], dtype: int = TensorProto.FLOAT) -> ModelProto:
    """Return x + weight, whose weight is external data with these entries."""
    weight = numpy_helper.from_array(WEIGHT, "weight")
    weight.ClearField("raw_data")
    weight.data_type = dtype
    weight.data_location = TensorProto.EXTERNAL
    for key, value in entries.items():
        weight.external_data.add(key=key, value=value)
    return around(weight)


def around(weight: TensorProto) -> ModelProto:
    """Return x + weight."""
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 2, 256]) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Add", ["x", "weight"], ["y"])], "g", values[:1], values[1:], [weight])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def write(path: Path, entries: Mapping[str, str]) -> Path:
    """Write such a model, and make the folder for it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(model(entries).SerializeToString())
    return path


@contextlib.contextmanager
def within(seconds: float = 20) -> Iterator[None]:
    """Fail a block that takes longer, such as one that waits for a FIFO's other end."""

    def stop(*_: object) -> None:
        raise AssertionError(f"took more than {seconds} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@dataclass(frozen=True)
class Location:
    """`make` prepares the folder `models/one` of a model, below which `canary.bin` lies two levels up, and returns the location."""

    name: str
    make: Callable[[Path], str]
    says: str  # a regular expression of the message

    def write(self, root: Path) -> Path:
        """Write the model that names the location, and the canary that must not be touched."""
        folder = root / "models" / "one"
        folder.mkdir(parents=True)
        (root / "canary.bin").write_bytes(CANARY)
        return write(folder / "model.onnx", {"location": self.make(folder)})


def _link(folder: Path) -> str:
    (folder / "link.bin").symlink_to("../../canary.bin")
    return "link.bin"


def _inner_link(folder: Path) -> str:
    (folder / "real.bin").write_bytes(WEIGHT.tobytes())
    (folder / "link.bin").symlink_to("real.bin")
    return "link.bin"


def _linked_folder(folder: Path) -> str:
    (folder / "up").symlink_to("../..")
    return "up/canary.bin"


def fifo(folder: Path) -> str:
    os.mkfifo(folder / "fifo")
    return "fifo"


def _directory(folder: Path) -> str:
    (folder / "weights").mkdir()
    return "weights"


def _cut_short(folder: Path) -> str:
    (folder / "short.bin").write_bytes(WEIGHT.tobytes()[:-1])
    return "short.bin"


def _backslash(folder: Path) -> str:
    (folder / "..\\canary.bin").write_bytes(WEIGHT.tobytes())  # a name like any other on Linux
    return "..\\canary.bin"


LOCATIONS = [
    Location("parent", lambda _: "../../canary.bin", r"'\.\./\.\./canary\.bin' leads out of its folder by '\.\.'"),
    Location("parent-inside", lambda _: "a/../../../canary.bin", r"'a/\.\./\.\./\.\./canary\.bin' leads out of its folder"),
    Location("back-inside", lambda _: "../one/model.onnx", r"leads out of its folder"),
    Location("absolute", lambda folder: str(folder.parents[1] / "canary.bin"), r"canary\.bin' is an absolute path|characters\) is an absolute path"),
    Location("device", lambda _: "/dev/zero", r"'/dev/zero' is an absolute path"),
    Location("fifo", fifo, r"'fifo' is a FIFO, a socket or a device"),
    Location("link", _link, r"'link\.bin' is a link; .* Copy the folder with its links followed, as `cp -rL` does"),
    Location("link-inside", _inner_link, r"'link\.bin' is a link; .* `cp -rL`"),
    Location("linked-folder", _linked_folder, r"'up/canary\.bin' lies behind the link 'up'; .* `cp -rL`"),
    Location("directory", _directory, r"'weights' is a directory"),
    Location("nul", lambda _: "canary\0.bin", r"'canary\\x00\.bin' holds a control character"),
    Location("newline", lambda _: "canary\n.bin", r"'canary\\n\.bin' holds a control character"),
    Location("empty", lambda _: "", r"'' names no file"),
    Location("dot", lambda _: ".", r"'\.' names no file"),
    Location("dot-dot", lambda _: "..", r"'\.\.' leads out of its folder"),
    Location("long", lambda _: "a" * 256, r"\(256 characters\) is too long: 256 bytes in one name"),
    Location("long-in-bytes", lambda _: "ä" * 200, r"\(200 characters\) is too long: 400 bytes in one name"),
    Location("long-path", lambda _: "a/" * 3000 + "x", r"\(6001 characters\) (is missing|cannot be looked at \(File name too long\))"),
    Location("drive", lambda _: "C:\\canary.bin", r"is a path of Windows"),
    Location("drive-relative", lambda _: "C:canary.bin", r"'C:canary\.bin' is a path of Windows"),
    Location("backslash", _backslash, r"is a path of Windows"),
    Location("share", lambda _: "\\\\host\\share\\x", r"is a path of Windows"),
    Location("missing", lambda _: "none.bin", r"'none\.bin' is missing; expected a regular file in .*models/one or below it\. Save the model again"),
    Location("itself", lambda _: "model.onnx", r"'model\.onnx' is the model file itself"),
    Location("file-for-a-folder", lambda _: "model.onnx/x.bin", r"'model\.onnx/x\.bin' is missing"),
    Location("short", _cut_short, r"'short\.bin' of tensor 'weight': 2048 bytes from 0 on; the file has 2047"),
]  # fmt: skip

# Entries of a tensor of 2048 bytes whose file has 4096, and what the message says.
EXTENTS = [
    ({"offset": "-1"}, r"offset is '-1'; expected a whole number from 0 on"),
    ({"length": "-1"}, r"length is '-1'; expected a whole number"),
    ({"offset": "nan"}, r"offset is 'nan'; expected a whole number"),
    ({"length": "1e3"}, r"length is '1e3'; expected a whole number"),
    ({"offset": ""}, r"offset is ''; expected a whole number"),
    ({"offset": "\uff11"}, r"offset is '\uff11'; expected a whole number"),
    ({"offset": "9" * 5000}, r"offset is '9+\.\.\. \(5000 characters\); expected a whole number"),
    ({"offset": "9223372036854775807"}, r"2048 bytes from 9223372036854775807 on; the file has 4096"),
    ({"offset": "2049"}, r"2048 bytes from 2049 on; the file has 4096"),
    ({"length": "9223372036854775807"}, r"length is 9223372036854775807; expected 2048, by its type and dimensions"),
    ({"length": "2047"}, r"length is 2047; expected 2048"),
]  # fmt: skip
