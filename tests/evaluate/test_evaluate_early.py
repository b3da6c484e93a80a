"""What cannot be measured is refused before data are opened, which may take minutes; found by the fuzz."""

from typing import Any

import pytest

from eyespot.evaluate import evaluate, run_tasks


@pytest.fixture(autouse=True)
def _no_data(monkeypatch: pytest.MonkeyPatch) -> None:
    def opened(*_: Any) -> None:
        raise AssertionError("data were opened")

    monkeypatch.setattr(run_tasks, "open_all", opened)


@pytest.mark.parametrize("settings", [{"size": 0}, {"size": (32, -1)}, {"limit": 0}, {"batch_size": -3}])
def test_numbers_below_one(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(settings))} must be at least 1, got"):
        evaluate(["timm/test_vit?pretrained=false"], ["knn"], **settings)


@pytest.mark.parametrize("spec", ["nope", "tim/test_vit", "timm/nope", "onnx/nope.onnx", "run/nope"])
def test_models_that_are_not_there(spec: str) -> None:
    with pytest.raises((ValueError, FileNotFoundError), match=spec.partition("/")[2] or spec):
        evaluate([spec], ["knn"])


@pytest.mark.parametrize("spec", ["tim/test_vit", "onnx/nope.onnx"])
def test_a_second_model_that_is_not_there(spec: str) -> None:
    with pytest.raises((ValueError, FileNotFoundError), match=spec.partition("/")[2]):
        evaluate(["timm/test_vit?pretrained=false", spec], ["knn"])
