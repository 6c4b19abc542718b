"""Facts about GPUs and Triton releases from `platforms.json`, which names its sources."""

import functools
import re
from collections.abc import Mapping
from pathlib import Path

from optkit.record import Record
from optkit.untrusted.documents import read_json

_FILE = Path(__file__).with_name("platforms.json")


class Platforms(Record):
    """GPU names by compute capability, the GPUs of TensorRT-RTX, and the TensorRT version of every Triton release."""

    gpus: Mapping[str, tuple[str, ...]]
    tensorrt_rtx: tuple[str, ...]  # the compute capabilities that it runs on
    triton: Mapping[str, str]
    sources: Mapping[str, str]


@functools.cache
def platforms() -> Platforms:
    """Return the data file."""
    return Platforms.model_validate(read_json(_FILE))


def compute_capability(name: str) -> str:
    """Return the compute capability, such as `sm86`, of a GPU given by its compute capability or its model.

    Raises:
        ValueError: the name is not known; the message lists the known names.
    """
    text = _plain(name)
    if re.fullmatch(r"(sm)?\d{2,3}", text):
        return f"sm{text.removeprefix('sm')}"
    for sm, names in platforms().gpus.items():
        if text in map(_plain, names):
            return sm
    known = ", ".join(name for names in platforms().gpus.values() for name in names)
    raise ValueError(f"{name!r} is not a known GPU; expected a compute capability, as sm86, or one of {known}")


def runs_on(runtime: str, sm: str) -> bool:
    """Whether a runtime supports a compute capability at all; TensorRT-RTX does not support data center GPUs since Hopper."""
    known = platforms().tensorrt_rtx
    return runtime != "tensorrt-rtx" or sm in known or _number(sm) > max(map(_number, known))


def _number(sm: str) -> int:
    return int(sm.removeprefix("sm"))


def _plain(name: str) -> str:
    """Return a name in lower case, without blanks and without the vendor's words."""
    return re.sub(r"nvidia|geforce|tesla|[\s_.-]", "", name.lower())
