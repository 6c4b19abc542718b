"""One engine, built from an ONNX file and written to disk."""

from __future__ import annotations

import hashlib
import threading
import time
from typing import Any

from .builder_config import add_profiles, configure, is_strongly_typed, make_monitor, refuse_impossible, set_targets
from .log import advice, first_error, make_logger
from .network import describe_inputs, describe_outputs, parse
from .protocol import CancelledError, Channel, FaultError, Json
from .runtimes import find_gpu, load_runtime, title
from .timing_cache import keep_timing_cache, open_timing_cache


def build(job: Json, channel: Channel, cancelled: threading.Event) -> Json:
    """Build one engine and write it to `job["plan"]`.

    Raises:
        FaultError: it cannot be built; the message names the input, node or limit.
        CancelledError: the parent cancelled it.
    """
    gpu, no_gpu = find_gpu()
    runtime, trt = load_runtime(job["runtime"], gpu, no_gpu)
    refuse_impossible(job, runtime, trt, gpu, no_gpu)
    log: list[str] = []
    logger = make_logger(trt, channel, log)
    try:
        builder = trt.Builder(logger)
    except TypeError as e:  # pybind11's "factory function returned nullptr"
        raise FaultError(f"{title(trt)} cannot start: {first_error(log)}") from e
    started = time.perf_counter()
    network, _parser = parse(trt, builder, logger, job, log)
    parsed = time.perf_counter()
    config = builder.create_builder_config()
    flags = configure(trt, config, job)
    targets = set_targets(trt, config, job["targets"], runtime, gpu)
    add_profiles(builder, config, network, job["profiles"])
    notes: list[str] = []
    cache_file = open_timing_cache(config, job, runtime, trt, gpu, notes)
    if hasattr(config, "progress_monitor"):
        config.progress_monitor = make_monitor(trt, channel, cancelled)
    plan = builder.build_serialized_network(network, config)
    if cancelled.is_set():
        raise CancelledError
    if plan is None:
        raise FaultError(f"{title(trt)} could not build the engine: {first_error(log)}{advice(log)}")
    sha256 = _write(plan, job["plan"])
    if cache_file:
        keep_timing_cache(config, cache_file, job["timing_cache_temporary"], notes)
    return {
        "runtime": runtime,
        "version": trt.__version__,
        "gpu": gpu,
        "no_gpu": no_gpu,
        "targets": targets,
        "typed": is_strongly_typed(trt),
        "flags": flags,
        "inputs": describe_inputs(network),
        "outputs": describe_outputs(network),
        "sha256": sha256,
        "warnings": [line.partition(": ")[2] for line in log if line.startswith("warning: ")],
        "notes": notes,
        "parse_s": parsed - started,
        "build_s": time.perf_counter() - parsed,
    }


def _write(plan: Any, path: str) -> str:
    """Write an engine, and return the SHA-256 of its bytes, which another thread computes at the same time.

    Raises:
        FaultError: the file cannot be written.
    """
    digest = hashlib.sha256()
    hashing = threading.Thread(target=digest.update, args=(plan,))
    hashing.start()
    try:
        with open(path, "wb") as file:
            file.write(plan)
    except OSError as e:
        raise FaultError(
            f"the engine of {memoryview(plan).nbytes / 1e6:.1f} MB cannot be written ({e.strerror})"
        ) from e
    finally:
        hashing.join()
    return digest.hexdigest()
