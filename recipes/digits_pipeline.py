"""The pre- and postprocessing of the digits model: raw pixels become its input, its logits become the most probable digits."""

import digits
import numpy as np
import torch
from digits_margin import margin
from torch import nn

TOP = 3


class Scale(nn.Module):
    """Scale pixels from 0..16 to 0..1, and add the channel dimension."""

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return images (batch, 1, 8, 8) of pixels (batch, 8, 8)."""
        return pixels.to(torch.float32).unsqueeze(1) / 16


class Top(nn.Module):
    """The most probable digits."""

    def forward(self, logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return probabilities and digits, both (batch, 3), the most probable first."""
        probabilities, classes = torch.softmax(logits, dim=1).topk(TOP, dim=1)
        return probabilities, classes


def scale() -> nn.Module:
    """Return the preprocessing."""
    return Scale().eval()


def top() -> nn.Module:
    """Return the postprocessing."""
    return Top().eval()


def pixels() -> list[dict[str, np.ndarray]]:
    """Return raw test images, in feeds of 64."""
    images = (digits.digits()[1][:, 0] * 16).astype(np.uint8)
    return [{"pixels": images[start : start + 64]} for start in range(0, 256, 64)]


def answer(feed: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return the outputs of the application's PyTorch code; the served pipeline must be equal to it."""
    model = digits.build()
    with torch.inference_mode():
        logits = model(scale()(torch.from_numpy(feed["pixels"])))
        probabilities, classes = top()(logits)
    return {"classes": classes.numpy(), "probabilities": probabilities.numpy()} | margin(
        {"probabilities": probabilities.numpy()}
    )
