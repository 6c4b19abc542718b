"""The packages that the code of a TorchServe archive needs, and that Triton's image does not have. The code is read, not run."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path
from types import MappingProxyType

from optkit.errors import ArtifactError
from optkit.untrusted.documents import read_json
from optkit.untrusted.paths import is_folder

_PACKAGES = MappingProxyType({  # module -> package, where the two have different names
    "ts": "torchserve", "PIL": "pillow", "cv2": "opencv-python-headless", "sklearn": "scikit-learn", "yaml": "PyYAML", "skimage": "scikit-image",
    "bs4": "beautifulsoup4", "dateutil": "python-dateutil", "google.protobuf": "protobuf", "Crypto": "pycryptodome",
})  # fmt: skip
_IN_THE_IMAGE = frozenset({"numpy", "triton_python_backend_utils"})
_OF_TORCHSERVE = ("torch", "torchserve", "PyYAML", "pillow")  # what its handlers import; it declares only a part of it
_VISION = ("torchvision", "captum")
_VISION_HANDLERS = ("image_classifier", "image_segmenter", "object_detector")


def needed_packages(folder: Path) -> tuple[str, ...]:
    """Return the packages that the code in an unpacked archive imports, sorted; an archive that cannot be read needs none.

    Args:
        folder: the unpacked archive, with its manifest.
    """
    try:
        handler = str(read_json(folder / "MAR-INF" / "MANIFEST.json")["model"]["handler"])
    except (ArtifactError, KeyError, TypeError):
        return ()
    files = sorted(folder.glob("*.py"))
    own = {path.stem for path in files} | {path.name for path in folder.iterdir() if is_folder(path)}
    found = {name for path in files for name in _imports(path)}
    builtin = handler.partition(":")[0]
    if "ts" in found or Path(builtin).suffix != ".py":
        found.update(_OF_TORCHSERVE)
    if builtin in _VISION_HANDLERS or any("vision_handler" in path.read_text(errors="replace") for path in files):
        found.update(_VISION)
    packages = {_PACKAGES.get(name, name) for name in found if name not in own | _IN_THE_IMAGE}
    return tuple(sorted(packages - sys.stdlib_module_names))


def _imports(path: Path) -> Iterator[str]:
    """Yield the top-level modules that a file imports."""
    try:
        tree = ast.parse(path.read_bytes())
    except (OSError, SyntaxError, ValueError, RecursionError, MemoryError):
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.partition(".")[0]
