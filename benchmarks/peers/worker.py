"""What runs in an environment: one job by one loop. `python worker.py JOB_AS_JSON`."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path

import torch
from job import Job
from safetensors.torch import save_file
from stopwatch import Stopwatch, clocks


def main() -> None:
    job = Job.from_json(sys.argv[1])
    torch.set_num_threads(1)
    train = importlib.import_module(job.loop).train
    if job.timed:
        train(job, Stopwatch().watch)
        raise RuntimeError(f"{job.loop} ended after {job.steps} steps while somebody was still timing it")
    start = clocks()
    student = train(job, lambda layer: None)
    cpu, wall = (now - then for now, then in zip(clocks(), start, strict=True))
    save_file({name: value.contiguous() for name, value in student.state_dict().items()}, job.output)
    Path(job.output).with_suffix(".json").write_text(json.dumps({"cpu": cpu, "wall": wall}))


if __name__ == "__main__":
    main()
