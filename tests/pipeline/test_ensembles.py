"""An ensemble in a recipe, from its parts to the packaged and proven repository."""

from pathlib import Path
from typing import Any

import pytest

from optkit.errors import RecipeError
from optkit.pipeline.plan import make_plan
from optkit.recipe import load_recipe
from optkit.serving.triton.lint import lint
from tests.support.project import CODE, ONNX, carry_out, write_project

PARTS = """

class Half(torch.nn.Module):
    def forward(self, raw):
        return raw / 2


def half():
    return Half()


def largest(feed):
    return {"best": feed["output"].argmax(axis=1)}


def pipeline(feed):
    x = feed["raw"] / np.float32(2)
    with torch.inference_mode():
        scores = MODEL(torch.from_numpy(x)).numpy()
    return {"best": scores.argmax(axis=1)}


def other(feed):
    return {"best": pipeline(feed)["best"] + 1}


torch.manual_seed(0)
MODEL = Model().eval()
"""
ENSEMBLE: dict[str, Any] = {
    "name": "whole",
    "inputs": {"raw": "float32[batch, 4]"},
    "outputs": ["best"],
    "parts": [
        {"name": "half", "module": "model.py:half", "inputs": {"raw": "float32[batch, 4]"}, "output_names": ["x"]},
        {"name": "model", "artifact": "fastest"},
        {
            "name": "largest",
            "function": "model.py:largest",
            "inputs": {"output": "float32[batch, 3]"},
            "outputs": {"best": "int64[batch]"},
        },
    ],
    "reference": "model.py:pipeline",
}


def project(folder: Path, **keys: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    code = CODE.replace("    return Model()\n", "    return MODEL\n") + PARTS
    (folder / "model.py").write_text(code)
    name = keys.pop("serve", None)
    serve = [{"target": "triton", "artifact": "export-onnx", "name": name}] if name else []
    return write_project(folder, steps=[ONNX], ensembles=[ENSEMBLE | keys], serve=serve)


def test_the_whole_is_proven_and_packaged(tmp_path: Path) -> None:
    recipe = project(tmp_path)
    record = carry_out(recipe)
    assert not record.failures, record.failures
    (packaged,) = record.packaged
    assert packaged.notes[0].startswith("equal to model.py:pipeline at ")
    repository = tmp_path / "out" / "model_repository"
    assert {p.name for p in repository.iterdir()} == {"whole", "whole_half", "whole_model", "whole_largest"}
    assert lint(repository).findings == ()


def test_a_pipeline_that_is_not_the_source_codes_is_refused(tmp_path: Path) -> None:
    record = carry_out(project(tmp_path, reference="model.py:other"))
    (failure,) = record.failures
    assert failure.startswith(
        "ensembles.0 (whole): not packaged: its outputs differ from those of model.py:other: output 'best'"
    )
    assert record.exit_code == 1
    assert not (tmp_path / "out" / "model_repository" / "whole").exists()


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"reference": "gone.py:f"}, r"ensembles.0 \(whole\): .*gone.py: no such file"),
        ({"parts": [{"name": "m", "artifact": "export-onxx"}]}, r"artifact 'export-onxx' is no step.*export-onnx"),
        ({"inputs": {"raw": "float32[rows, 4]"}}, r"dimension 'rows' has no range in dims"),
        ({"data": "gone.npz"}, r"data: .*gone.npz: no such file"),
        ({"name": "export-onnx"}, r"'export-onnx' is also the folder of a step. Rename the ensemble"),
        (
            {"name": "ti", "parts": [{"name": "ny", "artifact": "fastest"}] * 2, "serve": "ti_ny"},
            r"have the name 'ti_ny'",
        ),
    ],
)
def test_faults_are_found_before_any_work(tmp_path: Path, keys: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        make_plan(load_recipe(project(tmp_path, **keys)), tmp_path / "out")
