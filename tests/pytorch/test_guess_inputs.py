import pytest
import torch
from torch import nn

from optkit.pytorch.guess_inputs import guessed_options


class Texts(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(3, 2)

    def forward(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor, scale: torch.Tensor | None = None
    ) -> torch.Tensor:
        return self.fc(input_ids * attention_mask)


@pytest.mark.parametrize(
    ("module", "options"),
    [
        (nn.Conv2d(1, 2, 3), '--input "input:float32[batch,1,224,224]" --dim batch=1:8:64'),
        (nn.Sequential(nn.Linear(7, 2), nn.Conv2d(3, 3, 1)), '--input "input:float32[batch,7]" --dim batch=1:8:64'),
        (nn.GRU(5, 6), '--input "input:float32[batch,sequence,5]" --dim batch=1:8:64 --dim sequence=8:64:256'),
        (
            Texts(),
            '--input "input_ids:int64[batch,sequence]" --input "attention_mask:int64[batch,sequence]" '
            "--dim batch=1:8:64 --dim sequence=8:64:256",
        ),
    ],
)
def test_inputs_are_guessed_from_names_and_the_first_layer(module: nn.Module, options: str) -> None:
    assert guessed_options(module) == options
