"""A local Triton server: found where it is installed, started with a limit on free loopback ports, and ended for certain."""

import dataclasses
import os
import shutil
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn, Self

from optkit.errors import MissingDependency, RunnerError
from optkit.serving.server.process import HOST, ServerProcess, free_ports
from optkit.untrusted.quoting import shell_line

ENVIRONMENT = "OPTKIT_TRITON"


@dataclasses.dataclass(frozen=True)
class TritonInstall:
    """A server on this machine; `backends` None takes the server's own folder."""

    binary: Path
    backends: Path | None
    environment: dict[str, str]


def find_triton() -> TritonInstall:
    """Find the server: the virtual environment that OPTKIT_TRITON names, else `tritonserver` on the PATH.

    Raises:
        MissingDependency: there is none, or OPTKIT_TRITON names a folder that holds none.
    """
    folder = os.environ.get(ENVIRONMENT)
    if folder:
        return _from_wheel(Path(folder).absolute())
    binary = shutil.which("tritonserver")
    if binary:
        return TritonInstall(Path(binary), None, dict(os.environ))
    raise MissingDependency(
        f"no Triton server is installed here: tritonserver is not on the PATH and {ENVIRONMENT} is not set. "
        f"Run the docker command of `optkit serve`, or set {ENVIRONMENT} to a virtual environment with nvidia-pytriton."
    )


def _from_wheel(folder: Path) -> TritonInstall:
    """Return the server that the wheel nvidia-pytriton carries, with the libraries that it needs from elsewhere."""
    python = folder / "bin" / "python"
    question = "import sysconfig; print(sysconfig.get_path('purelib')); print(sysconfig.get_config_var('LIBDIR'))"
    try:
        answer = subprocess.run([python, "-c", question], capture_output=True, text=True, check=True, timeout=60)
    except (OSError, subprocess.SubprocessError) as e:
        raise MissingDependency(f"{ENVIRONMENT}={folder}: is no virtual environment ({e})") from e
    packages, libraries = answer.stdout.splitlines()
    binary = Path(packages, "pytriton", "tritonserver", "bin", "tritonserver")
    if not binary.is_file():
        raise MissingDependency(
            f"{ENVIRONMENT}={folder}: holds no Triton server. Run: {shell_line(python, '-m', 'pip')} install nvidia-pytriton==0.7.0"
        )
    backends = folder / "backends"
    environment = dict(os.environ) | {
        "LD_LIBRARY_PATH": f"{libraries}:{packages}/nvidia_pytriton.libs",
        "PATH": f"{folder / 'bin'}:{os.environ.get('PATH', '')}",  # its Python finds packages by the first python3 here
    }
    environment.pop("PYTHONPATH", None)
    return TritonInstall(binary, backends if backends.is_dir() else binary.parents[1] / "backends", environment)


class TritonServer:
    """A running server; a context manager. Nothing of it is left after the block, whatever happens in it.

    `ports` are those of HTTP, gRPC and the metrics; None takes free ones. With `models` None every model of the repository is loaded and one that fails ends the start; else only those named are,
    and models can be loaded and unloaded one by one.
    """

    def __init__(
        self,
        install: TritonInstall,
        repository: Path,
        *,
        models: Sequence[str] | None = None,
        limit_s: float = 60.0,
        ports: tuple[int, int, int] | None = None,
        options: Sequence[str] = (),
    ) -> None:
        self._install = install
        self._repository = repository
        self._models = models
        self._limit_s = limit_s
        self._ports = ports
        self._options = tuple(options)
        self._process: ServerProcess | None = None
        self.http = self.grpc = ""  # host:port

    def __enter__(self) -> Self:
        """Start it and wait until it is ready.

        Raises:
            RunnerError: it ended, or was not ready within the limit; holds what it said.
        """
        ports = self._ports or free_ports(3)
        self.http, self.grpc = f"{HOST}:{ports[0]}", f"{HOST}:{ports[1]}"
        self._process = ServerProcess(self._command(ports), environment=self._install.environment)
        try:
            self._wait(self._process)
        except BaseException:
            self._process.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self._process.stop()

    @property
    def log(self) -> str:
        """What the server has said so far."""
        return self._process.log if self._process else ""

    @property
    def running(self) -> bool:
        """Whether it has not ended by itself."""
        return self._process is not None and self._process.code is None

    def wait(self) -> None:
        """Wait until the server ends by itself.

        Raises:
            RunnerError: it ended, which a server does not do unasked; holds what it said.
        """
        assert self._process is not None
        self._ended(self._process.wait())

    def _command(self, ports: Sequence[int]) -> list[str]:
        command = [str(self._install.binary), f"--model-repository={self._repository}"]
        if self._install.backends:
            command.append(f"--backend-directory={self._install.backends}")
        for service, port in zip(("http", "grpc", "metrics"), ports, strict=True):
            command += [f"--{service}-address={HOST}", f"--{service}-port={port}"]
        command += ["--allow-gpu-metrics=false", "--disable-auto-complete-config", "--exit-timeout-secs=2"]
        if self._models is not None:
            command += ["--model-control-mode=explicit", *(f"--load-model={name}" for name in self._models)]
        return [*command, *self._options]

    def _wait(self, process: ServerProcess) -> None:
        end = time.monotonic() + self._limit_s
        while time.monotonic() < end:
            if process.code is not None:
                self._ended(process.code)
            if _is_ready(self.http):
                return
            time.sleep(0.05)
        raise RunnerError(
            f"{self._repository}: the Triton server was not ready within {self._limit_s:g} s and was stopped: "
            f"{self._complaint()}"
        )

    def _ended(self, code: int) -> NoReturn:
        raise RunnerError(f"{self._repository}: the Triton server ended with code {code}: {self._complaint()}")

    def _complaint(self) -> str:
        """Return the server's own last words: its errors, or the end of its log where it named none."""
        lines = self.log.splitlines()
        failures = [line for line in lines if line[:1] == "E" or "UNAVAILABLE" in line or line.startswith("error:")]
        return " | ".join(line.strip() for line in (failures or lines)[-5:]) or "it said nothing"


def _is_ready(address: str) -> bool:
    try:
        # Without the proxy that the environment may name: the server is on this machine.
        direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with direct.open(f"http://{address}/v2/health/ready", timeout=2) as answer:
            return bool(answer.status == 200)
    except (OSError, urllib.error.URLError):
        return False
