from collections.abc import Callable
from pathlib import Path

import numpy as np
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


def under(prefix: str, trained: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {f"{prefix}{name}": tensor for name, tensor in trained.items()}


@pytest.mark.parametrize(
    "prefix",
    ["module.", "_orig_mod.", "model.", "module._orig_mod.", "_orig_mod.module.", "model.net.", "ema_model.module."],
)
@pytest.mark.parametrize("key", [None, "state_dict", "model"])
def test_a_common_prefix_is_removed_and_said(
    tmp_path: Path, trained: dict[str, torch.Tensor], prefix: str, key: str | None
) -> None:
    path, module = tmp_path / "w.pt", model()
    torch.save({key: under(prefix, trained), "epoch": 3} if key else under(prefix, trained), path)
    (note,) = load_weights(module, path)
    assert prefix.replace("_orig_mod.", "") in note or "_orig_mod." in note
    assert note.startswith("weights: ")
    assert all((tensor == 2).all() for tensor in module.state_dict().values())


def test_names_of_a_compiled_submodule_of_averaged_weights_and_of_a_wrapped_module(
    tmp_path: Path, trained: dict[str, torch.Tensor]
) -> None:
    path, module = tmp_path / "w.pt", model()
    torch.save({name.replace("0.", "0._orig_mod."): tensor for name, tensor in trained.items()}, path)
    assert load_weights(module, path) == ["weights: '_orig_mod.' was removed from names"]
    torch.save({"n_averaged": torch.tensor(5), **under("module.", trained)}, path)
    assert load_weights(module, path) == ["weights: the prefix 'module.' of every name was removed"]
    torch.save(trained, path)
    wrapped = nn.ModuleDict({"net": model()})
    assert load_weights(wrapped, path) == ["weights: the prefix 'net.' was added to every name"]
    assert all((tensor == 2).all() for tensor in (*module.state_dict().values(), *wrapped.state_dict().values()))


def test_a_prefix_that_makes_no_exact_match_stays(tmp_path: Path, trained: dict[str, torch.Tensor]) -> None:
    path = tmp_path / "w.pt"
    torch.save(under("module.", trained) | {"module.extra": torch.zeros(1)}, path)
    with pytest.raises(ModelError, match=r"belong to another model: 7 missing in the file"):
        load_weights(model(), path)


def test_of_several_state_dicts_the_choice_is_said_and_a_key_decides(
    tmp_path: Path, trained: dict[str, torch.Tensor]
) -> None:
    path, module = tmp_path / "w.pt", model()
    averaged = {name: torch.full_like(tensor, 7) for name, tensor in trained.items()}
    other = {"x": torch.zeros(1)}
    torch.save(
        {"discriminator": other, "ema": {"module": averaged}, "model": under("module.", trained), "best": 0.9}, path
    )
    chosen, prefix = load_weights(module, path)
    assert chosen == (
        "weights: the state dict 'model' of model, ema.module, discriminator; choose another one with --weights-key"
    )
    assert prefix == "weights: the prefix 'module.' of every name was removed"
    assert (module.state_dict()["0.weight"] == 2).all()
    assert load_weights(module, path, "ema.module") == []
    assert (module.state_dict()["0.weight"] == 7).all()
    with pytest.raises(
        ModelError, match=r"the weights belong to another model: 7 missing in the file.*not in the model: x$"
    ):
        load_weights(module, path, "discriminator")
    with pytest.raises(
        ModelError, match=r"has no state dict 'emma'; it has model, ema\.module, discriminator\. Give one"
    ):
        load_weights(module, path, "emma")
    torch.save({"generator": other, "ema": averaged}, path)  # the one that fits, whatever its name
    assert load_weights(module, path)[0].startswith("weights: the state dict 'ema' of generator, ema; ")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_a_cast_is_said(tmp_path: Path, trained: dict[str, torch.Tensor], dtype: torch.dtype) -> None:
    path, module = tmp_path / "w.pt", model()
    torch.save(
        {name: tensor.to(dtype) if tensor.is_floating_point() else tensor for name, tensor in trained.items()}, path
    )
    name = str(dtype).removeprefix("torch.")
    assert load_weights(module, path) == [
        f"weights: 6 of 7 tensors of the file are {name}, and were cast to the types of the model"
    ]
    assert module.state_dict()["0.weight"].dtype == torch.float32


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (lambda: {"model": model().state_dict(), "accuracy": np.float64(0.9)}, r"it has numpy values \(numpy[\w.]*\), such as an accuracy"),
        (lambda: {"model": model().state_dict(), "curve": np.ones(3)}, r"it has numpy values \(numpy[\w.]*\)"),
        (model, r"it has a pickled object of class torch\.nn\.modules\.container\.Sequential, as torch\.save\(model\) writes"),
        (lambda: {"model": model(), "epoch": 3}, r"it has a pickled object of class torch\.nn"),
    ],
)  # fmt: skip
def test_pickled_code_is_refused_in_our_words(tmp_path: Path, content: Callable[[], object], reason: str) -> None:
    path = tmp_path / "w.pt"
    torch.save(content(), path)
    with pytest.raises(ModelError, match=reason) as caught:
        load_weights(model(), path)
    assert "\x1b" not in str(caught.value)
    assert "weights_only" not in str(caught.value)


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
