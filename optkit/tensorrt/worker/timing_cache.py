"""The timing cache: one build stores the timings of TensorRT's kernels for the next build on the same GPU."""

from __future__ import annotations

import os
from typing import Any

from .protocol import Json


def open_timing_cache(config: Any, job: Json, runtime: str, trt: Any, gpu: Json | None, notes: list[str]) -> str | None:
    """Load the timings of earlier builds, and return the file for the new ones; None without a timing cache."""
    if not job["timing_cache"] or runtime == "tensorrt-rtx" or not hasattr(config, "set_timing_cache"):
        return None
    path = str(job["timing_cache"])
    if job["timing_cache_default"] and gpu:  # a folder: one file for each GPU, release and driver
        key = "{}-{}-driver{}".format(gpu["name"], trt.__version__, gpu["driver"])
        path = os.path.join(path, "".join(c if c.isalnum() or c in "-._" else "_" for c in key) + ".timing")
    try:
        with open(path, "rb") as file:
            blob = file.read()
    except OSError:
        blob = b""
    cache = config.create_timing_cache(blob)
    if cache is None or not config.set_timing_cache(cache, ignore_mismatch=False):
        notes.append(f"timing cache {path}: made by another TensorRT, GPU or driver; it is ignored and overwritten")
        config.set_timing_cache(config.create_timing_cache(b""), ignore_mismatch=False)
    return path


def keep_timing_cache(config: Any, path: str, temporary_name: str, notes: list[str]) -> None:
    """Write the timings for the next build completely or not at all; a failure is only a note, because the engine exists."""
    cache = config.get_timing_cache()
    if cache is None:
        return
    temporary = os.path.join(os.path.dirname(path), temporary_name)
    try:
        os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
        with open(temporary, "wb") as file:
            file.write(cache.serialize())
        os.replace(temporary, path)
    except OSError as e:
        notes.append(f"timing cache {path}: could not be written ({e.strerror})")
        if os.path.exists(temporary):
            os.remove(temporary)
