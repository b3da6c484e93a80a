"""Which attention kernel an encoder uses."""

import pytest
import torch

from eyespot import Encoder, Features


class Watching(Encoder):
    """Remembers whether PyTorch may use its fused attention."""

    name, license, stride, native_size, default_size = "watching", None, 16, None, (32, 32)
    summary_dim = patch_dim = 3

    def _encode(self, images):
        self.fused = torch.backends.cuda.flash_sdp_enabled()
        return Features(images.mean((2, 3)), images[..., ::16, ::16])


@pytest.mark.parametrize(
    ("bfloat16", "size", "training", "fused"),
    [(False, 32, True, True), (True, 32, True, False), (True, 320, True, True), (True, 32, False, True)],
)
def test_training_goes_round_the_slow_kernel_of_cpus_in_bfloat16(bfloat16, size, training, fused):
    encoder = Watching()
    with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16), torch.set_grad_enabled(training):
        encoder(torch.rand(2, 3, size, size))
    assert encoder.fused is fused
    assert torch.backends.cuda.flash_sdp_enabled()
