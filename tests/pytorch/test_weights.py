from pathlib import Path

import pytest
import torch
from torch import nn

from optkit.errors import MissingDependency, ModelError
from optkit.pytorch.weights import load_weights, state_sha256


def model() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3))


@pytest.fixture
def trained() -> dict[str, torch.Tensor]:
    return {name: torch.full_like(tensor, 2) for name, tensor in model().state_dict().items()}


@pytest.mark.parametrize("key", [None, "state_dict", "model_state_dict", "model", "module"])
def test_a_state_dict_is_loaded_also_from_a_checkpoint(
    tmp_path: Path, trained: dict[str, torch.Tensor], key: str | None
) -> None:
    path = tmp_path / "w.pt"
    torch.save({key: trained, "epoch": 3} if key else trained, path)
    module = model()
    load_weights(module, path)
    assert all((tensor == 2).all() for tensor in module.state_dict().values())


def test_weights_of_another_model_are_refused_with_their_names(
    tmp_path: Path, trained: dict[str, torch.Tensor]
) -> None:
    path = tmp_path / "w.pt"
    trained["0.weight"] = torch.zeros(5, 4)
    trained["head.weight"] = trained.pop("1.weight")
    torch.save(trained, path)
    module = model()
    before = state_sha256(module)
    with pytest.raises(ModelError) as caught:
        load_weights(module, path)
    assert str(caught.value) == (
        f"{path}: the weights belong to another model: 1 missing in the file: 1.weight; "
        "1 not in the model: head.weight; 1 with another shape: 0.weight [5, 4] for [3, 4]"
    )
    assert state_sha256(module) == before


def test_many_names_are_cut_short(tmp_path: Path) -> None:
    path = tmp_path / "w.pt"
    torch.save({"x": torch.zeros(1)}, path)
    with pytest.raises(ModelError, match=r"7 missing in the file: 0\.bias, .* and 3 more; 1 not in the model: x$"):
        load_weights(model(), path)


def test_code_in_a_pickle_is_not_run(tmp_path: Path) -> None:
    path, ran = tmp_path / "w.pt", tmp_path / "ran"

    class Bomb:
        def __reduce__(self) -> tuple[object, ...]:
            return (Path.touch, (ran,))

    torch.save({"0.weight": Bomb()}, path)
    with pytest.raises(ModelError, match=r"cannot be read as a state dict .* never pickled code\.$"):
        load_weights(model(), path)
    assert not ran.exists()


@pytest.mark.parametrize("content", [[1, 2], {"epoch": 3}, {}, torch.zeros(2)], ids=str)
def test_a_pickle_that_is_no_state_dict_is_refused(tmp_path: Path, content: object) -> None:
    path = tmp_path / "w.pt"
    torch.save(content, path)
    with pytest.raises(
        ModelError, match=rf"contains a {type(content).__name__}, which is not a state dict; expected name ->"
    ):
        load_weights(model(), path)


@pytest.mark.parametrize("content", [b"", b"no pickle", b"PK\x03\x04" + b"\0" * 40])
def test_a_file_that_is_no_pickle_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "w.pt"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=r"w\.pt: cannot be read as a state dict \("):
        load_weights(model(), path)


def test_a_missing_file_and_a_folder_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"none\.pt: no such file; expected the weights of the model"):
        load_weights(model(), tmp_path / "none.pt")
    with pytest.raises(ModelError, match=r"is a directory; expected the weights of the model"):
        load_weights(model(), tmp_path)


def test_safetensors_are_read(tmp_path: Path, trained: dict[str, torch.Tensor]) -> None:
    safetensors = pytest.importorskip("safetensors.torch")
    path = tmp_path / "w.safetensors"
    safetensors.save_file(trained, path)
    module = model()
    load_weights(module, path)
    assert (module.state_dict()["0.weight"] == 2).all()


def test_safetensors_are_asked_for_where_they_are_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("optkit.deps.installed", lambda module: False)
    path = tmp_path / "w.safetensors"
    path.write_bytes(b"")
    with pytest.raises(MissingDependency, match=r"safetensors\.torch is not installed\. Run: pip install"):
        load_weights(model(), path)


def test_the_hash_is_that_of_names_types_shapes_and_values() -> None:
    torch.manual_seed(0)
    first = model()
    torch.manual_seed(0)
    assert state_sha256(model()) == state_sha256(first)
    hashes = {state_sha256(first), state_sha256(first.double())}
    first.float()[0].weight.data[0, 0] += 1
    hashes.add(state_sha256(first))
    first[1].running_mean.add_(1)  # a buffer
    hashes.add(state_sha256(first))
    assert len(hashes) == 4
