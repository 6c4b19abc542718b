"""A local TorchServe over a model store, for tests and `optkit smoke`: on loopback ports of its own, within limits, ended cleanly."""

import contextlib
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from optkit.errors import RunnerError
from optkit.serving.server.http import Answer, ask
from optkit.serving.server.process import HOST, ServerProcess, free_ports

_PORTS = ("inference_address", "management_address", "metrics_address", "grpc_inference_port", "grpc_management_port")
_POLL_S = 0.2


@dataclass(frozen=True)
class TorchServe:
    """A running server. Requests carry the key that it wrote where it was started."""

    inference_url: str
    management_url: str
    _keys: Path
    _process: ServerProcess

    def predict(self, model: str, body: bytes, content_type: str = "application/json", limit_s: float = 30.0) -> Answer:
        """Send one request to a model."""
        url = f"{self.inference_url}/predictions/{quote(model, safe='')}"
        headers = {"Content-Type": content_type, **self._authorization("inference")}
        return ask("POST", url, limit_s, body=body, headers=headers)

    def manage(self, method: str, path: str, limit_s: float = 60.0) -> Answer:
        """Use the management API, as in `manage("PUT", "/models/digits?min_worker=2")`."""
        return ask(method, f"{self.management_url}{path}", limit_s, headers=self._authorization("management"))

    def ready_workers(self, model: str, limit_s: float = 60.0) -> int:
        """Return how many workers of a model are ready; `/ping` says Healthy even when none can start."""
        answer = self.manage("GET", f"/models/{quote(model, safe='')}", limit_s)
        if answer.status != 200:
            return 0
        return sum(worker["status"] == "READY" for worker in answer.json()[0]["workers"])

    def wait_for(self, model: str, workers: int = 1, limit_s: float = 60.0) -> None:
        """Wait until so many workers of a model are ready.

        Raises:
            RunnerError: the server has ended, or the limit has passed; holds the end of its log.
        """
        deadline = time.monotonic() + limit_s
        while time.monotonic() < deadline:
            if self._process.code is not None:
                raise RunnerError(f"TorchServe ended with code {self._process.code}.{self._end_of_log()}")
            with contextlib.suppress(RunnerError):  # not listening yet
                if self.ready_workers(model, max(0.1, deadline - time.monotonic())) >= workers:
                    return
            time.sleep(_POLL_S)
        raise RunnerError(f"TorchServe: no worker of {model!r} was ready within {limit_s:g} s.{self._end_of_log()}")

    @property
    def token(self) -> str | None:
        """The key of its inference API; None while it has written none."""
        return self._token("inference")

    def _token(self, api: str) -> str | None:
        try:
            return str(json.loads(self._keys.read_text(encoding="utf-8"))[api]["key"])
        except (OSError, ValueError, KeyError):
            return None

    def _authorization(self, api: str) -> dict[str, str]:
        return authorization(self._token(api))

    def _end_of_log(self) -> str:
        return "".join(f"\n  {line}" for line in self._process.log.splitlines()[-15:])


def authorization(token: str | None) -> dict[str, str]:
    """Return the header that shows a key of TorchServe."""
    return {"Authorization": f"Bearer {token}"} if token else {}


@contextlib.contextmanager
def serving(model_store: Path, limit_s: float = 60.0, archives: Sequence[str] | None = None) -> Iterator[TorchServe]:
    """Start the TorchServe of this Python's environment over a model store with its config.properties, and end it after the block.

    Only addresses and ports differ from the configuration: free ones on loopback, so that a server that runs already is not
    disturbed. All that it writes lies in a temporary folder.

    Args:
        model_store: the folder of archives.
        limit_s: how long the server and each model may take until they are ready.
        archives: the files to load; None loads those that the configuration names.

    Raises:
        RunnerError: TorchServe or Java is not there, or a model is not ready within the limit.
    """
    command = _command()
    config = model_store / "config.properties"
    if not config.is_file():
        raise RunnerError(f"{config}: no such file; expected a model store written by optkit package torchserve")
    with tempfile.TemporaryDirectory(prefix="optkit-torchserve-") as name:
        folder = Path(name)
        ports = free_ports(len(_PORTS))
        own = folder / "config.properties"
        own.write_text(_own_config(config.read_text(encoding="utf-8"), ports, archives), encoding="utf-8")
        arguments = ["--start", "--foreground", "--ncs", "--model-store", str(model_store.absolute())]
        process = ServerProcess(
            [*command, *arguments, "--ts-config", str(own)],
            environment=_environment(folder),
            folder=folder,  # it writes key_file.json and logs where it is started
        )
        try:
            server = TorchServe(
                inference_url=f"http://{HOST}:{ports[0]}",
                management_url=f"http://{HOST}:{ports[1]}",
                _keys=folder / "key_file.json",
                _process=process,
            )
            for model in _models(own):
                server.wait_for(model, limit_s=limit_s)
            yield server
        finally:
            process.stop()


def _command() -> list[str]:
    beside = Path(sys.executable).parent / "torchserve"
    found = str(beside) if beside.is_file() else shutil.which("torchserve")
    if found is None:
        raise RunnerError("TorchServe is not installed. Run: pip install torchserve PyYAML")
    if shutil.which("java") is None:
        raise RunnerError("TorchServe needs Java 11 or later, and there is no `java` on the path. Install a JRE.")
    return [found]


def _environment(folder: Path) -> dict[str, str]:
    """Return an environment with folders of the server's own, and this Python first, which its workers start."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    own = {name: str(folder) for name in ("LOG_LOCATION", "METRICS_LOCATION", "TEMP", "TMPDIR")}
    return {**os.environ, **own, "PATH": path}


def _own_config(text: str, ports: Sequence[int], archives: Sequence[str] | None) -> str:
    """Return a configuration with other ports, and with other archives to load where some are named."""
    values = {
        key: f"http://{HOST}:{port}" if key.endswith("_address") else str(port)
        for key, port in zip(_PORTS, ports, strict=True)
    }
    if archives is not None:
        values["load_models"] = ",".join(archives)
    kept = [line for line in text.splitlines() if line.partition("=")[0].strip() not in values]
    return "\n".join([*kept, *(f"{key}={value}" for key, value in values.items())]) + "\n"


def _models(config: Path) -> list[str]:
    lines = config.read_text(encoding="utf-8").splitlines()
    loaded = next((line.partition("=")[2] for line in lines if line.startswith("load_models=")), "")
    return [Path(name.strip()).stem for name in loaded.split(",") if name.strip()]
