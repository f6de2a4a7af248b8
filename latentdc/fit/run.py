"""``fit``: the loop around a training, with progress, sample grids, checkpoints and the finished decoder folder."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor
from tqdm import tqdm

from latentdc.atomic import destination
from latentdc.checkpoint import Checkpoints, uninterrupted
from latentdc.data.store import ClassStore
from latentdc.devices import check_precision
from latentdc.errors import DivergenceError, InputError
from latentdc.fit.card import check_publishable, publish
from latentdc.fit.figures import Figures, measure
from latentdc.fit.training import FitRecipe, Training
from latentdc.passing import reconstructions, samples

log = logging.getLogger(__name__)

_GRID_COLUMNS = 12
_SHOW_EVERY = 20


@dataclass
class _Run:
    """Where a run stands and how far it goes."""

    recipe: FitRecipe
    training: Training
    out: Path
    checkpoints: Checkpoints
    steps: int | None
    minutes: float | None
    also_fits: tuple[str, ...] = ()
    step: int = 0
    seconds: float = 0.0
    """Training time of earlier sittings plus this one, without figures."""
    losses: tuple[float, ...] = ()

    @property
    def progress(self) -> float:
        """Share of the run that is over, in [0, 1]."""
        if self.steps is not None:
            return self.step / self.steps
        return self.seconds / (60 * (self.minutes or 1.0))

    def save(self) -> None:
        """Write the checkpoint."""
        self.checkpoints.save(self.step, self.training.tensors(), {"seconds": self.seconds})

    def start(self, resume: bool) -> None:
        """Take the newest checkpoint up again, or clear away those of an earlier run."""
        saved = self.checkpoints.load() if resume else None
        if saved is not None:
            self.training.load(saved.tensors)
            self.step, self.seconds = saved.step, float(saved.state["seconds"])
            log.info("resumed at step %d", self.step)
        self.checkpoints.discard_after(-1 if saved is None else self.step)


def fit(
    store: ClassStore,
    recipe: FitRecipe,
    *,
    out: Path | str,
    steps: int | None = None,
    minutes: float | None = None,
    seed: int = 0,
    device: str = "cpu",
    precision: str = "fp32",
    resume: bool = False,
    checkpoint_seconds: float = 120.0,
    figures: bool = True,
    also_fits: Sequence[str] = (),
    progress: bool = True,
) -> Path:
    """Train a decoder on a store and write it as a folder to condense through; returns that folder.

    Beside ``out`` a folder ``<out>.training`` keeps the checkpoint and the sample grids. At every checkpoint ``out``
    is rewritten with the average so far, so an interrupted run leaves a usable decoder.

    Args:
        store: training images; a share ``recipe.holdout`` of each class is kept for the figures and never trained on.
        recipe: what is trained and how: a ``GanRecipe``, ``TuneRecipe``, ``AutoencoderRecipe`` or ``DiffusionRecipe``.
        out: folder to write; its name is the checkpoint's name. A fitted decoder that is there is replaced.
        steps: updates in all. Then the result is a function of the arguments, resumed or not.
        minutes: instead of steps, training time in all; learning rates follow the clock.
        seed: seed of everything random.
        device: torch device.
        precision: ``"fp32"`` or ``"bf16"`` (autocast; about 1.5 times as fast where the processor has it).
        resume: continue from the checkpoint if there is one.
        checkpoint_seconds: time between two checkpoints and sample grids.
        figures: measure the decoder on the held-out share at the end (takes minutes on a CPU).
        also_fits: names of other data sets of the same kind of image, for which the decoder may be a default.
        progress: show a progress bar on stderr.

    Raises:
        InputError: not exactly one of steps and minutes, an unknown precision, a place that is taken by something that
            is no fitted decoder or cannot be written, or a checkpoint of another run, one of another length too: the
            length decides when the learning rates fall.
        RecipeError: the images' size does not fit the recipe's channels.
        BundleError: the checkpoint is damaged.
        DivergenceError: a loss became NaN or infinite.
    """
    given = [length for length in (steps, minutes) if length is not None]
    if len(given) != 1 or not 0 < given[0] < math.inf:  # NaN is not between them either.
        raise InputError(f"steps = {steps}, minutes = {minutes}: give exactly one of them, a finite number above 0")
    check_precision(precision, torch.device(device))
    if isinstance(also_fits, str):
        raise InputError(f'also_fits = "{also_fits}": give a list of names of data sets')
    out = destination(out)
    check_publishable(out)
    if recipe.made_from and Path(recipe.made_from).resolve() == out.resolve():
        raise InputError(f"{out}: is the decoder that this one is made from, and would be lost; give another --out")
    train, held = store.holdout(recipe.holdout)
    training = recipe.training(train, seed=seed, device=torch.device(device), bf16=precision == "bf16")
    identity = {
        **{f"recipe.{name}": value for name, value in asdict(recipe).items()},
        "seed": seed,
        "precision": precision,
        "data": store.spec.fingerprint,
        "steps": steps,  # how far the run goes decides when its learning rates fall
        "minutes": minutes,
        **training.origin(),
    }
    kept = Checkpoints(out.with_name(out.name + ".training"), identity, every_seconds=checkpoint_seconds)
    run = _Run(recipe, training, out, kept, steps, minutes, also_fits=tuple(dict.fromkeys(also_fits)))
    run.start(resume)
    _train(run, store, progress=progress)
    _publish(run, store, None)  # Before the figures, which take minutes and may be interrupted.
    if figures:
        decoder, kind = training.decoder(), training.reconstructs
        _publish(run, store, measure(decoder, train, held, reconstructs=kind, seed=seed, precision=precision))
    return run.out


def _train(run: _Run, store: ClassStore, *, progress: bool) -> None:
    bar = tqdm(
        desc=f"fit {run.recipe.kind}",
        total=run.steps,
        initial=run.step,
        unit="step",
        disable=not progress,
        mininterval=1.0,
    )
    try:
        for part in run.training.prepare():
            bar.set_postfix_str(part)
        while run.progress < 1:
            with uninterrupted():
                _step(run)
            bar.update()
            if run.step % _SHOW_EVERY == 0:
                bar.set_postfix_str(_line(run), refresh=False)
            if run.checkpoints.due(run.step):
                _checkpoint(run, store)
    except KeyboardInterrupt:
        _checkpoint(run, store)
        log.warning("stopped at step %d; resume continues from %s", run.step, run.checkpoints.folder)
        raise
    finally:
        bar.close()
    run.save()


def _step(run: _Run) -> None:
    """One step of the game and of the counters that belong to it."""
    start = time.monotonic()
    run.losses = run.training.step(run.step, run.progress)
    if not all(math.isfinite(loss) for loss in run.losses):
        raise DivergenceError(
            f"step {run.step}: losses {run.losses}. Lower the learning rates in the recipe, or use fp32; "
            f"the checkpoint before it is in {run.checkpoints.folder}."
        )
    run.step += 1
    run.seconds += time.monotonic() - start


def _line(run: _Run) -> str:
    losses: dict[str, float] = run.losses._asdict()  # type: ignore[attr-defined]
    return " ".join(f"{name} {loss:.3g}" for name, loss in losses.items()) + f" {run.progress:.0%}"


def _checkpoint(run: _Run, store: ClassStore) -> None:
    run.save()
    _publish(run, store, None)
    grid = (run.out / "samples.png").read_bytes()
    (run.checkpoints.folder / f"samples-{run.step:07d}.png").write_bytes(grid)


def _publish(run: _Run, store: ClassStore, figures: Figures | None) -> None:
    decoder = run.training.decoder()
    facts = {
        "also_fits": list(run.also_fits),
        "steps": run.step,
        "seconds": round(run.seconds, 1),
        "complete": run.progress >= 1,
        "seed": run.training.seed,
        "precision": "bf16" if run.training.bf16 else "fp32",
        "train_fingerprint": run.training.store.spec.fingerprint,
        "train_images": len(run.training.store),
        "recipe": asdict(run.recipe),
        **run.training.origin(),
        "figures": None if figures is None else figures.as_dict(),
    }
    publish(run.out, decoder, store.spec, facts, kind=run.recipe.kind, picture=_picture(run, decoder))


def _picture(run: _Run, decoder: ModelMixin) -> tuple[Tensor, Tensor]:
    """Images ``(n, c, h, w)`` uint8, as many of each class, and their classes; the same ones at every checkpoint.

    Draws from the prior; where real images are decoded, the left half is real and the right half made of it.
    """
    training = run.training
    if not training.reconstructs:
        owner = torch.arange(training.store.spec.num_classes).repeat_interleave(_GRID_COLUMNS)
        return samples(decoder, owner, seed=training.seed), owner
    real = training.store.limit(min(_GRID_COLUMNS // 2, *training.store.counts))
    num = real.spec.num_classes
    made = reconstructions(decoder, real.images, real.labels)
    both = [images.reshape(num, -1, *images.shape[1:]) for images in (real.images, made)]
    return torch.cat(both, dim=1).flatten(0, 1), real.labels.repeat_interleave(2)
