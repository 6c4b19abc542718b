"""Messages of the Python functions: arguments where the command line has options."""

import re
from pathlib import Path

import pytest

from optkit.api.wording import for_python, python_words
from optkit.errors import ModelError
from tests.support import ROOT


@pytest.mark.parametrize(
    ("options", "arguments"),
    [
        (
            "m.onnx: exists already. Give --force to replace it, or another name with -o.",
            "m.onnx: exists already. Give force=True to replace it, or give another output.",
        ),
        (
            'as in --input "x:float32[batch,8]" --dim batch=1:8:64, where the sizes are a guess',
            'as in inputs={"x": "float32[batch,8]"}, dims={"batch": (1, 8, 64)}, where the sizes are a guess',
        ),
        (
            "--max-drop 0.01: nothing measures accuracy. Give --evaluate file.py:evaluate.",
            'max_drop=0.01: nothing measures accuracy. Give evaluate="file.py:evaluate".',
        ),
        ("Give --calibration DATA.", "Give calibration=DATA."),
        ("or use --exporter torchscript, which keeps it", 'or use exporter="torchscript", which keeps it'),
        ("with --data, and to rank layers, with --max-drop or --min-cosine", "with data, and to rank layers, with max_drop or min_cosine"),
        ("Use optkit convert fp16, or optkit quantize --target tensorrt, first.", 'Use optkit.convert_fp16, or optkit.quantize target="tensorrt", first.'),
        ("rebuild with --runtime tensorrt on that GPU", 'rebuild with runtime="tensorrt" on that GPU'),
        ("--triton: no GPU was found", "triton: no GPU was found"),
    ],
)  # fmt: skip
def test_options_become_arguments(options: str, arguments: str) -> None:
    assert python_words(options) == arguments


def test_no_message_of_the_packages_keeps_an_option() -> None:
    sentence = re.compile(r'f?"([^"\n]*(?<![\w-])--[a-z][^"\n]*)"')
    found = [
        message
        for file in (ROOT / "optkit").rglob("*.py")
        if not {"cli", "clients", "worker"} & set(file.parts) and _is_read_by_people(file)
        for message in sentence.findall(file.read_text(encoding="utf-8"))
    ]
    assert len(found) > 50
    left = [message for message in found if re.search(r"(?<![\w-])--[a-z]", python_words(message))]
    assert not left


def _is_read_by_people(file: Path) -> bool:
    """Whether the options in a file are those of messages; the others start other programs."""
    others = {"command.py", "server.py", "perf_analyzer.py", "wording.py", "provenance.py", "process.py"}
    return file.name not in others


def test_an_error_names_the_arguments_and_what_to_add() -> None:
    def refuse() -> None:
        raise ModelError("x: takes n without a default. Give each with --set.", add="--set n=VALUE")

    with pytest.raises(
        ModelError, match=r"^x: takes n without a default\. Give each with args\. Add args=\{\"n\": VALUE\}\.$"
    ):
        for_python(refuse)()
