import os
from pathlib import Path

import pytest
import torch

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real pictures and teachers that stands beside the checkout where a developer has it."""
    beside = Path(__file__).resolve().parents[2] / "shared"
    folder = Path(os.environ.get("EYESPOT_SHARED", beside))
    if not (folder / "data").is_dir():
        pytest.skip(f"no real data: {folder} is not there (set EYESPOT_SHARED)")
    return folder
