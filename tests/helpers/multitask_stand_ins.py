"""Pictures that carry their own labels in their colours, and a model that reads them off."""

import torch

from eyespot.data.labelled.samples import MultiTaskSample
from eyespot.dense_tasks import IGNORE, dense_task
from eyespot.encoders.base import Encoder
from eyespot.features import Features

TASKS = {
    "segmentation": dense_task("classes", 3),
    "saliency": dense_task("saliency"),
    "boundary": dense_task("boundary", max_distance=0.02),
    "normals": dense_task("normals"),
    "depth": dense_task("depth"),
    "keypoints": dense_task("keypoints", 2),
}
DIRECTIONS = torch.tensor([[0.0, 0.0, -1.0], [0.28, 0.0, -0.96], [0.0, 1.0, 0.0]])
LINE, FIRST_POINT, SECOND_POINT = 255, 100, 50


def picture(index, size=(20, 28)):
    """uint8 [3, H, W]: red is the class, green depth and saliency, blue one boundary line and two key points."""
    height, width = size
    image = torch.zeros(3, height, width, dtype=torch.uint8)
    image[0, :, : 8 + index] = 60
    image[0, height // 2 :, 8 + index :] = 120
    image[1] = (20 + 9 * torch.arange(width)).clamp(max=255).to(torch.uint8)
    image[2, :, 8 + index] = LINE
    image[2, 3, 2 + index] = FIRST_POINT
    image[2, 15, 20 - index] = SECOND_POINT
    return image


def labels(image):
    """The true maps of a picture; its last row is not labelled, its points are bumps of one pixel."""
    red, green, blue = image.int()
    known = torch.ones_like(red, dtype=torch.bool)
    known[-1] = False
    classes = red // 60
    maps = {"segmentation": classes, "saliency": (green > 128).int(), "boundary": (blue == LINE).int()}
    return {
        **{name: torch.where(known, one, IGNORE).to(torch.uint8) for name, one in maps.items()},
        "normals": DIRECTIONS[classes].permute(2, 0, 1) * known,
        "depth": green / 50 * known,
        "keypoints": torch.stack([(blue == FIRST_POINT).float(), (blue == SECOND_POINT).float()]),
    }


class Coloured:
    """A `MultiTaskData` of such pictures.

    Args:
        count: how many.
        size: (height, width) of each.
        tasks: names of those that it is labelled for; all if None.
    """

    name = "coloured"

    def __init__(self, count=3, size=(20, 28), tasks=None):
        self.count, self.size = count, size
        self.tasks = {name: task for name, task in TASKS.items() if tasks is None or name in tasks}

    def __len__(self):
        return self.count

    def read(self, index):
        image = picture(index, self.size)
        return MultiTaskSample(image, {name: one for name, one in labels(image).items() if name in self.tasks})

    def picture_name(self, index):
        return f"picture {index}"

    def fingerprint(self):
        return f"coloured {self.count} {self.size} {list(self.tasks)}"


class PixelReader(Encoder):
    """A multi-task model that reads each pixel's labels off its colour.

    Args:
        tasks: what it answers; all if None.
        wrong: names of tasks of which it answers badly.
        native_size: see `Encoder`.
    """

    license = None

    def __init__(self, tasks=None, wrong=(), native_size=None, name="reader"):
        super().__init__(mean=(0.5, 0.5, 0.5))
        self.tasks = {task: TASKS[task] for task in tasks or TASKS}
        self.wrong, self.name, self.native_size = wrong, name, native_size
        self.stride, self.summary_dim, self.patch_dim, self.default_size = 8, 3, 3, native_size or (32, 32)
        self.seen = []
        self.scale = torch.nn.Parameter(torch.ones(()))

    def _encode(self, images):
        patches = torch.nn.functional.avg_pool2d(images, self.stride)
        return Features(patches.mean((2, 3)), patches)

    def named_outputs(self, images):
        assert not self.training and not torch.is_grad_enabled()
        outputs = super().named_outputs(images)
        self.seen.append(tuple(images.shape[2:]))
        red, green, blue = (255 * images * self.scale).round().int().unbind(1)
        classes = red // 60
        answers = {
            "segmentation": 20.0 * torch.stack([classes == number for number in range(3)], dim=1),
            "saliency": torch.stack([torch.zeros_like(green), 20 * (2 * green - 257)], dim=1).float(),
            "boundary": torch.where(blue == LINE, 9.0, -9.0)[:, None],
            "normals": 5 * DIRECTIONS[classes.clamp(max=2)].permute(0, 3, 1, 2),
            "depth": (green / 50)[:, None],
            "keypoints": 30.0 * torch.stack([blue == FIRST_POINT, blue == SECOND_POINT], dim=1) - 15,
        }
        for task in self.tasks:
            outputs[f"task_{task}"] = worse(answers[task]) if task in self.wrong else answers[task]
        return outputs


def worse(answer):
    """Channels in the wrong order; of one channel the negative."""
    return answer.flip(1) if answer.shape[1] > 1 else -answer
