"""benchmarks/path_costs.py: what the paths of a multi-task model cost."""

import importlib
from pathlib import Path

import pytest
import torch

from eyespot.evaluate.cost import cost, millions_of_parameters
from multitask_tiny import PATHS, TASKS, tiny


@pytest.fixture
def path_costs(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
    return importlib.import_module("path_costs").path_costs


def test_every_path_costs_the_same_and_is_counted_once(path_costs):
    model = tiny()
    model.active = ["sam"]
    rows = path_costs(model, (64, 96))
    assert [row.paths for row in rows] == [(), PATHS[:1], PATHS] and model.active == ("sam",)
    assert rows[-1].parameters == millions_of_parameters(model)
    assert rows[0].parameters == millions_of_parameters(tiny(paths=()))
    assert all(row.milliseconds is None for row in rows)

    width, tokens, blocks, levels = 32, 1 + 4 * 6, 4, 4
    path = 5 * (2 * width * (width // 4) + width // 4 + width + 1) + levels * 2 * width
    clean_and_raw = len(TASKS) * levels * 2 * (width // 2 + 1)
    assert rows[2].parameters - rows[1].parameters == pytest.approx((path + clean_and_raw) / 1e6)
    adapters = (blocks + 1) * tokens * 2 * width * (width // 4)
    routers = len(TASKS) * levels * 2 * (width // 2)
    assert rows[2].giga_macs - rows[1].giga_macs == pytest.approx((adapters + routers) / 1e9)


def test_a_model_without_paths_has_one_row(path_costs):
    rows = path_costs(tiny(paths=()), 64)
    assert len(rows) == 1 and rows[0].giga_macs > 0


def test_milliseconds_on_request(path_costs):
    model = tiny().train()
    state = {name: value.clone() for name, value in model.state_dict().items()}
    rows = path_costs(model, 64, timing=True, rounds=1)
    assert all(row.milliseconds > 0 for row in rows)
    assert model.training and all(torch.equal(value, state[name]) for name, value in model.state_dict().items())


def test_the_table_counts_all_answers(path_costs):
    model = tiny()
    assert cost(model, 64, timing=False)["cost/GMACs"] == path_costs(model, 64)[-1].giga_macs
