"""How pytest-xdist deals the tests to its processes: what shares fixtures or the machine stays together."""

from __future__ import annotations

import re
from fnmatch import fnmatch
from zlib import crc32

from xdist.scheduler import LoadScopeScheduling

PROCESSES = "processes"
ONE_AT_A_TIME = (
    "tests/deploy/test_benchmark*.py",
    "tests/distill/test_c*.py",
    "tests/engine/test_c*.py",
    "tests/engine/test_distributed.py",
    "tests/engine/test_first_process.py",
    "tests/engine/test_interrupt.py",
    "tests/engine/test_optimizers.py",
    "tests/engine/test_path_processes.py",
    "tests/engine/test_process_*.py",
    "tests/engine/test_sharded_models.py",
    "tests/evaluate/test_evaluate_background.py",
    "tests/evaluate/test_evaluate_memory.py",
    "tests/recipes/test_eupe_kill.py",
    "tests/recipes/test_eupe_probes.py",
)
"""Files whose tests start, kill or starve processes, or look at the clock or at memory: no two run side by side."""

ZOO = "tests/encoders/test_encoder_properties.py"
PARTS_OF_THE_ZOO = 12
"""It is one file, but its models know nothing of each other."""


def group_of(test: str) -> str:
    """Name of what a test is dealt with: its file, in most cases."""
    file = test.partition("::")[0]
    if any(fnmatch(file, pattern) for pattern in ONE_AT_A_TIME):
        return PROCESSES
    model = re.search(r"\[([^-\]]+)", test)
    if file == ZOO and model:
        return f"{file}, part {crc32(model[1].encode()) % PARTS_OF_THE_ZOO}"
    return file


class Groups(LoadScopeScheduling):
    """Deals groups as wholes, those with the most tests first."""

    def _split_scope(self, nodeid: str) -> str:
        return group_of(nodeid)
