"""The image in which a handler runs: Triton's, with the packages that the archive needs."""

import json
import shlex
from collections.abc import Sequence

from optkit.serving.triton.command import IMAGE

FILE = "Dockerfile"
_CPU = "https://download.pytorch.org/whl/cpu"
_OF_TORCH = ("torch", "torchvision", "torchaudio")


def dockerfile(packages: Sequence[str], requirements: str | None) -> str:
    """Return a Dockerfile. Its folder is that of the model.

    Args:
        packages: names for pip.
        requirements: the requirements file of the archive, relative to the model's folder.
    """
    lines = [f"FROM {IMAGE}"]
    torch = [name for name in packages if name in _OF_TORCH]
    others = [name for name in packages if name not in _OF_TORCH]
    if torch:
        lines.append(f"RUN pip install --no-cache-dir --index-url {_CPU} {shlex.join(torch)}")
    if others:
        lines.append(f"RUN pip install --no-cache-dir {shlex.join(others)}")
    if requirements:
        copied = "/opt/requirements.txt"
        lines.append(f"COPY {json.dumps([requirements, copied])}")  # this form allows blanks in a name
        lines.append(f"RUN pip install --no-cache-dir -r {copied}")
    return "\n".join(lines) + "\n"
