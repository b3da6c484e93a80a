"""Where weights come from: timm, Hugging Face, open_clip, torch.hub, EUPE's own files, Python code."""
