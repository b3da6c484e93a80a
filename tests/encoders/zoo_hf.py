"""Tiny models of transformers with random weights, written as the hub has them; see test_encoder_properties.py."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers

from eyespot.randomness import torch_generator

MEAN, STD = (0.48, 0.46, 0.41), (0.27, 0.26, 0.28)
_VIT = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 64, "patch_size": 16}
_MLP = {**_VIT, "intermediate_size": 64}
_TEXT = {"hidden_size": 24, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 50}
_STAGES = {"hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 1, 1]}
_SWIN = {"embed_dim": 8, "depths": [1, 1, 1, 1], "num_heads": [1, 1, 2, 2], "image_size": 128, "window_size": 4}
_BEIT = {**_MLP, "use_mean_pooling": True, "use_relative_position_bias": True, "layer_scale_init_value": 0.5}
_DINOV2 = {**_VIT, "layerscale_value": 0.5}
_SAM = {**_VIT, "output_channels": 16, "window_size": 2, "global_attn_indexes": [1], "mlp_dim": 64}
_SAM2 = {
    "backbone_config": {
        "model_type": "sam2_hiera_det_model",
        "hidden_size": 8,
        "num_attention_heads": 1,
        "image_size": [64, 64],
        "blocks_per_stage": [1, 2, 1, 1],
        "embed_dim_per_stage": [8, 16, 24, 32],
        "num_attention_heads_per_stage": [1, 1, 2, 2],
        "window_size_per_stage": [4, 4, 4, 4],
        "global_attention_blocks": [2],
        "window_positional_embedding_background_size": [4, 4],
    },
    "backbone_channel_list": [32, 24, 16, 8],
    "backbone_feature_sizes": [[16, 16], [8, 8], [4, 4]],
    "fpn_hidden_size": 16,
    "image_size": 64,
}
_DPT = {
    "patch_size": 16,
    "reassemble_hidden_size": 32,
    "neck_hidden_sizes": [8, 8, 8, 8],
    "fusion_hidden_size": 8,
    "head_hidden_size": 8,
}

# label -> (configuration class, class whose checkpoint is written, arguments of the configuration)
MODELS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "dinov2": ("Dinov2Config", "Dinov2Model", _DINOV2),
    "dinov2 (classifier)": ("Dinov2Config", "Dinov2ForImageClassification", _DINOV2),
    "dinov2 with registers": ("Dinov2WithRegistersConfig", "Dinov2WithRegistersModel", _DINOV2),
    "dinov3 vit": ("DINOv3ViTConfig", "DINOv3ViTModel", {**_MLP, "num_register_tokens": 4}),
    "dinov3 convnext": ("DINOv3ConvNextConfig", "DINOv3ConvNextModel", {**_STAGES, "image_size": 64}),
    "clip": (
        "CLIPConfig",
        "CLIPModel",
        {"vision_config": _MLP, "text_config": _TEXT, "projection_dim": 20},
    ),
    "clip (image tower)": ("CLIPVisionConfig", "CLIPVisionModelWithProjection", {**_MLP, "projection_dim": 20}),
    "clip (no projection)": ("CLIPVisionConfig", "CLIPVisionModel", _MLP),
    "metaclip 2": (
        "MetaClip2Config",
        "MetaClip2Model",
        {"vision_config": _MLP, "text_config": {**_TEXT, "eos_token_id": 2}, "projection_dim": 20},
    ),
    "chinese clip": (
        "ChineseCLIPConfig",
        "ChineseCLIPModel",
        {"vision_config": _MLP, "text_config": _TEXT, "projection_dim": 20},
    ),
    "siglip": (
        "SiglipConfig",
        "SiglipModel",
        {"vision_config": _MLP, "text_config": _TEXT},
    ),
    "siglip2 (naflex)": (
        "Siglip2Config",
        "Siglip2Model",
        {"vision_config": {**_MLP, "num_patches": 16}, "text_config": _TEXT},
    ),
    "aimv2": ("Aimv2VisionConfig", "Aimv2VisionModel", {**_MLP, "is_native": True, "use_head": False}),
    "aimv2 (with text)": (
        "Aimv2Config",
        "Aimv2Model",
        {"vision_config": _MLP, "text_config": _TEXT, "projection_dim": 20},
    ),
    "sam": ("SamConfig", "SamModel", {"vision_config": _SAM}),
    "sam (image tower)": ("SamVisionConfig", "SamVisionModel", _SAM),
    "sam 2": ("Sam2Config", "Sam2Model", {"vision_config": _SAM2}),
    "depth anything": (
        "DepthAnythingConfig",
        "DepthAnythingForDepthEstimation",
        {
            **_DPT,
            "backbone_config": {
                **_DINOV2,
                "model_type": "dinov2",
                "num_hidden_layers": 4,
                "out_features": ["stage1", "stage2", "stage3", "stage4"],
                "reshape_hidden_states": False,
            },
        },
    ),
    "i-jepa": ("IJepaConfig", "IJepaModel", _MLP),
    "vit (classifier)": ("ViTConfig", "ViTForImageClassification", _MLP),
    "vit (with pooler)": ("ViTConfig", "ViTModel", _MLP),
    "vit mae": (
        "ViTMAEConfig",
        "ViTMAEForPreTraining",
        {
            **_MLP,
            "decoder_hidden_size": 16,
            "decoder_num_hidden_layers": 1,
            "decoder_num_attention_heads": 2,
            "decoder_intermediate_size": 16,
        },
    ),
    "vit msn": ("ViTMSNConfig", "ViTMSNModel", _MLP),
    "deit": ("DeiTConfig", "DeiTForImageClassificationWithTeacher", _MLP),
    "beit": ("BeitConfig", "BeitForImageClassification", _BEIT),
    "beit (class token)": (
        "BeitConfig",
        "BeitForMaskedImageModeling",
        {
            **_BEIT,
            "use_mean_pooling": False,
            "use_mask_token": True,
            "vocab_size": 50,
            "use_shared_relative_position_bias": True,
        },
    ),
    "data2vec": ("Data2VecVisionConfig", "Data2VecVisionForImageClassification", _BEIT),
    "swin": ("SwinConfig", "SwinForImageClassification", _SWIN),
    "swin v2": ("Swinv2Config", "Swinv2Model", _SWIN),
    "convnext": ("ConvNextConfig", "ConvNextForImageClassification", _STAGES),
    "convnext v2": ("ConvNextV2Config", "ConvNextV2Model", _STAGES),
    "resnet": (
        "ResNetConfig",
        "ResNetForImageClassification",
        {**_STAGES, "embedding_size": 8, "layer_type": "basic"},
    ),
    "regnet": ("RegNetConfig", "RegNetModel", {**_STAGES, "embedding_size": 8, "groups_width": 8}),
    "radio": (
        "RadioConfig",
        "RadioModel",
        {**_MLP, "max_img_size": 128, "num_cls_tokens": 2, "num_registers": 3, "summary_idxs": [0, 1]},
    ),
}


def build_model(label: str) -> transformers.PreTrainedModel:
    """The model of a label: random weights everywhere, norms included, so that nothing left out goes unnoticed."""
    config_class, model_class, arguments = MODELS[label]
    torch.manual_seed(0)
    model = getattr(transformers, model_class)(getattr(transformers, config_class)(**arguments)).eval()
    generator = torch_generator("zoo_hf", label)
    with torch.no_grad():
        for weight in model.parameters():
            weight += 0.05 * torch.randn(weight.shape, generator=generator)
    return model


def write_model(label: str, folder: Path) -> transformers.PreTrainedModel:
    """Writes a model folder as the hub has them, with the processor's file and a card; returns the model."""
    model = build_model(label)
    model.save_pretrained(folder)
    write_processor(folder)
    (folder / "README.md").write_text("---\nlicense: apache-2.0\n---\n# A model\n")
    return model


def write_processor(folder: Path, **changes: Any) -> None:
    """Writes preprocessor_config.json."""
    size = {"height": 64, "width": 64}
    stated = {"image_processor_type": "ViTImageProcessor", "image_mean": MEAN, "image_std": STD, "size": size}
    (folder / "preprocessor_config.json").write_text(json.dumps({**stated, **changes}))


def _entry(label: str) -> Callable[[Path], str]:
    def write(folder: Path) -> str:
        write_model(label, folder)
        return f"hf/{folder}"

    return write


# the same towers as others, in other checkpoints
_AGAIN = {"dinov2 (classifier)", "clip (image tower)", "clip (no projection)", "sam (image tower)", "vit (with pooler)"}
ENTRIES: dict[str, Callable[[Path], str]] = {label: _entry(label) for label in MODELS if label not in _AGAIN}
