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

from latentdc.data.store import ClassStore
from latentdc.errors import BundleError, DivergenceError, InputError
from latentdc.fit.card import publish
from latentdc.fit.figures import Figures, measure
from latentdc.fit.gan import GanGame, GanRecipe, Losses
from latentdc.fit.state import Facts, load_state, save_state
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
    steps: int | None
    minutes: float | None
    also_fits: tuple[str, ...] = ()
    step: int = 0
    seconds: float = 0.0
    """Training time of earlier sittings plus this one, without figures."""
    recipe_text: str = ""
    losses: Losses = field(default_factory=lambda: Losses(0.0, 0.0, 0.0))

    @property
    def progress(self) -> float:
        """Share of the run that is over, in [0, 1]."""
        if self.steps is not None:
            return self.step / self.steps
        return self.seconds / (60 * (self.minutes or 1.0))

    @property
    def folder(self) -> Path:
        """Working folder beside the result: checkpoint and sample grids."""
        return self.out.with_name(self.out.name + ".training")

    @property
    def state_path(self) -> Path:
        """The one checkpoint file."""
        return self.folder / "state.safetensors"

    def save(self) -> None:
        """Write the checkpoint."""
        facts: Facts = {"step": self.step, "seconds": self.seconds, "recipe": self.recipe_text}
        save_state(self.state_path, self.game.tensors(), facts)

    def resume(self) -> None:
        """Take the checkpoint up again."""
        tensors, facts = load_state(self.state_path)
        if facts["recipe"] != self.recipe_text:
            raise BundleError(
                f"{self.state_path} belongs to another recipe, data set or seed:\n  {facts['recipe']}\n  asked for: "
                f"{self.recipe_text}\nRepeat its settings, or choose another output folder."
            )
        self.game.load(tensors)
        self.step, self.seconds = int(facts["step"]), float(facts["seconds"])


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
        out: folder to write; its name is the checkpoint's name.
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
        InputError: not exactly one of steps and minutes, or an unknown precision.
        BundleError: the checkpoint belongs to another run or is damaged.
        DivergenceError: a loss became NaN or infinite.
    """
    given = [length for length in (steps, minutes) if length is not None]
    if len(given) != 1 or given[0] <= 0:
        raise InputError(f"steps = {steps}, minutes = {minutes}: give exactly one of them, above 0")
    if precision not in ("fp32", "bf16"):
        raise InputError(f'precision "{precision}": give "fp32" or "bf16"')
    recipe = recipe or GanRecipe()
    train, held = store.holdout(recipe.holdout)
    game = GanGame(train, recipe, seed=seed, device=torch.device(device), bf16=precision == "bf16")
    run = _Run(game, Path(out), steps, minutes, also_fits=tuple(also_fits))
    run.recipe_text = f"{asdict(recipe)} seed={seed} {precision} data={store.spec.fingerprint}"
    if resume and run.state_path.exists():
        run.resume()
        log.info("resumed at step %d", run.step)
    _train(run, store, checkpoint_seconds=checkpoint_seconds, progress=progress)
    measured = measure(game.decoder(), train, held, seed=seed, precision=precision) if figures else None
    _publish(run, store, measured)
    return run.out


def _train(run: _Run, store: ClassStore, *, checkpoint_seconds: float, progress: bool) -> None:
    total = run.steps if run.steps is not None else None
    bar = tqdm(desc="fit gan", total=total, initial=run.step, unit="step", disable=not progress, mininterval=1.0)
    saved = time.monotonic()
    try:
        while run.progress < 1:
            start = time.monotonic()
            run.losses = run.game.step(run.step, run.progress)
            if not all(math.isfinite(loss) for loss in run.losses):
                raise DivergenceError(
                    f"step {run.step}: losses {run.losses}. Lower generator_rate and critic_rate in the recipe, or use "
                    f"fp32; the checkpoint before it is {run.state_path}."
                )
            run.step += 1
            run.seconds += time.monotonic() - start
            bar.update()
            if run.step % _SHOW_EVERY == 0:
                bar.set_postfix_str(_line(run), refresh=False)
            if time.monotonic() - saved >= checkpoint_seconds:
                _checkpoint(run, store)
                saved = time.monotonic()
    except KeyboardInterrupt:
        _checkpoint(run, store)
        log.warning("stopped at step %d; resume continues from %s", run.step, run.state_path)
        raise
    finally:
        bar.close()
    run.save()


def _line(run: _Run) -> str:
    losses = run.losses
    return f"critic {losses.critic:.2f} generator {losses.generator:+.2f} error {losses.error:.1f} {run.progress:.0%}"


def _checkpoint(run: _Run, store: ClassStore) -> None:
    run.save()
    _publish(run, store, None)
    grid = (run.out / "samples.png").read_bytes()
    (run.folder / f"samples-{run.step:07d}.png").write_bytes(grid)


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
    publish(run.out, decoder.cpu(), store.spec, facts, grid=_grid(decoder.cpu(), run.game.seed))


@torch.no_grad()
def _grid(decoder: GanDecoder, seed: int) -> Tensor:
    """Samples ``(k, columns, c, h, w)``, one row a class; the same latents at every checkpoint."""
    owner = torch.arange(decoder.num_classes).repeat_interleave(_GRID_COLUMNS)
    images: Tensor = decoder(decoder.prior(owner, stream(seed, "gan-grid")), owner)
    return images.reshape(decoder.num_classes, _GRID_COLUMNS, *decoder.image_shape)
