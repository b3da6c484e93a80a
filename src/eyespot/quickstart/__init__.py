"""The whole pipeline on the built-in toybox: no network, no data, no weights needed.

Three experts learn different things, a proxy learns from all three, a student learns from the proxy (stages 2 and 3),
and a second student of the same size learns straight from the experts for the same number of steps. All of them are
measured on the same six tasks; zero-shot naming goes through the adapter heads into the space of the image-text expert.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Console

from eyespot.config import as_plain, build
from eyespot.data.sets import ToyboxConfig
from eyespot.distill.warm_start import new_encoder
from eyespot.encoders import Encoder, load_encoder
from eyespot.engine.config import OptimConfig
from eyespot.engine.run import RunFolder
from eyespot.engine.strategy import start_fabric
from eyespot.evaluate import DEFAULT_TASKS, ResultTable, evaluate, shown_progress
from eyespot.evaluate.results import read_table
from eyespot.quickstart.experts import EXPERTS, SceneBatches, text_tower_spec, train_expert
from eyespot.recipes.eupe import EupeConfig, distill
from eyespot.recipes.presets import read_settings
from eyespot.runs.config import RUNTIME_ONLY

EXPERT_MODELS = {
    "what": "timm/resnet10t?channels=32,64,128,256&output_stride=16",
    "where": "timm/resnet10t?channels=32,64,128,256&output_stride=8",
    "read": "timm/resnet10t?channels=32,64,128,192&output_stride=16",
}


@dataclass(frozen=True)
class QuickstartLength:
    """How long a quickstart takes."""

    scenes: int
    expert_steps: int
    shorten: float
    test_scenes: int


SIZES = {"full": QuickstartLength(2400, 260, 1.0, 400), "short": QuickstartLength(480, 60, 0.12, 100)}
PICTURE = 64
TEMPLATES = ("a {}", "a striped {}", "a checkered {}", "a dotted {}")


def quickstart(output: str | Path, preset: str = "full", seed: int = 0) -> ResultTable:
    """Trains, measures and reports; the same call again continues where an earlier one stopped.

    Args:
        output: the run folder: experts/, direct/ (the student without a proxy), the stages, student/, report.html.
        preset: "full" or "short".
        seed: of everything.

    Returns:
        The table: experts, proxy, students and the untrained student on six tasks.

    Raises:
        ValueError: no such preset.
        RunMismatchError: the folder holds a run of another preset or seed.
    """
    if preset not in SIZES:
        raise ValueError(f"quickstart has no preset {preset!r}; there are {', '.join(SIZES)}")
    size, output, say = SIZES[preset], Path(output), Console(stderr=True).print
    config = quickstart_config(output, size, seed)
    fabric = start_fabric(config.engine)
    run = RunFolder(output, as_plain(config), free=RUNTIME_ONLY)
    if fabric.is_global_zero:
        run.begin()

    say(f"[bold]1/5[/bold] three experts learn from {size.scenes} toybox scenes: {', '.join(EXPERTS)}")
    optim = OptimConfig(steps=size.expert_steps, batch_size=64, learning_rate=2e-3, warmup_steps=20, weight_decay=0.02)
    batches = SceneBatches(size.scenes, PICTURE, 64, seed, fabric.global_rank, fabric.world_size)
    for name in EXPERTS:
        train_expert(fabric, name, EXPERT_MODELS[name], batches, optim, config.engine, output, seed)

    say("[bold]2/5[/bold] a student learns straight from the three experts, for comparison")
    direct = load_encoder(f"run/{distill(direct_config(config), output / 'direct')}")

    say("[bold]3/5[/bold] EUPE: the proxy learns from the experts, the student from the proxy, then at several sizes")

    def measure(made: dict[str, Encoder]) -> ResultTable:
        say("[bold]4/5[/bold] all of them on six tasks")
        untrained = new_encoder(config.student.model[0], seed, "student").eval()
        models = {**made, "student, direct": direct, "student, untrained": untrained}
        text = {"text": text_tower_spec(output, "what"), "space": "what", "templates": TEMPLATES}
        scenes = ToyboxConfig(2 * size.test_scenes, size.test_scenes, min(200, size.test_scenes), PICTURE)
        with shown_progress() as progress:
            return evaluate(
                models, [*DEFAULT_TASKS, "zero_shot"], scenes, PICTURE, options={"zero_shot": text}, progress=progress
            )

    distill(config, output, measure)
    say(f"[bold]5/5[/bold] report: {run.report}")
    return read_table(run.results)


def quickstart_config(output: Path, size: QuickstartLength, seed: int) -> EupeConfig:
    """The preset `quickstart` with this run's experts, scenes and length."""
    settings = read_settings("eupe", ["quickstart"])
    settings["teachers"] = [f"run/{output / 'experts' / name}" for name in EXPERTS]
    settings["data"]["sources"] = [f"toybox:{size.scenes}@{settings['data']['size']}"]
    settings["seed"] = seed
    config = build(EupeConfig, settings, "quickstart")
    stages = {
        name: replace(
            stage, steps=round(stage.steps * size.shorten), warmup_steps=round(stage.warmup_steps * size.shorten)
        )
        for name, stage in (("stage1", config.stage1), ("stage2", config.stage2), ("stage3", config.stage3))
    }
    return replace(config, stage1=stages["stage1"], stage2=stages["stage2"], stage3=stages["stage3"])


def direct_config(config: EupeConfig) -> EupeConfig:
    """The same student, straight from the experts, with the steps of stages 2 and 3 together."""
    steps = config.stage2.steps + config.stage3.steps
    return replace(
        config,
        proxy=None,
        stage2=replace(config.stage2, steps=steps, teacher_sizes=config.stage1.teacher_sizes),
        stage3=replace(config.stage3, steps=0),
    )
