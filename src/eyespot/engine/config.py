"""What the engine wants to know about a training, and about the machine it runs on."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal, Self

from pydantic import Field, model_validator
from pydantic.dataclasses import dataclass

from eyespot.config import STRICT


@dataclass(frozen=True, kw_only=True, config=STRICT)
class OptimConfig:
    """One training: its length, batches, optimiser and schedule."""

    steps: int = Field(ge=0)
    """Optimiser steps; 0 leaves the stage out."""
    batch_size: int = Field(gt=0)
    """Pictures per optimiser step, over all processes and accumulated micro-batches."""
    learning_rate: float = Field(gt=0)
    """Peak learning rate, reached after the warm-up."""
    final_learning_rate: float = Field(default=0.0, ge=0)
    """Where cosine and polynomial end; a step schedule never falls below it."""
    schedule: Literal["cosine", "step", "polynomial"] = "cosine"
    """How the learning rate falls after the warm-up: along a cosine, by a factor every so many steps, or along a power
    of what is left to do."""
    decay_every: int | None = Field(default=None, gt=0)
    """With schedule step: steps between two decays."""
    decay_rate: float = Field(default=0.1, gt=0, le=1)
    """With schedule step: the factor."""
    power: float = Field(default=0.9, gt=0)
    """With schedule polynomial: the power; 1 falls along a straight line, less falls later."""
    warmup_steps: int = Field(default=0, ge=0)
    """Steps of linear warm-up."""
    warmup_start: float | None = Field(default=None, ge=0)
    """Learning rate of step 0, from which the warm-up rises in equal parts to reach the peak in step `warmup_steps`.
    None: step 0 is the first of these parts, counted from 0, and step `warmup_steps` - 1 has the peak."""
    warmup_overlaps: bool = False
    """Whether the schedule counts its steps from step 0, so that the warm-up hides its beginning (timm's default,
    "warm-up not prefixed"), or from the end of the warm-up."""
    optimizer: Literal["adamw", "lamb", "sgd", "rmsprop"] = "adamw"
    """adamw; timm's lamb (for batches of thousands; set clip_norm 1 as timm does); sgd with Nesterov's momentum; or
    rmsprop as TensorFlow has it (timm's rmsproptf)."""
    weight_decay: float = Field(default=1e-4, ge=0)
    """Weight decay: decoupled in adamw, part of the scaled update in lamb, added to the gradient in sgd and rmsprop.
    Biases, norms and what the model's authors exclude get none."""
    betas: tuple[float, float] = (0.9, 0.999)
    """Moment decays of adamw and lamb."""
    momentum: float = Field(default=0.9, ge=0, lt=1)
    """Momentum of sgd and rmsprop."""
    eps: float | None = Field(default=None, gt=0)
    """What keeps the denominators of adamw (1e-8), lamb (1e-6) and rmsprop (1e-10, under the root) from zero; None for
    these."""
    clip_norm: float | None = Field(default=None, gt=0)
    """Largest norm of the whole gradient; None leaves it alone."""
    accumulate: int = Field(default=1, gt=0)
    """Micro-batches per optimiser step: less memory, same result."""
    ema_decay: float | None = Field(default=None, gt=0, lt=1)
    """Decay of an exponential moving average of the student, which then is the result; None for none."""

    @model_validator(mode="after")
    def _check_schedule(self) -> Self:
        if self.schedule == "step" and self.decay_every is None:
            raise ValueError("schedule 'step' needs decay_every, the number of steps between two decays")
        if self.warmup_start is not None and self.warmup_start > self.learning_rate:
            raise ValueError(
                f"warmup_start {self.warmup_start} is above the peak learning_rate {self.learning_rate}; "
                "a warm-up rises, so give at most the peak"
            )
        return self

    def with_steps(self, steps: int) -> Self:
        """The same over another number of steps, with a warm-up and decays in proportion; left out if it was."""
        if self.steps == 0:
            return self
        share = steps / self.steps
        decay = None if self.decay_every is None else max(1, round(self.decay_every * share))
        return replace(self, steps=steps, warmup_steps=round(self.warmup_steps * share), decay_every=decay)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class EngineConfig:
    """Where and how precisely a training runs, and what it writes while it does."""

    accelerator: str = "auto"
    """cpu, cuda, mps or auto."""
    devices: int = Field(default=1, gt=0)
    """Processes on this machine, one device each. Under torchrun, torchrun's numbers count."""
    nodes: int = Field(default=1, gt=0)
    """Machines."""
    strategy: Literal["ddp", "fsdp"] = "ddp"
    """What several processes do: ddp, each keeps everything; fsdp (FSDP2), each keeps a part of weights, gradients and
    optimiser state, for students that do not fit otherwise. See docs/cluster.md."""
    shard_teachers: bool = False
    """With fsdp, each process keeps a part of the frozen teachers too; by default it keeps all of them."""
    activation_checkpointing: bool = False
    """Compute the students' blocks twice instead of keeping what they computed: less memory, a third more time."""
    max_tokens: int | None = Field(default=None, gt=0)
    """Most tokens (pictures x patches, of the network that computes most of them) per process and micro-batch; steps
    with more are split further, so that memory stays level across resolutions. None: no bound."""
    compile: bool = False
    """Run the blocks of students and teachers through torch.compile; each picture size is compiled once."""
    precision: Literal["32-true", "bf16-mixed"] = "bf16-mixed"
    """bf16-mixed computes in bfloat16 where that is safe (losses are float32 always); 32-true in float32."""
    log_every: int = Field(default=50, gt=0)
    """Steps between two lines of metrics.jsonl; the only places where the host waits for the device."""
    checkpoint_every: int = Field(default=500, gt=0)
    """Steps between two checkpoints."""
    keep_checkpoints: int = Field(default=2, gt=0)
    """Newest checkpoints to keep per stage."""
    tensorboard: bool = True
    """Write TensorBoard files beside metrics.jsonl, if TensorBoard is installed (pip install eyespot[tensorboard])."""
    progress: bool = True
    """Show a progress bar."""
