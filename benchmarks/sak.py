"""SAK against what it is compared with: five arms, several seeds, equal labelled budgets, real pictures and teachers.

    python benchmarks/sak.py --shared SHARED --work WORK [--seeds 0 1 2] [--scale 1.0]

The committee are four experts (classes, segmentation, depth, key points), the labels those of CamVid (segmentation,
boundary) and of an RGB-D kitchen (depth, normals, boundary). All arms of a seed are trained side by side, from one pass
of the teachers, by the recipe `sak`. All have the same labelled steps; only those that teachers teach have a stage 1
without labels before, as in the paper. What is finished is not done again.

Writes `results/sak.json` and `sak.md`: metrics and Delta_m against single-task models, what routers choose, which path
serves which task as a frozen extractor, and what paths cost.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import shutil
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from eyespot.config import as_plain, build, merged
from eyespot.data.sets.opening import open_multitask
from eyespot.encoders import load_encoder
from eyespot.encoders.multitask import MultiTaskEncoder
from eyespot.encoders.naming import short_names
from eyespot.engine.run import RunFolder
from eyespot.evaluate import ResultTable, evaluate
from eyespot.files import atomic_write_text
from eyespot.recipes.presets import read_settings
from eyespot.recipes.sak import SakConfig, distill
from eyespot.recipes.sak.config import SINGLE
from eyespot.recipes.sak.recipe import STAGE_1
from eyespot.report import machine_info
from path_costs import path_costs

RESULTS = Path(__file__).parent / "results"
EXPERTS = {
    "classes": "semantic_mobilenetv2_in1k",
    "segmentation": "segmentation_deeplabv3_voc",
    "depth": "depth_fastdepth_nyu",
    "key points": "keypoints_alike_n",
}
"""What each teacher is good at, and its file."""
HEIGHT, WIDTH = 96, 128
SETS = {"camvid": "camvid", "kitchen": "rgbd_kitchen"}
PROBES = {"classes": "knn", "segmentation": "segmentation", "depth": "depth", "key points": "correspondence"}
"""Which frozen probe asks for what each teacher is good at."""

Values = dict[str, dict[str, list[float]]]
"""Row -> column -> one value per seed."""


@dataclass(frozen=True)
class Bench:
    """Where everything lies, and how much is done.

    Attributes:
        shared: folder with teachers and data.
        work: folder for runs.
        seeds: of weights, pictures' order and views.
        scale: factor on the number of steps.
    """

    shared: Path
    work: Path
    seeds: Sequence[int]
    scale: float

    @property
    def teachers(self) -> list[str]:
        """Specs of the experts, in the fastest runtime that is there."""
        runtime = ("openvino", "?precision=bf16") if importlib.util.find_spec("openvino") else ("onnx", "")
        return [f"{runtime[0]}/{self.shared}/teachers/{file}.onnx{runtime[1]}" for file in EXPERTS.values()]

    @property
    def paths(self) -> dict[str, str]:
        """Names of the paths by what their teachers are good at."""
        return dict(zip(EXPERTS, short_names(self.teachers), strict=True))

    def source(self, name: str) -> str:
        """A labelled set at the size of the experiment."""
        return f"{name}:{self.shared}/data/{SETS[name]}?height={HEIGHT}&width={WIDTH}"

    def config(self, name: str, seed: int) -> SakConfig:
        """Of one run."""
        pictures = ("camvid/train/images", "coco/train2017/images", "caltech101/train", "caltech101/unlabeled")
        settings = merged(
            read_settings("sak", ["laptop", "compared"]),
            {
                "teachers": self.teachers,
                "data": {
                    "sources": [f"{self.shared}/data/{folder}" for folder in pictures],
                    "seed": seed,
                    "keep_decoded": True,
                },
                "labelled": {"source": self.source(name), "view": {"size": [HEIGHT, WIDTH]}},
                "seed": seed,
                "engine": {"accelerator": "cpu", "tensorboard": False},
            },
        )
        for stage in ("stage1", "stage2"):
            for key in ("steps", "warmup_steps"):
                settings[stage][key] = max(1, round(settings[stage][key] * self.scale))
        return build(SakConfig, settings, f"{name}, seed {seed}")

    def run(self, name: str, seed: int) -> Path:
        """The finished run of one set and seed; stage 1 has no labels, so it is the same for both sets."""
        folder, other = (self.work / f"{one}-{seed}" for one in (name, next(set for set in SETS if set != name)))
        if not (folder / STAGE_1).exists() and (other / STAGE_1).exists() and (other / "results.json").exists():
            shutil.copytree(other / STAGE_1, folder / f".{STAGE_1}")
            self._begin(name, seed, folder)
        distill(self.config(name, seed), folder)
        return folder

    def _begin(self, name: str, seed: int, folder: Path) -> None:
        """Makes the folder a run that has its stage 1 already."""
        config = as_plain(self.config(name, seed).checked())
        RunFolder(folder, config).begin()
        (folder / f".{STAGE_1}").rename(folder / STAGE_1)


def measured(bench: Bench, name: str) -> Values:
    """Metrics of all arms; the single-task models are one row."""
    found: Values = {}
    for seed in bench.seeds:
        table = ResultTable.from_json((bench.run(name, seed) / "results.json").read_text())
        for arm, row in table.rows.items():
            values = {key.removeprefix("multitask/"): row[key] for key in row if key.startswith("multitask/")}
            for key, value in values.items():
                if value is not None:
                    shown = "single_task" if arm.startswith(SINGLE) else arm
                    found.setdefault(shown, {}).setdefault(key, []).append(value)
    found["single_task"]["Delta_m"] = [0.0] * len(bench.seeds)
    return found


@torch.no_grad()
def routed(bench: Bench, name: str) -> Values:
    """Mean weight of every expert over the validation pictures, by task and level."""
    found: Values = {}
    data = open_multitask(bench.source(name), "val")
    images = torch.stack([data.read(index).image for index in range(len(data))]).float() / 255
    for seed in bench.seeds:
        model = load_encoder(f"run/{bench.work}/{name}-{seed}/students/sak")
        assert isinstance(model, MultiTaskEncoder)
        levels = model.look(images)
        labels = {"stem": "stem", **{path: teacher for teacher, path in bench.paths.items()}}
        experts = [labels[path] for path in ("stem", *model.active)]
        for task in model.tasks:
            for number, weights in enumerate(model.weights(levels, task), 1):
                row = found.setdefault(f"{task}, level {number}", {})
                for expert, weight in zip(experts, weights.mean(0).tolist(), strict=True):
                    row.setdefault(expert, []).append(weight)
    return found


def probed(bench: Bench) -> Values:
    """Frozen stem and paths after stage 1, which has seen no label, on the tasks that the teachers are good at."""
    found: Values = {}
    data = {
        "knn": f"{bench.shared}/data/caltech101",
        "segmentation": f"{bench.shared}/data/camvid",
        "depth": f"{bench.shared}/data/rgbd_kitchen",
        "correspondence": f"{bench.shared}/data/rgbd_kitchen",
    }
    for seed in bench.seeds:
        folder = f"run/{bench.work}/camvid-{seed}/{STAGE_1}"
        models = {f"path of {teacher}": f"{folder}/paths?path={path}" for teacher, path in bench.paths.items()}
        models |= {"stem": f"{folder}/paths?path=stem", "many_to_one": f"{folder}/shared"}
        table = evaluate(models, list(PROBES.values()), data, size=(HEIGHT, WIDTH), seed=seed)
        for model, row in table.rows.items():
            for column in table.shown():
                value = row.get(column.key)
                if column.task in PROBES.values() and value is not None:
                    found.setdefault(model, {}).setdefault(column.key, []).append(value)
    return found


def costs(bench: Bench, name: str) -> Values:
    """What a picture costs with 0, 1, ... paths on, all tasks answered; wall time on the threads of this run."""
    model = load_encoder(f"run/{bench.work}/{name}-{bench.seeds[0]}/students/sak")
    assert isinstance(model, MultiTaskEncoder)
    return {
        str(len(row.paths)): {
            "parameters, M": [row.parameters],
            "GMACs": [row.giga_macs],
            "ms": [row.milliseconds or 0.0],
        }
        for row in path_costs(model, (HEIGHT, WIDTH), timing=True)
    }


def table(values: Values, first: str) -> list[str]:
    """A Markdown table: mean and standard deviation over seeds."""
    columns = list(dict.fromkeys(key for row in values.values() for key in row))
    lines = [f"| {first} | " + " | ".join(columns) + " |", "|---|" + "---:|" * len(columns)]
    for name, row in values.items():
        lines.append(f"| {name} | " + " | ".join(_shown(row.get(column)) for column in columns) + " |")
    return lines


def _shown(values: Sequence[float] | None) -> str:
    if not values:
        return "–"
    spread = f" ± {statistics.stdev(values):.3f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.3f}{spread}"


def publish(bench: Bench, output: Path) -> None:
    """Runs what is not finished and writes JSON and Markdown."""
    record: dict[str, Any] = {"machine": machine_info(), "seeds": list(bench.seeds), "scale": bench.scale}
    record["steps"] = _steps(bench)
    lines: list[str] = []
    for name in SETS:
        record[name] = {"arms": measured(bench, name), "routers": routed(bench, name), "costs": costs(bench, name)}
        lines += [f"## {name}: arms", "", *table(record[name]["arms"], "arm"), ""]
        lines += [f"## {name}: weights of the routers", "", *table(record[name]["routers"], "task, level"), ""]
        lines += [f"## {name}: cost of a picture", "", *table(record[name]["costs"], "paths on"), ""]
        _write(record, lines, output)
    record["probes"] = probed(bench)
    lines += ["## Frozen probes after stage 1", "", *table(record["probes"], "features"), ""]
    _write(record, lines, output)


def _steps(bench: Bench) -> dict[str, int]:
    config = bench.config("camvid", 0)
    return {
        "stage 1": config.stage1.steps,
        "pictures a step, stage 1": config.stage1.batch_size,
        "stage 2": config.stage2.steps,
        "pictures a step, stage 2": config.stage2.batch_size,
    }


def _write(record: Mapping[str, Any], lines: Sequence[str], output: Path) -> None:
    atomic_write_text(output, json.dumps(record, indent=1) + "\n")
    atomic_write_text(output.with_suffix(".md"), "\n".join(lines))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, required=True, help="folder with teachers/ and data/")
    parser.add_argument("--work", type=Path, required=True, help="folder for runs")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--scale", type=float, default=1.0, help="factor on the number of steps")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--output", type=Path, default=RESULTS / "sak.json")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    publish(Bench(args.shared.resolve(), args.work.resolve(), args.seeds, args.scale), args.output)


if __name__ == "__main__":
    main()
