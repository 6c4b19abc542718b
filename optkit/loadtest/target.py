"""The target of a load test: a Triton URL with the name of a model, or the TorchServe URL of a model."""

import dataclasses
import re
from typing import Literal
from urllib.parse import quote

from optkit.errors import RecipeError

_URL = re.compile(r"(?P<scheme>http|grpc)://(?P<host>\[[0-9A-Fa-f:.]+\]|[\w.-]+):(?P<port>\d{1,5})(?P<path>/.*)?")
_PREDICTIONS = re.compile(r"/predictions/(?P<model>[\w.-]+)(?:/(?P<version>[\w.-]+))?/?")
_EXPECTED = (
    "expected http://host:port or grpc://host:port for Triton, or http://host:port/predictions/NAME for TorchServe"
)


@dataclasses.dataclass(frozen=True)
class Target:
    """One model on one server; all requests go to this address. If the version is empty, the server chooses it."""

    url: str
    server: Literal["triton", "torchserve"]
    scheme: Literal["http", "grpc"]
    host: str
    port: int
    model: str
    version: str

    @property
    def address(self) -> str:
        """The host and the port, as in the Host header."""
        return f"{self.host}:{self.port}"

    @property
    def triton_path(self) -> str:
        """The path of the model, relative to Triton's /v2/."""
        version = f"/versions/{quote(self.version, safe='')}" if self.version else ""
        return f"models/{quote(self.model, safe='')}{version}"

    @property
    def where(self) -> str:
        """The URL and the model, for messages."""
        if self.server == "torchserve" or not self.model:
            return self.url
        return f"{self.url}: model {self.model!r}" + (f" version {self.version}" if self.version else "")


def parse_target(url: str, model: str | None = None, version: str | None = None) -> Target:
    """Read a URL. A TorchServe URL holds the name and version of the model; for Triton they are separate arguments.

    Raises:
        RecipeError: the URL has another form, or the model is named twice.
    """
    found = _URL.fullmatch(url)
    if not found or not 0 < int(found["port"]) < 65536:
        raise RecipeError(f"{url}: is not the URL of a server; {_EXPECTED}")
    path = found["path"] or ""
    named = _PREDICTIONS.fullmatch(path)
    if path.strip("/") and not (named and found["scheme"] == "http"):
        raise RecipeError(f"{url}: the path {path!r} belongs to neither server; {_EXPECTED}")
    if named and (model or version):
        raise RecipeError(f"{url}: already names the model. Leave out --model and --version.")
    return Target(
        url=url.rstrip("/"),
        server="torchserve" if named else "triton",
        scheme="grpc" if found["scheme"] == "grpc" else "http",
        host=found["host"],
        port=int(found["port"]),
        model=named["model"] if named else model or "",
        version=(named["version"] if named else version) or "",
    )
