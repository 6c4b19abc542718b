"""A local TorchServe for a model store, for tests and `optkit smoke`, with free loopback ports and time limits."""

import contextlib
import os
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from optkit.errors import ArtifactError, RunnerError
from optkit.serving.server.http import HttpResponse, ask
from optkit.serving.server.ports import HOST, free_ports
from optkit.serving.torchserve.config import loaded_models
from optkit.serving.torchserve.properties import with_properties
from optkit.system.child import ChildProcess
from optkit.system.temporary import temporary_folder
from optkit.untrusted.documents import read_json
from optkit.untrusted.paths import is_file

_PORTS = ("inference_address", "management_address", "metrics_address", "grpc_inference_port", "grpc_management_port")
_POLL_S = 0.2


@dataclass(frozen=True)
class TorchServe:
    """A running server. Requests contain the key from its working folder."""

    inference_url: str
    management_url: str
    _keys: Path
    _process: ChildProcess

    def predict(
        self, model: str, body: bytes, content_type: str = "application/json", limit_s: float = 30.0
    ) -> HttpResponse:
        """Send one request to a model."""
        url = f"{self.inference_url}/predictions/{quote(model, safe='')}"
        headers = {"Content-Type": content_type, **self._authorization("inference")}
        return ask("POST", url, limit_s, body=body, headers=headers)

    def manage(self, method: str, path: str, limit_s: float = 60.0) -> HttpResponse:
        """Send a request to the management API, for example `manage("PUT", "/models/digits?min_worker=2")`."""
        return ask(method, f"{self.management_url}{path}", limit_s, headers=self._authorization("management"))

    def ready_workers(self, model: str, limit_s: float = 60.0) -> int:
        """Return the number of ready workers of a model; `/ping` reports Healthy even if no worker can start."""
        answer = self.manage("GET", f"/models/{quote(model, safe='')}", limit_s)
        if answer.status != 200:
            return 0
        return sum(worker["status"] == "READY" for worker in answer.json()[0]["workers"])

    def wait_for(self, model: str, workers: int = 1, limit_s: float = 60.0) -> None:
        """Wait until a number of workers of a model are ready.

        Raises:
            RunnerError: the server ended, or the limit passed. The message contains the end of the log.
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
        """The key of the inference API, or None if the server has not written it yet."""
        return self._token("inference")

    def _token(self, api: str) -> str | None:
        try:
            return str(read_json(self._keys)[api]["key"])
        except (ArtifactError, KeyError, TypeError):
            return None

    def _authorization(self, api: str) -> dict[str, str]:
        return authorization(self._token(api))

    def _end_of_log(self) -> str:
        return "".join(f"\n  {line}" for line in self._process.log.splitlines()[-15:])


def authorization(token: str | None) -> dict[str, str]:
    """Return the header for a TorchServe key."""
    return {"Authorization": f"Bearer {token}"} if token else {}


@contextlib.contextmanager
def serving(model_store: Path, limit_s: float = 60.0, archives: Sequence[str] | None = None) -> Iterator[TorchServe]:
    """Start TorchServe from this Python environment for a model store with a config.properties, and stop it after the block.

    The server uses free loopback ports instead of those in the configuration, so it does not disturb a running server. It writes all
    its files to a temporary folder.

    Args:
        model_store: the folder of archives.
        limit_s: time limit for the start of the server and of each model.
        archives: the files to load; None means those in the configuration.

    Raises:
        RunnerError: TorchServe or Java is not installed, or a model is not ready within the limit.
        ArtifactError: the configuration cannot be read.
    """
    command = _command()
    config = model_store / "config.properties"
    if not is_file(config):
        raise RunnerError(f"{config}: no such file; expected a model store written by optkit package torchserve")
    with temporary_folder() as folder:
        ports = free_ports(len(_PORTS))
        own = folder / "config.properties"
        own.write_bytes(_own_config(config.read_bytes(), ports, archives))
        arguments = ["--start", "--foreground", "--ncs", "--model-store", str(model_store.absolute())]
        process = ChildProcess(
            [*command, *arguments, "--ts-config", str(own)],
            environment=_environment(folder),
            folder=folder,  # it writes key_file.json and logs to its working folder
        )
        try:
            server = TorchServe(
                inference_url=f"http://{HOST}:{ports[0]}",
                management_url=f"http://{HOST}:{ports[1]}",
                _keys=folder / "key_file.json",
                _process=process,
            )
            for model in loaded_models(config) if archives is None else [Path(archive).stem for archive in archives]:
                server.wait_for(model, limit_s=limit_s)
            yield server
        finally:
            process.stop()


def _command() -> list[str]:
    beside = Path(sys.executable).parent / "torchserve"
    found = str(beside) if is_file(beside) else shutil.which("torchserve")
    if found is None:
        raise RunnerError("TorchServe is not installed. Run: pip install torchserve PyYAML")
    if shutil.which("java") is None:
        raise RunnerError("TorchServe needs Java 11 or later, and there is no `java` on the path. Install a JRE.")
    return [found]


def _environment(folder: Path) -> dict[str, str]:
    """Return an environment with separate folders for the server, and with this Python first in PATH for its workers."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    own = {name: str(folder) for name in ("LOG_LOCATION", "METRICS_LOCATION", "TEMP", "TMPDIR")}
    return {**os.environ, **own, "PATH": path}


def _own_config(content: bytes, ports: Sequence[int], archives: Sequence[str] | None) -> bytes:
    """Return the configuration with other ports and, if they are given, other archives to load."""
    values = {
        key: f"http://{HOST}:{port}" if key.endswith("_address") else str(port)
        for key, port in zip(_PORTS, ports, strict=True)
    }
    if archives is not None:
        values["load_models"] = ",".join(archives)
    return with_properties(content, values)
