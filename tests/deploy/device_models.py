"""Models that every format is tried on in the slow tests, each at one size; `benchmarks/export_matrix.py` has more."""

DEVICE_MODELS = (
    ("vit_tiny_patch16_dinov3_qkvb", (256, 192)),
    ("convnext_tiny", (224, 224)),
    ("mobilenetv4_conv_small", (256, 192)),
    ("fastvit_t8", (256, 192)),
    ("ghostnetv3_100", (224, 224)),  # enlarges 3 cells to 7 at this size, which some converters get wrong
)
