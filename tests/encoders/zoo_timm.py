"""timm's entries for the shared test case: all families, shrunk to a few layers with random weights."""

from collections.abc import Callable
from pathlib import Path

_VIT = "depth=2&embed_dim=48&num_heads=3"
_STAGES = "1,1,1,1"
_WIDTHS = "16,24,32,48"

# architecture -> the options that make it small enough
TINY = {
    # plain vision transformers: class token, two tokens, attention pool, norm after pooling
    "vit_tiny_patch16_224": _VIT,
    "deit_tiny_distilled_patch16_224": _VIT,
    "vit_base_patch16_siglip_224": _VIT,
    "vit_so400m_patch14_siglip_gap_224": _VIT,
    "aimv2_large_patch14_224": _VIT,
    "beit_base_patch16_224": _VIT,
    "beit3_base_patch16_224": _VIT,
    "vit_relpos_small_patch16_224": _VIT,
    "cait_xxs24_224": _VIT,
    "vit_base_patch14_reg1_tipsv2": _VIT,
    # NaFlex
    "naflexvit_base_patch16_gap": _VIT,
    "naflexvit_base_patch16_siglip": _VIT,
    "naflexvit_base_patch16_radio_v3": _VIT,
    # registers, rotary positions
    "vit_small_patch14_dinov2": _VIT,
    "vit_small_patch14_reg4_dinov2": _VIT,
    "vit_tiny_patch16_dinov3_qkvb": _VIT,
    "vit_small_plus_patch16_dinov3": _VIT,
    "vit_base_patch16_radio_v3": _VIT,
    "vit_base_patch16_rope_mixed_224": _VIT,
    "eva02_tiny_patch14_224": _VIT,
    "vit_pe_core_tiny_patch16_384": f"{_VIT}&attn_pool_num_heads=3",
    "vit_pe_lang_large_patch14_448": _VIT,
    "vit_pe_lang_gigantic_patch14_448": _VIT,
    "vit_pe_spatial_tiny_patch16_512": _VIT,
    # vision towers of language models
    "qwen3_vit_88m": _VIT,
    "qwen3_vit_88m_enc": f"{_VIT}&out_features=64",
    "qwen3_vit_88m_merge": f"{_VIT}&out_features=64",
    "gemma4_vit_167m": f"{_VIT}&head_dim=16&intermediate_size=64",
    "deepseek_vit_412m": _VIT,
    # windows and hierarchies
    "samvit_base_patch16": f"{_VIT}&neck_chans=32",
    "sam2_hiera_tiny": "embed_dim=16&stages=1,2,3,1&global_att_blocks=4,5",
    "hiera_tiny_224": f"embed_dim=16&num_heads=1&stages={_STAGES}",
    "swin_tiny_patch4_window7_224": "embed_dim=16&depths=1,2,1,1&num_heads=1,2,4,8",
    "swinv2_tiny_window8_256": "embed_dim=16&depths=1,2,1,1&num_heads=1,2,4,8",
    "maxvit_tiny_tf_224": f"embed_dim=32,32,64,64&depths={_STAGES}&stem_width=16",
    "davit_tiny": f"depths={_STAGES}&embed_dims={_WIDTHS}&num_heads=1,2,2,3",
    "twins_svt_small": "depths=1,1,2,1&embed_dims=16,32,32,64&num_heads=1,2,2,2",
    "tiny_vit_5m_224": f"embed_dims=16,32,48,64&depths={_STAGES}&num_heads=1,2,3,4",
    # hybrids
    "levit_128s": "embed_dim=32,48,64&depth=1,1,1&num_heads=2,3,4&key_dim=8",
    "xcit_nano_12_p16_224": "depth=2",
    "efficientvit_b0": "widths=8,16,16,32,32&depths=1,1,1,1,1&head_widths=64,64",
    "efficientvit_m0": "embed_dim=32,48,64&depth=1,1,1",
    "edgenext_xx_small": f"depths=1,1,2,1&dims={_WIDTHS}",
    "mobilevitv2_050": "",
    "efficientformerv2_s0": f"depths=1,1,2,2&embed_dims={_WIDTHS}",
    "fastvit_t8": f"layers={_STAGES}&embed_dims=16,32,64,128",
    "csatv2": f"dims={_WIDTHS}&depths=1,1,2,2&transformer_depths=0,0,1,1",
    # convolutions
    "convnext_tiny": f"depths=1,1,2,1&dims={_WIDTHS}",
    "convnext_zepto_rms": f"depths=1,1,2,1&dims={_WIDTHS}",
    "convnextv2_atto": f"depths=1,1,2,1&dims={_WIDTHS}",
    "mambaout_femto": f"depths={_STAGES}&dims={_WIDTHS}",
    "mobilenetv3_small_050": "",
    "mobilenetv4_conv_small": "",
    "efficientnet_b0": "",
    "ghostnet_050": "",
    "ghostnetv3_050": "",
    "regnety_002": "",
    "repvgg_a0": "",
    "mobileone_s0": "",
    "repvit_m0_9": f"embed_dim={_WIDTHS}&depth=1,1,2,1",
    "resnet18": f"channels={_WIDTHS}",
}


# too large to be run here; of these only the shapes are checked
GIANTS = (
    "vit_pe_core_gigantic_patch14_448",
    "vit_pe_lang_gigantic_patch14_448",
    "vit_huge_plus_patch16_dinov3",
    "vit_7b_patch16_dinov3",
    "vit_giant_patch14_reg4_dinov2",
    "vit_giantopt_patch16_siglip_384",
    "vit_huge_patch16_radio_v4",
    "samvit_huge_patch16",
    "mobilenetv5_300m",
)


def _entry(architecture: str) -> Callable[[Path], str]:
    options = f"&{TINY[architecture]}" if TINY[architecture] else ""
    return lambda folder: f"timm/{architecture}?pretrained=false{options}"


ENTRIES = {architecture: _entry(architecture) for architecture in TINY}
