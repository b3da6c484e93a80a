"""A kind of encoder that the library does not know, as somebody else would write it: one file, nothing registered."""

import torch.nn.functional as F
from torch import nn

from eyespot import Encoder, Features
from eyespot.dense_tasks import dense_task
from eyespot.encoders.kinds import build_encoder, config_of


class MirroredEncoder(Encoder):
    """Any network that looks at the mirrored picture too, with a head that tells what catches the eye.

    Args:
        network: looks at the pictures.
        mirrored: whether it looks twice; can be switched later.
    """

    def __init__(self, network, mirrored=True):
        super().__init__(network.mean.flatten().tolist(), network.std.flatten().tolist())
        self.name, self.license, self.origin = network.name, network.license, network.origin
        self.summary_dim, self.patch_dim, self.stride = network.summary_dim, network.patch_dim, network.stride
        self.native_size, self.default_size = network.native_size, network.default_size
        self.network, self.mirrored = network, mirrored
        self.head = nn.Conv2d(self.patch_dim, 2, 1)
        self.tasks = {"saliency": dense_task("saliency")}

    def _encode(self, images):
        seen = self.network._encode(images)
        if not self.mirrored:
            return seen
        again = self.network._encode(images.flip(3))
        return Features((seen.summary + again.summary) / 2, (seen.patches + again.patches.flip(3)) / 2)

    def named_outputs(self, images):
        outputs = super().named_outputs(images)
        answer = F.interpolate(self.head(outputs["patches"]), size=images.shape[2:], mode="bilinear")
        return {**outputs, "task_saliency": answer}

    def get_config(self, license=None):
        config = super().get_config(license)
        config["eyespot"]["mirror"] = {"network": config_of(self.network, license), "on": self.mirrored}
        return config

    @classmethod
    def from_config(cls, config):
        facts = config["eyespot"]["mirror"]
        return cls(build_encoder(facts["network"]), facts["on"])

    def run_time_form(self):
        return self._copy_in_run_time_form({self.network: self.network.run_time_form()})

    def export_form(self):
        copied = self._shallow_copy()
        copied.network = self.network.export_form()
        return copied

    def setting(self, features_only=False):
        return {"mirrored": self.mirrored}
