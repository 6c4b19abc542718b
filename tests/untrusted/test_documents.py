"""YAML and JSON of others: what is refused, with which words, and how soon."""

import ast
import os
import resource
from collections.abc import Iterator
from pathlib import Path

import pytest

from optkit.errors import ArtifactError, FeedError
from optkit.untrusted.documents import (
    MAX_DEPTH,
    MAX_JSON_BYTES,
    MAX_JSON_VALUES,
    parse_json,
    parse_response,
    parse_yaml,
    read_json,
    read_yaml,
)
from optkit.untrusted.yaml_loader import MAX_NODES, MAX_YAML_BYTES
from tests.support import ROOT
from tests.support.hostile import within

BOMB = "\n".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]" for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)
BOMB = f"a: &a [{', '.join(['x'] * 9)}]\n{BOMB}"
MERGES = "\n".join(f"k{i}: &k{i} {{<<: [*k{i - 1}, *k{i - 1}]}}" for i in range(1, 40))
MERGES = f"k0: &k0 {{a: 1, b: 2}}\n{MERGES}"
CHAIN = "\n".join([f"- &a{i} [*a{i - 1}]" if i else "- &a0 x" for i in range(1000)])

YAML = [
    ("date: 2001-99-99", r"'2001-99-99' cannot be read as timestamp \(month must be in 1\.\.12\)\. Quote it"),
    ("a: 0b_", "'0b_' cannot be read as int"),
    ("a: !!int abc", "'abc' cannot be read as int"),
    ('a: !!int ""', "'' cannot be read as int"),
    ("a: !!float abc", "'abc' cannot be read as float"),
    ("a: !!bool abc", "'abc' cannot be read as bool"),
    ("a: !!timestamp abc", "'abc' cannot be read as timestamp"),
    ("a: !!binary é", "cannot be read as YAML"),
    ("a: !!python/object/apply:os.system [id]", "could not determine a constructor for the tag"),
    (f"a: {'9' * 5000}", r"'9+\.\.\. \(5000 characters\) cannot be read as int \(Exceeds the limit"),
    (f"a: {2**64}", "it contains an integer of more than 64 bits"),
    ("a: .nan", "the number nan; expected finite numbers"),
    ("a: -.inf", "the number -inf"),
    ("a: 1.0e+999", "the number inf"),
    ("&z [*z]", "an alias stands for a value that contains it"),
    ("a: &z {b: [*z]}", "an alias stands for a value that contains it"),
    ("a: *b", "found undefined alias"),
    ("[" * 1000 + "]" * 1000, "it is nested deeper than 50 levels"),
    ("- " * 1000 + "x", "it is nested deeper than 50 levels"),
    ("{a: " * 1000 + "x" + "}" * 1000, "it is nested deeper than 50 levels"),
    (CHAIN, "it is nested deeper than 50 levels"),
    (BOMB, f"its aliases stand for more than {MAX_NODES} values"),
    (MERGES, f"its aliases stand for more than {MAX_NODES} values"),
    (f"[{'a, ' * MAX_NODES}]", f"it has more than {MAX_NODES} values"),
    ("a: 1\nb: 2\na: 3", "x:3: key 'a' is given twice"),
    ("a: {b: 1, b: 2}", "x:1: key 'b' is given twice"),
    ("? [a]\n: 1", "found unhashable key"),
    ("a: 1\n--- \nb: 2", "but found another document"),
    ("a: \0", "unacceptable character"),
    ('a: "\\0"', r"the text '\\x00' contains the character NUL"),
    ('"\\0": a', "contains the character NUL"),
    ('a: "\\ud800"', r"the text '\\ud800' is not valid Unicode"),
    ("a: =", "could not determine a constructor"),
    ("a: !!set [a]", "expected a mapping node"),
    ("%YAML 9.9\n---\na: 1", "found incompatible YAML document"),
    ("&a" * 3, "cannot be read as YAML"),
]
JSON = [
    ("[" * 100_000, f"it is nested deeper than {MAX_DEPTH} levels"),
    ('{"a":' * 100_000, f"it is nested deeper than {MAX_DEPTH} levels"),
    ("[" * 60 + "]" * 60, f"it is nested deeper than {MAX_DEPTH} levels"),
    ('{"a": 1, "a": 2}', "key 'a' is given twice"),
    ('[{"a": {"b": 1, "b": 1}}]', "key 'b' is given twice"),
    ("NaN", "NaN is not a JSON number"),
    ("[-Infinity]", "-Infinity is not a JSON number"),
    ("1e999", "the number inf; expected finite numbers"),
    ("9" * 5000, "Exceeds the limit"),
    (str(-(2**64)), "an integer of more than 64 bits"),
    ("\ufeff{}", "Unexpected UTF-8 BOM"),
    ("", "Expecting value"),
    ("{} {}", "Extra data"),
    ("{'a': 1}", "Expecting property name"),
    ("\0", "Expecting value"),
]


def short(text: str) -> str:
    return ascii(text[:30])


@pytest.mark.parametrize(("text", "says"), YAML, ids=short)
def test_yaml_of_others_is_refused_soon_and_in_words(text: str, says: str) -> None:
    with within(10), pytest.raises(FeedError, match=says) as e:
        parse_yaml(text, "x", FeedError)
    assert str(e.value).startswith("x")
    assert len(str(e.value)) < 500


@pytest.mark.parametrize(("text", "says"), JSON, ids=short)
def test_json_of_others_is_refused_soon_and_in_words(text: str, says: str) -> None:
    with within(10), pytest.raises(FeedError, match=rf"^x: cannot be read as JSON \(.*{says}"):
        parse_json(text, "x", FeedError)


@pytest.mark.parametrize(("read", "kind"), [(read_json, "JSON"), (read_yaml, "YAML")])
def test_a_file_that_is_none_is_refused(read: object, kind: str, tmp_path: Path) -> None:
    assert callable(read)
    (tmp_path / "latin").write_bytes(b"a: \xff")
    (tmp_path / "utf16").write_bytes("a: 1".encode("utf-16"))
    with (tmp_path / "large").open("wb") as stream:
        stream.truncate((MAX_JSON_BYTES if kind == "JSON" else MAX_YAML_BYTES) + 1)
    (tmp_path / "fifo").symlink_to("pipe")
    os.mkfifo(tmp_path / "pipe")
    for path, says in (
        (tmp_path, "is a directory"),
        (tmp_path / "none", "no such file"),
        (tmp_path / "latin", "it is not UTF-8: invalid start byte at byte 3"),
        (tmp_path / "utf16", "it is not UTF-8"),
        (tmp_path / "large", "it has more than \\d+ bytes, the most that optkit reads"),
        (tmp_path / "fifo", "is a FIFO, a socket or a device"),
        (Path("/dev/zero"), "is a FIFO, a socket or a device"),
        (tmp_path / ("a" * 300), "cannot be looked at"),
        (Path("a\0b"), "cannot be looked at"),
    ):
        with within(10), pytest.raises(ArtifactError, match=rf"cannot be read as {kind} \({says}"):
            read(path)


def test_what_people_write_is_read(tmp_path: Path) -> None:
    (tmp_path / "bom.yaml").write_bytes(b"\xef\xbb\xbfa: 1\n")  # Windows' editors write the mark, and YAML allows it
    assert read_yaml(tmp_path / "bom.yaml") == {"a": 1}
    (tmp_path / "empty").write_text("# nothing\n")
    assert read_yaml(tmp_path / "empty") is None
    text = "base: &base {a: 1, b: [1, 2]}\none: {<<: *base, a: 2}\ntwo: *base\nbatch: 1:4:8\n"
    base = {"a": 1, "b": [1, 2]}
    assert parse_yaml(text, "x") == {"base": base, "one": base | {"a": 2}, "two": base, "batch": "1:4:8"}
    assert parse_json('{"a": [1, 2.5, "é\\n\\u0000", null, true]}', "x") == {"a": [1, 2.5, "é\n\0", None, True]}
    assert parse_json("[" * 50 + "]" * 50, "x")


def test_what_a_server_answers_may_hold_nan_but_no_depth() -> None:
    assert parse_response('{"a": [NaN, "\\u0000"], "a": 1}') == {"a": 1}
    for text in ("[" * 100_000, "[" * 60 + "]" * 60, "1" * 400, "{", ""):
        with pytest.raises(ValueError, match=r"."):
            parse_response(text)


def test_the_largest_files_take_little_time_and_memory() -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for values in (
        "[" + "{}," * (MAX_JSON_VALUES // 2 - 2) + "{}]",
        f'"{"x" * MAX_JSON_BYTES}"',
        "1" + " " * MAX_JSON_BYTES,
    ):
        with within(30):
            assert parse_json(values, "x")
    with within(10), pytest.raises(ArtifactError, match=f"it has more than {MAX_JSON_VALUES} values"):
        parse_json("[" + "{}," * (MAX_JSON_BYTES // 3) + "{}]", "x")
    for text in ("#" * MAX_YAML_BYTES, "\n" * MAX_YAML_BYTES, "a: " + "x " * (MAX_YAML_BYTES // 2 - 3)):
        with within(10):
            parse_yaml(text, "x")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2 * 2**20  # KiB


# What runs without optkit, in a server or under another Python; the channel between optkit and its own worker; a response with
# bytes behind; a recipe that optkit holds.
ALONE = {
    "aoti/process.py",
    "aoti/worker.py",
    "loadtest/payloads.py",
    "pipeline/pins.py",
    "serving/torchserve/handler.py",
    "serving/migrate/handler_model.py",
    "serving/clients/torchserve_template.py",
    "serving/triton/python_backend/model.py",
    "tensorrt/worker/jobs.py",
    "tensorrt/worker/layers.py",
    "tensorrt/process.py",
}
READERS = {
    "json": {"load", "loads", "JSONDecoder"},
    "yaml": {"load", "safe_load", "full_load", "unsafe_load", "compose"},
}


def readers(tree: ast.AST) -> Iterator[int]:
    """Yield the lines that read JSON or YAML with the library itself."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            if node.attr in READERS.get(node.value.id, ()):
                yield node.lineno
        elif isinstance(node, ast.ImportFrom) and READERS.get(str(node.module), set()) & {a.name for a in node.names}:
            yield node.lineno


def test_the_rule_finds_a_reader() -> None:
    text = "import json\njson.loads('')\nfrom yaml import safe_load\nyaml.load('')\njson.dumps(1)\n"
    assert list(readers(ast.parse(text))) == [3, 2, 4]


def test_no_other_module_reads_json_or_yaml_by_itself() -> None:
    found = {
        file.relative_to(ROOT / "optkit").as_posix()
        for file in (ROOT / "optkit").rglob("*.py")
        if "untrusted" not in file.parts and any(readers(ast.parse(file.read_text(encoding="utf-8"))))
    }
    assert found == ALONE
