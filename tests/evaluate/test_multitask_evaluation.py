import math

import pytest
import torch

from eyespot.data.sets import ToyboxConfig
from eyespot.dense_tasks import dense_task
from eyespot.encoders import load_encoder
from eyespot.encoders.multitask import make_multitask_encoder
from eyespot.evaluate import FeatureBank, evaluate
from eyespot.evaluate.protocols.multitask import METRICS, evaluate_multitask, metric_name, predicted, run, shared_tasks
from eyespot.evaluate.protocols.multitask.routing import expert_names, router_weights
from eyespot.evaluate.results import Metric
from eyespot.evaluate.tasks import TASKS as PROTOCOLS
from multitask_stand_ins import TASKS, Coloured, PixelReader, picture

PERFECT = {
    "segmentation mIoU": 1.0,
    "saliency maxF": 1.0,
    "boundary odsF": 1.0,
    "normals mErr": 0.0,
    "depth RMSE": 0.0,
    "keypoints PCK": 1.0,
}


def better(key):
    return next(metric for metric in PROTOCOLS["multitask"].metrics if metric.name == key).higher_is_better


def test_a_model_that_reads_the_labels_is_perfect_and_sees_whole_pictures():
    model = PixelReader().train()
    found = evaluate_multitask(model, Coloured())
    assert list(found) == list(PERFECT)
    assert found == pytest.approx(PERFECT, abs=1e-5)
    assert model.seen == [(24, 32)] * 3  # 20 x 28, padded to multiples of 8
    assert model.training


@pytest.mark.parametrize("task", TASKS)
def test_a_model_that_errs_in_a_task_loses_there_and_nowhere_else(task):
    found = evaluate_multitask(PixelReader(wrong=[task]), Coloured())
    key = metric_name(task, TASKS[task])
    assert (found[key] < PERFECT[key] - 0.1) if better(key) else (found[key] > 0.1)
    others = PERFECT.keys() - {key}
    assert {name: found[name] for name in others} == pytest.approx({name: PERFECT[name] for name in others}, abs=1e-5)


def test_what_is_put_around_a_picture_is_cut_from_the_answers_and_has_the_mean_colour():
    model = PixelReader()
    image = picture(1)
    plain = predicted(model, image)
    assert {name: tuple(one.shape) for name, one in plain.items()} == {
        name: (task.channels, 20, 28) for name, task in TASKS.items()
    }
    for size in ((24, 32), (64, 64)):
        assert all(torch.equal(one, plain[name]) for name, one in predicted(model, image, size).items())
    assert model.seen == [(24, 32), (24, 32), (64, 64)]

    class Echo(PixelReader):
        def named_outputs(self, images):
            self.canvas = images
            return {"task_depth": images[:, :1]}

    echo = Echo(("depth",))
    assert torch.equal(predicted(echo, image)["depth"][0], image[0] / 255)
    assert torch.equal(echo.canvas[0, :, 2:22, 2:30], image / 255)
    assert bool((echo.canvas[0, :, :2] == 0.5).all()) and bool((echo.canvas[0, :, :, 30:] == 0.5).all())


def test_a_model_of_one_size_takes_what_fits_into_it():
    model = PixelReader(native_size=(32, 48))
    assert evaluate_multitask(model, Coloured(1)) == pytest.approx(PERFECT, abs=1e-5)
    assert model.seen == [(32, 48)]
    with pytest.raises(ValueError, match=r"takes 32x48 only, a picture has 40x28; .* NAME:FOLDER\?height=32&width=48"):
        evaluate_multitask(model, Coloured(1, (40, 28)))


def test_tasks_are_those_that_model_and_data_share_or_a_choice_of_them():
    data = Coloured(1, tasks=("segmentation", "normals", "depth"))
    model = PixelReader(("depth", "segmentation", "saliency"))
    assert list(shared_tasks(model, data.tasks)) == ["segmentation", "depth"]
    assert list(evaluate_multitask(model, data)) == ["segmentation mIoU", "depth RMSE"]
    assert list(evaluate_multitask(model, data, ["depth"])) == ["depth RMSE"]
    with pytest.raises(ValueError, match="saliency in common: reader answers depth, segmentation, saliency, the data"):
        evaluate_multitask(model, data, ["saliency", "depth"])
    with pytest.raises(ValueError, match="no task in common"):
        evaluate_multitask(PixelReader(("saliency",)), data)


def test_what_cannot_be_measured_is_refused_with_the_way_out(colours):
    with pytest.raises(ValueError, match=r"colours has no task heads.*give a multi-task model"):
        run(FeatureBank(colours), Coloured())
    other = PixelReader()
    other.tasks = {"segmentation": dense_task("classes", 5)}
    with pytest.raises(ValueError, match=r"reader answers in 5 channels \(classes\), the data have 3"):
        evaluate_multitask(other, Coloured())
    with pytest.raises(ValueError, match="coloured has no picture"):
        evaluate_multitask(PixelReader(), Coloured(0))
    broken = PixelReader(("depth",))
    broken.named_outputs = lambda images: {"task_depth": images[:, :1] * math.nan}
    with pytest.raises(ValueError, match="reader answered NaN or infinity for depth"):
        evaluate_multitask(broken, Coloured())


def test_unknown_values_are_none_in_a_row_and_progress_is_told():
    class Dark(Coloured):
        def read(self, index):
            sample = super().read(index)
            sample.maps["depth"].zero_()
            del sample.maps["keypoints"]
            return sample

    calls = []
    bank = FeatureBank(PixelReader(), progress=lambda *state: calls.append(state))
    found = run(bank, Dark(2), seed=3, boundary_thresholds=3)
    assert found["depth RMSE"] is None and found["keypoints PCK"] is None
    assert found["boundary odsF"] == pytest.approx(1)
    assert calls == [(1, 2), (2, 2)]


def test_a_table_has_columns_for_the_tasks_of_the_data_only(tmp_path):
    data = Coloured(2, tasks=("segmentation", "depth"))
    models = {
        "good": PixelReader(),
        "bad": PixelReader(wrong=("depth",), name="bad"),
        "one": PixelReader(("segmentation",), name="one"),
    }
    table = evaluate(models, ("multitask",), {"multitask": data}, folder=tmp_path)
    measured = [column for column in table.columns if column.task == "multitask"]
    assert [column.key for column in measured] == ["multitask/segmentation mIoU", "multitask/depth RMSE"]
    assert [column.metric.higher_is_better for column in measured] == [True, False]
    assert table.best(measured[1]) == {"good"}
    assert "multitask/depth RMSE" not in table.rows["one"]
    again = evaluate({"good": PixelReader()}, ("multitask",), {"multitask": data}, folder=tmp_path)
    assert again.rows["good"]["multitask/depth RMSE"] == table.rows["good"]["multitask/depth RMSE"]


def test_every_kind_of_the_usual_tasks_has_a_column_that_knows_which_end_is_good():
    columns = {metric.name: metric for metric in PROTOCOLS["multitask"].metrics}
    for name, task in TASKS.items():
        plain = METRICS[task.kind]
        assert columns[metric_name(name, task)] == Metric(metric_name(name, task), plain.unit, plain.higher_is_better)
    assert "parts mIoU" in columns


@pytest.fixture(scope="module")
def small_model():
    torch.manual_seed(0)
    stem = load_encoder("timm/test_vit?pretrained=false")
    tasks = {name: task for name, task in TASKS.items() if name in ("normals", "depth")}
    return make_multitask_encoder(stem, ("one", "two"), tasks)


def test_the_toybox_and_sets_by_name_are_opened_as_they_are_written(small_model, monkeypatch):
    opened = []

    def stand_in(spec, split, limit=None):
        opened.append((spec, split, limit))
        return Coloured(1)

    monkeypatch.setattr("eyespot.evaluate.protocols.multitask.protocol.open_multitask", stand_in)
    monkeypatch.setattr("eyespot.data.sets.toybox.open_toybox_maps", stand_in)
    for source in ("toybox:8@32", ToyboxConfig(8, 4, 4, 32)):
        evaluate({"x": PixelReader()}, ("multitask",), source, limit=None)
    evaluate({"x": PixelReader()}, ("multitask",), {"multitask": "camvid:/data/camvid?height=96&tasks=a+b"}, limit=7)
    assert opened == [
        ("toybox:8@32", "val", None),
        ("toybox:8@32", "val", 4),
        ("camvid:/data/camvid?height=96&tasks=a+b", "val", 7),
    ]


def test_a_real_model_is_measured_on_the_toybox(small_model):
    table = evaluate({"model": small_model}, ("multitask",), "toybox:4@32")
    keys = [column.key for column in table.columns if column.task == "multitask"]
    assert set(keys) == {"multitask/normals mErr", "multitask/depth RMSE"}
    assert 0 < table.rows["model"]["multitask/normals mErr"] < 180
    assert table.rows["model"]["multitask/depth RMSE"] > 0


def test_router_weights_are_those_of_each_level_task_and_expert(small_model):
    pictures = [picture(index) for index in range(2)]
    found = router_weights(small_model, pictures)
    assert found.shape == (4, 2, 3) and expert_names(small_model) == ["stem", "one", "two"]
    torch.testing.assert_close(found.sum(2), torch.ones(4, 2))
    router = small_model.routers["depth"][3]
    before = router.logits.bias.detach().clone()
    with torch.no_grad():
        router.logits.bias[1] += 50  # the clean logit of the first path
    try:
        changed = router_weights(small_model, pictures)
    finally:
        with torch.no_grad():
            router.logits.bias.copy_(before)
    place = list(small_model.tasks).index("depth")
    assert changed[3, place].tolist() == pytest.approx([0, 1, 0], abs=1e-6)
    changed[3, place] = found[3, place]
    assert torch.equal(changed, found)


def test_paths_that_are_off_have_no_weight(small_model):
    small_model.active = ("two",)
    try:
        assert expert_names(small_model) == ["stem", "two"]
        assert router_weights(small_model, [picture(0)]).shape == (4, 2, 2)
        small_model.active = ()
        with pytest.raises(ValueError, match="needs routers, a path that is on"):
            router_weights(small_model, [picture(0)])
    finally:
        small_model.active = ("one", "two")


def test_a_measurement_with_a_path_off_is_not_taken_for_one_with_all_on(small_model, tmp_path):
    data = Coloured(2, (32, 48), tasks=("normals",))
    values = []
    for active in (("one", "two"), ("two",), ("one", "two")):
        small_model.active = active
        table = evaluate({"model": small_model}, ("multitask",), {"multitask": data}, folder=tmp_path)
        values.append(table.rows["model"]["multitask/normals mErr"])
    assert values[0] == values[2] != values[1]
    assert len(list((tmp_path / "measured").iterdir())) == 2


def test_tasks_of_the_toybox_can_be_chosen(small_model):
    data = {"multitask": "toybox:4@32?tasks=depth+boundary"}
    table = evaluate({"model": small_model}, ("multitask",), data)
    measured = {key for key in table.rows["model"] if key.startswith("multitask/")}
    assert measured == {"multitask/depth RMSE"}  # it has no boundaries, and its normals were not asked for
