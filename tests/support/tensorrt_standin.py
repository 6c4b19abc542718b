"""The stand-in for TensorRT and its GPU, as what workers find."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from optkit.tensorrt.installed import forget
from tests.support import ROOT

STANDIN = ROOT / "tests" / "support" / "standin"


def standing_in(release: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let workers find a stand-in for this release, and a GPU; for a fixture to yield from."""
    monkeypatch.setenv("PYTHONPATH", str(STANDIN))
    monkeypatch.setenv("STANDIN_TENSORRT", release)
    forget()
    monkeypatch.setattr("optkit.stages.build_tensorrt.TIMING_CACHE", Path(os.devnull).parent / "null-cache")
    yield
    forget()
