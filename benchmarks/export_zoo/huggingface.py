# ruff: noqa: D102 - what forward takes is said by its class
"""Transformers with tiny configurations, in wrappers whose forward takes the declared inputs by name."""

import dataclasses
from typing import Any

import transformers as hf
from torch import Tensor, nn
from transformers.models.whisper import modeling_whisper

_TEXT = {
    "vocab_size": 99,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "max_position_embeddings": 64,
}
_IMAGE = {
    "image_size": 64,
    "patch_size": 16,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
}
_KEYS = {**_TEXT, "num_key_value_heads": 2}


class Wrapper(nn.Module):
    """Calls a model without its cache and returns the outputs that are named."""

    def __init__(self, model: nn.Module, *outputs: str) -> None:
        super().__init__()
        self.model = model
        self.outputs = outputs

    def call(self, **inputs: Tensor) -> dict[str, Tensor]:
        """Return the named outputs of the model."""
        found = self.model(**inputs, return_dict=True)
        return {name: found[name] for name in self.outputs}


class TextModel(Wrapper):
    """Takes ids and a mask."""

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> dict[str, Tensor]:
        return self.call(input_ids=input_ids, attention_mask=attention_mask)


class DecoderModel(Wrapper):
    """Takes ids and a mask, and keeps no cache."""

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> dict[str, Tensor]:
        return self.call(input_ids=input_ids, attention_mask=attention_mask, use_cache=False)


class TypedTextModel(Wrapper):
    """Takes ids, a mask and token types."""

    def forward(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor) -> dict[str, Tensor]:
        return self.call(input_ids=input_ids, attention_mask=attention_mask, token_type_ids=token_type_ids)


class Seq2SeqModel(Wrapper):
    """Takes ids, their mask, and the ids of the decoder."""

    def forward(self, input_ids: Tensor, attention_mask: Tensor, decoder_input_ids: Tensor) -> dict[str, Tensor]:
        return self.call(
            input_ids=input_ids, attention_mask=attention_mask, decoder_input_ids=decoder_input_ids, use_cache=False
        )


class VisionModel(Wrapper):
    """Takes pixels."""

    def forward(self, pixel_values: Tensor) -> dict[str, Tensor]:
        return self.call(pixel_values=pixel_values)


class SpectrumModel(Wrapper):
    """Takes a log-mel spectrum."""

    def forward(self, input_features: Tensor) -> dict[str, Tensor]:
        return self.call(input_features=input_features)


class WaveModel(Wrapper):
    """Takes a waveform."""

    def forward(self, input_values: Tensor) -> dict[str, Tensor]:
        return self.call(input_values=input_values)


class SeriesModel(Wrapper):
    """Takes past values of a time series."""

    def forward(self, past_values: Tensor) -> dict[str, Tensor]:
        return self.call(past_values=past_values)


class ClipModel(Wrapper):
    """Takes any number of texts and images."""

    def forward(self, input_ids: Tensor, pixel_values: Tensor, attention_mask: Tensor) -> dict[str, Tensor]:
        return self.call(input_ids=input_ids, pixel_values=pixel_values, attention_mask=attention_mask)


@dataclasses.dataclass(frozen=True)
class _Tiny:
    """The recipe for one tiny model."""

    model: str
    config: dict[str, Any]
    wrapper: type[Wrapper] = TextModel
    outputs: tuple[str, ...] = ("last_hidden_state",)


def _decoder(model: str, **config: Any) -> _Tiny:
    return _Tiny(model, config, DecoderModel, ("logits",))


_MODELS: dict[str, _Tiny] = {
    "bert": _Tiny("BertModel", _TEXT, TypedTextModel),
    "electra": _Tiny("ElectraModel", {**_TEXT, "embedding_size": 16}, TypedTextModel),
    "mobilebert": _Tiny(
        "MobileBertModel",
        {**_TEXT, "embedding_size": 16, "intra_bottleneck_size": 16, "num_feedforward_networks": 2},
        TypedTextModel,
    ),
    "albert": _Tiny("AlbertModel", {**_TEXT, "embedding_size": 16}, TypedTextModel),
    "roberta": _Tiny("RobertaModel", _TEXT),
    "distilbert": _Tiny(
        "DistilBertModel", {"vocab_size": 99, "dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 64}
    ),
    "mpnet": _Tiny("MPNetModel", _TEXT),
    "squeezebert": _Tiny("SqueezeBertModel", {**_TEXT, "embedding_size": 32}, TypedTextModel),
    "deberta": _Tiny(
        "DebertaModel", {**_TEXT, "relative_attention": True, "pos_att_type": ["p2c", "c2p"], "type_vocab_size": 0}
    ),
    "deberta_v2": _Tiny(
        "DebertaV2Model",
        {
            **_TEXT,
            "relative_attention": True,
            "position_buckets": 8,
            "norm_rel_ebd": "layer_norm",
            "share_att_key": True,
            "pos_att_type": ["p2c", "c2p"],
            "type_vocab_size": 0,
        },
    ),
    "modernbert": _Tiny(
        "ModernBertModel",
        {
            **_TEXT,
            "local_attention": 8,
            "pad_token_id": 0,
            "bos_token_id": 1,
            "eos_token_id": 2,
            "cls_token_id": 1,
            "sep_token_id": 2,
        },
    ),
    "fnet": _Tiny("FNetModel", _TEXT),
    "gpt2": _decoder("GPT2LMHeadModel", vocab_size=99, n_embd=32, n_layer=2, n_head=4, n_positions=64),
    "gpt_neox": _decoder("GPTNeoXForCausalLM", **_TEXT),
    "opt": _decoder("OPTForCausalLM", **_TEXT, ffn_dim=64, word_embed_proj_dim=32),
    "llama": _decoder("LlamaForCausalLM", **_KEYS),
    "mistral": _decoder("MistralForCausalLM", **_KEYS, sliding_window=8),
    "qwen2": _decoder("Qwen2ForCausalLM", **_KEYS),
    "gemma": _decoder("GemmaForCausalLM", **_KEYS, head_dim=8),
    "phi": _decoder("PhiForCausalLM", **_TEXT),
    "bloom": _decoder("BloomForCausalLM", vocab_size=99, hidden_size=32, n_layer=2, n_head=4),
    "falcon": _decoder("FalconForCausalLM", **_TEXT, alibi=False),
    "gptj": _decoder("GPTJForCausalLM", vocab_size=99, n_embd=32, n_layer=2, n_head=4, n_positions=64, rotary_dim=8),
    "mamba": _decoder("MambaForCausalLM", vocab_size=99, hidden_size=16, num_hidden_layers=1, state_size=4),
    "t5": _Tiny(
        "T5ForConditionalGeneration",
        {
            "vocab_size": 99,
            "d_model": 32,
            "d_kv": 8,
            "d_ff": 64,
            "num_layers": 2,
            "num_heads": 4,
            "decoder_start_token_id": 0,
        },
        Seq2SeqModel,
        ("logits",),
    ),
    "bart": _Tiny(
        "BartForConditionalGeneration",
        {
            "vocab_size": 99,
            "d_model": 32,
            "encoder_layers": 2,
            "decoder_layers": 2,
            "encoder_attention_heads": 4,
            "decoder_attention_heads": 4,
            "encoder_ffn_dim": 64,
            "decoder_ffn_dim": 64,
            "max_position_embeddings": 64,
        },
        Seq2SeqModel,
        ("logits",),
    ),
    "marian": _Tiny(
        "MarianMTModel",
        {
            "vocab_size": 99,
            "d_model": 32,
            "encoder_layers": 2,
            "decoder_layers": 2,
            "encoder_attention_heads": 4,
            "decoder_attention_heads": 4,
            "encoder_ffn_dim": 64,
            "decoder_ffn_dim": 64,
            "max_position_embeddings": 64,
            "pad_token_id": 0,
            "decoder_start_token_id": 0,
        },
        Seq2SeqModel,
        ("logits",),
    ),
    "vit": _Tiny("ViTModel", _IMAGE, VisionModel),
    "deit": _Tiny("DeiTModel", _IMAGE, VisionModel),
    "beit": _Tiny("BeitModel", {**_IMAGE, "use_relative_position_bias": True}, VisionModel),
    "swin": _Tiny(
        "SwinModel",
        {"image_size": 64, "patch_size": 4, "embed_dim": 16, "depths": [2, 2], "num_heads": [2, 4], "window_size": 4},
        VisionModel,
    ),
    "convnext": _Tiny("ConvNextModel", {"hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 1, 1]}, VisionModel),
    "segformer": _Tiny(
        "SegformerModel",
        {
            "hidden_sizes": [8, 16, 24, 32],
            "depths": [1, 1, 1, 1],
            "num_attention_heads": [1, 2, 2, 4],
            "decoder_hidden_size": 16,
        },
        VisionModel,
    ),
    "mobilevit": _Tiny(
        "MobileViTModel",
        {
            "image_size": 64,
            "hidden_sizes": [16, 24, 32],
            "neck_hidden_sizes": [8, 8, 16, 16, 24, 32, 48],
            "num_attention_heads": 4,
        },
        VisionModel,
    ),
    "resnet": _Tiny(
        "ResNetModel",
        {"embedding_size": 8, "hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 1, 1]},
        VisionModel,
    ),
    "detr": _Tiny(
        "DetrForObjectDetection",
        {
            "d_model": 32,
            "encoder_layers": 1,
            "decoder_layers": 1,
            "encoder_attention_heads": 4,
            "decoder_attention_heads": 4,
            "encoder_ffn_dim": 64,
            "decoder_ffn_dim": 64,
            "num_queries": 5,
            "use_timm_backbone": False,
            "use_pretrained_backbone": False,
            "backbone": None,
        },
        VisionModel,
        ("logits", "pred_boxes"),
    ),
    "dpt": _Tiny(
        "DPTForDepthEstimation",
        {
            **_IMAGE,
            "num_hidden_layers": 4,
            "backbone_out_indices": [0, 1, 2, 3],
            "neck_hidden_sizes": [8, 8, 16, 16],
            "fusion_hidden_size": 16,
            "is_hybrid": False,
        },
        VisionModel,
        ("predicted_depth",),
    ),
    "clip": _Tiny(
        "CLIPModel",
        {
            "text_config": {**_TEXT, "eos_token_id": 98, "bos_token_id": 0},
            "vision_config": {**_IMAGE, "image_size": 32, "patch_size": 8},
            "projection_dim": 16,
        },
        ClipModel,
        ("logits_per_image", "text_embeds", "image_embeds"),
    ),
    "whisper_encoder": _Tiny(
        "WhisperEncoder",
        {
            "vocab_size": 99,
            "num_mel_bins": 16,
            "d_model": 32,
            "encoder_layers": 2,
            "encoder_attention_heads": 4,
            "encoder_ffn_dim": 64,
            "max_source_positions": 30,
        },
        SpectrumModel,
    ),
    "wav2vec2": _Tiny(
        "Wav2Vec2Model",
        {**_TEXT, "conv_dim": [16, 16, 16], "conv_kernel": [10, 3, 3], "conv_stride": [5, 2, 2],
         "num_feat_extract_layers": 3, "num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 4},
        WaveModel,
    ),
    "hubert": _Tiny(
        "HubertModel",
        {**_TEXT, "conv_dim": [16, 16, 16], "conv_kernel": [10, 3, 3], "conv_stride": [5, 2, 2],
         "num_feat_extract_layers": 3, "num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 4},
        WaveModel,
    ),
    "audio_spectrogram": _Tiny(
        "ASTModel", {**_IMAGE, "num_mel_bins": 16, "max_length": 48, "patch_size": 8, "frequency_stride": 8, "time_stride": 8},
        WaveModel,
    ),
    "patchtst": _Tiny(
        "PatchTSTForPrediction",
        {"num_input_channels": 3, "context_length": 32, "patch_length": 8, "patch_stride": 8, "d_model": 16,
         "num_attention_heads": 2, "num_hidden_layers": 2, "ffn_dim": 32, "prediction_length": 6},
        SeriesModel,
        ("prediction_outputs",),
    ),
}  # fmt: skip


def build(name: str) -> Wrapper:
    """Return a tiny model in its wrapper, with random weights."""
    tiny = _MODELS[name]
    cls = getattr(hf, tiny.model, modeling_whisper.WhisperEncoder)  # the one that is not at the top
    config = cls.config_class(**tiny.config)
    if name == "detr":
        config.backbone_config = hf.ResNetConfig(
            embedding_size=8, hidden_sizes=[8, 16, 24, 32], depths=[1, 1, 1, 1], out_features=["stage4"]
        )
    return tiny.wrapper(cls(config), *tiny.outputs)
