import json
import os
import zipfile
from pathlib import Path

import javaproperties
import pytest
import yaml

from optkit.artifact.findings import BatchIndependence
from optkit.errors import ArtifactError, OutputError, StageError
from optkit.serving import TorchServeServing, package_torchserve

PROVEN = BatchIndependence(dim="batch")


def package(artifact, store, proof=PROVEN, name="digits", force=False, **fields):
    settings = TorchServeServing(**fields)
    return package_torchserve(artifact, store, settings, name=name, independence=proof, force=force)


def members(archive: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(archive) as opened:
        assert opened.testzip() is None
        return {name: opened.read(name) for name in opened.namelist()}


def properties(store: Path) -> dict[str, str]:
    return javaproperties.loads((store / "config.properties").read_bytes())


@pytest.mark.parametrize(("kind", "file"), [("onnx", "model.onnx"), ("torchscript", "model.pt")])
def test_the_archive_has_the_model_and_a_manifest_in_the_official_shape(kind, file, request, tmp_path):
    artifact = request.getfixturevalue(kind)
    done = package(artifact, tmp_path, version="2.1")
    found = members(done.path)
    assert json.loads(found["MAR-INF/MANIFEST.json"]) == {
        "createdOn": "01/01/1980 00:00:00",
        "runtime": "python",
        "model": {
            "modelName": "digits",
            "serializedFile": file,
            "handler": "optkit_handler.py",
            "modelVersion": "2.1",
            "configFile": "model-config.yaml",
        },
        "archiverVersion": "0.12.0",
    }
    assert found[file] == artifact.path.read_bytes()
    assert done.files == tuple(found)
    assert done.path == tmp_path / "digits.mar"
    assert "archived upstream" in done.notes[0]
    assert "optkit package triton" in done.notes[0]
    assert any("onnxruntime" in note for note in done.notes) == (kind == "onnx")


def test_two_runs_write_the_same_bytes(torchscript, tmp_path):
    for store, wait in (("a", 1_000_000_000), ("b", 1_500_000_000)):
        extra = tmp_path / f"{store}.d" / "extra.txt"
        extra.parent.mkdir()
        extra.write_text("extra")
        os.utime(extra, (wait, wait))
        extra.chmod(0o600 if store == "a" else 0o755)
        package(torchscript, tmp_path / store, extra_files=(str(extra),))
    for name in ("digits.mar", "config.properties"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_entries_are_sorted_dated_and_readable_by_all(torchscript, tmp_path):
    with zipfile.ZipFile(package(torchscript, tmp_path).path) as archive:
        infos = archive.infolist()
    assert [i.filename for i in infos] == sorted(i.filename for i in infos)
    assert {(i.date_time, i.external_attr >> 16, i.create_system) for i in infos} == {
        ((1980, 1, 1, 0, 0, 0), 0o100644, 3)
    }


def test_the_users_files_come_along(torchscript, tmp_path):
    for name in ("mine.py", "tokens.txt", "needs.txt"):
        (tmp_path / name).write_text(name)
    own, extra, needs = (str(tmp_path / name) for name in ("mine.py", "tokens.txt", "needs.txt"))
    done = package(torchscript, tmp_path / "store", handler=own, extra_files=(extra,), requirements=needs)
    found = members(done.path)
    model = json.loads(found["MAR-INF/MANIFEST.json"])["model"]
    assert (model["handler"], model["requirementsFile"]) == ("mine.py", "requirements.txt")
    assert (found["mine.py"], found["tokens.txt"], found["requirements.txt"]) == (
        b"mine.py",
        b"tokens.txt",
        b"needs.txt",
    )
    assert "optkit_handler.py" not in found
    assert properties(tmp_path / "store")["install_py_dep_per_model"] == "true"


def test_external_data_keeps_the_name_that_the_model_asks_for(external, tmp_path):
    found = members(package(external, tmp_path).path)
    assert {"model.onnx", "digits.onnx.data"} <= set(found)


def test_the_configuration_listens_here_alone_and_asks_for_a_token(onnx, tmp_path):
    done = package(onnx, tmp_path, workers=2, batch_size=8, max_batch_delay_ms=5, version="3.0")
    found = properties(tmp_path)
    assert {found[f"{kind}_address"] for kind in ("inference", "management", "metrics")} == {
        "http://127.0.0.1:8080",
        "http://127.0.0.1:8081",
        "http://127.0.0.1:8082",
    }
    assert found["disable_token_authorization"] == "false"
    assert (found["enable_model_api"], found["install_py_dep_per_model"]) == ("false", "false")
    assert found["load_models"] == "digits.mar"
    settings = {"minWorkers": 2, "maxWorkers": 2, "batchSize": 8, "maxBatchDelay": 5, "responseTimeout": 120}
    entry = {"defaultVersion": True, "marName": "digits.mar"} | settings
    assert json.loads(found["models"]) == {"digits": {"3.0": entry}}
    assert yaml.safe_load(members(done.path)["model-config.yaml"]) == settings
    assert "--ncs" in done.command
    assert str(tmp_path / "config.properties") in done.command


def test_a_store_keeps_the_models_that_it_has(onnx, torchscript, tmp_path):
    package(onnx, tmp_path, name="one")
    package(torchscript, tmp_path, name="two", workers=3)
    found = properties(tmp_path)
    assert found["load_models"] == "one.mar,two.mar"
    assert json.loads(found["models"])["two"]["1.0"]["minWorkers"] == 3
    assert set(json.loads(found["models"])) == {"one", "two"}


def test_packaging_the_same_again_is_no_fault(onnx, tmp_path):
    before = package(onnx, tmp_path)
    assert package(onnx, tmp_path) == before


def test_other_content_is_replaced_only_by_force(onnx, torchscript, tmp_path):
    package(onnx, tmp_path)
    before = (tmp_path / "digits.mar").read_bytes(), (tmp_path / "config.properties").read_bytes()
    with pytest.raises(OutputError, match=r"digits.mar: exists already with other content. .* use --force"):
        package(torchscript, tmp_path)
    with pytest.raises(
        OutputError, match=r"config.properties: other values are set.* --force replaces models: 'digits' {"
    ):
        package(torchscript, tmp_path, workers=2)
    assert ((tmp_path / "digits.mar").read_bytes(), (tmp_path / "config.properties").read_bytes()) == before
    assert {p.name for p in tmp_path.iterdir()} == {"digits.mar", "config.properties"}
    package(torchscript, tmp_path, workers=2, force=True)
    assert "model.pt" in members(tmp_path / "digits.mar")
    assert json.loads(properties(tmp_path)["models"])["digits"]["1.0"]["minWorkers"] == 2


def test_other_values_of_the_user_are_replaced_only_by_force(onnx, tmp_path):
    config = tmp_path / "config.properties"
    config.write_text("# mine\ninference_address=http://0.0.0.0:80\n")
    with pytest.raises(
        OutputError,
        match=r"--force replaces inference_address='http://0.0.0.0:80' \(by 'http://127.0.0.1:8080'\); .*allowed_urls, which is not set",
    ):
        package(onnx, tmp_path)
    assert config.read_text() == "# mine\ninference_address=http://0.0.0.0:80\n"
    assert not (tmp_path / "digits.mar").exists()
    package(onnx, tmp_path, force=True)
    assert properties(tmp_path)["inference_address"] == "http://127.0.0.1:8080"
    assert config.read_text().startswith("# mine\n")


@pytest.mark.parametrize("models", ["not json", "[]"])
@pytest.mark.parametrize("force", [False, True])
def test_models_that_cannot_be_parsed_are_never_replaced(onnx, tmp_path, models, force):
    """They may name other models, which would be lost."""
    config = tmp_path / "config.properties"
    config.write_text(f"# mine\n\nmodels={models}\n")
    with pytest.raises(ArtifactError, match=r"config.properties: line 3: models: the value.*; expected JSON"):
        package(onnx, tmp_path, force=force)
    assert config.read_text() == f"# mine\n\nmodels={models}\n"


def test_force_keeps_what_is_not_ours_and_the_old_file(onnx, tmp_path):
    """The file as TorchServe documents it, with a model over several lines and a version with an archive of its own."""
    config = tmp_path / "config.properties"
    models = {
        "noop": {"1.0": {"marName": "noop.mar", "batchSize": 4}},
        "digits": {"0.9": {"marName": "digits_v0.mar", "defaultVersion": True}},
    }
    text = json.dumps(models, indent=2).replace("\n", "\\\n")
    before = (
        f"! of the user\ninference_address : http://0.0.0.0:80\nnumber_of_gpu 0\nload_models=noop.mar\nmodels={text}\n"
    )
    config.write_text(before)
    with pytest.raises(OutputError, match=r"--force replaces inference_address='http://0.0.0.0:80'"):
        package(onnx, tmp_path)
    done = package(onnx, tmp_path, force=True)
    assert (tmp_path / "config.properties.orig").read_text() == before
    assert any(
        "replaced inference_address='http://0.0.0.0:80'" in note and "config.properties.orig" in note
        for note in done.notes
    )
    found = properties(tmp_path)
    assert (found["number_of_gpu"], found["load_models"]) == ("0", "digits.mar,noop.mar")
    now = json.loads(found["models"])
    assert now["noop"] == models["noop"]
    assert now["digits"]["0.9"] == {"marName": "digits_v0.mar", "defaultVersion": False}
    assert now["digits"]["1.0"]["defaultVersion"] is True
    config.write_text(config.read_text().replace("http://127.0.0.1:8081", "http://10.0.0.1:8081"))
    edited = config.read_text()
    package(onnx, tmp_path, force=True)
    assert (tmp_path / "config.properties.orig").read_text() == before
    assert (tmp_path / "config.properties.orig.2").read_text() == edited


def test_force_without_a_difference_keeps_no_old_file(onnx, tmp_path):
    package(onnx, tmp_path)
    package(onnx, tmp_path, force=True)
    assert {p.name for p in tmp_path.iterdir()} == {"digits.mar", "config.properties"}


def test_a_rewritten_configuration_keeps_what_optkit_did_not_write(onnx, torchscript, tmp_path):
    """Comments, other keys and a model in the form of TorchServe's documentation: over several lines."""
    package(onnx, tmp_path, name="one")
    config = tmp_path / "config.properties"
    entry = json.loads(properties(tmp_path)["models"])["one"]
    noop = json.dumps({"one": entry, "noop": {"1.0": {"marName": "noop.mar"}}}, indent=2).replace("\n", "\\\n")
    lines = [line for line in config.read_text().splitlines() if not line.startswith(("models=", "load_models="))]
    text = "\n".join(
        [*lines, "! of the user", "number_of_gpu : 0", "load_models=noop.mar,one.mar", f"models={noop}", ""]
    )
    config.write_text(text)
    package(torchscript, tmp_path, name="two")
    found = properties(tmp_path)
    assert set(json.loads(found["models"])) == {"noop", "one", "two"}
    assert (found["load_models"], found["number_of_gpu"]) == ("noop.mar,one.mar,two.mar", "0")
    assert "! of the user\nnumber_of_gpu : 0\n" in config.read_text()
    config.write_text(config.read_text().replace("load_models=", "load_models=all\n#"))
    package(torchscript, tmp_path, name="two")
    assert properties(tmp_path)["load_models"] == "all"


def test_a_configuration_that_cannot_be_read_is_refused(onnx, tmp_path):
    (tmp_path / "config.properties").write_text("a=\\uZZZZ")
    with pytest.raises(
        ArtifactError, match=r"config.properties: cannot be read as a Java properties file \(line 1: Invalid"
    ):
        package(onnx, tmp_path)


def test_a_store_that_cannot_be_written_is_refused(onnx, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match=r"file: is a file; expected a folder"):
        package(onnx, tmp_path / "file")


def test_missing_and_colliding_files_are_refused(onnx, tmp_path):
    store = tmp_path / "store"
    (tmp_path / "a").mkdir()
    for name in ("x.txt", "a/x.txt", "a/Contract.JSON", "notes.txt"):
        (tmp_path / name).write_text("")

    def refused(message, **fields):
        with pytest.raises(StageError, match=message):
            package(onnx, store, **fields)

    path = {name: str(tmp_path / name) for name in ("x.txt", "a/x.txt", "a/Contract.JSON", "a", "gone", "notes.txt")}
    refused(
        r"extra_files: the archive would hold two files with the name 'x.txt'",
        extra_files=(path["x.txt"], path["a/x.txt"]),
    )
    refused(
        r"extra_files: the archive would hold two files with the name 'Contract.JSON'",
        extra_files=(path["a/Contract.JSON"],),
    )
    refused(r"extra_files: .*gone: no such file; expected a file", extra_files=(path["gone"],))
    refused(r"extra_files: .*a: is a folder; expected a file", extra_files=(path["a"],))
    refused(r"requirements: .*gone: no such file", requirements=path["gone"])
    refused(r"handler: .*gone.py: no such file", handler=path["gone"] + ".py")
    refused(r"handler: .*notes.txt: is not a Python file; expected a path that ends in .py", handler=path["notes.txt"])
    assert not store.exists()


def test_what_cannot_be_packaged_is_refused(digits, onnx, tmp_path):
    with pytest.raises(StageError, match=r"is pytorch; expected onnx and torchscript for TorchServe"):
        package(digits, tmp_path)
    with pytest.raises(ArtifactError, match=r"has changed"):
        package(onnx.model_copy(update={"sha256": "0"}), tmp_path)
    with pytest.raises(StageError, match=r"'a b' cannot be a model name"):
        package(onnx, tmp_path, name="a b")


def test_batches_that_are_not_proven_are_refused(zoo, onnx, tmp_path):
    with pytest.raises(
        StageError, match=r"batch_size 2: the check for batch independence .* is missing; .* Run optkit check first"
    ):
        package(onnx, tmp_path, proof=None, batch_size=2)
    with pytest.raises(StageError, match=r"batch_size 2: batching would give wrong answers: it folds. Fix the model"):
        package(onnx, tmp_path, proof=BatchIndependence(dim="batch", failure="it folds"), batch_size=2)
    with pytest.raises(StageError, match=r"batch_size 17: expected at most 16, the declared maximum of 'batch'"):
        package(onnx, tmp_path, batch_size=17)
    total = zoo.onnx(zoo.source("total", ["x:float32[batch,4]"], batch="1:2:8"))
    with pytest.raises(
        StageError, match=r"batch_size 2: the model does not support batching: output 'output' is float32"
    ):
        package(total, tmp_path, batch_size=2)
    pairs = zoo.onnx(zoo.source("digits", ["image:float32[batch,2,3]"], batch="2:4:8"))
    with pytest.raises(
        StageError, match=r"the model does not support batching: the minimum of dimension 'batch' is 2, not 1"
    ):
        package(pairs, tmp_path, batch_size=2)
    assert not list(tmp_path.iterdir())


def test_class_names_must_be_as_many_as_an_output_has(onnx, tmp_path):
    with pytest.raises(StageError, match=r"class_names: got 2 names; .* output:float32\[batch,3\]. Give one name"):
        package(onnx, tmp_path, class_names=("a", "b"))
    found = members(package(onnx, tmp_path, class_names=("a", "b", "ü")).path)
    assert json.loads(found["index_to_name.json"]) == {"0": "a", "1": "b", "2": "ü"}


@pytest.mark.parametrize(
    ("image", "message"),
    [
        ({"resize": (4, 5)}, r"gives 3 x 4 x 5 \(chw, RGB\); expected \[3, 4, 4\], a sample of float32\[batch,3,4,4\]"),
        ({"resize": (4, 4), "mode": "L"}, r"gives 1 x 4 x 4"),
        ({"crop": 4, "layout": "hwc"}, r"gives 4 x 4 x 3"),
    ],
)
def test_an_image_that_cannot_become_the_input_is_refused(zoo, tmp_path, image, message):
    pictures = zoo.torchscript(zoo.source("pictures", ["image:float32[batch,3,4,4]"], batch="1:2:8"))
    with pytest.raises(StageError, match=message):
        package(pictures, tmp_path, image=image)
    assert not list(tmp_path.glob("*.mar"))


def test_an_image_needs_a_model_of_one_input_that_takes_what_it_becomes(zoo, two, tmp_path):
    with pytest.raises(StageError, match=r"image: the model has the inputs ids.* expected one input"):
        package(zoo.torchscript(two), tmp_path, image={})
    raw = zoo.torchscript(zoo.source("pictures", ["image:uint8[batch,3,4,4]"], batch="1:2:8"))
    with pytest.raises(StageError, match=r"expected pixels of 0 to 255 .* Set scale: 1"):
        package(raw, tmp_path, image={"resize": (4, 4)})
    done = package(raw, tmp_path, image={"resize": (4, 4), "scale": 1})
    assert "optkit_images.py" in done.files


def test_only_the_generated_handler_reads_images():
    with pytest.raises(ValueError, match="image: works with the generated handler only"):
        TorchServeServing(handler="mine.py", image={})
