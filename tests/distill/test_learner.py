"""Learner: how its student's attention is computed. What it learns is tested with its Task."""

import pytest
import torch

from eyespot import Encoder, Features
from eyespot.distill.learner import FeatureLearner


class Watching(Encoder):
    """Remembers whether PyTorch may use its fused attention."""

    name, license, stride, native_size, default_size = "watching", None, 16, None, (32, 32)
    summary_dim = patch_dim = 3

    def _encode(self, images):
        self.fused = torch.backends.cuda.flash_sdp_enabled()
        return Features(images.mean((2, 3)), images[..., ::16, ::16])


@pytest.mark.parametrize(("bfloat16", "size", "fused"), [(False, 32, True), (True, 32, False), (True, 320, True)])
def test_students_go_round_the_slow_kernel_of_cpus_in_bfloat16(bfloat16, size, fused):
    student = Watching()
    learner = FeatureLearner(student, 4, {"teacher": (3, 3)})
    targets = {"teacher": Features(torch.randn(2, 3), torch.randn(2, 3, 2, 2))}
    with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
        learner(torch.rand(2, 3, 32, 32), size, targets)
    assert student.fused is fused
    assert torch.backends.cuda.flash_sdp_enabled()
