"""The loop: pull the latents of a small set until the images they decode to look like the real set.

    min over z of  Σ_steps objective(view(step), decoder(z))

Nothing here knows a file format, a recipe or a data set: decoder and bank are upstream of the waist, objective and
source downstream, and ``checkpoints`` keeps the state. Classes are shared out over processes and gradients summed once
a step, so bank and optimiser stay equal everywhere and the result does not depend on the number of processes.
"""

# The functions of accelerate and tqdm carry no types.
# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, NamedTuple

import torch
from accelerate.accelerator import Accelerator
from torch import Tensor, nn
from tqdm import tqdm

from latentdc.checkpoint import Checkpoints, RunState, uninterrupted
from latentdc.decoders.chunks import fitting_chunk
from latentdc.devices import accelerator_on, device_of
from latentdc.errors import DivergenceError, InputError
from latentdc.labels import as_logits, check_moved, logits_of
from latentdc.latents import Decoding, as_it_is, decode, decoded, learns
from latentdc.networks.compiled import Observe, Observed, compiled, observer, precision_context
from latentdc.objectives import Objective
from latentdc.optim import Optim, written
from latentdc.portable.bank import LatentBank
from latentdc.sharing import passes, reduce_sum, share
from latentdc.source import Source
from latentdc.types import Decoder, Formation

__all__ = ["Optim", "Step", "condense"]


class Step(NamedTuple):
    """What ``on_step`` callbacks see after a step."""

    step: int
    """Steps completed, from 1."""
    loss: float
    lr: float | dict[str, float]
    """Learning rate, or that of each latent key."""
    seconds: float
    """Time spent in the loop so far, over all resumes."""
    bank: LatentBank


def condense(
    decoder: Decoder,
    bank: LatentBank,
    objective: Objective,
    source: Source,
    *,
    steps: int,
    optim: Optim,
    seed: int,
    chunk: int | None = None,
    accelerator: Accelerator | None = None,
    device: torch.device | None = None,
    precision: str | None = None,
    compile: bool = False,
    formation: Formation | None = None,
    checkpoints: Checkpoints | None = None,
    project: Callable[[LatentBank], None] | None = None,
    on_step: Sequence[Callable[[Step], None]] = (),
    progress: bool = True,
) -> LatentBank:
    """Optimise ``bank`` in place and return it; see the top of this file.

    Args:
        decoder: latents → images; it is frozen, unless its class says ``learned``: it then belongs to the set.
        bank: the learnable latents, stored in fp32; soft labels of its rows are learned too, as logits, unless they
            require no gradient.
        objective: ``(view, syn) → scalar``; a sum over the classes present in ``syn``.
        source: the real side, a ``Minibatches`` or a ``Sketch``.
        steps: number of steps of the whole run; with ``checkpoints`` the run goes on where it stopped.
        optim: optimiser, learning rates and schedule.
        seed: recorded in the checkpoint; the draws themselves are keyed by the source's seed.
        chunk: rows decoded at once; None decodes all of a process's rows together, or, of a decoder that says it is
            heavy, as many as fit the free memory.
        accelerator: the processes; None makes one.
        device: where to compute; None for the accelerator's, or without one for the best there is.
        precision: ``"fp32"`` or ``"bf16"`` for the networks; None for the accelerator's.
        compile: compile what the networks show, unless it is maps, and the decoder unless it says it is heavy: one to
            three times as fast, after half a minute. (Of a heavy one most of the time goes into convolutions, which
            stay what they are, and its many steps take minutes to compile.) The last digits may differ; it is no part
            of a checkpoint's identity, so a run may be taken up with it or without.
        formation: images → more images, after the decoder.
        checkpoints: where state and log are kept; None keeps nothing.
        project: applied to the bank after each step, for instance a clamp.
        on_step: called after each step.
        progress: show a bar on standard error.

    Raises:
        InputError: the arguments do not fit each other, labels that the objective does not look at are to be learned,
            or the checkpoint is another run's.
        DivergenceError: loss or gradient became NaN or infinite.
        KeyboardInterrupt: raised again after the checkpoint is written.
    """
    device = device or (device_of() if accelerator is None else accelerator.device)
    accelerator = accelerator or accelerator_on(device)
    _check(bank, objective, steps, accelerator)
    precision = precision or {"no": "fp32"}.get(accelerator.mixed_precision, accelerator.mixed_precision)
    if chunk is None:
        if isinstance(decoder, nn.Module):
            decoder.to(device)
        chunk = fitting_chunk(decoder, len(bank.rows(share(bank.num_classes, accelerator))), device)
    loop = _Loop(
        decoder,
        bank,
        objective,
        source,
        chunk,
        formation,
        accelerator,
        device,
        precision_context(precision, device),
        observer(compile=True, device=device, parts=objective.needs) if compile else None,
        _decoding(decoder, compile),
        optim,
        steps,
        project,
        on_step,
    )
    with as_logits(bank):
        state = loop.start(_identified(checkpoints, bank, optim, steps, seed, precision))
        with _bar(state.step, steps, progress and accelerator.is_main_process) as bar, state.kept():
            loop.run(state, bar)
    return bank


@dataclass(frozen=True)
class _Loop:
    """The parts of one run, put together."""

    decoder: Decoder
    bank: LatentBank
    objective: Objective
    source: Source
    chunk: int | None
    formation: Formation | None
    accelerator: Accelerator
    device: torch.device
    autocast: torch.autocast
    observe: Observe | None
    decoding: Decoding
    optim: Optim
    steps: int
    project: Callable[[LatentBank], None] | None
    on_step: Sequence[Callable[[Step], None]]

    def start(self, checkpoints: Checkpoints | None) -> RunState:
        """Everything on its device, the decoder frozen unless it is learned, the newest checkpoint taken up."""
        parts: tuple[Any, ...] = (self.decoder, self.bank, self.objective, self.formation)
        for part in parts:
            if isinstance(part, nn.Module):
                part.to(self.device)
        if isinstance(self.decoder, nn.Module):
            # Without this a generator fresh from its constructor would be tuned silently.
            self.decoder.requires_grad_(learns(self.decoder)).eval()
        self.source.to(self.device)
        learnables = _learnables(
            bank=self.bank, objective=self.objective, formation=self.formation, decoder=self.decoder
        )
        if (logits := logits_of(self.bank)) is not None:
            learnables = {"labels.logits" if each is logits else name: each for name, each in learnables.items()}
        optimizer = self.optim.build(learnables)
        state = RunState(learnables, optimizer, checkpoints, part=self.source, is_main=self.accelerator.is_main_process)
        state.resume()
        return state

    def run(self, state: RunState, bar: tqdm) -> None:
        """The loop."""
        learnables = list(state.learnables.values())
        blocks = self._blocks()
        while state.step < self.steps:
            view = self.source.view(state.step)
            if self.observe is not None:
                view.net = Observed(view.net, self.observe)
            state.scale_lr(self.optim.share_at(state.step, self.steps))
            state.optimizer.zero_grad()
            loss = torch.zeros((), device=self.device)
            for rows in blocks:
                with decoded(
                    self.decoder, self.bank, rows, self.chunk, formation=self.formation, decoding=self.decoding
                ) as syn:
                    with self.autocast:
                        part = self.objective(view, syn)
                    part.backward()
                loss = loss + part.detach()
                check_moved(self.bank)
            total = reduce_sum(learnables, loss, self.accelerator)
            _check_finite(total, state.step, self.bank, self.optim)
            with uninterrupted():
                state.update()
                if self.project is not None:
                    self.project(self.bank)
                self.source.advance(
                    state.step - 1, decode=lambda: decode(self.decoder, self.bank, formation=self.formation)
                )
                state.record(total)
            bar.set_postfix(loss=f"{total:.4g}", refresh=False)
            bar.update()
            for call in self.on_step:
                call(Step(state.step, total, state.lr, state.seconds, self.bank))

    def _blocks(self) -> list[Tensor]:
        """Rows of this process, in blocks of whole classes that a step takes one after the other."""
        classes = share(self.bank.num_classes, self.accelerator)
        if self.objective.scope != "class":
            return [self.bank.rows(classes)]
        expands = 1 if self.formation is None else self.formation.expands
        counts = [len(self.bank.rows([cls])) * expands for cls in classes]
        pixels = math.prod(self.decoder.image_shape[1:])
        found = [self.bank.rows(block) for block in passes(classes, counts, pixels, self.device)]
        return [rows for rows in found if len(rows)]


def _decoding(decoder: Decoder, compile: bool) -> Decoding:
    return compiled(as_it_is) if compile and not getattr(decoder, "heavy", False) else as_it_is


def _check(bank: LatentBank, objective: Objective, steps: int, accelerator: Accelerator) -> None:
    if steps < 1:
        raise InputError(f"steps = {steps}: give at least 1.")
    if not any(parameter.requires_grad for parameter in bank.parameters()):
        raise InputError("the bank has nothing to learn: make it with storage fp32 and quantise after condensing.")
    if objective.scope != "class" and accelerator.num_processes > 1:
        raise InputError(f'an objective of scope "{objective.scope}" cannot share out classes: start a single process.')


def _learnables(**modules: object) -> dict[str, Tensor]:
    return {
        f"{owner}.{name}": parameter
        for owner, module in modules.items()
        if isinstance(module, nn.Module)
        for name, parameter in module.named_parameters()
        if parameter.requires_grad
    }


def _bar(done: int, steps: int, shown: bool) -> tqdm:
    bar: tqdm = tqdm(
        total=steps, initial=min(done, steps), desc="condense", unit="step", file=sys.stderr, disable=not shown
    )
    return bar


def _identified(
    checkpoints: Checkpoints | None, bank: LatentBank, optim: Optim, steps: int, seed: int, precision: str
) -> Checkpoints | None:
    """The same folder, its identity widened by the arguments that decide the result."""
    if checkpoints is None:
        return None
    own: dict[str, Any] = {f"optim.{name}": value for name, value in asdict(optim).items()}
    own |= {"seed": seed, "num_rows": bank.num_rows, "num_classes": bank.num_classes, "precision": precision}
    if optim.schedule != "constant":
        own["steps"] = steps  # A constant schedule may be continued for longer; a cosine is another run.
    return replace(checkpoints, identity={**checkpoints.identity, **own})


def _check_finite(loss: float, step: int, bank: LatentBank, optim: Optim) -> None:
    """Stop before a NaN or infinity reaches the latents.

    Raises:
        DivergenceError: with the step, the classes and what to change.
    """
    in_latents, in_gradients = (torch.zeros(bank.num_rows, dtype=torch.bool) for _ in range(2))
    for parameter in bank.parameters():  # a row of each is one of the set's
        in_latents |= ~torch.isfinite(parameter.detach()).view(bank.num_rows, -1).all(1).cpu()
        if parameter.grad is not None:
            in_gradients |= ~torch.isfinite(parameter.grad).view(bank.num_rows, -1).all(1).cpu()
    if math.isfinite(loss) and not bool((in_latents | in_gradients).any()):
        return
    # A class whose latents ran away makes the sum, and with it every gradient, NaN: blame the latents first.
    bad = in_latents if bool(in_latents.any()) else in_gradients
    classes = bank.owner.cpu()[bad].unique().tolist()
    where = f"class{'es' if len(classes) > 1 else ''} {', '.join(map(str, classes))}" if classes else "no single class"
    raise DivergenceError(
        f"step {step}: the loss is {loss} ({where}). The latents most likely ran away: lower optim.lr (now "
        f"{written(optim.lr)}) tenfold, or use the adam optimiser; if step 0 fails, look for NaN in the data or the "
        "decoder. The last good state stays in the checkpoint folder, if one was given."
    )
