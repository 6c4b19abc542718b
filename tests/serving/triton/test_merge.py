"""A configuration that a person edited stays theirs; golden samples; and the options beyond batching."""

import json
import os

import numpy as np
import pytest
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2 as schema

from optkit.artifact.findings import BatchIndependence
from optkit.data import Samples
from optkit.errors import ArtifactError, OutputError, StageError
from optkit.serving import (
    Accelerator,
    Instances,
    Optimization,
    Priorities,
    QueuePolicy,
    TritonServing,
    make_golden,
    package_triton,
)
from optkit.serving.golden import read_golden
from optkit.serving.triton.lint import lint
from optkit.serving.triton.package_record import read_record
from optkit.serving.triton.smoke import smoke_triton
from tests.support.hostile import within
from tests.support.seal import sealed

PROVEN = BatchIndependence(dim="batch")


def package(artifact, repository, *, force=False, golden=None, **fields):
    return package_triton(
        artifact,
        repository,
        TritonServing(**fields),
        name="digits",
        independence=PROVEN,
        sample=None,
        golden=golden,
        force=force,
    )


def parsed(path):
    return text_format.Parse((path / "config.pbtxt").read_text(), schema.ModelConfig())


@pytest.fixture
def packaged(onnx, tmp_path):
    return package(onnx, tmp_path).path


def edit(path, old, new):
    text = (path / "config.pbtxt").read_text()
    assert old in text
    text = "# our own tuning\n" + text.replace(old, new)
    (path / "config.pbtxt").write_text(text)
    return text


NO_DELAY = "dynamic_batching {\n"


@pytest.mark.parametrize("force", [False, True])
def test_an_edited_configuration_stays_with_a_new_version(onnx, packaged, force):
    text = edit(packaged, NO_DELAY, NO_DELAY + "  max_queue_delay_microseconds: 5000\n")
    done = package(onnx, packaged.parent, version=2, force=force)
    assert (packaged / "config.pbtxt").read_text() == text
    assert "config.pbtxt keeps your own dynamic_batching" in done.notes
    assert (packaged / "2/model.onnx").is_file()


def test_an_edit_and_a_change_elsewhere_are_merged(onnx, packaged):
    edit(packaged, NO_DELAY, NO_DELAY + "  max_queue_delay_microseconds: 5000  # measured\n")
    with pytest.raises(OutputError, match=r"dynamic_batching and instance_group differs .* all"):
        package(onnx, packaged.parent, version=2, instances=Instances(count=3))
    done = package(onnx, packaged.parent, version=2, instances=Instances(count=3), force=True)
    text, found = (packaged / "config.pbtxt").read_text(), parsed(packaged)
    assert found.dynamic_batching.max_queue_delay_microseconds == 5000
    assert found.instance_group[0].count == 3
    assert text.startswith("# our own tuning\n")
    assert "# measured" in text
    assert "config.pbtxt keeps your own dynamic_batching" in done.notes
    again = package(onnx, packaged.parent, version=3, instances=Instances(count=3))  # what was merged is known
    assert "config.pbtxt keeps your own dynamic_batching" in again.notes


def test_an_edit_where_something_else_would_be_written_is_refused_even_by_force(onnx, packaged):
    text = edit(packaged, NO_DELAY, NO_DELAY + "  max_queue_delay_microseconds: 5000\n")
    with pytest.raises(
        OutputError, match=r"dynamic_batching has a hand edit that conflicts .* Put your edit into the options"
    ):
        package(onnx, packaged.parent, version=2, max_queue_delay_us=7, force=True)
    assert (packaged / "config.pbtxt").read_text() == text
    assert not (packaged / "2").exists()


def test_a_foreign_configuration_is_replaced_by_force_alone_and_kept(onnx, packaged):
    (packaged / "optkit.json").unlink()
    text = edit(packaged, NO_DELAY, NO_DELAY + "  max_queue_delay_microseconds: 5000\n")
    with pytest.raises(OutputError, match="use --force to replace it"):
        package(onnx, packaged.parent, version=2)
    done = package(onnx, packaged.parent, version=2, force=True)
    assert (packaged / "config.pbtxt.orig").read_text() == text
    assert "config.pbtxt was replaced; the old file is config.pbtxt.orig" in done.notes


def test_golden_samples_are_the_artifacts_answers_under_the_servers_names(onnx, torchscript, sample, tmp_path):
    for artifact, image, output in ((onnx, "image", "output"), (torchscript, "INPUT__0", "OUTPUT__0")):
        folder = tmp_path / artifact.format
        golden = make_golden(artifact, Samples(artifact.inputs, artifact.dims))
        done = package(artifact, folder, golden=golden)
        package(artifact, folder, golden=golden, version=2)
        record = read_record(done.path)
        assert sorted(record.golden) == ["1", "2"]
        for entry in record.golden.values():
            found = read_golden(done.path / entry.file, entry.tolerance)
            np.testing.assert_array_equal(found.inputs[image], golden.inputs["image"])
            np.testing.assert_array_equal(found.outputs[output], golden.outputs["output"])
            assert len(found.inputs[image]) == 4
        assert lint(folder).findings == ()


def test_golden_samples_fit_the_largest_batch(onnx, tmp_path):
    golden = make_golden(onnx, Samples(onnx.inputs, onnx.dims))
    done = package(onnx, tmp_path, golden=golden, max_batch_size=2)
    entry = read_record(done.path).golden["1"]
    found = read_golden(done.path / entry.file, entry.tolerance)
    assert [len(array) for array in (*found.inputs.values(), *found.outputs.values())] == [2, 2]
    np.testing.assert_array_equal(found.outputs["output"], golden.outputs["output"][:2])


def test_queues_priorities_cache_and_accelerators_arrive(onnx, tmp_path):
    done = package(
        onnx,
        tmp_path,
        queue=QueuePolicy(timeout_us=2000, max_size=10, allow_timeout_override=True),
        priorities=Priorities(levels=3, default=2, queues={1: QueuePolicy(timeout_action="delay", timeout_us=5)}),
        response_cache=True,
        optimization=Optimization(accelerators=(Accelerator(name="openvino", parameters={"device_type": "CPU"}),)),
    )
    found = parsed(done.path)
    batching = found.dynamic_batching
    assert (batching.priority_levels, batching.default_priority_level) == (3, 2)
    default, first = batching.default_queue_policy, batching.priority_queue_policy[1]
    assert (default.timeout_action, default.default_timeout_microseconds) == (schema.ModelQueuePolicy.REJECT, 2000)
    assert (default.max_queue_size, default.allow_timeout_override) == (10, True)
    assert (first.timeout_action, first.default_timeout_microseconds) == (schema.ModelQueuePolicy.DELAY, 5)
    assert found.response_cache.enable
    (accelerator,) = found.optimization.execution_accelerators.cpu_execution_accelerator
    assert (accelerator.name, dict(accelerator.parameters)) == ("openvino", {"device_type": "CPU"})
    assert lint(tmp_path).findings == ()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"sequence_batching": {}}, "sequence_batching: is not supported: .* keeps no state. Make the state"),
        (
            {"queue": QueuePolicy(), "batching": False},
            "queue: is set together with batching: false; only Triton's dynamic batcher",
        ),
        ({"priorities": {"levels": 2, "default": 3}}, "level 3: does not exist; expected 1 to 2"),
        (
            {"optimization": {"accelerators": [{"name": "tensorrt"}]}},
            "tensorrt needs instances of kind gpu; instances.kind is cpu",
        ),
        (
            {"optimization": {"accelerators": [{"name": "openvino"}, {"name": "openvino"}]}},
            "got openvino, openvino; expected each accelerator once",
        ),
        ({"optimization": {"accelerators": [{"name": "tensorflow"}]}}, "'tensorrt' or 'openvino'"),
    ],
)
def test_options_that_do_not_fit_together_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        TritonServing(**fields)


def test_options_that_the_backend_does_not_read_are_refused(onnx, torchscript, zoo, tmp_path):
    with pytest.raises(
        StageError, match=r"cuda_graphs works only with Triton's TensorRT backend; the artifact is onnx"
    ):
        package(onnx, tmp_path, optimization=Optimization(cuda_graphs=True))
    with pytest.raises(
        StageError, match=r"accelerators works only with Triton's ONNX backend; the artifact is torchscript"
    ):
        package(torchscript, tmp_path, optimization=Optimization(accelerators=(Accelerator(name="openvino"),)))
    total = zoo.onnx(zoo.source("total", ["x:float32[batch,4]"], batch="1:2:8"))
    with pytest.raises(StageError, match=r"queue is set, but output 'output' .* so Triton has no queue. Remove it"):
        package(total, tmp_path, queue=QueuePolicy())
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("../../golden.npz", r"optkit\.json: golden\.1\.file: '\.\./\.\./golden\.npz' leads out of its folder"),
        ("/dev/zero", r"optkit\.json: golden\.1\.file: '/dev/zero' is an absolute path"),
        ("golden/fifo", r"optkit\.json: golden samples 'golden/fifo' is a FIFO"),
        ("golden/link.npz", r"optkit\.json: golden samples 'golden/link\.npz' is a link; .* `cp -rL`"),
        ("golden/none.npz", r"optkit\.json: golden samples 'golden/none\.npz' is missing; .* Package the model again"),
        ("golden", r"optkit\.json: golden samples 'golden' is a directory"),
    ],
)
def test_golden_samples_are_read_in_the_models_folder_alone(onnx, tmp_path, name, says):
    golden = make_golden(onnx, Samples(onnx.inputs, onnx.dims))
    done = package(onnx, tmp_path / "models", golden=golden)
    (done.path / "golden" / "1.npz").rename(tmp_path / "golden.npz")
    os.mkfifo(done.path / "golden" / "fifo")
    (done.path / "golden" / "link.npz").symlink_to("../../../golden.npz")
    record = json.loads((done.path / "optkit.json").read_text())
    record["golden"]["1"]["file"] = name
    (done.path / "optkit.json").write_text(json.dumps(sealed(record)))
    with within(), pytest.raises(ArtifactError, match=says):
        smoke_triton(tmp_path / "models", [])


@pytest.mark.parametrize("kind", ["link", "fifo"])
def test_golden_samples_of_other_versions_are_kept_and_links_are_not_followed(onnx, tmp_path, kind):
    golden = make_golden(onnx, Samples(onnx.inputs, onnx.dims))
    done = package(onnx, tmp_path / "models", golden=golden)
    (tmp_path / "secret").write_text("mine")
    other = done.path / "golden" / "other.npz"
    if kind == "link":
        other.symlink_to("../../../secret")
    else:
        os.mkfifo(other)
    before = sorted(done.path.rglob("*"))
    with within(), pytest.raises(ArtifactError, match=r"golden: 'other\.npz' is a .*; expected a regular file in"):
        package(onnx, tmp_path / "models", golden=golden, version=2)
    assert sorted(done.path.rglob("*")) == before
    other.unlink()
    assert "golden/1.npz" in package(onnx, tmp_path / "models", golden=golden, version=2).files
