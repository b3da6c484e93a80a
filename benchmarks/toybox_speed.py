"""How many toybox pictures a second this machine renders. Prints one JSON line.

python benchmarks/toybox_speed.py --size 64 --threads 2
"""

from __future__ import annotations

import argparse
import json
import platform
import time

import torch

from eyespot.data.toybox import render


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=64, help="pixels a side (default 64)")
    parser.add_argument("--count", type=int, default=512, help="pictures per repeat (default 512)")
    parser.add_argument("--repeats", type=int, default=3, help="the fastest repeat counts (default 3)")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="default: what torch would use")
    parser.add_argument("--no-antialias", action="store_true", help="one sample per pixel instead of five")
    options = parser.parse_args()

    torch.set_num_threads(options.threads)
    render(range(8), options.size)
    wall, cpu = [], []
    for repeat in range(options.repeats):
        seeds = range(repeat * options.count, (repeat + 1) * options.count)
        start, start_cpu = time.perf_counter(), time.process_time()
        render(seeds, options.size, antialias=not options.no_antialias)
        wall.append(time.perf_counter() - start)
        cpu.append(time.process_time() - start_cpu)
    result = {
        "pictures_per_second": round(options.count / min(wall), 1),
        "pictures_per_cpu_second": round(options.count / min(cpu), 1),
        "size": options.size,
        "antialias": not options.no_antialias,
        "count": options.count,
        "threads": options.threads,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()} {_processor()}",
    }
    print(json.dumps(result))


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "")
    except OSError:
        return platform.processor()


if __name__ == "__main__":
    main()
