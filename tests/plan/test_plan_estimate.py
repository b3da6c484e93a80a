"""The plan as a whole: what doubles, what halves, what fits, what is said where something is unknown."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from eyespot.config import build
from eyespot.data import DataConfig
from eyespot.distill.cache import CacheConfig
from eyespot.engine.config import EngineConfig
from eyespot.plan import HARDWARE, Hardware, Plan, UnseenModelError, find_hardware, make_plan
from eyespot.plan.storage import cache_row_bytes, count_pictures
from eyespot.recipes import RECIPES
from eyespot.recipes.presets import read_settings
from eyespot.runs.outline import StageConfig, StageOutline

TEACHER, STUDENT = "timm/test_vit2?pretrained=false", "timm/test_vit?pretrained=false"
DEVICE = Hardware(name="toy", memory_gib=1, bf16_tflops=2, fp32_tflops=1, teacher_utilisation=0.5)
SETTINGS: dict[str, Any] = dict(
    steps=100, batch_size=8, learning_rate=1e-3, adapter_width=16, student_sizes=(32,), statistics_steps=10
)


def outline(teachers: tuple[str, ...] = (TEACHER,), cached: bool = False, **settings: Any) -> StageOutline:
    config = StageConfig(**{**SETTINGS, **settings})
    return StageOutline(name="s", students={"student": STUDENT}, teachers=teachers, config=config, cached=cached)


@pytest.fixture(scope="module")
def plain() -> Plan:
    return plan_of()


def plan_of(*stages: StageOutline, data: DataConfig | None = None, engine: Any = None, **options: Any) -> Plan:
    options = {"hardware": DEVICE, **options}
    source = data or DataConfig(sources=["toybox:50"])
    return make_plan(stages or (outline(),), source, engine or EngineConfig(precision="32-true"), **options)


def test_twice_the_batch_is_twice_the_work(plain: Plan) -> None:
    once, twice = plain.stages[0], plan_of(outline(batch_size=16)).stages[0]
    assert (twice.flops, twice.hours) == pytest.approx((2 * once.flops, 2 * once.hours))
    assert twice.step_seconds == pytest.approx(2 * once.step_seconds)
    assert twice.pictures_read == 2 * once.pictures_read == 1600


def test_devices_share_the_time_and_not_the_hours(plain: Plan) -> None:
    alone, four = plain, plan_of(gpus=4)
    assert four.hours == pytest.approx(alone.hours) and four.flops == alone.flops
    assert four.stages[0].step_seconds == pytest.approx(alone.stages[0].step_seconds / 4)
    assert four.as_json()["total"]["wall_hours"] == pytest.approx(alone.hours / 4)
    assert four.stages[0].memory.pictures == 2


def test_hours_are_operations_over_what_the_device_does(plain: Plan) -> None:
    stage = plain.stages[0]
    teaching = (800 + 10 * 8) * stage.teacher_flops
    learned = 800 * (stage.forward_flops + stage.backward_flops)
    assert stage.teacher_hours == pytest.approx(teaching / (1e12 * 0.5) / 3600)
    assert stage.student_hours == pytest.approx(learned / (1e12 * DEVICE.training_utilisation) / 3600)
    assert stage.flops == pytest.approx(teaching + learned)


def test_bfloat16_goes_by_its_own_peak(plain: Plan) -> None:
    half = plan_of(engine=EngineConfig(precision="bf16-mixed"))
    # Attention takes other ways in bfloat16, with a few operations more or less.
    assert half.hours == pytest.approx(plain.hours / 2, rel=1e-3) and half.flops == pytest.approx(plain.flops, rel=1e-3)


@pytest.mark.slow
def test_several_sizes_are_averaged_on_each_side() -> None:
    def stage(students: tuple[int, ...], teachers: tuple[int, ...]) -> Any:
        return plan_of(outline(student_sizes=students, teacher_sizes=teachers)).stages[0]

    mixed, small, large = stage((32, 64), (32, 96)), stage((32,), (32,)), stage((64,), (96,))
    assert mixed.teacher_flops == pytest.approx((small.teacher_flops + large.teacher_flops) / 2)
    # Resizing maps onto one another takes operations too, which depend on both sizes.
    assert mixed.forward_flops == pytest.approx((small.forward_flops + large.forward_flops) / 2, rel=2e-3)
    assert mixed.memory.activations == large.memory.activations  # memory is that of the largest
    assert mixed.teachers["test_vit2"].sizes == ((32, 32), (96, 96))


def test_several_students_share_the_teachers(plain: Plan) -> None:
    two = replace(outline(), students={"a": STUDENT, "b": "timm/test_resnet?pretrained=false"})
    alone, both = plain.stages[0], plan_of(two).stages[0]
    assert both.teacher_hours == alone.teacher_hours
    assert both.student_hours > alone.student_hours and set(both.students) == {"a", "b"}
    assert both.memory.weights > alone.memory.weights


def test_a_later_stage_is_taught_by_what_an_earlier_one_makes(plain: Plan) -> None:
    first = replace(outline(), name="first", students={"student": TEACHER})
    second = replace(outline(("stage:first",)), name="second")
    stages = plan_of(first, second).stages
    assert stages[1].teachers["first"].spec == TEACHER
    assert stages[1].teacher_flops == plain.stages[0].teacher_flops
    assert stages[1].cache is None and stages[0].cache is not None


def test_what_does_not_fit_gets_a_smaller_micro_batch_or_an_honest_no() -> None:
    big = outline(batch_size=2048, student_sizes=(64,), teacher_sizes=(32,))
    fits = plan_of(big, hardware=replace(DEVICE, memory_gib=64)).stages[0]
    assert fits.fitting == fits.memory and fits.accumulate == 1
    tight = plan_of(big, hardware=replace(DEVICE, memory_gib=0.5)).stages[0]
    assert tight.memory.needed > 0.5 * 2**30 * 0.9 >= tight.fitting.needed  # type: ignore[union-attr]
    assert tight.accumulate == -(-2048 // tight.fitting.pictures) > 1  # type: ignore[union-attr]
    never = plan_of(big, hardware=replace(DEVICE, memory_gib=0.005))
    assert never.stages[0].fitting is None and never.stages[0].accumulate is None and not never.fits


def test_accumulation_and_a_token_budget_set_the_micro_batch(plain: Plan) -> None:
    assert plan_of(outline(accumulate=4)).stages[0].memory.pictures == 2
    budget = EngineConfig(precision="32-true", max_tokens=200)  # the teacher sees 10 x 10 patches at 160 pixels
    assert plan_of(outline(), engine=budget).stages[0].memory.pictures == 2
    assert plan_of(outline(), engine=budget).flops == plain.flops


@pytest.mark.parametrize("standardizer", ["none", "ema", "phi_s"])
def test_only_phi_s_costs_operations(plain: Plan, standardizer: str) -> None:
    more = plan_of(standardizer=standardizer).stages[0].teacher_flops - plain.stages[0].teacher_flops
    width, patches = 64, 100
    assert more == (2 * width**2 * (1 + patches) if standardizer == "phi_s" else 0)


def test_the_pass_before_training_comes_in_micro_batches_too() -> None:
    whole, split = plan_of(outline(batch_size=64)).stages[0], plan_of(outline(batch_size=64, accumulate=8)).stages[0]
    assert split.memory.activations < whole.memory.activations
    assert split.memory.statistics_peak < whole.memory.statistics_peak


# Storage


def test_a_cache_pays_if_its_features_are_used_more_than_once() -> None:
    data = DataConfig(sources=["toybox:50"], views=2)
    live, kept = plan_of(data=data).stages[0], plan_of(outline(cached=True), data=data).stages[0]
    assert live.cache is not None and kept.cache is not None
    assert kept.cache.plan.rows == 100 and kept.cache.used and not live.cache.used
    one_pass = 100 * kept.teacher_flops / (1e12 * 0.5) / 3600
    assert kept.cache.fill_hours == kept.teacher_hours == pytest.approx(one_pass)
    assert kept.cache.saved_hours == pytest.approx(live.teacher_hours - one_pass) and one_pass < live.teacher_hours


@pytest.mark.parametrize(
    ("config", "bytes_"),
    [
        (CacheConfig(), 2 * 12 + 2 * 40 * 9),
        (CacheConfig(store="float16"), 2 * 12 + 2 * 40 * 9),
        (CacheConfig(store="int8"), 2 * 12 + 40 * 9 + 40 * 8),
        (CacheConfig(rank=16), 2 * 12 + 2 * 16 * 9),
        (CacheConfig(rank=99), 2 * 12 + 2 * 40 * 9),
    ],
)
def test_bytes_of_a_cached_row(config: CacheConfig, bytes_: int) -> None:
    assert (
        24 <= cache_row_bytes((12, 40, 3, 3), config) - bytes_ < 24 + 8
    )  # numbers of row and picture, checksum, alignment


def test_local_pictures_are_counted_and_measured(tmp_path: Path) -> None:
    for number, side in enumerate((20, 200)):
        Image.effect_noise((side, side), 80).convert("RGB").save(tmp_path / f"{number}.png")
    sizes = [file.stat().st_size for file in tmp_path.iterdir()]
    known = count_pictures(DataConfig(sources=[str(tmp_path)]), None, None)
    assert (known.count, known.mean_bytes) == (2, sum(sizes) / 2)
    mixed = DataConfig(sources=[str(tmp_path), "toybox:8"], weights=[1, 3])
    known = count_pictures(mixed, None, None)
    assert (known.count, known.mean_bytes) == (10, sum(sizes) / 8)  # toybox pictures are made, not read
    assert plan_of(data=mixed).stages[0].picture_bytes == 800 * sum(sizes) / 8


def test_pictures_elsewhere_are_unknown_until_told() -> None:
    away = DataConfig(sources=["/not/here"])
    unknown, given = plan_of(data=away), plan_of(data=away, pictures=7, picture_bytes=100)
    assert unknown.stages[0].picture_bytes is None and "/not/here" in unknown.notes[0]
    assert unknown.stages[0].cache.plan.bytes is None  # type: ignore[union-attr]
    assert given.stages[0].picture_bytes == 80_000 and given.stages[0].cache.plan.rows == 7  # type: ignore[union-attr]


# The paper's scale


@pytest.fixture(scope="module")
def paper() -> Plan:
    recipe = RECIPES["eupe"]
    config = build(recipe.config_class, read_settings("eupe", ["paper"]), "paper")
    return make_plan(recipe.outline(config), config.data, config.engine, hardware=HARDWARE["h100"], gpus=64)


@pytest.mark.slow
def test_the_papers_numbers_by_hand(paper: Plan) -> None:
    proxy, student, multires = paper.stages
    assert proxy.students["student"].parameters == pytest.approx(1.84e9, rel=0.01)
    assert [round(facts.parameters / 1e9, 2) for facts in proxy.teachers.values()] == [1.88, 1.74, 0.84]
    assert [facts.sizes for facts in proxy.teachers.values()] == [((448, 448),), ((448, 448),), ((256, 256),)]
    # ViT-B/16 at 256: 84.9 M weights x 261 tokens x 2, attention, patches; heads 768 -> 3072 -> 1664 on 256 patches + 1
    assert student.students["student"].forward_flops == 47_149_092_864
    assert student.forward_flops == 47_149_092_864 + 2 * 257 * 3072 * (768 + 1664)
    assert student.pictures_read == 390_000 * 8192 and multires.pictures_read == 100_000 * 4096
    # the proxy as student in stage 1 is the teacher of stage 2, at the same size
    assert student.teacher_flops == pytest.approx(proxy.students["student"].forward_flops)
    assert 1.9 < student.backward_flops / student.forward_flops < 2.1
    # a forward pass is about 2 x parameters x tokens and attention on top
    assert 1.0 < student.teacher_flops / (2 * 1.84e9 * 261) < 1.15
    assert multires.teacher_flops > 2 * student.teacher_flops  # 256, 384 and 512 pixels in place of 256
    assert student.flops == pytest.approx(
        390_000 * 8192 * (student.teacher_flops + 3.02 * student.forward_flops), rel=0.01
    )


@pytest.mark.slow
def test_the_papers_hours_and_memory_are_sane(paper: Plan) -> None:
    proxy, student, multires = paper.stages
    assert 10_000 < proxy.hours < 60_000 and 1_000 < student.hours < 6_000 and 300 < multires.hours < 2_000
    assert proxy.memory.needed > 80 * 2**30 and proxy.accumulate is not None and proxy.accumulate > 1
    assert proxy.memory.moments == 2 * proxy.memory.weights > 2 * 4 * 1.84e9
    assert all(stage.fitting is not None for stage in (student, multires)) and student.accumulate == 1
    json.dumps(paper.as_json())


# Mistakes


def test_refusals(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no stage to plan"):
        make_plan([], DataConfig(), EngineConfig(), hardware=DEVICE)
    with pytest.raises(ValueError, match="--gpus must be at least 1"):
        plan_of(gpus=0)
    with pytest.raises(ValueError, match="cannot be divided among 3"):
        plan_of(gpus=3)
    with pytest.raises(ValueError, match="must be positive"):
        plan_of(pictures=0)
    with pytest.raises(ValueError, match="no hardware 'h10'; did you mean 'h100'"):
        find_hardware("h10")
    with pytest.raises(FileNotFoundError, match="memory_gib"):
        find_hardware(str(tmp_path / "mine.yaml"))


@pytest.mark.parametrize("spec", ["hf/nobody/nothing", "torchhub/nobody/nothing:entry", "openvino/model.xml"])
def test_models_elsewhere_are_not_fetched_and_a_stand_in_helps(plain: Plan, spec: str) -> None:
    with pytest.raises(UnseenModelError, match="--stand-in"):
        plan_of(outline((spec,)))
    given = plan_of(outline((spec,)), stand_ins={spec: TEACHER})
    assert given.flops == plain.flops and any("shape of" in note for note in given.notes)


def test_hardware_of_ones_own(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("name: mine\nmemory_gib: 10\nbf16_tflops: 100\nfp32_tflops: 20\ntraining_utilisation: 0.2\n")
    mine = find_hardware(str(file))
    assert (mine.peak(True), mine.peak(False), mine.training_utilisation) == (1e14, 2e13, 0.2)
    file.write_text("name: mine\nmemory: 10\nbf16_tflops: 100\nfp32_tflops: 20\n")
    with pytest.raises(ValueError, match="did you mean 'memory_gib'"):
        find_hardware(str(file))
    file.write_text("- h100")
    with pytest.raises(ValueError, match="must hold settings"):
        find_hardware(str(file))


def test_the_table_is_in_order() -> None:
    for device in HARDWARE.values():
        assert device.bf16_tflops > device.fp32_tflops and device.source.startswith("NVIDIA")
    assert HARDWARE["h100"].bf16_tflops / HARDWARE["a100"].bf16_tflops == pytest.approx(3.17, abs=0.01)
