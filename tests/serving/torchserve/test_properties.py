"""config.properties with the full syntax of Java properties files."""

import json
from pathlib import Path

import pytest

from optkit.errors import ArtifactError
from optkit.serving.torchserve.config import installed_models, loaded_models
from optkit.serving.torchserve.properties import read_properties, with_properties

CONTINUED = """\
load_models=noop.mar
models={\\
  "noop": {\\
    "1.0": {\\
        "defaultVersion": true,\\
        "marName": "noop.mar",\\
        "batchSize": 4\\
    }\\
  }\\
}
"""


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("a=1\nb: 2\nc 3\nd = 4\n e : 5", {"a": "1", "b": "2", "c": "3", "d": "4", "e": "5"}),
        ("# a=1\n! b=2\n  # c=3\n\nd=4", {"d": "4"}),
        ("a=1,\\\n   2,\\\n   3\nb=4", {"a": "1,2,3", "b": "4"}),
        ("a=1\\\n# not a comment", {"a": "1# not a comment"}),
        ("a=1\\\\\nb=2", {"a": "1\\", "b": "2"}),
        ("a\\ b\\:c=d\\=e", {"a b:c": "d=e"}),
        ("a=\\u00e9\\t\\u4e2d\nb=\xe9", {"a": "é\t中", "b": "é"}),
        ("a=1=2:3", {"a": "1=2:3"}),
        ("a\nb=", {"a": "", "b": ""}),
        ("a=1\na=2", {"a": "2"}),
        ("a=1\r\nb=2\r\n", {"a": "1", "b": "2"}),
        ("a=C:\\\\temp", {"a": "C:\\temp"}),
    ],
)
def test_the_syntax_of_properties(tmp_path, text, values):
    (tmp_path / "x.properties").write_bytes(text.encode("latin-1"))
    assert read_properties(tmp_path / "x.properties") == values


def test_a_value_over_several_lines(tmp_path):
    (tmp_path / "config.properties").write_text(CONTINUED)
    assert installed_models(tmp_path / "config.properties")["noop.mar"]["batchSize"] == 4
    assert loaded_models(tmp_path / "config.properties") == ["noop"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "# one\nb=1,\\\n  2\na=\\uZZZZ",
            r"x.properties: cannot be read as a Java properties file \(line 4: Invalid \\u escape sequence: \\uZZZZ\)\. Correct it",
        ),
        (None, r"x.properties: cannot be read as a Java properties file \(is a directory\)"),
    ],
)
def test_a_file_that_cannot_be_read(tmp_path, text, said):
    path = tmp_path / "x.properties"
    path.mkdir() if text is None else path.write_text(text)
    with pytest.raises(ArtifactError, match=said):
        read_properties(path)


@pytest.mark.parametrize(
    ("models", "said"),
    [
        ("{nonsense", r"the value: cannot be read as JSON \("),
        ('{\\\n  "a": {\\\n', r"the value: cannot be read as JSON \("),
        ("[1]", r"the value is \[1\]"),
        ('{"a": 3}', "model 'a' is 3"),
        ('{"a": {"1.0": 3}}', "model 'a' is {\"1.0\": 3}"),
    ],
)
def test_a_value_that_cannot_be_parsed_names_the_file_and_the_key(tmp_path, models, said):
    (tmp_path / "config.properties").write_text(f"a=1,\\\n  2\n\nmodels : {models}\n")
    with pytest.raises(ArtifactError, match=rf"config.properties: line 4: models: {said}.*; expected JSON of model"):
        installed_models(tmp_path / "config.properties")


@pytest.mark.parametrize("models", ["", "{}"])
def test_no_models(tmp_path, models):
    (tmp_path / "config.properties").write_text(f"models={models}\n")
    assert installed_models(tmp_path / "config.properties") == {}


@pytest.mark.parametrize(
    ("load_models", "names"),
    [("a.mar, b.mar,", ["a", "b"]), ("ALL", ["one", "two"]), ("none", []), ("x=one.mar", ["x"]), ("one", ["one"])],
)
def test_the_models_that_are_loaded(tmp_path, load_models, names):
    for name in ("one.mar", "two.mar"):
        (tmp_path / name).touch()
    (tmp_path / "config.properties").write_text(f"load_models : {load_models}\n")
    assert loaded_models(tmp_path / "config.properties") == names


VALUES = {
    "models": json.dumps({"m": {"1.0": {"marName": "m.mar", "path": "C:\\x: y=1 #!é"}}}),
    "url": "file://.*",
    "blank": "  x ",
    "k e:y": "\tv\n",
}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        CONTINUED.encode(),
        b"# mine: \xe9\n! too\nother : \\\n   value\n\nmodels = 1\nurl=2\n",
        b"other=1",
        b"other=1\\",
        b"other=1\\\n",
        b"other=1\\\\",
        b"# C:\\\\\n# C:\\\n",
        b"other=1\r\nmodels=2\r\n",
        b"models=1\nother=2\nmodels=3",
    ],
)
def test_values_are_replaced_and_everything_else_stays(tmp_path, content):
    path = tmp_path / "x.properties"
    path.write_bytes(content)
    others = {key: value for key, value in read_properties(path).items() if key not in ("models", "load_models")}
    path.write_bytes(with_properties(content, VALUES))
    once = path.read_bytes()
    loads = {"load_models": "noop.mar"} if b"load_models" in content else {}
    assert read_properties(path) == others | loads | VALUES
    assert with_properties(once, VALUES) == once
    for line in (b"# mine: \xe9\n! too\n", b"other : \\\n   value\n", b"# C:\\\\\n# C:\\\n"):
        assert (line in once) == (line in content)


def test_a_written_value_stays_readable():
    line = with_properties(b"", {"inference_address": "http://127.0.0.1:8080", "models": '{"a": {"b": 1}}'})
    assert line == b'inference_address=http://127.0.0.1:8080\nmodels={"a": {"b": 1}}\n'


def test_a_path_of_no_file(tmp_path: Path):
    assert installed_models(tmp_path / "config.properties") == {}
