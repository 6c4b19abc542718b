"""A local Triton server: find the installation, start it with a time limit on free loopback ports, and stop it reliably."""

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
from optkit.serving.server.ports import HOST, free_ports
from optkit.system.child import ChildProcess
from optkit.untrusted.paths import is_file, is_folder
from optkit.untrusted.quoting import shell_line

ENVIRONMENT = "OPTKIT_TRITON"


@dataclasses.dataclass(frozen=True)
class TritonInstall:
    """A Triton installation on this machine. `backends` None means the server's default folder."""

    binary: Path
    backends: Path | None
    environment: dict[str, str]


def find_triton() -> TritonInstall:
    """Find the server in the virtual environment OPTKIT_TRITON or, if that is not set, `tritonserver` on the PATH.

    Raises:
        MissingDependency: no server is installed there.
    """
    folder = os.environ.get(ENVIRONMENT)
    if folder:
        return _from_wheel(Path(folder).absolute())
    binary = shutil.which("tritonserver")
    if binary:
        return TritonInstall(Path(binary), None, dict(os.environ))
    raise MissingDependency(
        f"no Triton server is installed: tritonserver is not on the PATH, and {ENVIRONMENT} is not set. "
        f"Run the docker command of `optkit serve`, or set {ENVIRONMENT} to a virtual environment with nvidia-pytriton."
    )


def _from_wheel(folder: Path) -> TritonInstall:
    """Return the server in the wheel nvidia-pytriton, with an environment for the libraries that it needs."""
    python = folder / "bin" / "python"
    question = "import sysconfig; print(sysconfig.get_path('purelib')); print(sysconfig.get_config_var('LIBDIR'))"
    try:
        answer = subprocess.run([python, "-c", question], capture_output=True, text=True, check=True, timeout=60)
    except (OSError, subprocess.SubprocessError) as e:
        raise MissingDependency(f"{ENVIRONMENT}={folder}: is not a virtual environment ({e})") from e
    packages, libraries = answer.stdout.splitlines()
    binary = Path(packages, "pytriton", "tritonserver", "bin", "tritonserver")
    if not is_file(binary):
        raise MissingDependency(
            f"{ENVIRONMENT}={folder}: contains no Triton server. Run: {shell_line(python, '-m', 'pip')} install nvidia-pytriton==0.7.0"
        )
    backends = folder / "backends"
    environment = (
        dict(os.environ)
        | {
            "LD_LIBRARY_PATH": f"{libraries}:{packages}/nvidia_pytriton.libs",
            "PATH": f"{folder / 'bin'}:{os.environ.get('PATH', '')}",  # the Python backend uses the first python3 on the PATH
        }
    )
    environment.pop("PYTHONPATH", None)
    return TritonInstall(binary, backends if is_folder(backends) else binary.parents[1] / "backends", environment)


class TritonServer:
    """A running server, as a context manager. All its processes end with the block.

    `ports` are the ports of HTTP, gRPC and metrics; None means free ports. If `models` is None, the server loads all models, and the
    start fails if one model fails. Otherwise it loads only these models, and models can be loaded and unloaded later.
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
        self._process: ChildProcess | None = None
        self.http = self.grpc = ""  # host:port

    def __enter__(self) -> Self:
        """Start the server and wait until it is ready.

        Raises:
            RunnerError: the server ended, or was not ready within the limit. The message contains its errors.
        """
        ports = self._ports or free_ports(3)
        self.http, self.grpc = f"{HOST}:{ports[0]}", f"{HOST}:{ports[1]}"
        self._process = ChildProcess(self._command(ports), environment=self._install.environment)
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
        """The server's output so far."""
        return self._process.log if self._process else ""

    @property
    def running(self) -> bool:
        """Whether the server runs."""
        return self._process is not None and self._process.code is None

    def wait(self) -> None:
        """Wait until the server ends.

        Raises:
            RunnerError: always, because a server should not end by itself. The message contains its errors.
        """
        assert self._process is not None
        code = self._process.wait()
        assert code is not None
        self._ended(code)

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

    def _wait(self, process: ChildProcess) -> None:
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
        """Return the errors in the server's log or, if there are none, the end of the log."""
        lines = self.log.splitlines()
        failures = [line for line in lines if line[:1] == "E" or "UNAVAILABLE" in line or line.startswith("error:")]
        return " | ".join(line.strip() for line in (failures or lines)[-5:]) or "no output"


def _is_ready(address: str) -> bool:
    try:
        # The server is on this machine, so proxy settings of the environment do not apply.
        direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with direct.open(f"http://{address}/v2/health/ready", timeout=2) as answer:
            return bool(answer.status == 200)
    except (OSError, urllib.error.URLError):
        return False
