"""Path training: which terms there are, what they are made of, who gets gradients, and what stays frozen."""

import copy
from functools import cache

import pytest
import torch
import torch.nn.functional as F

from eyespot import load_encoder
from eyespot.dense_tasks import IGNORE, dense_task
from eyespot.encoders import save_encoder
from eyespot.encoders.multitask import make_multitask_encoder
from eyespot.encoders.sources.timm import create_timm_encoder
from eyespot.engine.config import OptimConfig
from eyespot.engine.optim import make_optimizer
from eyespot.engine.trainer import split_batch
from eyespot.recipes.sak.dense_losses import DENSE_LOSSES
from eyespot.recipes.sak.level_teachers import LevelTeachers
from eyespot.recipes.sak.path_losses import path_loss
from eyespot.recipes.sak.path_training import LevelAligners, MultiTaskStudent, PathTraining
from toy_encoders import ToyEncoder

WIDTH = 16
TASKS = {"segmentation": dense_task("classes", 3), "boundary": dense_task("boundary"), "depth": dense_task("depth")}
TEACHERS = ("narrow", "wide")
PARTS = ("weight", "bias")


@cache  # building one takes longer than all that is done with it here
def made_once(width, seed):
    args = {"img_size": 32, "patch_size": 8, "embed_dim": width, "depth": 4, "num_heads": 2}
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(seed)
        return create_timm_encoder("vit_tiny_patch16_224", pretrained=False, **args)


def vit(width=WIDTH, seed=0):
    return copy.deepcopy(made_once(width, seed))


def student(paths=TEACHERS, tasks=TASKS, **options):
    stem = vit(seed=1)
    torch.manual_seed(1)
    return make_multitask_encoder(stem, paths, tasks, **options)


def teachers():
    """One as wide as the student, a wider one; both of four levels."""
    return LevelTeachers({"narrow": vit(seed=2), "wide": vit(24, seed=3)})


def batch(count=2, size=(32, 48), labels=True, key=0):
    generator = torch.Generator().manual_seed(key)
    images = torch.randint(0, 256, (count, 3, *size), dtype=torch.uint8, generator=generator)
    if not labels:
        return {"images": images, "labels": torch.zeros(count, dtype=torch.int64), "step": 0}
    segmentation = torch.randint(0, 3, (count, *size), dtype=torch.uint8, generator=generator)
    segmentation[:, :4] = IGNORE
    boundary = torch.randint(0, 2, (count, *size), dtype=torch.uint8, generator=generator)
    maps = {"segmentation": segmentation, "boundary": boundary, "depth": torch.rand(count, *size, generator=generator)}
    return {"images": images, "maps": maps, "step": 0}


def level_terms(names=TEACHERS):
    return {f"{name}/level-{level}" for name in names for level in range(4)}


def gradients(task):
    return {name for name, weight in task.named_parameters() if weight.grad is not None and weight.grad.any()}


def test_stage_one_sums_over_teachers_and_levels():
    """Each path against its own teacher through its own aligner, weighted by alpha, not averaged."""
    encoder, experts = student(tasks={}), teachers()
    task = PathTraining(MultiTaskStudent(encoder), experts, alpha=0.5)
    terms = task(batch(labels=False))
    assert terms.keys() == {"loss"} | level_terms()
    images = batch(labels=False)["images"].float() / 255
    shown, looked, total = experts(images), encoder.look(images), 0
    aligners = task.learner("student").aligners
    for name in TEACHERS:
        for level in range(4):
            ours = looked.paths[name][level]
            if name == "wide":
                linear = aligners[name][str(level)]
                ours = F.linear(ours.movedim(1, -1), linear.weight, linear.bias).movedim(-1, 1)
            wanted = 0.5 * path_loss(ours, shown[name][level])
            torch.testing.assert_close(terms[f"{name}/level-{level}"], wanted)
            total = total + wanted
    torch.testing.assert_close(terms["loss"], total)
    assert not aligners["narrow"].state_dict() and len(aligners["wide"]) == 4


def test_stage_two_adds_the_weighted_tasks():
    task = PathTraining(MultiTaskStudent(student()), teachers()).eval()
    whole = batch()
    terms = task(whole)
    assert terms.keys() == {"loss"} | level_terms() | {f"task/{name}" for name in TASKS}
    encoder = task.learner("student").encoder
    outputs = encoder.predict(whole["images"].float() / 255)
    for name, kind in TASKS.items():
        wanted = kind.weight * DENSE_LOSSES[kind.kind](outputs[name], whole["maps"][name])
        torch.testing.assert_close(terms[f"task/{name}"], wanted)
    torch.testing.assert_close(terms["loss"], sum(value for name, value in terms.items() if name != "loss"))


def test_path_losses_reach_the_stem_and_not_the_heads():
    task = PathTraining(MultiTaskStudent(student()), teachers())
    task(batch(labels=False))["loss"].backward()
    reached = gradients(task)
    encoder = "learners.student.encoder."
    assert f"{encoder}stem.model.blocks.0.attn.qkv.weight" in reached
    assert f"{encoder}stem.model.pos_embed" in reached
    assert {f"{encoder}paths.{name}.adapters.0.down.weight" for name in TEACHERS} <= reached
    assert not any(".heads." in name or ".routers." in name or name.startswith("committee") for name in reached)


def test_arms_are_data():
    """SAK, many-to-one, multi-task and single-task students side by side, from one pass of the teachers."""
    arms = {
        "sak": MultiTaskStudent(student()),
        "shared": MultiTaskStudent(student(()), "shared"),
        "multi": MultiTaskStudent(student(()), "none"),
        "single": MultiTaskStudent(student((), {"depth": TASKS["depth"]}), "none"),
    }
    task = PathTraining(arms, teachers())
    passes = []
    task.committee.register_forward_hook(lambda *_: passes.append(1))
    terms = task(batch())
    assert len(passes) == 1

    def own(arm):
        return {name.removeprefix(f"{arm}/") for name in terms if name.startswith(f"{arm}/")}

    tasks = {f"task/{name}" for name in TASKS}
    assert own("sak") == own("shared") == {"loss"} | level_terms() | tasks
    assert own("multi") == {"loss"} | tasks and own("single") == {"loss", "task/depth"}
    assert set(task.parts()) == set(arms)
    assert {name.partition(".")[0] for name in task.adapters("shared")} == {"aligners"}
    assert not task.adapters("multi")


def test_arms_do_not_change_one_another():
    def arm():
        return MultiTaskStudent(student(()), "shared")

    alone = PathTraining(arm(), teachers())
    together = PathTraining({"other": MultiTaskStudent(student()), "student": arm()}, teachers())
    torch.manual_seed(5)
    wanted = alone(batch())
    torch.manual_seed(5)
    given = together(batch())
    assert all(torch.equal(given[f"student/{name}"], value) for name, value in wanted.items())


def test_many_to_one_aligns_the_stem_with_every_teacher():
    encoder, experts = student((), {}), teachers()
    task = PathTraining(MultiTaskStudent(encoder, "shared"), experts)
    names = {f"aligners.{teacher}.{level}.{part}" for teacher in TEACHERS for level in range(4) for part in PARTS}
    assert task.adapters().keys() == names
    images = batch(labels=False)["images"].float() / 255
    linear = task.learner("student").aligners["narrow"]["2"]
    ours = linear(encoder.look(images).stem[2].movedim(1, -1)).movedim(-1, 1)
    terms = task(batch(labels=False))
    torch.testing.assert_close(terms["narrow/level-2"], path_loss(ours, experts(images)["narrow"][2]))


@pytest.mark.parametrize(("width", "theirs", "millions"), [(384, 768, 3.548), (768, 1024, 9.449)])
def test_aligners_of_the_paper(width, theirs, millions):
    """Paper notes, section h: three teachers, four levels."""
    with torch.device("meta"):
        aligners = [LevelAligners(width, dict.fromkeys(range(4), theirs)) for _ in range(3)]
    count = sum(weight.numel() for module in aligners for weight in module.parameters())
    assert round(count / 1e6, 3) == millions


def test_aligners_start_as_published():
    aligners = LevelAligners(256, {0: 512, 3: 512})
    assert list(aligners) == ["0", "3"]
    for linear in aligners.values():
        assert not linear.bias.any() and linear.weight.std().item() == pytest.approx(0.02, rel=0.03)


def test_aligners_go_on_where_they_were(tmp_path):
    """Stage 2 starts with what was saved beside the student of stage 1; those of a new teacher start anew."""
    first = PathTraining(MultiTaskStudent(student(tasks={})), teachers())
    with torch.no_grad():
        for weight in first.learner("student").aligners.parameters():
            weight.add_(1)
    save_encoder(first.students["student"], tmp_path / "model", adapters=first.adapters(), details={})
    loaded = load_encoder(f"run/{tmp_path / 'model'}")
    second = PathTraining(MultiTaskStudent(loaded, aligners=loaded.adapters), teachers())
    assert second.adapters().keys() == first.adapters().keys() != set()
    assert all(torch.equal(value, first.adapters()[name]) for name, value in second.adapters().items())
    wider = LevelTeachers({"narrow": vit(seed=2), "wide": vit(32, seed=3)})
    with pytest.raises(ValueError, match=r"aligners.wide.0.weight starts with \(24, 16\)"):
        PathTraining(MultiTaskStudent(loaded, aligners=loaded.adapters), wider)


def test_an_added_path_trains_alone():
    """All else keeps its weights and its batch norms their statistics, although labels are there."""
    encoder = student(("narrow",))
    encoder.add_paths(["wide"])
    task = PathTraining(
        MultiTaskStudent(encoder, train_only=["wide"]), LevelTeachers({"wide": vit(24, seed=3)})
    ).train()
    before = {name: value.clone() for name, value in task.state_dict().items()}
    optimizer = make_optimizer(task, OptimConfig(steps=1, batch_size=2, learning_rate=0.01, weight_decay=0.1))
    terms = task(batch())
    assert terms.keys() == {"loss"} | level_terms(["wide"]) | {f"task/{name}" for name in TASKS}
    terms["loss"].backward()
    optimizer.step()
    changed = {name for name, value in task.state_dict().items() if not torch.equal(value, before[name])}
    learner = "learners.student."
    assert changed and all(
        name.startswith((f"{learner}encoder.paths.wide.", f"{learner}aligners.wide.")) for name in changed
    )
    assert f"{learner}aligners.wide.3.weight" in changed and f"{learner}encoder.paths.wide.adapters.4.scale" in changed
    trains = {name for name, weight in task.named_parameters() if weight.requires_grad}
    assert {weight for part in task.parts().values() for weight in part} == {
        weight for name, weight in task.named_parameters() if name in trains
    }
    assert not encoder.stem.training and encoder.paths["wide"].training and not encoder.heads.training


def test_pictures_may_have_any_size_and_students_another():
    task = PathTraining(MultiTaskStudent(student()), teachers(), student_size=16, teacher_size=(24, 32))
    terms = task(batch(size=(30, 45)))  # neither is a multiple of the stride
    assert all(value.isfinite() for value in terms.values()) and len(terms) == 12
    assert task.tokens(batch(size=(30, 45))) == 12
    own = PathTraining(MultiTaskStudent(student()), teachers())
    assert own.tokens(batch(size=(30, 45))) == 4 * 6


def test_a_file_teaches_the_last_level_alone():
    experts = LevelTeachers({"wide": vit(24, seed=3), "file": ToyEncoder("file", patch_dim=5)})
    task = PathTraining(MultiTaskStudent(student(("file", "wide"), {})), experts)
    assert task(batch(labels=False)).keys() == {"loss", "file/level-3"} | level_terms(["wide"])
    assert task.adapters()["aligners.file.3.weight"].shape == (5, WIDTH)


def test_micro_batches_add_up():
    task = PathTraining(MultiTaskStudent(student()), teachers()).eval()
    whole = batch(4)
    parts = [task(part) for part in split_batch(whole, 2)]
    given = sum(part["narrow/level-1"] for part in parts) / 2
    torch.testing.assert_close(given, task(whole)["narrow/level-1"])


def test_standardizers_put_teachers_on_one_scale():
    experts = teachers()
    task = PathTraining(MultiTaskStudent(student(tasks={})), experts, standardizer="channel", statistics_steps=3)
    assert task.preparation_steps == 3
    batches = [batch(labels=False, key=key) for key in range(3)]
    task.prepare(batches)
    images = torch.cat([each["images"] for each in batches]).float() / 255
    values = task.targets(images)["wide"][1].movedim(1, -1).flatten(0, 2)
    torch.testing.assert_close(values.mean(0), torch.zeros(24), atol=1e-4, rtol=0)
    torch.testing.assert_close(values.std(0, correction=0), torch.ones(24), atol=1e-3, rtol=0)
    assert task.adapters()["standardizers.wide.1.mean"].shape == (24,)
    assert any(name.startswith("standardizers.") for name in task.trained_state())


def test_features_stay_as_they_are_by_default():
    task = PathTraining(MultiTaskStudent(student(tasks={})), teachers())
    task.prepare([])
    images = batch()["images"].float() / 255
    torch.testing.assert_close(task.targets(images)["wide"][0], task.committee(images)["wide"][0])
    assert task.preparation_steps == 0
    assert not any(name.startswith("committee") for name in task.trained_state())
    assert set(task.teachers) == {"committee.teachers.narrow", "committee.teachers.wide"}


def test_labels_alone():
    task = PathTraining(MultiTaskStudent(student()), None)
    terms = task(batch())
    assert terms.keys() == {"loss"} | {f"task/{name}" for name in TASKS}
    assert task.frozen_parts == () and not task.teachers and task.tokens(batch()) == 24
    terms["loss"].backward()
    assert any("paths.wide" in name for name in gradients(task))  # through the routers


def test_teachers_who_give_nonsense_are_named():
    broken = ToyEncoder("broken")
    with torch.no_grad():
        broken.embed.bias.fill_(float("nan"))
    experts = LevelTeachers({"broken": broken})
    task = PathTraining(MultiTaskStudent(student(("broken",), {})), experts, standardizer="channel")
    with pytest.raises(ValueError, match="teacher 'broken', level 3"):
        task.prepare([batch(labels=False)])


@pytest.mark.parametrize(
    ("make_student", "options", "message"),
    [
        (lambda: MultiTaskStudent(student(("narrow", "other"))), {}, "no teacher for the path 'other'"),
        (lambda: MultiTaskStudent(student(())), {}, "it has no paths"),
        (lambda: MultiTaskStudent(student(("narrow",))), {}, "no student listens to wide"),
        (lambda: MultiTaskStudent(student(()), "none"), {}, "no student listens to narrow, wide"),
        (lambda: MultiTaskStudent(student(), "path"), {}, "'paths', 'shared' or 'none'"),
        (lambda: MultiTaskStudent(student(), train_only=["wid"]), {}, "the paths that are on are: narrow, wide"),
        (lambda: MultiTaskStudent(student(), train_only=[]), {}, "nothing would train"),
        (lambda: MultiTaskStudent(student(), "shared", train_only=["wide"]), {}, "has none to train"),
        (lambda: MultiTaskStudent(student()), {"alpha": -1.0}, "0 or more"),
        (lambda: MultiTaskStudent(student()), {"loss": "l1"}, "take one of cos"),
        (lambda: MultiTaskStudent(student()), {"standardizer": "z"}, "take one of none"),
    ],
)
def test_what_cannot_be_is_refused(make_student, options, message):
    with pytest.raises(ValueError, match=message):
        PathTraining(make_student(), teachers(), **options)


def test_a_batch_without_anything_to_learn_is_refused():
    task = PathTraining(MultiTaskStudent(student(), "none"), None)
    with pytest.raises(ValueError, match="no labels of its tasks"):
        task(batch(labels=False))
    unknown = batch()
    unknown["maps"] = {"normals": torch.zeros(2, 3, 32, 48)}
    with pytest.raises(ValueError, match="segmentation, boundary, depth"):
        task(unknown)
