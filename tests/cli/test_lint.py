"""`optkit lint` as a user and a CI run it."""

import json

import pytest

from tests.support.project import command_line
from tests.support.repositories import Repository, write_good


@pytest.fixture
def cli(monkeypatch, capsys):
    yield from command_line(monkeypatch, capsys)


@pytest.fixture
def repository(tmp_path):
    return Repository(write_good(tmp_path / "models"))


def test_a_good_repository_exits_with_0(cli, repository):
    done = cli("lint", repository.folder)
    assert (done.code, done.out, done.err) == (0, "7 models: no findings\n", "")


def test_an_error_exits_with_1_and_names_rule_place_and_remedy(cli, repository):
    repository.edit("classifier", "[ 4, 8 ]", "[ 4, 16 ]")
    done = cli("lint", repository.folder)
    place = f"{repository.folder}/classifier/config.pbtxt:23"
    assert done.code == 1
    assert done.out == (
        f"{place}: error T205: preferred_batch_size [16] with max_batch_size 8\n"
        "  Use sizes from 1 to max_batch_size. (--fix fixes it)\n"
        "7 models: 1 error, 0 warnings\n"
    )
    fixed = cli("lint", repository.folder, "--fix")
    assert fixed.code == 0
    assert f"{place}: fixed T205" in fixed.out


def test_a_warning_exits_with_0(cli, repository):
    repository.remove("total/config.pbtxt")
    done = cli("lint", repository.folder)
    assert done.code == 0
    assert "7 models: 0 errors, 1 warning" in done.out


def test_json(cli, repository):
    repository.edit("pipeline", 'model_name: "pre"', 'model_name: "prepare"')
    done = cli("lint", repository.folder, "--json")
    record = json.loads(done.out)
    assert (done.code, record["schema"]) == (1, "optkit/lint/1")
    (finding,) = record["findings"]
    assert finding == {
        "rule": "T402",
        "severity": "error",
        "model": "pipeline",
        "file": "pipeline/config.pbtxt",
        "line": 9,
        "message": "step 0: no model 'prepare'; expected one of classifier, fixed, pre, stream, talk, total",
        "advice": "Correct model_name, or add the model.",
        "fixable": False,
    }


def test_github_annotations(cli, repository, monkeypatch):
    monkeypatch.chdir(repository.folder.parent)
    repository.edit("classifier", "[ 4, 8 ]", "[ 4, 16 ]")
    done = cli("lint", "models", "--format", "github")
    assert done.out == (
        "::error file=models/classifier/config.pbtxt,line=23,title=T205::"
        "preferred_batch_size [16] with max_batch_size 8. Use sizes from 1 to max_batch_size.\n"
    )


def test_a_message_cannot_add_an_annotation(cli, repository):
    repository.edit("classifier", 'name: "classifier"', 'name: "x\\n::error::%"')
    done = cli("lint", repository.folder, "--format", "github")
    assert len(done.out.splitlines()) == 1


def test_rules(cli):
    done = cli("lint", "--rules")
    assert done.code == 0
    assert "T101" in done.out
    assert "no config.pbtxt" in done.out
    rules = json.loads(cli("lint", "--rules", "--json").out)
    assert rules["schema"] == "optkit/lint-rules/1"
    assert len({rule["id"] for rule in rules["rules"]}) == len(rules["rules"]) > 40


def test_gpus_of_the_server(cli, repository):
    repository.edit("classifier", "kind: KIND_CPU", "kind: KIND_GPU")
    assert cli("lint", repository.folder).code == 0
    assert cli("lint", repository.folder, "--server-gpus", 0).code == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "REPOSITORY: is missing; expected a Triton model repository. Give its folder, or use --rules"),
        (["gone"], "gone: no such folder; expected a Triton model repository"),
        (["x", "--format", "xml"], "xml"),
    ],
)
def test_what_cannot_run_exits_with_2(cli, tmp_path, monkeypatch, arguments, said):
    monkeypatch.chdir(tmp_path)
    done = cli("lint", *arguments)
    assert done.code == 2
    assert said in done.err
