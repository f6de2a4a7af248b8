"""``fit_gan``: the loop around the game, with progress, sample grids, checkpoints and the finished decoder folder."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from latentdc.atomic import destination
from latentdc.checkpoint import Checkpoints, uninterrupted
from latentdc.data.store import ClassStore
from latentdc.errors import DivergenceError, InputError
from latentdc.fit.card import check_publishable, publish
from latentdc.fit.figures import Figures, measure
from latentdc.fit.gan import GanGame, GanRecipe, Losses
from latentdc.portable.gan import GanDecoder
from latentdc.seeding import stream

log = logging.getLogger(__name__)

_GRID_COLUMNS = 12
_SHOW_EVERY = 20


@dataclass
class _Run:
    """Where a run stands and how far it goes."""

    game: GanGame
    out: Path
    checkpoints: Checkpoints
    steps: int | None
    minutes: float | None
    also_fits: tuple[str, ...] = ()
    step: int = 0
    seconds: float = 0.0
    """Training time of earlier sittings plus this one, without figures."""
    losses: Losses = field(default_factory=lambda: Losses(0.0, 0.0, 0.0))

    @property
    def progress(self) -> float:
        """Share of the run that is over, in [0, 1]."""
        if self.steps is not None:
            return self.step / self.steps
        return self.seconds / (60 * (self.minutes or 1.0))

    def save(self) -> None:
        """Write the checkpoint."""
        self.checkpoints.save(self.step, self.game.tensors(), {"seconds": self.seconds})

    def start(self, resume: bool) -> None:
        """Take the newest checkpoint up again, or clear away those of an earlier run."""
        saved = self.checkpoints.load() if resume else None
        if saved is not None:
            self.game.load(saved.tensors)
            self.step, self.seconds = saved.step, float(saved.state["seconds"])
            log.info("resumed at step %d", self.step)
        self.checkpoints.discard_after(-1 if saved is None else self.step)


def fit_gan(
    store: ClassStore,
    recipe: GanRecipe | None = None,
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
    """Train a class-conditional generator on a store and write it as a decoder folder; returns that folder.

    Beside ``out`` a folder ``<out>.training`` keeps the checkpoint and the sample grids. At every checkpoint ``out``
    is rewritten with the average so far, so an interrupted run leaves a usable decoder.

    Args:
        store: training images; a share ``recipe.holdout`` of each class is kept for the figures and never trained on.
        recipe: the generator and its game; defaults to ``GanRecipe()``.
        out: folder to write; its name is the checkpoint's name. A generator that is there is replaced.
        steps: updates in all. Then the result is a function of the arguments, resumed or not.
        minutes: instead of steps, training time in all; learning rates follow the clock.
        seed: seed of everything random.
        device: torch device.
        precision: ``"fp32"`` or ``"bf16"`` (autocast; about 1.5 times as fast where the processor has it).
        resume: continue from the checkpoint if there is one.
        checkpoint_seconds: time between two checkpoints and sample grids.
        figures: measure density, coverage and accuracies on the held-out share at the end (takes minutes on a CPU).
        also_fits: names of other data sets of the same kind of image, for which the decoder may be a default.
        progress: show a progress bar on stderr.

    Raises:
        InputError: not exactly one of steps and minutes, an unknown precision, a place that is taken by something that
            is no generator or cannot be written, or a checkpoint of another run, one of another length too: the length
            decides when the learning rates fall.
        RecipeError: the images' size does not fit the recipe's channels.
        BundleError: the checkpoint is damaged.
        DivergenceError: a loss became NaN or infinite.
    """
    given = [length for length in (steps, minutes) if length is not None]
    if len(given) != 1 or not 0 < given[0] < math.inf:  # NaN is not between them either.
        raise InputError(f"steps = {steps}, minutes = {minutes}: give exactly one of them, a finite number above 0")
    if precision not in ("fp32", "bf16"):
        raise InputError(f'precision "{precision}": give "fp32" or "bf16"')
    if isinstance(also_fits, str):
        raise InputError(f'also_fits = "{also_fits}": give a list of names of data sets')
    recipe, out = recipe or GanRecipe(), destination(out)
    check_publishable(out)
    train, held = store.holdout(recipe.holdout)
    game = GanGame(train, recipe, seed=seed, device=torch.device(device), bf16=precision == "bf16")
    identity = {
        **{f"recipe.{name}": value for name, value in asdict(recipe).items()},
        "seed": seed,
        "precision": precision,
        "data": store.spec.fingerprint,
        "steps": steps,  # how far the run goes decides when its learning rates fall
        "minutes": minutes,
    }
    kept = Checkpoints(out.with_name(out.name + ".training"), identity, every_seconds=checkpoint_seconds)
    run = _Run(game, out, kept, steps, minutes, also_fits=tuple(dict.fromkeys(also_fits)))
    run.start(resume)
    _train(run, store, progress=progress)
    _publish(run, store, None)  # Before the figures, which take minutes and may be interrupted.
    if figures:
        _publish(run, store, measure(game.decoder(), train, held, seed=seed, precision=precision))
    return run.out


def _train(run: _Run, store: ClassStore, *, progress: bool) -> None:
    bar = tqdm(desc="fit gan", total=run.steps, initial=run.step, unit="step", disable=not progress, mininterval=1.0)
    try:
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
    run.losses = run.game.step(run.step, run.progress)
    if not all(math.isfinite(loss) for loss in run.losses):
        raise DivergenceError(
            f"step {run.step}: losses {run.losses}. Lower generator_rate and critic_rate in the recipe, or use fp32; "
            f"the checkpoint before it is in {run.checkpoints.folder}."
        )
    run.step += 1
    run.seconds += time.monotonic() - start


def _line(run: _Run) -> str:
    losses = run.losses
    return f"critic {losses.critic:.2f} generator {losses.generator:+.2f} error {losses.error:.1f} {run.progress:.0%}"


def _checkpoint(run: _Run, store: ClassStore) -> None:
    run.save()
    _publish(run, store, None)
    grid = (run.out / "samples.png").read_bytes()
    (run.checkpoints.folder / f"samples-{run.step:07d}.png").write_bytes(grid)


def _publish(run: _Run, store: ClassStore, figures: Figures | None) -> None:
    decoder = run.game.decoder()
    facts = {
        "also_fits": list(run.also_fits),
        "steps": run.step,
        "seconds": round(run.seconds, 1),
        "complete": run.progress >= 1,
        "seed": run.game.seed,
        "precision": "bf16" if run.game.bf16 else "fp32",
        "train_fingerprint": run.game.store.spec.fingerprint,
        "train_images": len(run.game.store),
        "recipe": asdict(run.game.recipe),
        "figures": None if figures is None else asdict(figures),
    }
    images, owner = _samples(decoder.cpu(), run.game.seed)
    publish(run.out, decoder, store.spec, facts, images=images, owner=owner)


@torch.no_grad()
def _samples(decoder: GanDecoder, seed: int) -> tuple[Tensor, Tensor]:
    """Images ``(n, c, h, w)`` uint8 and their classes; the same latents at every checkpoint."""
    owner = torch.arange(decoder.num_classes).repeat_interleave(_GRID_COLUMNS)
    images: Tensor = decoder(decoder.prior(owner, stream(seed, "gan-grid")), owner)
    return images.clamp(0, 1).mul(255).round().to(torch.uint8), owner
