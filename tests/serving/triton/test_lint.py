import difflib
import os
import resource

import pytest

from optkit.errors import ArtifactError, OutputError
from optkit.serving.triton.lint import RULES, lint
from optkit.untrusted.reading import MAX_CONFIG_BYTES
from tests.support.defects import DEFECTS
from tests.support.hostile import within
from tests.support.repositories import Repository, onnx_linear, write_good


@pytest.fixture
def repository(tmp_path):
    return Repository(write_good(tmp_path / "models"))


def test_a_good_repository_is_not_flagged(repository):
    record = lint(repository.folder)
    assert record.findings == ()
    assert set(record.models) == {"classifier", "pre", "pipeline", "talk", "stream", "total", "fixed"}


@pytest.mark.parametrize("defect", DEFECTS, ids=lambda d: d.name)
def test_one_defect_gives_its_rule_and_nothing_else(repository, defect):
    defect.make(repository)
    found = lint(repository.folder).findings
    assert {finding.rule for finding in found} == {defect.rule}, [f.message for f in found]


def test_there_are_enough_defects_and_each_rule_has_one():
    assert len(DEFECTS) >= 60
    assert len({d.name for d in DEFECTS}) == len(DEFECTS)
    assert {d.rule for d in DEFECTS} | {"T204", "T309"} == set(RULES)


def test_a_finding_says_where_and_what_the_model_says(repository):
    repository.edit("fixed", "dims: 2, dims: -1", "dims: 3, dims: -1")
    (found,) = lint(repository.folder).findings
    assert (found.file, found.line, found.model) == ("fixed/config.pbtxt", 4, "fixed")
    assert found.message == "input 'x': dims [3, -1]; the model has [2, -1]"
    assert found.fixable


NOT_CERTAIN = {  # what a rule can fix elsewhere, and here cannot
    "no-version-folder", "v1", "01", "dims-of-other-rank", "control-of-other-type", "state-of-other-type", "ragged-input-of-rank-2",
}  # fmt: skip
FIXABLE = [d for d in DEFECTS if RULES[d.rule].fixable and d.name not in NOT_CERTAIN]


@pytest.mark.parametrize("defect", FIXABLE, ids=lambda d: d.name)
def test_fix_mends_the_defect_and_nothing_else(repository, defect):
    defect.make(repository)
    config = repository.folder / defect.model / "config.pbtxt"
    before = config.read_text()
    record = lint(repository.folder, fix=True)
    assert record.passed, record.findings
    assert {f.rule for f in record.fixed} == {defect.rule}
    assert lint(repository.folder).findings == ()
    after = config.read_text()
    if after != before:
        assert config.with_name("config.pbtxt.orig").read_text() == before
    assert [line for line in before.splitlines() if "#" in line] == [line for line in after.splitlines() if "#" in line]
    changed = [line for line in difflib.ndiff(before.splitlines(), after.splitlines()) if line[0] in "+-"]
    assert len(changed) <= 4


def test_fix_writes_what_the_model_says(repository):
    repository.edit("total", 'name: "x" data_type: TYPE_FP32', 'name: "x" data_type: TYPE_INT32')
    repository.edit("fixed", "dims: 2, dims: -1", "dims: 3 /*")
    repository.edit("fixed", "dims: 3 /*", "dims: 7, dims: 8")
    lint(repository.folder, fix=True)
    assert 'name: "x" data_type: TYPE_FP32' in (repository.folder / "total/config.pbtxt").read_text()
    assert 'name: "x", data_type: TYPE_INT64, dims: [ 2, -1 ]' in (repository.folder / "fixed/config.pbtxt").read_text()


def test_the_first_original_is_kept(repository):
    config = repository.folder / "classifier/config.pbtxt"
    repository.edit("classifier", "[ 4, 8 ]", "[ 4, 16 ]")
    before = config.read_text()
    lint(repository.folder, fix=True)
    repository.edit("classifier", 'name: "classifier"', 'name: "c"')
    lint(repository.folder, fix=True)
    assert config.with_name("config.pbtxt.orig").read_text() == before


def test_what_cannot_be_mended_stays_as_it_is(repository):
    repository.edit("classifier", 'name: "image"\n', 'name: "picture"\n')
    before = (repository.folder / "classifier/config.pbtxt").read_text()
    record = lint(repository.folder, fix=True)
    assert not record.passed
    assert not record.fixed
    assert (repository.folder / "classifier/config.pbtxt").read_text() == before
    assert not (repository.folder / "classifier/config.pbtxt.orig").exists()


def test_gpus_that_the_server_does_not_have(repository):
    repository.edit("classifier", "kind: KIND_CPU", "kind: KIND_GPU gpus: [ 0, 2 ]")
    assert lint(repository.folder).findings == ()
    assert lint(repository.folder, gpus=4).findings == ()
    for gpus, said in (
        (0, "kind is KIND_GPU, but the server has no GPU"),
        (2, "gpus [2]: the server has 2 GPUs, counted from 0"),
    ):
        (found,) = lint(repository.folder, gpus=gpus).findings
        assert (found.rule, found.message) == ("T213", said)


def test_a_backend_of_ones_own_is_let_pass_and_none_at_all_is_not(repository):
    repository.write("mine/1/weights.bin", "x")
    repository.write("mine/config.pbtxt", 'backend: "acme_recommender"\nmax_batch_size: 1\n')
    assert lint(repository.folder).findings == ()
    repository.write("mine/config.pbtxt", "max_batch_size: 1\n")
    assert [f.rule for f in lint(repository.folder).findings] == ["T204"]


def test_torchscript_names(repository, torchscript):
    repository.write("script/1/model.pt", torchscript.path.read_bytes())
    good = (
        'platform: "pytorch_libtorch"\nmax_batch_size: 4\n'
        'input { name: "INPUT__0" data_type: TYPE_FP32 dims: [ 2, 3 ] }\n'
        'output { name: "OUTPUT__0" data_type: TYPE_FP32 dims: 3 }\n'
    )
    cases = {
        ("INPUT__0", "INPUT__0"): [],
        ("INPUT__0", "x"): [],  # forward's own argument
        ("INPUT__0", "image"): ["T309"],
        ("INPUT__0", "INPUT__1"): ["T309"],
        ("OUTPUT__0", "output"): ["T309"],
        ("OUTPUT__0", "OUTPUT__1"): ["T309"],
    }
    for (old, new), rules in cases.items():
        repository.write("script/config.pbtxt", good.replace(old, new))
        assert [f.rule for f in lint(repository.folder).findings] == rules, (old, new)


def test_the_code_of_a_repository_is_not_run(repository, tmp_path):
    code = f"open({str(tmp_path / 'ran')!r}, 'w')\nclass TritonPythonModel:\n    def execute(self, r): ...\n"
    repository.write("talk/1/model.py", code)
    assert lint(repository.folder).findings == ()
    assert not (tmp_path / "ran").exists()


def test_weights_are_not_read(repository):
    """A model with 4 GiB of weights in a sparse file beside it is read in the memory of its graph."""
    import onnx

    model = onnx.load_from_string(onnx_linear())
    weight = model.graph.initializer[0]
    weight.ClearField("raw_data")
    weight.data_location = onnx.TensorProto.EXTERNAL
    weight.external_data.add(key="location", value="weights.bin")
    for version in ("1", "2"):
        repository.remove(f"classifier/{version}/model.onnx")
        repository.write(f"classifier/{version}/model.onnx/model.onnx", model.SerializeToString())
        repository.write(f"classifier/{version}/model.onnx/weights.bin", b"")
        os.truncate(repository.folder / f"classifier/{version}/model.onnx/weights.bin", 4 << 30)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert lint(repository.folder).findings == ()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # KiB


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda r: None, "no such folder; expected a Triton model repository"),
        (lambda r: r.write("x", ""), "is a file; expected a Triton model repository"),
        (lambda r: (r.folder / "x").mkdir(parents=True), "contains no model; expected a folder for each model"),
        (lambda r: r.write("x/config.pbtxt", ""), "is the folder of one model; expected a repository of models. Give"),
    ],
)
def test_what_is_no_repository_is_refused(tmp_path, make, message):
    make(Repository(tmp_path))
    with pytest.raises(ArtifactError, match=message):
        lint(tmp_path / "x")


@pytest.mark.parametrize(
    ("model", "old", "new", "rule", "line"),
    [
        ("classifier", "kind: KIND_CPU", "kind: 9", "T105", 21),
        ("classifier", "value: { data_type: TYPE_FP32", "value: { data_type: -1", "T105", None),
        ("classifier", "kind: KIND_CPU", "kind: 9999999999", "T106", None),
    ],
)
def test_an_enumeration_given_as_a_number_that_it_does_not_have(repository, model, old, new, rule, line):
    repository.edit(model, old, new)
    (found,) = lint(repository.folder).findings
    assert found.rule == rule
    assert line is None or found.line == line


def test_folders_with_odd_names_are_no_versions(repository):
    for name in ("²", "1 ", "٣", "-1"):
        (repository.folder / "talk" / name).mkdir()
    assert lint(repository.folder).passed


def test_a_configuration_that_is_no_text(repository):
    (repository.folder / "pre/config.pbtxt").write_bytes(b"\xff\xfe\x00")
    assert [(f.rule, f.file) for f in lint(repository.folder).findings] == [("T103", "pre/config.pbtxt")]


def test_a_fix_that_cannot_be_written(repository, monkeypatch):
    repository.edit("classifier", "[ 4, 8 ]", "[ 4, 16 ]")
    before = (repository.folder / "classifier/config.pbtxt").read_text()

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("optkit.system.temporary.os.open", full)
    with pytest.raises(OutputError, match="No space left"):
        lint(repository.folder, fix=True)
    assert (repository.folder / "classifier/config.pbtxt").read_text() == before


def test_a_configuration_has_a_limit_and_whatever_is_below_it_takes_seconds(tmp_path):
    """15 MB of comments took 10 s and 2.5 GB; a line was looked for from the start of the text for each of thousands of findings."""
    folder = tmp_path / "models" / "m"
    (folder / "1").mkdir(parents=True)
    config = folder / "config.pbtxt"
    config.write_text("#" * 15_000_000)
    with within(10):
        (found, *_) = lint(tmp_path / "models").findings
    assert found.rule == "T103"
    assert (
        found.message
        == f"cannot be read as text (it has more than {MAX_CONFIG_BYTES} bytes, the most that optkit reads)"
    )
    for part in ("#x\n", "input{}\n", "model_warmup{}\n", "instance_group{count:-1}\n"):
        config.write_text(part * (MAX_CONFIG_BYTES // len(part)))
        with within(20):
            lint(tmp_path / "models")


@pytest.mark.parametrize("name", ["/dev/zero", "../x", "fifo", "x" * 300])
def test_a_model_file_that_is_none_is_a_finding(repository, name):
    os.mkfifo(repository.folder / "classifier/1/fifo")
    repository.add("classifier", f'default_model_filename: "{name}"')
    with within(20):
        assert {f.rule for f in lint(repository.folder).findings} & {"T113", "T118"}
