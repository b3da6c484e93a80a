"""Memory: what the shapes predict is what real steps take."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.profiler import ProfilerActivity, profile

from eyespot import load_encoder
from eyespot.distill.committee import Committee
from eyespot.distill.features.feature_distillation import FeatureDistillation
from eyespot.engine.config import EngineConfig
from eyespot.engine.units import checkpoint_activations, units_of
from eyespot.flops import flop_counter
from eyespot.plan.memory import Memory, largest_fitting, stage_memory
from eyespot.plan.meter import WorkCounter
from eyespot.plan.passes import ShapedStage
from eyespot.plan.shapes import ShapeWorld, StandIn
from eyespot.runs.outline import StageConfig, StageOutline

TEACHER = "timm/test_vit2?pretrained=false"
VIT, CNN = "timm/test_vit?pretrained=false", "timm/test_resnet?pretrained=false"
PICTURES, SIDE = 3, 64
CONVOLUTIONS = ("aten::convolution", "aten::convolution_backward")


def stage_of(*students: str, precision: Any = "32-true", checkpointing: bool = False, **settings: Any) -> ShapedStage:
    config = StageConfig(
        steps=10, batch_size=12, learning_rate=1e-3, adapter_width=32, student_sizes=(SIDE,), teacher_sizes=(SIDE,)
    )
    names = {f"student{number}": spec for number, spec in enumerate(students)}
    outline = StageOutline(name="s", students=names, teachers=(TEACHER,), config=replace(config, **settings))
    engine = EngineConfig(precision=precision, activation_checkpointing=checkpointing)
    return ShapedStage(ShapeWorld(), outline, {}, engine, "channel")


class RealStep:
    """The same step on real tensors: stand-ins as teachers, gradients dropped as soon as they are there."""

    def __init__(self, *students: str, precision: str = "32-true", checkpointing: bool = False) -> None:
        models = {f"student{number}": load_encoder(spec) for number, spec in enumerate(students)}
        self.task = FeatureDistillation(
            models,
            Committee({"teacher": StandIn(load_encoder(TEACHER))}),
            adapter_width=32,
            student_sizes=(SIDE,),
            teacher_sizes=(SIDE,),
        ).train()
        if checkpointing:
            checkpoint_activations(self.task)
        for weight in self.task.parameters():
            if weight.requires_grad:
                weight.register_post_accumulate_grad_hook(lambda weight: setattr(weight, "grad", None))
        self.batch = {"images": torch.zeros(PICTURES, 3, SIDE, SIDE, dtype=torch.uint8), "step": 0}
        self.bfloat16 = precision == "bf16-mixed"

    def forward(self) -> torch.Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=self.bfloat16):
            return self.task(self.batch)["loss"]

    def saved_bytes(self) -> int:
        """Distinct storages that autograd keeps, and the loss; told by autograd itself."""
        own = [*self.task.parameters(), *self.task.buffers()]
        known = {tensor.untyped_storage()._cdata for tensor in own}
        kept: dict[int, torch.UntypedStorage] = {}

        def see(tensor: torch.Tensor) -> torch.Tensor:
            if tensor.untyped_storage()._cdata not in known:
                kept[tensor.untyped_storage()._cdata] = tensor.untyped_storage()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(see, lambda tensor: tensor):
            loss = self.forward()
        kept[loss.untyped_storage()._cdata] = loss.untyped_storage()
        return sum(storage.nbytes() for storage in kept.values())

    def allocated_peak(self) -> int:
        """Most bytes that torch's allocator had handed out, told by the profiler.

        What a convolution takes and gives back while it runs is left out: how much that is depends on the processor
        (a bfloat16 one with AMX takes more than all activations here), and the plan does not see it.
        """
        with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as record:
            self.forward().backward()
        events = sorted(record.profiler.kineto_results.events(), key=lambda event: event.start_ns())
        convolutions = [(event.start_ns(), event.end_ns()) for event in events if event.name() in CONVOLUTIONS]
        now = most = 0
        for event in events:
            if event.name() == "[memory]":
                inside = any(start <= event.start_ns() <= end for start, end in convolutions)
                most = most if inside else max(most, now, now + event.nbytes())
                now += event.nbytes()
        return most


@pytest.mark.parametrize("students", [(VIT,), (CNN,), (VIT, CNN)], ids=["vit", "cnn", "both"])
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_activations_are_what_autograd_keeps(students: tuple[str, ...], precision: str) -> None:
    predicted = stage_of(*students, precision=precision).student_pass(PICTURES, SIDE, SIDE).activation_bytes
    kept = RealStep(*students, precision=precision).saved_bytes()
    assert predicted == kept if precision == "32-true" else predicted == pytest.approx(kept, rel=0.01)


@pytest.mark.parametrize("checkpointing", [False, True], ids=["plain", "checkpointed"])
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_peak_is_what_the_allocator_handed_out(precision: str, checkpointing: bool) -> None:
    settings: dict[str, Any] = dict(precision=precision, checkpointing=checkpointing)
    predicted, step = stage_of(VIT, **settings).student_pass(PICTURES, SIDE, SIDE).peak_bytes, RealStep(VIT, **settings)
    if checkpointing:  # each unit notes the random state, whatever the size of its tensors: nothing beside real ones
        predicted += len(units_of(step.task.students["student0"])) * torch.get_rng_state().nbytes
    assert predicted == pytest.approx(step.allocated_peak(), rel=0.03)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_a_step_on_shapes_is_the_step_on_numbers(checkpointing: bool) -> None:
    step = RealStep(VIT, checkpointing=checkpointing)
    with WorkCounter() as meter:
        loss = step.forward()
        kept, forward = meter.live, meter.flops
        loss.backward()
    predicted = stage_of(VIT, checkpointing=checkpointing).student_pass(PICTURES, SIDE, SIDE)
    assert predicted.activation_bytes == kept
    assert predicted.peak_bytes == pytest.approx(meter.peak, rel=0.03)
    assert PICTURES * predicted.forward_flops == forward
    assert PICTURES * predicted.backward_flops == meter.flops - forward


def test_the_meter_counts_what_torchs_counter_counts() -> None:
    step = RealStep(VIT, CNN)
    with flop_counter() as counter:
        step.forward().backward()
    with WorkCounter() as meter:
        step.forward().backward()
    assert meter.flops == counter.get_total_flops() > 0


def test_checkpointing_keeps_less_and_computes_the_blocks_again() -> None:
    shaped = stage_of(VIT)
    plain = shaped.student_pass(PICTURES, SIDE, SIDE)
    thrifty = stage_of(VIT, checkpointing=True).student_pass(PICTURES, SIDE, SIDE)
    assert thrifty.activation_bytes < 0.3 * plain.activation_bytes and thrifty.peak_bytes < 0.5 * plain.peak_bytes
    assert thrifty.forward_flops == plain.forward_flops
    again = thrifty.backward_flops - plain.backward_flops
    assert 0.6 * shaped.student_flops("student0", SIDE) < again < shaped.student_flops("student0", SIDE)


def test_the_teachers_pass_on_real_tensors() -> None:
    shaped = stage_of(VIT)
    committee = Committee({"teacher": load_encoder(TEACHER)})
    batch = {"images": torch.zeros(PICTURES, 3, SIDE, SIDE, dtype=torch.uint8)}
    with WorkCounter() as meter:
        committee(batch, SIDE)
    teachers = shaped.teacher_pass(PICTURES, SIDE)
    assert teachers.flops == {"test_vit2": meter.flops // PICTURES}
    assert teachers.peak_bytes == pytest.approx(meter.peak, rel=0.02)
    assert teachers.shapes == {"test_vit2": (64, 64, 4, 4)}
    assert teachers.statistics_bytes >= teachers.peak_bytes


@pytest.mark.parametrize("pictures", [1, 2, 5])
def test_operations_per_picture_do_not_depend_on_the_batch(pictures: int) -> None:
    shaped = stage_of(VIT)
    few, many = shaped.student_pass(2, SIDE, SIDE), shaped.student_pass(pictures, SIDE, SIDE)
    assert (few.forward_flops, few.backward_flops) == (many.forward_flops, many.backward_flops)
    assert shaped.teacher_pass(2, SIDE).flops == shaped.teacher_pass(pictures, SIDE).flops


def test_live_bytes_follow_views_and_the_last_reference() -> None:
    before = torch.zeros(100)
    with WorkCounter() as live:
        made = before + 1
        view = made[:10]
        assert live.live == 400
        del made
        assert live.live == 400
        del view
        assert live.live == 0
        before.mul_(2)
        before.view(10, 10)
    assert (live.live, live.peak) == (0, 400)


# Adding up


@pytest.mark.parametrize(("optimizer", "moments"), [("lamb", 2), ("sgd", 1), ("rmsprop", 2)])
def test_moments_are_those_of_the_optimizer(optimizer: str, moments: int) -> None:
    shaped, plain = stage_of(VIT, optimizer=optimizer), stage_of(VIT)
    of_teachers, of_students = shaped.teacher_pass(PICTURES, SIDE), shaped.student_pass(PICTURES, SIDE, SIDE)
    engine = EngineConfig(precision="32-true")
    memory, adamw = (stage_memory(stage, engine, 1, PICTURES, of_teachers, of_students) for stage in (shaped, plain))
    assert memory.moments == moments * memory.weights
    assert adamw.peak - memory.peak == adamw.moments - memory.moments


def test_a_device_holds_four_numbers_per_weight_and_shares_what_is_cut() -> None:
    shaped = stage_of(VIT, ema_decay=0.9)
    of_teachers, of_students = shaped.teacher_pass(PICTURES, SIDE), shaped.student_pass(PICTURES, SIDE, SIDE)
    weights = 4 * shaped.trained_parameters

    def memory(gpus: int, **settings: Any) -> Memory:
        return stage_memory(
            shaped, EngineConfig(precision="32-true", **settings), gpus, PICTURES, of_teachers, of_students
        )

    alone, ddp, fsdp = memory(1), memory(4), memory(4, strategy="fsdp")
    assert (alone.weights, alone.gradients, alone.moments, alone.exchange) == (weights, weights, 2 * weights, 0)
    assert alone.average == shaped.students["student0"].weight_bytes < weights
    teacher = load_encoder(TEACHER)
    tensors = [*teacher.parameters(), *teacher.buffers()]
    assert alone.teachers == sum(tensor.numel() * tensor.element_size() for tensor in tensors)
    assert alone.batch == 12 * 3 * SIDE**2 and ddp.batch == alone.batch // 4
    assert ddp.weights == weights and ddp.exchange == weights
    assert fsdp.weights == weights // 4 and fsdp.moments == weights // 2 and fsdp.average == alone.average // 4
    assert fsdp.exchange == 2 * 4 * shaped.largest_unit < ddp.exchange
    assert (
        fsdp.teachers == ddp.teachers and memory(4, strategy="fsdp", shard_teachers=True).teachers == ddp.teachers // 4
    )
    for one in (alone, ddp, fsdp):
        staying = one.weights + one.gradients + one.moments + one.average + one.exchange + one.teachers + one.batch
        assert one.peak == staying + one.activations + one.passing
        assert one.passing >= 0 and one.needed >= one.peak


@given(
    lines=st.lists(st.tuples(st.integers(0, 500), st.integers(1, 50)), min_size=1, max_size=4),
    pictures=st.integers(2, 300),
    limit=st.integers(1, 20000),
)
def test_what_fits_fits(lines: list[tuple[int, int]], pictures: int, limit: int) -> None:
    memory_of = bent(lines)
    found = largest_fitting(memory_of, pictures, limit)
    if found is None:
        assert memory_of(2).needed > limit
    else:
        assert found.needed <= limit and 1 <= found.pictures <= pictures
    if len(lines) == 1 and found is not None and found.pictures < pictures:
        assert memory_of(found.pictures + 1).needed > limit  # a straight line is followed exactly


def bent(lines: list[tuple[int, int]]) -> Callable[[int], Memory]:
    def memory_of(pictures: int) -> Memory:
        peak = max(fixed + slope * pictures for fixed, slope in lines)
        return Memory(pictures, 0, 0, 0, 0, 0, 0, 0, 0, 0, peak, 0)

    return memory_of
