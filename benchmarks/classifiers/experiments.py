"""The experiments: what is compared, and at which budget. Within one, all arms have the same pictures and steps."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from arms import Arm, Bench, Results

from eyespot.config import build, merged
from eyespot.distill.warm_start import new_encoder
from eyespot.recipes.vanilla_kd import VanillaKdConfig, distill

TEACHER = "timm/resnet10t?channels_last=true"
SMALL = "timm/test_resnet?channels_last=true"
TOKENS = "timm/vit_tiny_patch16_224?img_size=48&patch_size=8&embed_dim=96&depth=8&num_heads=3"
PLAIN = "timm/ghostnet_050?version=v2&stem_stride=1&drop_rate=0"
BRANCHED = "timm/ghostnetv3_050?stem_stride=1&drop_rate=0"

STRONG: dict[str, Any] = {
    "data": {"view": {"randaugment": "rand-m5-mstd0.5"}},
    "mix": {"mixup": 0.1, "cutmix": 1.0},
    "label": {"loss": "bce"},
}
WEAK: dict[str, Any] = {"label": {"loss": "ce"}}


def train_teacher(bench: Bench) -> str:
    """A ResNet-10 at 64 px, from labels and from the semantic expert with a linear head; the teacher of the others."""
    os.environ["EYESPOT_SHARED"] = str(bench.shared)
    sys.path.insert(0, str(Path(__file__).parent))
    settings = merged(
        bench.basis(),
        {
            "teacher": "python/expert:probed",
            "student": {"model": [TEACHER], "method": ["kd"]},
            "data": {"view": STRONG["data"]["view"]},
            "label": {"loss": "ce"},
            "training": bench.training(600),
            "student_size": 64,
            "teacher_size": None,
        },
    )
    made = distill(build(VanillaKdConfig, settings, "teacher"), bench.work / "teacher")
    row = bench.measured({"teacher": f"run/{made}"}, ["classification"], 64)["teacher"]
    return f"{made}: top-1 {row['classification/top1']:.3f}"


def methods(bench: Bench) -> Results:
    """VanillaKD: gaps between methods by data and recipe. Equal numbers of updates in all cells."""
    results: Results = {}
    for per_class in (5, 26):
        for recipe, changes in (("weak", WEAK), ("strong", STRONG)):
            arms = {method: Arm(SMALL, method) for method in ("none", "kd", "dkd", "dist")}
            data = {"data": {"sources": [str(bench.fraction(per_class))]}}
            found = bench.run(f"methods-{per_class}-{recipe}", arms, merged(changes, data))
            results |= {f"{per_class} a class, {recipe}, {arm}": values for arm, values in found.items()}
    return results


def families(bench: Bench) -> Results:
    """OFA-KD: a token student of a CNN teacher, against KD and FitNet."""
    arms = {
        "none": Arm(TOKENS, "none"),
        "KD": Arm(TOKENS, "kd"),
        "FitNet": Arm(TOKENS, "fitnet"),
        "OFA, logits only, eps 1.4": Arm(TOKENS, "ofa", {"ofa_exponents": [1.4], "ofa_stage_weight": 0.0}),
        "OFA, eps 1.0, stages 1": Arm(TOKENS, "ofa", {"ofa_exponents": [1.0], "ofa_stage_weight": 1.0}),
        "OFA, eps 1.4, stages 1": Arm(TOKENS, "ofa", {"ofa_exponents": [1.4], "ofa_stage_weight": 1.0}),
        "OFA, eps 1.4, stages 0.1": Arm(TOKENS, "ofa", {"ofa_exponents": [1.4], "ofa_stage_weight": 0.1}),
    }
    settings = {"mix": {"label_smoothing": 0.1}, "training": bench.training(250, learning_rate=1e-3, clip_norm=5.0)}
    return bench.run("families", arms, settings)


def branches(bench: Bench) -> Results:
    """GhostNetV3 at width 0.5 and 32 px: branches and KD, then both with mixup or CutMix."""
    both = Arm(BRANCHED, "kd")
    arms = {
        "plain": Arm(PLAIN, "none"),
        "branches": Arm(BRANCHED, "none"),
        "KD": Arm(PLAIN, "kd"),
        "branches and KD": both,
    }
    settings = {
        "mix": {"label_smoothing": 0.1},
        "training": bench.training(200),
        "student_size": 32,
        "engine": {"precision": "32-true"},  # depthwise convolutions are slower in bfloat16 on CPUs
    }
    results = bench.run("branches", arms, settings)
    for name, mix in (("mixup", {"mixup": 0.8}), ("CutMix", {"cutmix": 1.0})):
        arm = f"branches, KD and {name}"
        results |= bench.run(f"branches-{name}", {arm: both}, merged(settings, {"mix": mix}))
    return results


def unlabelled(bench: Bench) -> Results:
    """The ONNX expert's 1,001 log-probabilities teach a compact CNN; nobody sees a label of Caltech-101."""
    model = {"student": Arm(TEACHER, "kd")}
    settings = {
        "teacher": f"onnx/{bench.shared}/teachers/semantic_mobilenetv2_in1k.onnx",
        "data": {"sources": [str(bench.pictures / part) for part in ("train", "unlabeled")]},
        "label": {"weight": 0.0},
        "student_size": 64,
        "teacher_size": None,
    }
    after = bench.run("unlabelled", model, merged(settings, {"training": bench.training(250)}))
    untrained = {f"{seed}": new_encoder(TEACHER, seed, "student").eval() for seed in bench.seeds}
    rows = bench.measured(untrained, ["knn", "linear"], 64)
    before = {key: [rows[f"{seed}"][key] for seed in bench.seeds] for key in rows[f"{bench.seeds[0]}"]}
    return {"before": before, "after": after["student"]}


EXPERIMENTS: dict[str, Callable[[Bench], Results]] = {
    "methods": methods,
    "families": families,
    "branches": branches,
    "unlabelled": unlabelled,
}
