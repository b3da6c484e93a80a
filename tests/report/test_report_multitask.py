import pytest
import torch
from report_toys import Blocks

from eyespot.data.labelled.samples import MultiTaskPictures
from eyespot.dense_tasks import IGNORE
from eyespot.encoders import load_encoder
from eyespot.encoders.multitask import make_multitask_encoder
from eyespot.evaluate import FeatureBank, evaluate
from eyespot.evaluate.protocols.multitask.routing import router_weights
from eyespot.report import write_evaluation_report
from eyespot.report.exhibits.multitask import Answers, Routing
from eyespot.report.pages.evaluation import exhibits_for, sample_pictures
from multitask_stand_ins import TASKS, Coloured, PixelReader

NOTES = {
    "segmentation": "mIoU 100 %",
    "saliency": "maxF 100 %",
    "boundary": "odsF 100 %",
    "normals": "mErr 0.0°",
    "depth": "RMSE 0.00 m",
    "keypoints": "PCK 100 %",
}


@pytest.fixture(scope="module")
def routed():
    """A model with routers whose last one for depth takes the path "two" alone."""
    torch.manual_seed(0)
    tasks = {name: TASKS[name] for name in ("normals", "depth")}
    model = make_multitask_encoder(load_encoder("timm/test_vit?pretrained=false"), ("one", "two"), tasks)
    with torch.no_grad():
        model.routers["depth"][3].logits.bias[2] += 50
    return model.eval()


def grids(models, data, shown=2):
    exhibit = Answers(data, shown)
    findings = {name: exhibit.look(FeatureBank(model)) for name, model in models.items()}
    return {grid.title.removeprefix("Multi-task: "): grid for grid in exhibit.draw(findings)}


def test_a_block_per_task_shows_picture_truth_and_each_model():
    found = grids({"good": PixelReader(), "bad": PixelReader(wrong=TASKS)}, Coloured(3))
    assert list(found) == list(TASKS)
    for name, grid in found.items():
        assert list(grid.columns) == ["picture", "truth", "good", "bad"]
        assert all(tile.dtype == torch.uint8 and tile.shape == (3, 20, 28) for tile in grid.columns["bad"])
        assert grid.notes["good"] == [NOTES[name]] * 2
        assert grid.notes["bad"][0] != NOTES[name]
        labelled = (slice(None), slice(0, 18))  # the last row is not, which draws a border above it
        assert torch.equal(grid.columns["good"][0][labelled], grid.columns["truth"][0][labelled])
        if name != "keypoints":  # wrong types at the right places look alike
            assert not torch.equal(grid.columns["bad"][0][labelled], grid.columns["truth"][0][labelled])
    assert {name for name, grid in found.items() if grid.scale} == {"depth", "saliency", "keypoints"}


def test_models_stand_only_in_the_blocks_of_their_tasks():
    models = {"classes": PixelReader(("segmentation",)), "two": PixelReader(("segmentation", "depth"))}
    found = grids(models, Coloured(2, tasks=("depth", "normals", "segmentation")))
    assert {name: list(grid.columns)[2:] for name, grid in found.items()} == {
        "segmentation": ["classes", "two"],
        "depth": ["two"],
    }


def test_what_is_not_labelled_is_grey_and_has_no_score():
    class Bare(Coloured):
        def read(self, index):
            sample = super().read(index)
            sample.maps["segmentation"].fill_(IGNORE)
            sample.maps["boundary"].fill_(IGNORE)
            sample.maps["depth"].zero_()
            sample.maps["normals"].zero_()
            del sample.maps["saliency"]
            return sample

    found = grids({"a": PixelReader()}, Bare(1), shown=1)
    for name in ("boundary", "depth", "normals", "saliency"):
        assert found[name].notes["a"] == ["–"]
        assert found[name].columns["truth"][0].unique().tolist() == [158]
    assert found["segmentation"].notes["a"] == ["–"]
    assert found["keypoints"].notes["a"] == ["PCK 100 %"]


def test_thin_boundaries_survive_shrinking():
    grid = grids({"a": PixelReader()}, Coloured(1, (100, 1000)), shown=1)["boundary"]
    assert grid.columns["picture"][0].shape == (3, 34, 336)
    for column in ("truth", "a"):
        lightest = grid.columns[column][0][0, :33].int().amin(dim=1)
        assert bool((lightest < 10).all())  # black ink in every row


def test_router_weights_are_drawn_for_models_that_have_routers(routed):
    exhibit = Routing(Coloured(2))
    findings = {"plain": exhibit.look(FeatureBank(PixelReader())), "routed": exhibit.look(FeatureBank(routed))}
    assert findings["plain"] == []
    weights = router_weights(routed, [Coloured().read(index).image for index in range(2)])
    assert torch.equal(findings["routed"][0], weights)
    (figure,) = exhibit.draw(findings)
    assert figure.title == "Router weights, routed" and figure.is_svg
    for word in ("stem", "one", "two", "normals", "depth", "level 1", "level 4", ">100<"):
        assert word in figure.image
    assert "depth: two" in figure.caption and "at each of the 4 levels" in figure.caption


def test_the_page_of_an_evaluation_shows_answers_and_routers(routed, tmp_path):
    data = {"multitask": Coloured(2, (32, 48), tasks=("normals", "depth"))}
    models = {"routed": routed, "reader": PixelReader()}
    table = evaluate(models, ("multitask",), data, size=32, folder=tmp_path)
    written = write_evaluation_report(tmp_path / "report.html", table, models=models, data=data, folder=tmp_path)
    text = written.read_text(encoding="utf-8")
    for title in ("Multi-task: normals", "Multi-task: depth", "Router weights, routed", "What each encoder sees"):
        assert title in text
    assert "Multi-task: segmentation" not in text
    assert len(list((tmp_path / "shown").iterdir())) == 2  # the answers of two models; weights are cheap
    again = write_evaluation_report(tmp_path / "again.html", table, models=models, data=data, folder=tmp_path)
    assert again.read_text(encoding="utf-8").count("Multi-task: depth") == text.count("Multi-task: depth")


def test_exhibits_and_photographs_are_found_by_the_kind_of_data():
    data = {"multitask": Coloured(3)}
    kinds = [type(one) for one in exhibits_for(data, 0, {"multitask": {"padded_to": (64, 64)}})]
    assert kinds == [Answers, Routing]
    (answers, _) = exhibits_for(data, 0, {"multitask": {"padded_to": (64, 64)}})
    model = PixelReader()
    answers.look(FeatureBank(model))
    assert set(model.seen) == {(64, 64)} and answers.setting["padded_to"] == (64, 64)
    photos = sample_pictures(data, 16)
    assert photos.shape[:3] == (3, 3, 16)
    assert MultiTaskPictures(data["multitask"]).read(0, 2, (8, 8)).shape == (2, 3, 8, 8)


def test_plain_encoders_are_refused():
    with pytest.raises(ValueError, match="blocks has no task heads"):
        Answers(Coloured(1)).look(FeatureBank(Blocks(8)))
