import copy

import pytest
import torch
import torch.nn.functional as F

from eyespot.distill.cache import CachedCommittee
from eyespot.distill.committee import Committee
from eyespot.distill.features.feature_distillation import FeatureDistillation
from eyespot.engine.config import OptimConfig
from eyespot.engine.optim import make_optimizer
from eyespot.features import Features
from toy_encoders import ToyEncoder, make_batch

HIDDEN = 16
HERE = "learners.student."
LAYERS = ("0.weight", "1.weight", "1.bias", "3.weight")


def teachers():
    return {
        "fine": ToyEncoder("fine", summary_dim=3, patch_dim=4, stride=4),
        "coarse": ToyEncoder("coarse", summary_dim=7, patch_dim=2, stride=16, native_size=(48, 48)),
    }


def make_task(members=None, student_sizes=(32,), **options):
    torch.manual_seed(0)
    student = ToyEncoder("student")
    return FeatureDistillation(
        student, Committee(members or teachers()), adapter_width=HIDDEN, student_sizes=student_sizes, **options
    )


def prepared(**options):
    task = make_task(**options)
    task.prepare(make_batch(key=f"statistics {step}", step=step) for step in range(3))
    return task.train()


def test_one_step_equals_a_reference_in_plain_torch():
    """Loss, every gradient and the weights after AdamW, against EUPE A.2 to A.5 written out by hand."""
    task = prepared()
    config = OptimConfig(steps=1, batch_size=4, learning_rate=1e-2, weight_decay=0.1)
    optimizer = make_optimizer(task, config)
    learner = copy.deepcopy(task.learners["student"])
    student = learner.encoder
    heads = {name: value.clone() for name, value in learner.heads.state_dict().items()}

    losses = task(make_batch(step=7))
    losses["loss"].backward()
    gradients = {name: weight.grad.clone() for name, weight in task.named_parameters() if weight.grad is not None}
    optimizer.step()

    weights = {f"{HERE}encoder.{name}": weight for name, weight in student.named_parameters()}
    weights |= {f"{HERE}heads.{name}": value.requires_grad_() for name, value in heads.items()}
    loss, parts = reference_loss(student, weights)
    loss.backward()

    assert losses.keys() == {"loss", *parts}
    for name, value in parts.items():
        torch.testing.assert_close(losses[name], value, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(losses["loss"], loss, rtol=1e-5, atol=1e-6)
    assert gradients.keys() == weights.keys()
    after = dict(task.named_parameters())
    for name, weight in weights.items():
        torch.testing.assert_close(gradients[name], weight.grad, rtol=5e-4, atol=2e-5)  # sums in another order
        torch.testing.assert_close(after[name], adamw_by_hand(weight, gradients[name], lr=1e-2, decay=0.1))


def reference_loss(student, weights):
    images = make_batch()["images"].float() / 255
    batches = [make_batch(key=f"statistics {step}")["images"].float() / 255 for step in range(3)]

    def resized(pictures, size):
        return F.interpolate(pictures, size=(size, size), mode="bilinear", antialias=True, align_corners=False)

    seen = student(resized(images, 32))
    parts = {}
    for name, teacher in teachers().items():
        teacher.eval()
        size = 32 if name == "fine" else 48
        with torch.no_grad():
            target = teacher(resized(images, size))
            known = [teacher(resized(batch, size)) for batch in batches]
        summaries = torch.cat([one.summary for one in known])
        patches = torch.cat([one.patches for one in known])
        summary = (target.summary - summaries.mean(0)) / summaries.std(0, unbiased=False)
        patch_mean, patch_std = patches.mean((0, 2, 3)), patches.std((0, 2, 3), unbiased=False)
        patch = (target.patches - patch_mean[:, None, None]) / patch_std[:, None, None]

        def head(values, which, name=name):
            own = {key: weights[f"{HERE}heads.{name}.{which}.{key}"] for key in LAYERS}
            hidden = F.layer_norm(values @ own["0.weight"].T, (HIDDEN,), own["1.weight"], own["1.bias"])
            return F.gelu(hidden) @ own["3.weight"].T

        guessed_summary = head(seen.summary, "summary")
        guessed_patch = head(seen.patches.permute(0, 2, 3, 1), "patch").permute(0, 3, 1, 2)  # 4 x 4
        if name == "fine":  # 8 x 8: the student's map is the smaller one
            guessed_patch = F.interpolate(guessed_patch, size=(8, 8), mode="bicubic", align_corners=False)
        else:  # 3 x 3: the teacher's is
            patch = F.interpolate(patch, size=(4, 4), mode="bicubic", align_corners=False)
        parts[f"{name}/summary"] = 1 - F.cosine_similarity(guessed_summary, summary, dim=1).mean()
        cosine = 1 - F.cosine_similarity(guessed_patch, patch, dim=1).mean()
        parts[f"{name}/patch"] = 0.9 * cosine + 0.1 * F.smooth_l1_loss(guessed_patch, patch, beta=1.0)
    return sum(parts.values()), parts


def adamw_by_hand(weight, gradient, lr, decay):
    """The first step: both moments are the gradient's after bias correction."""
    decayed = weight * (1 - lr * decay) if weight.ndim > 1 else weight
    return (decayed - lr * gradient / (gradient.abs() + 1e-8)).detach()


@pytest.mark.parametrize("standardizer", ["none", "channel", "ema", "phi_s"])
def test_the_total_is_the_plain_sum(standardizer):
    """EUPE eq. 7: equal weights over teachers and between class and patches."""
    losses = prepared(standardizer=standardizer)(make_batch())
    total = losses.pop("loss")
    assert losses.keys() == {"fine/summary", "fine/patch", "coarse/summary", "coarse/patch"}
    torch.testing.assert_close(total, torch.stack(list(losses.values())).sum())
    assert all(value.dtype == torch.float32 and value.ndim == 0 for value in losses.values())


def test_a_student_that_says_what_the_teacher_says_loses_nothing():
    class Passing(torch.nn.Module):
        def forward(self, features):
            return features

    task = FeatureDistillation(
        ToyEncoder("same"),
        Committee({"t": ToyEncoder("same")}),
        adapter_width=4,
        student_sizes=(32,),
        standardizer="none",
    )
    task.learners["student"].heads["t"] = Passing()
    task.eval()
    assert task(make_batch())["loss"].item() == pytest.approx(0, abs=1e-5)


def test_sizes_are_drawn_per_step_independently_and_repeatably():
    """EUPE stage 3: student and teacher each draw from {256, 384, 512}."""
    sizes = (256, 384, 512)
    task = make_task(student_sizes=sizes, teacher_sizes=sizes, seed=3)
    drawn = [task.sizes(step) for step in range(900)]
    for seed in (3, 4):
        other = make_task(student_sizes=sizes, teacher_sizes=sizes, seed=seed)
        backwards = [other.sizes(step) for step in reversed(range(900))]
        assert (drawn == backwards[::-1]) == (seed == 3)
    counts = {(student, teacher): drawn.count((student, teacher)) for student in sizes for teacher in sizes}
    assert sum(counts.values()) == 900
    assert all(60 < count < 140 for count in counts.values()), counts  # 100 each if independent and uniform


def test_one_size_or_none_needs_no_draw():
    assert make_task(student_sizes=(32,)).sizes(5) == (32, None)
    assert make_task(student_sizes=(32,), teacher_sizes=(64,)).sizes(5) == (32, 64)


def test_student_and_teachers_look_at_the_sizes_drawn():
    task = prepared(student_sizes=(16, 32), teacher_sizes=(32, 64), seed=1)
    looked = {}

    def watch(name):
        def hook(module, arguments):
            looked[name] = arguments[0].shape[-1]

        return hook

    task.learners["student"].encoder.register_forward_pre_hook(watch("student"))
    for name, teacher in task.committee.items():
        teacher.register_forward_pre_hook(watch(name))
    seen = set()
    for step in range(40):
        task(make_batch(step=step))
        assert (looked["student"], looked["fine"]) == task.sizes(step)
        assert looked["coarse"] == 48  # its native size, whatever was drawn
        seen.add(task.sizes(step))
    assert seen == {(16, 32), (16, 64), (32, 32), (32, 64)}


def test_the_same_step_gives_the_same_losses():
    one, other = prepared(), prepared()
    assert all(torch.equal(value, other(make_batch(step=3))[name]) for name, value in one(make_batch(step=3)).items())


def test_prepare_fixes_the_statistics_of_each_teacher():
    task = make_task()
    batches = [make_batch(key=number, step=number) for number in range(5)]
    task.prepare(batches)
    for name, teacher in teachers().items():
        features = [Committee({name: teacher})(batch)[name] for batch in batches]
        patches = torch.cat([one.patches for one in features])
        standardizer = task.standardizers[name]
        torch.testing.assert_close(standardizer.patch.mean, patches.mean((0, 2, 3)))
        torch.testing.assert_close(standardizer.patch.std, patches.std((0, 2, 3), unbiased=False))
        summaries = torch.cat([one.summary for one in features])
        torch.testing.assert_close(standardizer.summary.mean, summaries.mean(0))
        torch.testing.assert_close(standardizer.summary.std, summaries.std(0, unbiased=False))


class Broken(ToyEncoder):
    def _encode(self, images):
        features = super()._encode(images)
        return Features(features.summary * float("nan"), features.patches)


@pytest.mark.parametrize("standardizer", ["channel", "ema", "phi_s"])
def test_prepare_names_the_teacher_that_gives_nan(standardizer):
    task = make_task({"good": ToyEncoder("good"), "sick": Broken("sick")}, standardizer=standardizer)
    with pytest.raises(ValueError, match=r"teacher 'sick': .*NaN"):
        task.prepare([make_batch()])


def test_prepare_needs_batches():
    with pytest.raises(ValueError, match="at least one batch"):
        make_task().prepare([])


def test_only_student_and_heads_are_trained():
    task = prepared()
    trained = {name.partition(".")[0] for name, weight in task.named_parameters() if weight.requires_grad}
    assert trained == {"learners"}
    assert task.students == {"student": task.learners["student"].encoder}
    before = {name: value.clone() for name, value in task.committee.state_dict().items()}
    optimizer = torch.optim.SGD([weight for weight in task.parameters() if weight.requires_grad], lr=1.0)
    task(make_batch())["loss"].backward()
    optimizer.step()
    assert all(torch.equal(value, before[name]) for name, value in task.committee.state_dict().items())
    assert all(weight.grad is not None for name, weight in task.named_parameters() if not name.startswith("committee"))


def test_the_adapters_have_the_parameters_of_the_paper():
    task = make_task()
    wanted = sum(
        width * HIDDEN + 2 * HIDDEN + HIDDEN * out
        for teacher in teachers().values()
        for width, out in ((6, teacher.summary_dim), (5, teacher.patch_dim))
    )
    assert sum(weight.numel() for weight in task.learners["student"].heads.parameters()) == wanted
    assert task.adapters().keys() == {
        *(f"heads.{name}" for name in task.learners["student"].heads.state_dict()),
        *(f"standardizers.{name}" for name in task.standardizers.state_dict()),
    }


def test_the_committee_is_not_saved():
    task = prepared()
    state = task.trained_state()
    assert {name.partition(".")[0] for name in state} == {"learners", "standardizers"}
    other = make_task()
    other.load_state_dict(state, strict=False)
    losses = other.train()(make_batch())
    assert all(torch.equal(value, losses[name]) for name, value in task(make_batch()).items())


def test_nor_a_cached_one(tmp_path):
    committee = CachedCommittee(Committee(teachers()), tmp_path, setting={}, source_lengths=[4], views=1)
    task = FeatureDistillation(ToyEncoder("student"), committee, adapter_width=4, student_sizes=(32,))
    assert not any(name.startswith("committee") for name in task.trained_state())


def test_a_cached_committee_gives_the_same_training_to_the_stored_precision(tmp_path):
    columns = {"source": torch.zeros(4).long(), "index": torch.arange(4), "view": torch.zeros(4).long()}
    batch = make_batch(**columns)
    live = prepared()
    committee = CachedCommittee(
        Committee(teachers()), tmp_path, setting={}, source_lengths=[4], views=1, store="float16"
    )
    remembering = FeatureDistillation(ToyEncoder("student"), committee, adapter_width=HIDDEN, student_sizes=(32,))
    remembering.load_state_dict(live.trained_state(), strict=False)
    for _ in range(2):
        torch.testing.assert_close(remembering(batch)["loss"], live(batch)["loss"], rtol=2e-3, atol=2e-3)


def test_losses_stay_float32_under_autocast():
    task = prepared()
    exact = task(make_batch())
    with torch.autocast("cpu", torch.bfloat16):
        rough = task(make_batch())
    for name, value in rough.items():
        assert value.dtype == torch.float32
        torch.testing.assert_close(value, exact[name], rtol=0.05, atol=0.05)


def test_what_the_student_excludes_from_weight_decay():
    class Careful(ToyEncoder):
        def no_weight_decay(self):
            return {"embed.weight"}

    task = FeatureDistillation(Careful("student"), Committee(teachers()), adapter_width=4, student_sizes=(32,))
    assert task.no_weight_decay() == {f"{HERE}encoder.embed.weight"}
    assert make_task().no_weight_decay() == set()
    assert make_task(statistics_steps=12).preparation_steps == 12
