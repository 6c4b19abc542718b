"""PyTorch's two ways to quantize a module: dynamic (layers are replaced) and static (FX rewrites the graph)."""

import copy
from collections import Counter
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from optkit import user_code
from optkit.errors import StageError

if TYPE_CHECKING:
    import torch
    from torch.ao.quantization import QConfigMapping

_WHOLE = "model"
_FLOAT = ("Linear", "NonDynamicallyQuantizableLinear", "Conv1d", "Conv2d", "Conv3d", "ConvTranspose1d", "ConvTranspose2d",
          "ConvTranspose3d", "LSTM", "GRU", "RNN", "LSTMCell", "GRUCell", "RNNCell", "Embedding", "EmbeddingBag", "Bilinear",
          "MultiheadAttention")  # fmt: skip  # layers with weights that are reported where they stay in float


def quantize_dynamic(module: "torch.nn.Module", *, per_channel: bool, reduce_range: bool) -> "torch.nn.Module":
    """Return a copy whose linear, recurrent and embedding layers have INT8 weights; activations are quantized at each run.

    torch uses 7 bits for activations on every processor. With 7 bits MiniLM's embeddings have a cosine of 0.976, with 8 bits 0.993, at
    the same speed on a processor with VNNI. Recurrent layers keep torch's 7 bits.
    """
    from torch import nn
    from torch.ao.nn.quantized.dynamic import Linear
    from torch.ao.quantization import (
        default_dynamic_qconfig,
        float_qparams_weight_only_qconfig,
        per_channel_dynamic_qconfig,
        quantize_dynamic,
    )

    qconfig = per_channel_dynamic_qconfig if per_channel else default_dynamic_qconfig
    layers = (nn.Linear, nn.LSTM, nn.GRU, nn.LSTMCell, nn.GRUCell, nn.RNNCell)
    spec: dict[type[nn.Module], object] = dict.fromkeys(layers, qconfig)
    # One scale per row, independent of `per_channel`: the kernel supports nothing else.
    spec |= dict.fromkeys((nn.Embedding, nn.EmbeddingBag), float_qparams_weight_only_qconfig)
    box = nn.Module()  # layers are replaced inside a module, and the model itself may be a layer
    box.model = module
    quantized: nn.Module = quantize_dynamic(box, spec).model
    for layer in quantized.modules():
        if isinstance(layer, Linear) and not reduce_range:
            layer.version = 3  # layers before version 4 use all 8 bits in the kernel
    return quantized


def quantize_static(
    module: "torch.nn.Module",
    engine: str,
    calibrate: "Callable[[torch.nn.Module], None]",
    *,
    per_channel: bool,
    reduce_range: bool,
) -> "tuple[torch.nn.Module, list[str]]":
    """Return a copy whose convolutions, linear layers and operators between them compute in INT8, and notes.

    Where FX cannot trace the whole module, each of the largest parts that FX can trace is quantized separately.

    Args:
        module: in evaluation mode.
        engine: the quantized engine, whose rules decide which operators can be INT8.
        calibrate: runs a module over the calibration data.
        per_channel: one scale per output channel of a weight.
        reduce_range: activations of 7 bits.

    Raises:
        StageError: FX can trace no part with such a layer, or the data never reaches one.
    """
    from torch import nn
    from torch.ao.quantization.quantize_fx import convert_fx

    box = nn.Module()  # so that the whole model is a part too
    box.model = copy.deepcopy(module)
    observed, refused = _observed(box.model, _WHOLE, _mapping(engine, per_channel, reduce_range))
    why = refused.get(_WHOLE)
    if not observed:
        raise StageError(
            f"nothing became INT8, because FX can trace no part of the model that has a layer to quantize: {why}. "
            f"Fix that line, or use mode dynamic, which does not trace."
        )
    for name, part in observed.items():
        box.set_submodule(name, part)
    calibrate(box.model)
    for name, part in observed.items():
        _check_reached(name, part)
        box.set_submodule(name, convert_fx(part))
    if _WHOLE in observed:
        return box.model, []
    first = next(iter(observed)).removeprefix(f"{_WHOLE}.")
    return box.model, [
        f"quantized in {len(observed)} parts, {first!r} first, because FX cannot trace the whole model: {why}"
    ]


def _mapping(engine: str, per_channel: bool, reduce_range: bool) -> "QConfigMapping":
    """Return torch's mapping for an engine, with 8-bit activations where sums do not saturate."""
    import torch
    from torch.ao.quantization import (
        HistogramObserver,
        QConfig,
        default_per_channel_weight_observer,
        default_weight_observer,
        get_default_qconfig_mapping,
    )

    levels = 127 if reduce_range else 255
    activation = HistogramObserver.with_args(dtype=torch.quint8, quant_min=0, quant_max=levels)
    weight = default_per_channel_weight_observer if per_channel else default_weight_observer
    return get_default_qconfig_mapping(engine).set_global(QConfig(activation=activation, weight=weight))


def _observed(
    module: "torch.nn.Module", name: str, mapping: "QConfigMapping"
) -> "tuple[dict[str, torch.fx.GraphModule], dict[str, str]]":
    """Return the largest parts that FX can trace, with observers, by name; and the reasons why FX cannot trace their parents."""
    from torch import nn
    from torch.ao.quantization.quantize_fx import prepare_fx

    try:
        traced = nn.Sequential(module) if _is_layer(module) else module  # FX does not trace into a single layer
        # The examples are only for submodules with their own graph, and there are none.
        return {name: prepare_fx(copy.deepcopy(traced), mapping, ())}, {}
    except Exception as e:  # FX raises many types, and runs the user's forward
        refused = {name: user_code.describe(e)}
    observed: dict[str, torch.fx.GraphModule] = {}
    for child_name, child in module.named_children():
        if not any(_is_layer(part) for part in child.modules()):
            continue
        found, why = _observed(child, f"{name}.{child_name}", mapping)
        observed |= found
        refused |= why
    return observed, refused


def _is_layer(module: "torch.nn.Module") -> bool:
    """Whether it is a layer that FX can quantize. Subclasses are not: they may compute something else."""
    from torch import nn

    return type(module) in (
        nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d,
    )  # fmt: skip


def _check_reached(name: str, part: "torch.fx.GraphModule") -> None:
    """Refuse observers without data: they have no range."""
    from torch.ao.quantization import HistogramObserver

    observers = {name: module for name, module in part.named_modules() if isinstance(module, HistogramObserver)}
    for node in part.graph.nodes:
        if node.target in observers and not observers[node.target].min_val.isfinite().all():
            raise StageError(
                f"the calibration data never reaches {str(node.args[0])!r} in {name}, or gives NaN there, so it has no range. "
                f"Give data that reaches every part of the model."
            )


def layers_in_int8(module: "torch.nn.Module") -> Counter[str]:
    """Return the number of layers of each kind with INT8 weights."""
    import torch
    from torch.ao.nn.quantized import dynamic, modules

    kinds = (modules.Linear, modules.conv._ConvNd, modules.Embedding, dynamic.modules.rnn.RNNBase,
             dynamic.modules.rnn.RNNCellBase)  # fmt: skip
    found = Counter(type(part).__name__ for part in module.modules() if isinstance(part, kinds))
    for part in module.modules():  # F.linear and F.conv2d become operators of the graph
        if isinstance(part, torch.fx.GraphModule):
            found.update(_functional(part))
    return found


def _functional(graph: "torch.fx.GraphModule") -> Iterator[str]:
    for node in graph.graph.nodes:
        target = str(node.target)
        if node.op == "call_function" and target.startswith(("quantized.linear", "quantized.conv")):
            yield target


def layers_in_float(module: "torch.nn.Module") -> Counter[str]:
    """Return the number of layers of each kind with float weights."""
    return Counter(type(part).__name__ for part in module.modules() if _stays_float(part))


def _stays_float(module: "torch.nn.Module") -> bool:
    return type(module).__module__.startswith("torch.nn.modules") and type(module).__name__ in _FLOAT
