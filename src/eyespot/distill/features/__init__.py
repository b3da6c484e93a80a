"""Distillation of features: heads, losses, standardizers, and the Task that joins them."""
