"""The loop: batch, loss, step; now and then a validation and a checkpoint.

What a step does depends on the checkpoint before it and on its number, on nothing else: batches,
learning rate and dropout are functions of the step. So a training that is killed and continued
makes the same weights as one that is not.
"""

from __future__ import annotations

import math
import platform
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from tilemap.errors import ConfigError, OutputError, StoreError, TrainingError
from tilemap.evaluation.metrics import scores
from tilemap.training import checkpoint as disk
from tilemap.training.ema import Average
from tilemap.training.history import FILE as HISTORY
from tilemap.training.history import History
from tilemap.training.interface import Data, Fitted, Listener, Place, Silent
from tilemap.training.losses import Losses, balanced_weights, batch_loss
from tilemap.training.running import Ahead, pick_device, reproducible, seed_step
from tilemap.training.schedule import Schedule
from tilemap.training.split import Part
from tilemap.training.validate import count_pairs, mean_iou

if TYPE_CHECKING:
    from tilemap.training.config import TrainingConfig
    from tilemap.training.samples import Batch


def losses_of(config: TrainingConfig, counts: npt.NDArray[np.int64]) -> Losses:
    """The losses a configuration asks for.

    Args:
        counts: labelled pixels (part, class).
    """
    names = config.loss.name.split("+")
    given = config.loss.weights
    weights: tuple[float, ...] | None = None
    if given == "balanced":
        weights = balanced_weights(counts[Part.TRAIN])
    elif given != "none":
        weights = tuple(float(w) for w in given)
    taught = config.distillation
    return Losses(
        pixel=next((name for name in names if name != "dice"), None),
        dice="dice" in names,
        weights=weights,
        gamma=config.loss.gamma,
        smoothing=config.loss.smoothing,
        temperature=1.5 if taught is None else taught.temperature,
        share=1.0 if taught is None else taught.share,
    )


def logged_every(steps: int) -> int:
    """Steps whose mean loss makes one line of the history."""
    return min(max(steps // 100, 1), 20)


NARROW = 12
"""Channels below which a layer is narrow; none of 12 or more was seen to fail."""


def layout_of(network: nn.Module) -> torch.memory_format:
    """How images lie in memory: channels last, which is faster, or first for narrow networks.

    The backward pass of torch 2.13 ends the process without a word on some CPUs where a layer has
    8 channels, its image 256 pixels a side, and channels lie last.
    """
    convs = [m for m in network.modules() if isinstance(m, nn.Conv2d)]
    inner = [m.out_channels for m in convs[:-1] if max(m.kernel_size) > 1]  # heads give classes
    narrow = min(inner, default=NARROW) < NARROW
    return torch.contiguous_format if narrow else torch.channels_last


class _Training:
    """A training between two steps."""

    def __init__(
        self,
        network: nn.Module,
        data: Data,
        config: TrainingConfig,
        place: Place,
        listener: Listener,
        learned: bool,
    ) -> None:
        self.learned = learned
        self.data, self.config, self.place, self.listener = data, config, place, listener
        self.loop = config.training
        self.device = pick_device(place.device)
        self.network = network.to(self.device).train()
        self.layout = layout_of(self.network)
        self.network.to(memory_format=self.layout)  # type: ignore[call-overload]
        self.average = Average(self.network, self.loop.ema) if self.loop.ema > 0 else None
        self.optimiser = torch.optim.AdamW(
            self.network.parameters(), lr=self.loop.rate, weight_decay=self.loop.weight_decay
        )
        self.schedule = Schedule(
            self.loop.schedule, self.loop.rate, self.loop.steps, self.loop.warmup
        )
        self.losses = losses_of(config, data.counts)
        self.progress = disk.Progress()
        self.best: disk.Tensors | None = None
        self.kept = 0
        folder = place.folder
        self.history = History(None if folder is None else folder / HISTORY)
        self.file = None if folder is None else folder / disk.FILE
        self.validates = bool(data.counts[Part.VALIDATION].sum())

    # --- one step ------------------------------------------------------------------------------

    def step(self, batch: Batch) -> float:
        """Learn from one batch; its loss."""
        step = self.progress.step
        for group in self.optimiser.param_groups:
            group["lr"] = self.schedule.rate(step)
        seed_step(self.config.seed, step)
        self.network.train()
        image, label, teacher = self._tensors(batch)
        half = self.loop.precision == "bfloat16"
        with torch.autocast(self.device.type, torch.bfloat16, enabled=half), _told(batch):
            logits = self.network(image)
        loss = batch_loss(logits, label, teacher, self.losses)
        value = float(loss.detach())
        if not math.isfinite(value):
            raise self._broken(f"the loss is {value}", batch)
        self.optimiser.zero_grad()
        loss.backward()
        norm = nn.utils.clip_grad_norm_(self.network.parameters(), self.loop.clip or math.inf)
        if not math.isfinite(float(norm)):
            raise self._broken(f"the gradient has the norm {float(norm)}", batch)
        self.optimiser.step()
        if self.average is not None:
            self.average.follow(self.network, step + 1)
        return value

    def _tensors(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor | None]:
        image = torch.from_numpy(np.require(batch.image, np.float32, ["C", "W"]))
        label = torch.from_numpy(np.require(batch.label, np.uint8, ["C", "W"]))
        teacher = None
        if batch.teacher is not None:
            teacher = torch.from_numpy(np.require(batch.teacher, np.float32, ["C", "W"]))
            teacher = teacher.to(self.device)
        image = image.to(self.device, memory_format=self.layout)
        return image, label.to(self.device), teacher

    def _broken(self, what: str, batch: Batch) -> TrainingError:
        kept = f"the checkpoint of step {self.kept} is kept; " if self.kept else ""
        places = "; ".join(batch.places[:4]) + (" ..." if len(batch.places) > 4 else "")
        return TrainingError(
            f"step {self.progress.step + 1} must have a finite loss and gradient, but {what}; its "
            f"crops: {places}\n{kept}lower training.rate or training.clip, or look at those crops"
        )

    # --- now and then --------------------------------------------------------------------------

    @property
    def evaluated(self) -> nn.Module:
        """The network that counts: the average, where there is one."""
        return self.network if self.average is None else self.average.network

    def validate(self) -> None:
        """Measure, and keep the weights if they are the best so far."""
        progress, classes = self.progress, self.data.classes
        network = self.evaluated.eval()
        blocks = self.data.blocks(Part.VALIDATION)
        matrix = count_pairs(network, blocks, len(classes), self.loop.precision)
        found = mean_iou(matrix)
        if found > progress.best:
            progress.best, progress.best_step, progress.stale = found, progress.step, 0
            self.best = _copied(network)
        else:
            progress.stale += 1
        iou = scores(matrix).iou
        shown = matrix.sum(axis=1) > 0
        told = {c.name: float(iou[i]) for i, c in enumerate(classes) if shown[i]}
        self.history.add(
            {"step": progress.step, "miou": found, "iou": told, "seconds": self._seconds()}
        )
        each = ", ".join(f"{name} {value:.3f}" for name, value in told.items())
        self.listener.note(f"step {progress.step}: validation mIoU {found:.4f} ({each})")

    def log(self) -> None:
        """The mean loss since the last line."""
        progress = self.progress
        self.history.add(
            {
                "step": progress.step,
                "loss": progress.losses / progress.counted,
                "rate": self.schedule.rate(progress.step - 1),
                "seconds": self._seconds(),
            }
        )
        progress.losses, progress.counted = 0.0, 0

    def _seconds(self) -> float:
        return round(self.progress.seconds, 1)

    # --- checkpoints ---------------------------------------------------------------------------

    def save(self) -> None:
        """Write the checkpoint, after everything it vouches for is on the disk."""
        if self.file is None:
            return
        self.history.flush()
        average = None if self.average is None else self.average.network.state_dict()
        disk.write_checkpoint(
            self.file,
            disk.Checkpoint(
                self.progress,
                self.place.identity,
                self.network.state_dict(),
                average,
                self.best,
                disk.optimiser_tensors(self.network, self.optimiser),
                _made_with(self.device, self.place.threads),
            ),
        )
        self.kept = self.progress.step

    def resume(self) -> None:
        """Go to where the checkpoint is, if there is one."""
        if self.file is None:
            return
        if (found := self._kept()) is not None:
            if found.identity != self.place.identity:
                raise OutputError(
                    f"{self.file} belongs to another training; give another `out`, or `fresh`"
                )
            self.network.load_state_dict(found.model)
            if self.average is not None and found.average is not None:
                self.average.network.load_state_dict(found.average)
            disk.restore_optimiser(self.network, self.optimiser, found.optimiser)
            self.best, self.progress, self.kept = found.best, found.progress, found.progress.step
            now = _made_with(self.device, self.place.threads)
            for key, value in now.items():
                if (before := found.made_with.get(key)) != value:
                    self.listener.note(
                        f"continuing with {key} {value}, it was {before}: weights may differ in "
                        "their last bits from those of an unbroken training"
                    )
        # Without a checkpoint nothing vouches for a line, not even for that of step 0.
        self.history.begin(self.progress.step if self.kept else -1)

    def _kept(self) -> disk.Checkpoint | None:
        """Return the checkpoint; None if there is none, or a damaged one."""
        if self.file is None or not self.file.exists():
            return None
        try:
            return disk.read_checkpoint(self.file)
        except StoreError as error:
            self.listener.note(f"{error}; the training begins again")
            return None

    # --- the loop ------------------------------------------------------------------------------

    def run(self) -> None:
        """All steps that are left."""
        progress, loop = self.progress, self.loop
        self.listener.begin(loop.steps, progress.step)
        if self.learned and self.validates and progress.step == 0:
            self.validate()
        with closing(Ahead(self.data.batch, loop.steps)) as ahead:
            while not progress.ended:
                begun = time.monotonic()
                loss = self.step(ahead.get(progress.step))
                progress.step += 1
                progress.losses += loss
                progress.counted += 1
                last = progress.step == loop.steps
                if progress.step % logged_every(loop.steps) == 0 or last:
                    self.log()
                if self.validates and (progress.step % loop.validate_every == 0 or last):
                    ahead.rest()
                    self.validate()
                    if 0 < loop.patience <= progress.stale and not last:
                        self.listener.note(f"no better for {progress.stale} validations: it ends")
                        last = True
                progress.ended = last
                progress.seconds += time.monotonic() - begun
                if progress.step % loop.checkpoint_every == 0 or last:
                    self.save()
                self.listener.step(progress.step, loss)


@contextmanager
def _told(batch: Batch) -> Iterator[None]:
    """What a forward cannot do with a batch of this size, for a person."""
    try:
        yield
    except torch.cuda.OutOfMemoryError:
        raise TrainingError(
            f"a batch of {batch.image.shape} must fit into the memory of the GPU, it does not; "
            "lower sampling.batch or sampling.crop"
        ) from None
    except ValueError as error:
        if "more than 1 value per channel" not in str(error):
            raise
        raise ConfigError(
            f"a normalisation needs more than one value of each plane, a batch of "
            f"{batch.image.shape} leaves one; raise sampling.batch or sampling.crop"
        ) from None


def _copied(network: nn.Module) -> disk.Tensors:
    return {name: value.detach().cpu().clone() for name, value in network.state_dict().items()}


def _made_with(device: torch.device, threads: int) -> dict[str, Any]:
    return {
        "device": device.type,
        "threads": threads,
        "torch": torch.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
    }


def fit(
    network: nn.Module,
    data: Data,
    config: TrainingConfig,
    place: Place | None = None,
    listener: Listener | None = None,
    learned: bool = False,
) -> Fitted:
    """Train a network, or go on with it where its checkpoint is.

    Args:
        network: from ``networks.build``, freshly initialised, or one that has learned; it is
            changed.
        data: batches and blocks.
        config: its loop, loss, distillation and seed count here.
        place: where it runs and is kept; default on the CPU, one thread, kept nowhere.
        listener: told what happens.
        learned: the network has learned before. Its weights are validated before the first step
            and are given back if no step makes better ones.

    Raises:
        TrainingError: if a loss or a gradient is not finite; the last checkpoint is kept.
        OutputError: if a checkpoint cannot be written, or is of another training or version.
    """
    place, listener = place or Place(), listener or Silent()
    with reproducible(pick_device(place.device), place.threads):
        training = _Training(network, data, config, place, listener, learned)
        training.resume()
        try:
            training.run()
        finally:
            listener.end()
        fitted = training.evaluated
        if training.best is not None:
            fitted.load_state_dict(training.best)
    return Fitted(fitted.eval(), training.progress, training.history.lines)


def fine_tune(
    network: nn.Module,
    data: Data,
    config: TrainingConfig,
    steps: int,
    place: Place | None = None,
    listener: Listener | None = None,
) -> Fitted:
    """Train a network that has learned before for some more steps, such as after pruning.

    If no step makes it better on the validation part, it comes back as it was.

    Args:
        network: with its weights; it is changed.
        config: as it was trained with; rate and schedule start anew over ``steps``.
        steps: 1 or more.
        place: see ``fit``; its folder must not be that of another training.
    """
    loop = config.training.model_copy(update={"steps": steps})
    config = config.model_copy(update={"training": loop})
    return fit(network, data, config, place, listener, learned=True)
