import json
from datetime import datetime, timedelta

import torch

from eyespot.report import machine_info


def test_machine_info_is_complete_and_ready_for_json():
    info = machine_info()
    assert list(info) == [
        "cpu",
        "cores",
        "memory_gib",
        "gpus",
        "os",
        "python",
        "torch",
        "timm",
        "eyespot",
        "date",
    ]
    assert json.loads(json.dumps(info)) == info
    assert info["cpu"]
    assert info["cores"] >= 1
    assert info["memory_gib"] is None or info["memory_gib"] > 0.1
    assert isinstance(info["gpus"], list)
    assert info["torch"] == torch.__version__
    assert datetime.fromisoformat(info["date"]).utcoffset() == timedelta(0)
