import itertools
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2 as schema

from optkit.artifact.findings import BatchIndependence
from optkit.errors import ArtifactError, FeedError, OutputError, StageError
from optkit.pipeline.verify import verify
from optkit.pytorch.source import open_artifact
from optkit.runners import open_runner
from optkit.serving import Instances, TritonServing, VersionPolicy, package_triton

PROVEN = BatchIndependence(dim="batch")


def package(artifact, repository, proof=PROVEN, sample=None, name="digits", force=False, **fields):
    settings = TritonServing(**fields)
    return package_triton(artifact, repository, settings, name=name, independence=proof, sample=sample, force=force)


def config(path):
    return text_format.Parse((path / "config.pbtxt").read_text(), schema.ModelConfig())


def content(folder):
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_dims_and_batch_follow_the_contract(onnx, sample, tmp_path):
    done = package(onnx, tmp_path, sample=sample)
    found = config(done.path)
    assert (found.name, found.platform, found.backend) == ("digits", "onnxruntime_onnx", "onnxruntime")
    assert found.max_batch_size == 16
    assert [(i.name, i.data_type, list(i.dims)) for i in found.input] == [("image", schema.TYPE_FP32, [2, 3])]
    assert [(o.name, o.data_type, list(o.dims)) for o in found.output] == [("output", schema.TYPE_FP32, [3])]
    assert found.HasField("dynamic_batching")
    assert list(found.dynamic_batching.preferred_batch_size) == []
    assert found.dynamic_batching.max_queue_delay_microseconds == 0
    assert [entry.batch_size for entry in found.model_warmup] == [1, 4, 16]
    assert found.version_policy.latest.num_versions == 1
    assert [(g.count, g.kind) for g in found.instance_group] == [(1, schema.ModelInstanceGroup.KIND_CPU)]
    assert done.files == ("1/model.onnx", "config.pbtxt", "optkit.json", "warmup/image")
    assert set(content(done.path)) == set(done.files)
    assert not list(tmp_path.glob(".*"))


def test_the_packaged_model_gives_the_artifacts_answers(onnx, sample, tmp_path):
    done = package(onnx, tmp_path)
    with open_runner(onnx) as ours, open_runner(open_artifact(done.path / "1/model.onnx")) as packaged:
        np.testing.assert_array_equal(packaged.infer(sample)["output"], ours.infer(sample)["output"])


def test_every_option_arrives_in_the_configuration(onnx, tmp_path):
    done = package(
        onnx,
        tmp_path,
        name="other",
        version=3,
        preferred_batch_sizes=(8, 2),
        max_batch_size=8,
        max_queue_delay_us=250,
        instances=Instances(count=2, kind="gpu", gpus=(0, 1)),
        version_policy=VersionPolicy(specific=(1, 3)),
        warmup=False,
    )
    found = config(done.path)
    assert (found.max_batch_size, list(found.dynamic_batching.preferred_batch_size)) == (8, [2, 8])
    assert found.dynamic_batching.max_queue_delay_microseconds == 250
    group = found.instance_group[0]
    assert (group.count, group.kind, list(group.gpus)) == (2, schema.ModelInstanceGroup.KIND_GPU, [0, 1])
    assert list(found.version_policy.specific.versions) == [1, 3]
    assert not found.model_warmup
    assert done.files == ("3/model.onnx", "config.pbtxt", "optkit.json")
    assert "--gpus all" in done.command


def test_the_warmup_file_is_one_request_and_triton_repeats_it(onnx, sample, tmp_path):
    done = package(onnx, tmp_path, sample=sample)
    found = config(done.path).model_warmup
    assert [(w.name, w.batch_size) for w in found] == [("batch_1", 1), ("batch_4", 4), ("batch_16", 16)]
    tensor = found[0].inputs["image"]
    assert (tensor.input_data_file, tensor.data_type, list(tensor.dims)) == ("image", schema.TYPE_FP32, [2, 3])
    assert (done.path / "warmup/image").read_bytes() == sample["image"][0].tobytes()


def test_without_a_sample_the_warmup_sends_zeros_and_says_so(onnx, tmp_path):
    done = package(onnx, tmp_path)
    assert config(done.path).model_warmup[0].inputs["image"].zero_data
    assert any("zeros" in note for note in done.notes)
    assert not (done.path / "warmup").exists()


def test_a_sample_that_does_not_fit_is_refused(onnx, tmp_path):
    with pytest.raises(FeedError, match="image"):
        package(onnx, tmp_path, sample={"image": np.zeros((1, 2, 3))})


def test_no_batching_writes_its_zero_and_full_shapes(onnx, sample, tmp_path):
    done = package(onnx, tmp_path, proof=None, sample=sample, batching=False)
    assert "max_batch_size: 0" in (done.path / "config.pbtxt").read_text().splitlines()
    found = config(done.path)
    assert list(found.input[0].dims) == [-1, 2, 3]
    assert not found.HasField("dynamic_batching")
    assert [(w.batch_size, list(w.inputs["image"].dims)) for w in found.model_warmup] == [(1, [3, 2, 3])]
    assert (done.path / "warmup/image").read_bytes() == sample["image"].tobytes()


def test_dynamic_dims_types_and_tensors_of_one_number_a_sample(zoo, two, tmp_path):
    found = config(package(zoo.onnx(two), tmp_path).path)
    ids, mask = found.input
    assert (ids.data_type, list(ids.dims), ids.HasField("reshape")) == (schema.TYPE_INT64, [-1], False)
    assert (mask.data_type, list(mask.dims), mask.HasField("reshape")) == (schema.TYPE_BOOL, [1], True)
    assert list(mask.reshape.shape) == []
    assert [(list(o.dims), o.HasField("reshape")) for o in found.output] == [([-1], False), ([1], True)]
    warm = found.model_warmup[0].inputs
    assert (list(warm["ids"].dims), list(warm["mask"].dims)) == ([5], [1])


def test_a_model_without_a_batch_dimension_is_not_batched_and_says_so(zoo, tmp_path):
    artifact = zoo.onnx(zoo.source("total", ["x:float32[batch,4]"], batch="1:2:8"))
    done = package(artifact, tmp_path, proof=None)
    assert config(done.path).max_batch_size == 0
    assert (
        "no batching (max_batch_size: 0): output 'output' is float32[], which does not start with 'batch'" in done.notes
    )
    assert list(config(done.path).output[0].dims) == [1]
    assert not config(done.path).output[0].HasField("reshape")  # Triton refuses one here
    with pytest.raises(StageError, match=r"batch sizes are set, but output 'output'"):
        package(artifact, tmp_path / "x", max_batch_size=4)
    fixed = zoo.onnx(zoo.source("digits", ["image:float32[2,2,3]"]))
    assert (
        "no batching (max_batch_size: 0): the inputs have no common batch dimension"
        in package(fixed, tmp_path / "y").notes
    )


def test_external_data_lies_beside_its_model_and_loads(external, sample, onnx, tmp_path):
    done = package(external, tmp_path)
    assert done.files[:2] == ("1/model.onnx/digits.onnx.data", "1/model.onnx/model.onnx")
    packaged = open_artifact(done.path / "1/model.onnx/model.onnx")
    with open_runner(packaged) as a, open_runner(onnx) as b:
        np.testing.assert_allclose(a.infer(sample)["output"], b.infer(sample)["output"], rtol=1e-6)


def test_torchscript_goes_by_the_names_of_the_pytorch_backend(torchscript, tmp_path):
    done = package(torchscript, tmp_path)
    found = config(done.path)
    assert (found.platform, found.backend) == ("pytorch_libtorch", "pytorch")
    assert ([i.name for i in found.input], [o.name for o in found.output]) == (["INPUT__0"], ["OUTPUT__0"])
    assert "names for Triton's PyTorch backend: INPUT__0 is image, OUTPUT__0 is output" in done.notes
    assert (done.path / "1/model.pt").read_bytes() == torchscript.path.read_bytes()
    assert set(found.model_warmup[0].inputs) == {"INPUT__0"}


def test_torchscript_inputs_named_as_forward_names_them_keep_their_names(zoo, two, tmp_path):
    found = config(package(zoo.torchscript(two), tmp_path).path)
    assert [i.name for i in found.input] == ["ids", "mask"]
    assert [o.name for o in found.output] == ["OUTPUT__0", "OUTPUT__1"]


def test_torchscript_that_triton_cannot_serve_is_refused(zoo, torchscript, tmp_path):
    import torch

    from optkit.hashing import sha256_of
    from optkit.pytorch.forward import torchscript_notices_off

    named = zoo.torchscript(zoo.source("named", ["x:float32[batch,4]"], batch="1:2:8"))
    with pytest.raises(StageError, match=r"forward returns Dict\[str, Tensor\]; .* Return a tuple, or package an ONNX"):
        package(named, tmp_path)

    total = zoo.torchscript(zoo.source("total", ["x:float32[batch,4]"], batch="1:2:8"))
    with pytest.raises(
        StageError, match=r"output:float32\[\] is a scalar; .* Give it a dimension, for example x.reshape\(1\)"
    ):
        package(total, tmp_path)

    class Optional(torch.nn.Module):
        def forward(self, x, scale: float = 1.0):
            return x.flatten(1) * scale

    def saved(module, name):
        with torchscript_notices_off():
            torch.jit.script(module).save(str(tmp_path / name))
        return torchscript.model_copy(update={"path": tmp_path / name, "sha256": sha256_of(tmp_path / name)})

    with pytest.raises(StageError, match=r"is forward\(x: Tensor, scale: float\); .* Wrap the model"):
        package(saved(Optional().eval(), "optional.pt"), tmp_path)
    with pytest.raises(StageError, match=r"was saved in training mode; .* Call eval\(\)"):
        package(saved(torch.nn.Flatten(), "training.pt"), tmp_path)
    (tmp_path / "broken.pt").write_bytes(b"no archive")
    broken = torchscript.model_copy(
        update={"path": tmp_path / "broken.pt", "sha256": sha256_of(tmp_path / "broken.pt")}
    )
    with pytest.raises(ArtifactError, match=r"broken.pt: cannot be loaded as TorchScript"):
        package(broken, tmp_path)
    assert not list(tmp_path.glob("digits"))


@pytest.mark.parametrize(
    ("proof", "message"),
    [
        (
            None,
            r"the check for batch independence along 'batch' is missing; batching needs it. Run optkit check first, or set batching: false",
        ),
        (BatchIndependence(dim=None), r"the check for batch independence along 'batch' is missing"),
        (BatchIndependence(dim="batch", failure="output 'y' differs"), r"would give wrong answers: output 'y' differs"),
    ],
)
def test_batching_without_its_proof_is_refused(onnx, tmp_path, proof, message):
    with pytest.raises(StageError, match=message):
        package(onnx, tmp_path / "repository", proof=proof)
    assert not (tmp_path / "repository").exists()


def test_sizes_outside_of_the_declared_ones_are_refused(zoo, onnx, tmp_path):
    with pytest.raises(StageError, match=r"max_batch_size is 17; expected at most 16, the declared maximum"):
        package(onnx, tmp_path, max_batch_size=17)
    with pytest.raises(StageError, match=r"preferred_batch_sizes \[4, 32\]: 32 is above max_batch_size 16"):
        package(onnx, tmp_path, preferred_batch_sizes=(4, 32))
    pairs = zoo.onnx(zoo.source("digits", ["image:float32[batch,2,3]"], batch="2:4:8"))
    with pytest.raises(StageError, match=r"the minimum of dimension 'batch' is 2; .* Declare its min as 1"):
        package(pairs, tmp_path)


def test_what_cannot_be_packaged_is_refused(digits, onnx, external, tmp_path):
    with pytest.raises(
        StageError, match=r"is pytorch; expected onnx, tensorrt and torchscript for Triton. Add an export-onnx"
    ):
        package(digits, tmp_path)
    with pytest.raises(StageError, match=r"'batch': used by an input but has no range"):
        package(onnx.model_copy(update={"dims": {}}), tmp_path)
    with pytest.raises(ArtifactError, match=r"gone.onnx: no such file"):
        package(onnx.model_copy(update={"path": tmp_path / "gone.onnx"}), tmp_path)
    with pytest.raises(ArtifactError, match=r"has changed since the artifact was made"):
        package(onnx.model_copy(update={"sha256": "0"}), tmp_path)
    with pytest.raises(StageError, match=r"'a b' cannot be a model name; .* Set the name in the serve entry"):
        package(onnx, tmp_path, name="a b")
    assert not list(tmp_path.iterdir())


def test_external_data_outside_of_the_models_folder_is_refused(onnx, tmp_path):
    from optkit.hashing import sha256_of

    (tmp_path / "in").mkdir()
    model, data = tmp_path / "in/model.onnx", tmp_path / "weights"
    model.write_bytes(onnx.path.read_bytes())
    data.write_bytes(b"1")
    outside = onnx.model_copy(update={"path": model, "files": ("../weights",), "sha256": sha256_of(model, data)})
    with pytest.raises(ArtifactError, match=r"model\.onnx: its file '\.\./weights' leads out of its folder"):
        package(outside, tmp_path / "repository")
    taken = onnx.model_copy(update={"path": data, "files": ("in/model.onnx", "model.onnx")})
    (tmp_path / "model.onnx").write_bytes(b"2")
    taken = taken.model_copy(update={"sha256": sha256_of(*taken.all_files)})
    with pytest.raises(ArtifactError, match=r"external data 'model.onnx' cannot be packaged; .* not called model.onnx"):
        package(taken, tmp_path / "repository")


def test_a_new_version_leaves_the_old_one_alone(onnx, sample, tmp_path):
    first = package(onnx, tmp_path, sample=sample)
    before = content(first.path)
    second = package(onnx, tmp_path, sample={"image": sample["image"] + 1}, version=2)
    after = content(second.path)
    assert {name for name in before if after[name] != before[name]} == {"optkit.json"}  # which has the hashes of both
    assert set(after) - set(before) == {"2/model.onnx"}
    assert verify(first.path).differences == ()


def test_a_version_that_is_there_is_replaced_only_by_force(onnx, sample, tmp_path):
    package(onnx, tmp_path, sample=sample)
    done = package(onnx, tmp_path, sample=sample, version=2)
    (done.path / "1/model.onnx").write_bytes(b"old")
    (done.path / "2/model.onnx").write_bytes(b"old")
    with pytest.raises(OutputError, match=r"digits/2: exists already; .* use --force to replace it"):
        package(onnx, tmp_path, sample=sample, version=2)
    assert (done.path / "2/model.onnx").read_bytes() == b"old"
    package(onnx, tmp_path, sample=sample, version=2, force=True)
    assert (done.path / "2/model.onnx").read_bytes() == onnx.path.read_bytes()
    assert (done.path / "1/model.onnx").read_bytes() == b"old"


def test_another_configuration_is_replaced_only_by_force(onnx, tmp_path):
    done = package(onnx, tmp_path)
    before = content(done.path)
    with pytest.raises(OutputError, match=r"config.pbtxt: max_batch_size and model_warmup differs"):
        package(onnx, tmp_path, version=2, max_batch_size=8)
    assert content(done.path) == before
    package(onnx, tmp_path, version=2, max_batch_size=8, force=True)
    assert config(done.path).max_batch_size == 8
    assert (done.path / "1/model.onnx").is_file()


def test_a_configuration_that_is_no_configuration_is_replaced_only_by_force(onnx, tmp_path):
    (tmp_path / "digits").mkdir()
    (tmp_path / "digits/config.pbtxt").write_text("max_batch: 3")
    with pytest.raises(OutputError, match=r"cannot be read as a Triton configuration .* Fix it, or use --force"):
        package(onnx, tmp_path)
    assert config(package(onnx, tmp_path, force=True).path).name == "digits"


def test_a_version_that_the_policy_leaves_out_is_told(onnx, tmp_path):
    package(onnx, tmp_path, version=2)
    done = package(onnx, tmp_path, version=1)
    assert "Triton will not load version 1: the version policy loads the latest 1 of 1 and 2" in done.notes


def test_a_repository_that_cannot_be_written_is_refused(onnx, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match=r"file: is a file; expected a folder"):
        package(onnx, tmp_path / "file")
    with pytest.raises(OutputError, match=r"below: cannot be written"):
        package(onnx, tmp_path / "file/below")


def test_nothing_is_left_when_writing_fails(onnx, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("shutil.copyfile", full)
    with pytest.raises(OutputError, match=r"cannot be written .No space left on device"):
        package(onnx, tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_version_that_cannot_be_replaced_stays(onnx, tmp_path, monkeypatch):
    done = package(onnx, tmp_path)
    (done.path / "1/model.onnx").write_bytes(b"old")
    rename = Path.rename

    def failing(self, target):
        if self.parent.parent.name.startswith(".staged.optkit-") and self.parent.name == "digits" and self.name == "1":
            raise OSError(5, "Input/output error")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", failing)
    with pytest.raises(OutputError, match=r"cannot be written .Input/output error"):
        package(onnx, tmp_path, force=True)
    assert (done.path / "1/model.onnx").read_bytes() == b"old"
    assert {p.name for p in tmp_path.iterdir()} == {"digits"}


def test_two_runs_write_the_same_bytes(onnx, sample, tmp_path):
    one, two = package(onnx, tmp_path / "a", sample=sample), package(onnx, tmp_path / "b", sample=sample)
    assert content(one.path) == content(two.path)


def test_the_command_serves_the_repository_on_this_machine_alone(onnx, tmp_path):
    done = package(onnx, tmp_path / "my models")
    words = shlex.split(done.command)
    assert words[:3] == ["docker", "run", "--rm"]
    assert f"type=bind,source={tmp_path / 'my models'},target=/models,readonly" in words
    assert words[-3:] == ["nvcr.io/nvidia/tritonserver:25.10-py3", "tritonserver", "--model-repository=/models"]
    assert "--gpus" not in words
    assert all(word.startswith("127.0.0.1:") for flag, word in itertools.pairwise(words) if flag == "-p")


def test_importing_the_package_brings_nothing_heavy():
    heavy = "torch onnx onnxruntime tritonclient google.protobuf"
    code = f"import sys, optkit.serving; print([m for m in {heavy.split()!r} if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_int8_torchscript_is_served_by_libtorch_on_cpus_alone(int8, sample, tmp_path):
    done = package(int8, tmp_path, sample=sample)
    found = config(done.path)
    assert (found.backend, found.max_batch_size) == ("pytorch", 16)
    assert done.files == ("1/model.pt", "config.pbtxt", "optkit.json", "warmup/INPUT__0")
    with pytest.raises(
        StageError,
        match=r"^model\.pt: instances.kind is gpu; expected cpu, because INT8 TorchScript runs on CPUs only\. Set instances: \{kind: cpu\}\.$",
    ):
        package(int8, tmp_path / "gpu", instances=Instances(kind="gpu"))
