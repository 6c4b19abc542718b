"""The models of the zoo: their inputs and ranges, in optkit's syntax. Nothing heavy is imported here.

`factories.build(name)` makes the module.
"""

import dataclasses
from collections.abc import Mapping

Range = tuple[int, int, int]  # min, opt, max

BATCH: Range = (1, 4, 8)
SEQUENCE: Range = (2, 9, 24)


@dataclasses.dataclass(frozen=True)
class Case:
    """One model of the zoo."""

    name: str  # family/model
    inputs: tuple[str, ...]  # name:dtype[dim,...]
    dims: Mapping[str, Range]
    limits: Mapping[
        str, int | str
    ]  # integer input -> its values stay below this number, or below the size of this dimension
    optimum_task: str | None = None  # whether the model can be saved to a folder for optimum-cli

    @property
    def family(self) -> str:
        """The library that the model is from."""
        return self.name.partition("/")[0]

    @property
    def batch(self) -> str | None:
        """The dimension that servers batch: the first one of every input, if it is named `batch`."""
        firsts = {text.partition("[")[2].rstrip("]").split(",")[0].strip() for text in self.inputs}
        return "batch" if firsts == {"batch"} else None


def case(
    name: str,
    *inputs: str,
    limits: Mapping[str, int | str] | None = None,
    optimum: str | None = None,
    **dims: Range,
) -> Case:
    """Return a case with a dynamic batch where an input has one, and with the ranges given for other dimensions."""
    used = {dim.strip() for text in inputs for dim in text.partition("[")[2].rstrip("]").split(",")}
    usual = {"batch": BATCH, "sequence": SEQUENCE}
    ranges = {dim: range_ for dim, range_ in usual.items() if dim in used} | dims
    return Case(name, inputs, ranges, limits or {}, optimum)


def _images(family: str, size: int, names: str, **dims: Range) -> list[Case]:
    """Return cases of models that take one image; with dims given its height and width vary."""
    shape = "height,width" if dims else f"{size},{size}"
    return [case(f"{family}/{name}", f"image:float32[batch,3,{shape}]", **dims) for name in names.split()]


def _texts(names: str, task: str, *more: str, optimum: bool = True) -> list[Case]:
    """Return cases of transformers that take ids and a mask, with the fields in `more`."""
    return [
        case(
            f"transformers/{name}",
            "input_ids:int64[batch,sequence]",
            "attention_mask:int64[batch,sequence]",
            *more,
            limits={"input_ids": 99, "token_type_ids": 2, "decoder_input_ids": 99},
            optimum=task if optimum else None,
            **({"decoder_sequence": (2, 5, 12)} if more and "decoder" in more[0] else {}),
        )
        for name in names.split()
    ]


def _pixels(names: str, size: int, task: str | None = "feature-extraction") -> list[Case]:
    return [
        case(f"transformers/{name}", f"pixel_values:float32[batch,3,{size},{size}]", optimum=task)
        for name in names.split()
    ]


_TOKEN_TYPES = "token_type_ids:int64[batch,sequence]"
_DECODER_IDS = "decoder_input_ids:int64[batch,decoder_sequence]"

OWN = [
    case("own/mlp", "x:float32[batch,16]"),
    case("own/rnn", "x:float32[batch,sequence,8]"),
    case("own/gru", "x:float32[batch,sequence,8]"),
    case("own/lstm", "x:float32[batch,sequence,8]"),
    case("own/lstm_two_layers_both_ways", "x:float32[batch,sequence,8]"),
    case("own/lstm_states", "x:float32[batch,sequence,8]", "h:float32[batch,12]", "c:float32[batch,12]"),
    case("own/lstm_cell_unrolled", "x:float32[batch,6,8]"),
    case("own/lstm_cell_scripted", "x:float32[batch,sequence,8]"),
    case("own/lstm_attention_tagger", "ids:int64[batch,sequence]", limits={"ids": 50}),
    case("own/gru_seq2seq", "source:int64[batch,sequence]", "target:int64[batch,target]", limits={"source": 50, "target": 50}, target=(2, 5, 10)),
    case("own/transformer_encoder", "ids:int64[batch,sequence]", "padding:bool[batch,sequence]", limits={"ids": 50}),
    case("own/multihead_attention", "query:float32[batch,queries,16]", "keys:float32[batch,keys,16]", queries=(1, 4, 9), keys=(2, 7, 12)),
    case("own/unet", "image:float32[batch,3,32,32]"),
    case("own/unet_any_size", "image:float32[batch,3,height,width]", height=(16, 32, 50), width=(16, 40, 60)),
    case("own/super_resolution", "image:float32[batch,1,height,width]", height=(8, 16, 24), width=(8, 12, 30)),
    case("own/generator", "z:float32[batch,16]"),
    case("own/variational_autoencoder", "x:float32[batch,32]"),
    case("own/spatial_transformer", "image:float32[batch,1,28,28]"),
    case("own/conv3d", "clip:float32[batch,2,8,16,16]"),
    case("own/temporal_convolution", "x:float32[batch,4,time]", time=(3, 20, 40)),
    case("own/wavenet", "x:float32[batch,1,64]"),
    case("own/spectrogram_classifier", "audio:float32[batch,1024]"),
    case("own/fourier_operator", "x:float32[batch,64,1]"),
    case("own/graph_convolution", "x:float32[nodes,8]", "edges:int64[2,edge]", limits={"edges": "nodes"}, nodes=(2, 10, 30), edge=(1, 24, 60)),
    case("own/graph_attention", "x:float32[nodes,8]", "edges:int64[2,edge]", limits={"edges": "nodes"}, nodes=(2, 10, 30), edge=(1, 24, 60)),
    case("own/graph_batched_gather", "x:float32[batch,12,8]", "neighbours:int64[batch,12,3]", limits={"neighbours": 12}),
    case("own/point_cloud_neighbours", "points:float32[batch,points,3]", points=(8, 16, 30)),
    case("own/deep_sets", "x:float32[batch,items,6]", items=(1, 5, 12)),
    case("own/real_nvp", "x:float32[batch,6]"),
    case("own/masked_autoregressive_flow", "x:float32[batch,5]"),
    case("own/spline_flow", "x:float32[batch,4]"),
    case("own/glow", "image:float32[batch,4,8,8]"),
    case("own/neural_ode", "x:float32[batch,4]"),
    case("own/capsules", "x:float32[batch,10,8]"),
    case("own/mixture_of_experts", "x:float32[batch,sequence,8]"),
    case("own/selective_scan", "x:float32[batch,12,8]"),
    case("own/viterbi", "scores:float32[batch,7,5]"),
    case("own/recommender", "dense:float32[batch,4]", "sparse:int64[batch,3]", limits={"sparse": 20}),
    case("own/tab_transformer", "numbers:float32[batch,5]", "categories:int64[batch,4]", limits={"categories": 7}),
    case("own/siamese", "left:float32[batch,3,24,24]", "right:float32[batch,3,24,24]"),
    case("own/multi_task_dict", "image:float32[batch,3,32,32]"),
    case("own/multi_output_tuple", "x:float32[batch,10]"),
    case("own/multi_output_dataclass", "x:float32[batch,10]"),
    case("own/top_k_boxes", "boxes:float32[batch,anchors,4]", "scores:float32[batch,anchors]", anchors=(6, 20, 40)),
    case("own/quantile_head", "x:float32[batch,sequence,8]"),
    case("own/branch_on_values", "x:float32[1,time,8]", time=(2, 7, 16)),
    case("own/branch_on_values_scripted", "x:float32[1,time,8]", time=(2, 7, 16)),
    case("own/branch_on_values_cond", "x:float32[1,time,8]", time=(2, 7, 16)),
    case("own/branch_on_length", "x:float32[batch,sequence,8]"),
    case("own/loop_scripted", "x:float32[batch,sequence,8]"),
    case("own/folded_batch", "x:float32[batch,8]"),
    case("own/baked_positions", "x:float32[batch,sequence,8]"),
    case("own/batch_statistics", "x:float32[batch,8]"),
]  # fmt: skip

TORCHVISION = [
    *_images("torchvision", 64, "resnet18 mobilenet_v2", height=(32, 64, 96), width=(32, 80, 112)),
    *_images(
        "torchvision", 64, "resnet50 resnext50_32x4d vgg11 squeezenet1_1 densenet121 googlenet shufflenet_v2_x0_5"
    ),
    *_images("torchvision", 96, "inception_v3"),
    *_images("torchvision", 64, "mobilenet_v3_small mnasnet0_5 efficientnet_b0 regnet_y_400mf convnext_tiny"),
    *_images("torchvision", 32, "vision_transformer swin_transformer swin_transformer_v2"),
    *_images("torchvision", 64, "maxvit"),
    *_images("torchvision", 64, "lraspp_mobilenet_v3_large", height=(33, 64, 96), width=(33, 80, 112)),
    *_images("torchvision", 64, "deeplabv3_mobilenet_v3_large fcn_resnet50 resnet18_feature_pyramid"),
    case("torchvision/r3d_18", "clip:float32[batch,3,4,32,32]"),
]

TIMM = [
    *_images("timm", 64, "resnet10t tf_efficientnet_lite0", height=(32, 64, 96), width=(32, 80, 112)),
    *_images("timm", 64, "mobilenetv4_conv_small ghostnet_100 mobileone_s0 repvgg_a0"),
    *_images("timm", 64, "convnext_atto convnextv2_atto skresnet18 ese_vovnet19b_dw hrnet_w18_small test_nfnet"),
    *_images("timm", 64, "resnest14d poolformer_s12 efficientvit_b0 mambaout_femto"),
    *_images("timm", 64, "vit_tiny_patch16_224 mixer_s32_224 xcit_nano_12_p16_224"),
    *_images("timm", 64, "eva02_tiny_patch14_224 mobilevit_xxs edgenext_xx_small pvt_v2_b0 fastvit_t8"),
    *_images("timm", 224, "levit_128s convit_tiny tiny_vit_5m_224 coatnet_nano_rw_224"),
]

TRANSFORMERS = [
    *_texts("bert electra mobilebert albert squeezebert", "feature-extraction", _TOKEN_TYPES),
    *_texts("roberta distilbert mpnet deberta deberta_v2 modernbert", "feature-extraction"),
    *_texts("fnet", "feature-extraction", optimum=False),
    *_texts("gpt2 gpt_neox opt llama mistral qwen2 gemma phi bloom falcon gptj", "text-generation"),
    *_texts("mamba", "text-generation", optimum=False),
    *_texts("t5 bart marian", "text2text-generation", _DECODER_IDS),
    *_pixels("vit deit beit swin convnext segformer mobilevit resnet detr", 64),
    *_pixels("dpt", 64, task=None),
    case("transformers/clip", "input_ids:int64[batch,sequence]", "pixel_values:float32[images,3,32,32]",
         "attention_mask:int64[batch,sequence]", limits={"input_ids": 99}, images=(1, 3, 6)),
    case("transformers/whisper_encoder", "input_features:float32[batch,16,60]"),
    case("transformers/wav2vec2", "input_values:float32[batch,samples]", optimum="feature-extraction", samples=(800, 1600, 2400)),
    case("transformers/hubert", "input_values:float32[batch,samples]", optimum="feature-extraction", samples=(800, 1600, 2400)),
    case("transformers/audio_spectrogram", "input_values:float32[batch,48,16]", optimum="feature-extraction"),
    case("transformers/patchtst", "past_values:float32[batch,32,3]"),
]  # fmt: skip

CASES: Mapping[str, Case] = {c.name: c for c in (*OWN, *TRANSFORMERS, *TORCHVISION, *TIMM)}
