"""Settings that all recipes share."""

from __future__ import annotations

RUNTIME_ONLY = (
    "permissive_only",
    "data.workers",
    "data.keep_decoded",
    "engine.accelerator",
    "engine.devices",
    "engine.nodes",
    "engine.strategy",
    "engine.shard_teachers",
    "engine.activation_checkpointing",
    "engine.max_tokens",
    "engine.compile",
    "engine.log_every",
    "engine.checkpoint_every",
    "engine.keep_checkpoints",
    "engine.tensorboard",
    "engine.progress",
    "probes",
    "probes.every",
    "probes.tasks",
    "probes.data",
    "probes.limit",
    "probes.size",
    "probes.device",
)
"""Settings of every recipe that may change when a run is continued, because they do not touch its result."""
