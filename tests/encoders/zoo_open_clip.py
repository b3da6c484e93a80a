"""open_clip's entries for the shared test case: its own towers and timm's, tiny, in folders as open_clip saves them."""

import json
from pathlib import Path

TEXT = {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1}
STATISTICS = {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.25, 0.3]}
VIT = {"patch_size": 16, "width": 32, "head_width": 16, "layers": 2}

TOWERS = {
    "vit": {"image_size": [64, 96], **VIT},
    "vit, norm after pooling": {
        "image_size": 64, "no_ln_pre": True, "pool_type": "avg", "final_ln_after_pool": True, **VIT,
    },
    "coca": {"image_size": 64, "attentional_pool": True, "attn_pooler_heads": 2, "output_tokens": True, **VIT},
    "resnet": {"image_size": 64, "layers": [1, 1, 1, 1], "width": 8, "head_width": 8},
    "convnext": {"image_size": 64, "timm_model_name": "convnext_atto", "timm_pool": "", "timm_proj": "linear"},
    "siglip": {"image_size": 160, "timm_model_name": "test_vit4", "timm_pool": "map", "timm_proj": "none"},
    "pe core": {
        "image_size": 384, "timm_model_name": "vit_pe_core_tiny_patch16_384", "timm_pool": "map", "timm_proj": None,
    },
    "mobileclip": {"image_size": 256, "timm_model_name": "fastvit_mci0", "timm_pool": "avg", "timm_proj": None},
}  # fmt: skip
COCA = {
    "custom_text": True,
    "text": TEXT | {"context_length": 76, "embed_cls": True, "output_tokens": True},
    "multimodal_cfg": TEXT | {"context_length": 76},
}
OPTIONS = {"pe core": "&image_size=64"}


def write_config(folder: Path, vision: dict, embed_dim: int = 24, text: dict | None = None, **model: object) -> Path:
    """A folder for `open_clip/local-dir:`, still without weights."""
    folder.mkdir(parents=True, exist_ok=True)
    config = {"embed_dim": embed_dim, "vision_cfg": vision, "text_cfg": text or TEXT, **model}
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": STATISTICS}))
    return folder


def _entry(label):
    def write(folder: Path) -> str:
        custom = {"custom_text": True} if "timm_model_name" in TOWERS[label] else {}
        write_config(folder, TOWERS[label], **(COCA if label == "coca" else custom))
        return f"open_clip/local-dir:{folder}?pretrained=false{OPTIONS.get(label, '')}"

    return write


ENTRIES = {f"open_clip {label}": _entry(label) for label in TOWERS}
