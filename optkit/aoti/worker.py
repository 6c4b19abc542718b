"""The child's side: one job in a process of its own, as `python -P worker.py JOB.json`. It imports torch, numpy and the standard library.

A job is an object with `task`: compile or check, and `result`: the file that the answer goes to, `{"result": {...}}` or `{"fault": "..."}`.
"""

import json
import os
import signal
import sys
import threading
import time
import warnings
from typing import Any

_POLL_S = 1.0


def compile_program(job: dict[str, Any]) -> dict[str, Any]:
    """Compile a captured program to a package; return the seconds and what torch is."""
    import torch
    from torch._inductor import config
    from torch._inductor.cpu_vec_isa import pick_vec_isa

    pick_vec_isa()  # compiles probes into the user's cache, once; the model's files go to the folder below
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = job["cache"]
    os.environ["TRITON_CACHE_DIR"] = os.path.join(job["cache"], "triton")
    torch.set_float32_matmul_precision("highest")
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    settings = {name: value for name, value in job["settings"].items() if _has(config, name)}
    missing = [name for name in job["needed"] if name not in settings]
    if missing:
        raise ValueError(f"torch {torch.__version__} has no setting {', '.join(missing)}")
    program = torch.export.load(job["program"])
    before = time.perf_counter()
    torch._inductor.aoti_compile_and_package(program, package_path=job["package"], inductor_configs=settings)
    gpu = torch.cuda.get_device_name() if job["device"] == "cuda" else None
    return {
        "seconds": time.perf_counter() - before,
        "torch": torch.__version__,
        "gpu": gpu,
        "constants": _constants(program),
    }


def check_package(job: dict[str, Any]) -> dict[str, Any]:
    """Load a package and call it with each file of inputs; return the seconds, and the dtype and shape of each output."""
    import numpy as np
    import torch
    import torch._inductor.package  # not a part of the time to load a package

    before = time.perf_counter()
    call = torch._inductor.aoti_load_package(job["package"]).loader.run
    loaded = time.perf_counter()
    outputs: list[list[list[Any]]] = []
    first_call_s = None
    with torch.inference_mode():
        for path in job["inputs"]:
            with np.load(path) as feed:
                tensors = [torch.from_numpy(feed[name]).to(job["device"]) for name in job["names"]]
            started = time.perf_counter()
            found = [tensor.cpu() for tensor in call(tensors)]
            first_call_s = first_call_s or time.perf_counter() - started
            outputs.append([[str(tensor.dtype).replace("torch.", ""), list(tensor.shape)] for tensor in found])
    return {"load_s": loaded - before, "first_call_s": first_call_s, "outputs": outputs}


def _has(config: Any, name: str) -> bool:
    """Whether this torch has a setting: names move between releases."""
    found = config
    for part in name.split("."):
        if not hasattr(found, part):
            return False
        found = getattr(found, part)
    return True


def _constants(program: Any) -> list[list[int]]:
    """Return [input, axis, size] of each dynamic dimension that became a constant while it was compiled; the code has no guard for it."""
    found = []
    holders = [node for node in program.graph.nodes if node.op == "placeholder"]
    inputs = set(program.graph_signature.user_inputs)
    for number, node in enumerate(node for node in holders if node.name in inputs):
        for axis, size in enumerate(getattr(node.meta.get("val"), "shape", ())):
            if isinstance(size, int):
                continue
            replaced = size.node.shape_env.replace(size.node.expr)
            if replaced.is_number:
                found.append([number, axis, int(replaced)])
    return found


def _fault(error: BaseException) -> str:
    """Return what a person needs of an error: the compiler's own line where there is one."""
    text = str(error)
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    compiler = next((line for line in lines if " error: " in line or line.startswith("error:")), None)
    first = compiler or next(iter(lines), "")
    return f"{type(error).__name__}: {first}" if first else type(error).__name__


def _end_with_parent(parent: int) -> None:
    """End this process and its own children when its parent is gone."""
    while os.getppid() == parent:
        time.sleep(_POLL_S)
    os.killpg(os.getpgid(0), signal.SIGKILL)


def main(path: str) -> None:
    """Do the job that a file describes."""
    with open(path, encoding="utf-8") as file:
        job = json.load(file)
    threading.Thread(target=_end_with_parent, args=(os.getppid(),), daemon=True).start()
    warnings.simplefilter("ignore")
    try:
        answer: dict[str, Any] = {"result": {"compile": compile_program, "check": check_package}[job["task"]](job)}
    except Exception as e:  # torch raises many types, and the parent says what happened
        answer = {"fault": _fault(e)}
    partial = job["result"] + ".partial"
    with open(partial, "w", encoding="utf-8") as file:
        json.dump(answer, file)
    os.replace(partial, job["result"])


if __name__ == "__main__":
    main(sys.argv[1])
