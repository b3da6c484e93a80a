"""An own loss for classifiers: a method beside kd, dkd, dist, ofa, ..., under a name of yours."""

import sys

import torch.nn.functional as F
from torch import Tensor

from eyespot.config import build, merged
from eyespot.distill.classes.methods import METHODS, LogitMethod
from eyespot.distill.classes.outputs import ClassifierOutput
from eyespot.recipes.presets import read_settings
from eyespot.recipes.vanilla_kd import VanillaKdConfig, distill


class SquaredLogits(LogitMethod):
    """The squared error of logits whose mean has been taken away."""

    def losses(
        self, student: ClassifierOutput, teacher: ClassifierOutput, target: Tensor, picture: Tensor
    ) -> dict[str, Tensor]:
        """Named terms, to be summed; the label's own term is not among them."""
        ours, theirs = (
            logits.float() - logits.float().mean(1, keepdim=True) for logits in (student.logits, teacher.logits)
        )
        return {"squared": self.settings.weight * F.mse_loss(ours, theirs)}


METHODS["squared"] = SquaredLogits

if __name__ == "__main__":
    changes = {
        "teacher": "timm/test_resnet?pretrained=false&num_classes=6",
        "data": {"sources": ["toybox:16@64"]},
        "student": {"model": "timm/test_vit", "method": ["squared", "kd"]},
        "steps": 3,
        "training": {"batch_size": 8},
        "student_size": 32,
    }
    config = build(VanillaKdConfig, merged(read_settings("vanilla_kd", ["laptop"]), changes), "method.py")
    print(distill(config, sys.argv[1] if len(sys.argv) > 1 else "runs/method"))
