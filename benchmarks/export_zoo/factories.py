"""Make a model of the zoo: seeded random weights, small configurations, no download.

optkit gets a model as `optkit export onnx export_zoo.factories:build --set model=own/mlp ...`; `attempt.py` and `judge.py` call `build`
directly.
"""

import inspect
import sys
import types
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

SEED = 0


def build(model: str) -> nn.Module:
    """Return a model in evaluation mode, the same one each time.

    Args:
        model: family/name, as in the catalog.
    """
    family, _, name = model.partition("/")
    make: Callable[[str], nn.Module] = {
        "own": _own,
        "torchvision": _torchvision,
        "timm": _timm,
        "transformers": _transformers,
    }[family]
    torch.manual_seed(SEED)
    module = make(name).eval()
    _settle(module)
    return module


def _settle(module: nn.Module) -> None:
    """Give batch norms statistics other than 0 and 1, so that a file that forgets them is seen to be wrong."""
    for part in module.modules():
        if isinstance(part, nn.modules.batchnorm._BatchNorm) and part.running_mean is not None:
            nn.init.normal_(part.running_mean, std=0.1)
            nn.init.uniform_(part.running_var, 0.8, 1.2)


def _own(name: str) -> nn.Module:
    _hide_torchvision()
    from export_zoo import own

    return own.MODELS[name]()


def _transformers(name: str) -> nn.Module:
    _hide_torchvision()
    from export_zoo import huggingface

    return huggingface.build(name)


def _hide_torchvision() -> None:
    """Make torchvision look absent: with a CPU torch, its CUDA build raises at import and breaks other packages."""
    sys.modules["torchvision"] = None  # type: ignore[assignment]


def _allow_torchvision() -> None:
    """Keep torchvision from registering its compiled operators, which a CUDA build does not have with a CPU torch."""
    sys.modules["torchvision._meta_registrations"] = types.ModuleType("torchvision._meta_registrations")


def _torchvision(name: str) -> nn.Module:
    _allow_torchvision()
    from torchvision import models

    small: dict[str, Callable[[], nn.Module]] = {
        "inception_v3": lambda: models.inception_v3(num_classes=10, aux_logits=False, init_weights=False),
        "googlenet": lambda: models.googlenet(num_classes=10, aux_logits=False, init_weights=False),
        "vgg11": _small_vgg,
        "vision_transformer": lambda: models.VisionTransformer(32, 8, 2, 2, 32, 64, num_classes=10),
        "swin_transformer": lambda: models.SwinTransformer([2, 2], 16, [2, 2], [2, 4], [4, 4], num_classes=10),
        "swin_transformer_v2": lambda: models.SwinTransformer(
            [2, 2],
            16,
            [2, 2],
            [2, 4],
            [4, 4],
            num_classes=10,
            block=models.swin_transformer.SwinTransformerBlockV2,
            downsample_layer=models.swin_transformer.PatchMergingV2,
        ),
        "maxvit": lambda: models.MaxVit((64, 64), 16, 4, [16, 32], [1, 1], 8, 0.0, num_classes=10),
        "lraspp_mobilenet_v3_large": lambda: models.segmentation.lraspp_mobilenet_v3_large(
            weights=None, weights_backbone=None, num_classes=5
        ),
        "deeplabv3_mobilenet_v3_large": lambda: models.segmentation.deeplabv3_mobilenet_v3_large(
            weights=None, weights_backbone=None, num_classes=5
        ),
        "fcn_resnet50": lambda: models.segmentation.fcn_resnet50(weights=None, weights_backbone=None, num_classes=5),
        "resnet18_feature_pyramid": lambda: models.detection.backbone_utils.resnet_fpn_backbone(
            backbone_name="resnet18", weights=None
        ),
        "r3d_18": lambda: models.video.r3d_18(weights=None, num_classes=10),
    }
    return small[name]() if name in small else models.get_model(name, weights=None, num_classes=10)


def _small_vgg() -> nn.Module:
    from torchvision import models

    model = models.vgg11(init_weights=False)
    model.classifier = nn.Linear(512 * 7 * 7, 10)  # its own has a hundred million weights
    return model


def _timm(name: str) -> nn.Module:
    _allow_torchvision()
    import timm

    from export_zoo.catalog import CASES

    *_, size = CASES[f"timm/{name}"].inputs[0].rstrip("]").split(",")
    options: dict[str, Any] = {"num_classes": 10}
    takes_size = "img_size" in _parameters_of(name)
    if takes_size and size.isdigit():
        options["img_size"] = int(size)
    return timm.create_model(name, pretrained=False, **options)


def _parameters_of(name: str) -> set[str]:
    """Return the constructor arguments of the class behind a timm entry point."""
    import timm

    module = sys.modules[timm.model_entrypoint(name).__module__]
    classes = [c for c in vars(module).values() if inspect.isclass(c) and c.__module__ == module.__name__]
    return {parameter for c in classes for parameter in inspect.signature(c.__init__).parameters}
