"""One training step of a stage, run on shapes alone: its operations by part, and the memory it needs.

What runs is the training's own code (`Committee`, `FeatureDistillation`), so a plan cannot drift away from it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from eyespot.distill.committee import Committee
from eyespot.distill.features.feature_distillation import FeatureDistillation
from eyespot.distill.features.standardizers import FeatureStandardizer
from eyespot.encoders.naming import short_names
from eyespot.engine.config import EngineConfig
from eyespot.engine.units import checkpoint_activations, units_of
from eyespot.pictures import as_unit_floats
from eyespot.plan.meter import WorkCounter
from eyespot.plan.shapes import ShapeWorld, StandIn
from eyespot.runs.outline import StageOutline

EARLIER_STAGE = "stage:"


@dataclass(frozen=True)
class TeacherPass:
    """What the committee costs for one micro-batch at one size.

    Attributes:
        flops: operations per picture of each teacher, its targets' standardizer included.
        shapes: (C, D, rows, columns) of what each teacher hands on.
        peak_bytes: most memory beside weights and pictures while they look.
        statistics_bytes: the same in the pass over the data before training, which sums in float64.
    """

    flops: dict[str, int]
    shapes: dict[str, tuple[int, int, int, int]]
    peak_bytes: int
    statistics_bytes: int


@dataclass(frozen=True)
class StudentPass:
    """What the students and their heads cost for one micro-batch at one size, the targets being there.

    Attributes:
        forward_flops: operations per picture of the forward pass.
        backward_flops: of the backward pass; with activation checkpointing, what is computed again is in it.
        activation_bytes: alive between forward and backward pass beside weights, gradients and pictures.
        peak_bytes: most memory beside weights, gradients and pictures.
    """

    forward_flops: int
    backward_flops: int
    activation_bytes: int
    peak_bytes: int


class ShapedStage:
    """A stage whose models are shapes.

    Args:
        world: where models are looked up.
        outline: the stage.
        made: specs of what earlier stages make, by stage name.
        engine: precision and activation checkpointing.
        standardizer: kind of the targets' standardizer.

    Attributes:
        teachers: by name.
        students: by name.
        task: what is trained, with stand-ins in place of the teachers.
        view: side of the views in pixels; as large as anybody looks at.

    Raises:
        UnseenModelError: a model is not on this machine; says how to go on.
    """

    def __init__(
        self, world: ShapeWorld, outline: StageOutline, made: Mapping[str, str], engine: EngineConfig, standardizer: str
    ) -> None:
        self.world, self.config = world, outline.config
        self.bfloat16 = engine.precision == "bf16-mixed"
        specs = [made.get(spec.removeprefix(EARLIER_STAGE), spec) for spec in outline.teachers]
        self.teachers = {
            name: world.teacher(spec) for name, spec in zip(short_names(outline.teachers), specs, strict=True)
        }
        self.students = {name: world.student(spec) for name, spec in outline.students.items()}
        # The moving average of "ema" reads numbers, which shapes have not; its operations are those of "channel".
        self._standardizer = "channel" if standardizer == "ema" else standardizer
        self._max_grid = outline.max_grid
        self._teacher_passes: dict[tuple[int, int | None], TeacherPass] = {}
        self._student_passes: dict[tuple[int, int, int | None], StudentPass] = {}
        with world.mode:
            self.task = self._make_task()
            if engine.activation_checkpointing:
                checkpoint_activations(self.task)
        self.view = self._view(outline)

    def _make_task(self) -> FeatureDistillation:
        stand_ins = {name: StandIn(model.encoder) for name, model in self.teachers.items()}
        task = FeatureDistillation(
            {name: model.encoder for name, model in self.students.items()},
            Committee(stand_ins, self._max_grid),
            adapter_width=self.config.adapter_width,
            student_sizes=self.config.student_sizes,
            teacher_sizes=self.config.teacher_sizes,
        )
        for parameter in task.parameters():
            if parameter.requires_grad:
                parameter.register_post_accumulate_grad_hook(_drop_gradient)
        task.train()
        return task

    def _view(self, outline: StageOutline) -> int:
        sides = [model.encoder.fitting_size(side) for model in self.teachers.values() for side in self.teacher_sizes]
        for model in self.students.values():
            own = {*outline.view_sizes, *self.config.student_sizes}
            sides += [model.encoder.fitting_size(side) for side in own]
        return max(max(side) for side in sides)

    @property
    def teacher_sizes(self) -> tuple[int | None, ...]:
        """What teachers look at; None is each one's default size."""
        return self.config.teacher_sizes or (None,)

    @property
    def trained_parameters(self) -> int:
        """Of students and heads."""
        return sum(parameter.numel() for parameter in self.task.parameters() if parameter.requires_grad)

    @property
    def largest_unit(self) -> int:
        """Parameters of the largest unit that FSDP gathers at a time."""
        sizes = [sum(weight.numel() for weight in unit.parameters()) for unit in units_of(self.task.learners)]
        return max(sizes, default=0)

    def tokens(self, size: int, teacher_size: int | None) -> int:
        """Tokens per picture that `engine.max_tokens` counts in a step of these sizes."""
        self._set_sizes(size, teacher_size)
        return self.task.tokens({"step": 0})

    def _set_sizes(self, size: int, teacher_size: int | None) -> None:
        self.task.student_sizes = (size,)
        self.task.teacher_sizes = () if teacher_size is None else (teacher_size,)

    def teacher_pass(self, pictures: int, size: int | None) -> TeacherPass:
        """The committee's forward pass.

        Args:
            pictures: in the micro-batch.
            size: wanted side for teachers that take any; None is each one's default.
        """
        key = (pictures, size)
        if key not in self._teacher_passes:
            self._teacher_passes[key] = self._teacher_pass(*key)
        return self._teacher_passes[key]

    @torch.no_grad()
    def _teacher_pass(self, pictures: int, size: int | None) -> TeacherPass:
        flops, shapes, seen, standardizers = {}, {}, [], []
        with self.world.mode:
            committee = Committee({name: model.encoder for name, model in self.teachers.items()}, self._max_grid)
            batch = torch.empty(pictures, 3, self.view, self.view, dtype=torch.uint8)
            with WorkCounter() as looking, self._autocast():
                images = as_unit_floats(batch)
                for name, model in self.teachers.items():
                    before = looking.flops
                    features = committee.look(model.encoder, images, size)
                    dims = (model.encoder.summary_dim, model.encoder.patch_dim)
                    standardizers.append(FeatureStandardizer(self._standardizer, dims))
                    standardizers[-1](features)
                    seen.append(features)
                    flops[name] = (looking.flops - before) // pictures
                    flops[name] += model.flops_in_file(size)
                    shapes[name] = (features.summary.shape[1], *features.patches.shape[1:])
            with WorkCounter() as observing:
                for features, standardizer in zip(seen, standardizers, strict=True):
                    standardizer.observe(features)
        return TeacherPass(flops, shapes, looking.peak, max(looking.peak, looking.live + observing.peak))

    def student_pass(self, pictures: int, size: int, teacher_size: int | None) -> StudentPass:
        """Forward and backward pass of students, heads and losses; the targets are there and cost nothing.

        Args:
            pictures: in the micro-batch.
            size: wanted side of the students' pictures.
            teacher_size: that of the teachers', for the grids of the targets.
        """
        key = (pictures, size, teacher_size)
        if key not in self._student_passes:
            self._student_passes[key] = self._student_pass(*key)
        return self._student_passes[key]

    def _student_pass(self, pictures: int, size: int, teacher_size: int | None) -> StudentPass:
        self._set_sizes(size, teacher_size)
        with self.world.mode:
            batch = {"images": torch.empty(pictures, 3, self.view, self.view, dtype=torch.uint8), "step": 0}
            with WorkCounter() as meter:
                with self._autocast():
                    loss = self.task(batch)["loss"]
                forward, kept = meter.flops, meter.live
                loss.backward()
        return StudentPass(forward // pictures, (meter.flops - forward) // pictures, kept, meter.peak)

    def _autocast(self) -> torch.autocast:
        return torch.autocast("cpu", dtype=torch.bfloat16, enabled=self.bfloat16)

    @torch.no_grad()
    def student_flops(self, name: str, size: int) -> int:
        """Operations of one student's own forward pass for one picture, without heads."""
        encoder = self.students[name].encoder
        with self.world.mode, WorkCounter() as meter:
            encoder(torch.empty(2, 3, *encoder.fitting_size(size)))
        return meter.flops // 2


def _drop_gradient(parameter: Tensor) -> None:
    """Gradients are counted once, as a whole, and not among the activations."""
    parameter.grad = None
