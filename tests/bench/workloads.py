"""What is measured: each workload makes its inputs once and returns the work itself, so that time and memory agree.

Sizes are those of the published 28-pixel experiments: ConvNet of width 128, the generator in its default size,
10 classes. ``tests/test_bench.py`` runs every workload in the tiny size, so that none of them rots.
"""

from __future__ import annotations

import functools
import gc
from collections.abc import Callable
from dataclasses import dataclass
from time import process_time
from typing import Any

import torch
from torch import Tensor

from latentdc.condense import Optim, Step, condense
from latentdc.data.augment import DSA
from latentdc.data.sampling import UniformSampler
from latentdc.data.store import ClassStore, from_arrays
from latentdc.discrepancies import DISCREPANCIES
from latentdc.latents import decode, decoded
from latentdc.networks import FixedPool, FreshPool, build
from latentdc.networks.train import TrainSpec, train_student
from latentdc.objectives import Match
from latentdc.portable.bank import LatentBank
from latentdc.portable.gan import GanDecoder
from latentdc.representations import Features
from latentdc.seeding import global_seed, stream
from latentdc.sketch import Sketch, sketch
from latentdc.source import Look, Minibatches, Source
from latentdc.types import Batch

Work = Callable[[], object]


@dataclass(frozen=True)
class Size:
    """How large the inputs of all workloads are."""

    side: int = 28
    num_classes: int = 10
    width: int = 128
    channels: tuple[int, ...] = (128, 64, 32)
    rows_per_class: int = 10
    real_per_class: int = 64
    decoded_rows: int = 256
    chunk: int = 64
    feature_dim: int = 2048
    num_frequencies: int = 1024
    passes: int = 3
    steps: int = 3


FULL = Size()
TINY = Size(8, 3, 4, (8, 4), 2, 6, 12, 4, 16, 10, 2, 2)
NUM_PAIRS = 2
STAGES = ("decode", "augment", "network", "discrepancy", "backward", "optimiser")
"""Of a step, in their order; ``backward`` goes back through all before it."""


@dataclass(frozen=True)
class Setting:
    """Data, decoder and bank of one size."""

    size: Size

    @functools.cached_property
    def store(self) -> ClassStore:
        size = self.size
        shape = (size.num_classes * size.real_per_class, 1, size.side, size.side)
        images = torch.randint(0, 256, shape, generator=stream(0, "bench-images"), dtype=torch.uint8)
        labels = torch.arange(size.num_classes).repeat_interleave(size.real_per_class)
        return from_arrays(images, labels, [f"class {c}" for c in range(size.num_classes)], name="noise")

    @functools.cached_property
    def decoder(self) -> GanDecoder:
        size = self.size
        with global_seed(0, "bench-decoder"):
            decoder = GanDecoder((1, size.side, size.side), size.num_classes, channels=size.channels)
        return decoder.eval().requires_grad_(False)

    def bank(self, num_rows: int) -> LatentBank:
        """Prior draws, as equal a number in each class as possible."""
        counts = [len(part) for part in torch.arange(num_rows).tensor_split(self.size.num_classes)]
        owner = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
        return LatentBank.of(self.decoder.prior(owner, stream(0, "bench-bank")), counts)

    @property
    def step_rows(self) -> int:
        """Rows of a condensation step."""
        return self.size.num_classes * self.size.rows_per_class

    def discrepancy(self, name: str) -> Any:
        return DISCREPANCIES[name](**({"num": self.size.num_frequencies} if name in ("rff", "cf") else {}))

    def sketch(self, by: str) -> Sketch:
        pool = FixedPool("convnet", self.store.spec, 0, NUM_PAIRS, width=self.size.width)
        return sketch(self.store, pool, DSA(), Features(), self.discrepancy(by), batch_size=128, progress=False)

    def minibatches(self) -> Minibatches:
        pool = FreshPool("convnet", self.store.spec, 0, width=self.size.width)
        return Minibatches(self.store, UniformSampler(self.store, self.size.real_per_class), pool, DSA(), seed=0)

    def step_seconds(
        self, source: Source, by: str, *, steps: int, skip: int, between: Callable[[int], object] | None = None
    ) -> list[float]:
        """CPU seconds of each step of a real run of the loop, all rows in one chunk, the first ``skip`` left out.

        ``between`` is called after each step with its number, outside the time of any step.
        """
        seconds: list[float] = []
        began = process_time()

        def lap(now: Step) -> None:
            nonlocal began
            seconds.append(process_time() - began)
            if between is not None:
                between(now.step)
            began = process_time()

        condense(
            self.decoder,
            self.bank(self.step_rows),
            Match(Features(), self.discrepancy(by)),
            source,
            steps=steps + skip,
            optim=Optim(lr=0.01),
            seed=0,
            on_step=(lap,),
            progress=False,
        )
        return seconds[skip:]

    def bare(self, net: Any) -> Callable[[], float]:
        """CPU seconds of one bare forward and backward of a step's images through decoder and network."""
        bank = self.bank(self.step_rows)
        rows = bank.rows()
        latents, owner = bank.latents(rows), bank.owner[rows]

        def seconds() -> float:
            began = process_time()
            z = {name: value.detach().requires_grad_() for name, value in latents.items()}
            net.observe(self.decoder(z, owner)).last.square().sum().backward()
            return process_time() - began

        return seconds

    def by_hand(self, source: Source, by: str) -> Callable[[int], dict[str, float]]:
        """CPU seconds of each stage of a step written out by hand: the tensor work of the loop and nothing else."""
        bank, part, see = self.bank(self.step_rows), self.discrepancy(by), Features()
        rows, classes = bank.rows(), range(self.size.num_classes)
        z = {name: value.detach().requires_grad_() for name, value in bank.latents(rows).items()}
        owner, y = bank.owner[rows], bank.y[rows]
        optimizer = torch.optim.Adam(list(z.values()), lr=0.01)

        def step(number: int) -> dict[str, float]:
            view = source.view(number)
            (real,) = view.real([Look(see, part)], classes)
            laps = [process_time()]

            def lap(value: Tensor) -> Tensor:
                laps.append(process_time())
                return value

            optimizer.zero_grad()
            x = lap(self.decoder(z, owner))
            seen = lap(view.augment(Batch(x, y, owner, None, rows)).x)
            points = lap(view.net.observe(seen).last)
            loss = lap(part(real[0], points, owner))
            loss.backward()
            lap(loss)
            optimizer.step()
            lap(loss)
            return {name: end - begin for name, begin, end in zip(STAGES, laps, laps[1:], strict=False)}

        return step


def _decode(now: Setting) -> Work:
    bank = now.bank(now.size.decoded_rows)
    return lambda: decode(now.decoder, bank, chunk=now.size.chunk)


def _pull_back(now: Setting, chunk: int | None) -> Work:
    bank = now.bank(now.size.decoded_rows)
    rows = bank.rows()

    def work() -> None:
        bank.zero_grad()
        with decoded(now.decoder, bank, rows, chunk) as syn:
            syn.x.square().sum().backward()

    return work


def _discrepancy(now: Setting, name: str) -> Work:
    by, size = now.discrepancy(name), now.size

    def points(per_class: int, purpose: str) -> tuple[Tensor, Tensor]:
        owner = torch.arange(size.num_classes).repeat_interleave(per_class)
        return torch.randn(len(owner), size.feature_dim, generator=stream(0, purpose)), owner

    real = by.summarise(*points(size.real_per_class, "bench-real"), size.num_classes)
    syn, owner = points(size.rows_per_class, "bench-syn")
    syn.requires_grad_()

    def work() -> None:
        syn.grad = None
        by(real, syn, owner).backward()

    return work


def _student(now: Setting) -> Work:
    rows = torch.cat([torch.arange(now.size.rows_per_class) + int(start) for start in now.store.offsets[:-1]])
    batch = now.store.batch(rows)
    # `passes` counts from one and `epochs` from zero.
    spec = TrainSpec(epochs=now.size.passes - 1)

    def work() -> None:
        student = build("convnet", now.store.spec, seed=0, width=now.size.width)
        augment = DSA().for_data(now.store.spec)

        def augmented(x: Tensor, rng: torch.Generator) -> Tensor:
            return augment.apply(x, augment.draw(len(x), now.store.spec.image_shape, rng, shared=False), now.store.spec)

        train_student(student, batch.x, batch.owner, spec, augment=augmented, seed=0)

    return work


def _sketching(now: Setting, by: str) -> Work:
    now.store  # noqa: B018  (made before the clock runs)
    return lambda: now.sketch(by)


def _steps(now: Setting, kind: str) -> Work:
    source: Source = now.sketch("mean") if kind == "sketch" else now.minibatches()
    return lambda: now.step_seconds(source, "mean", steps=now.size.steps, skip=0)


WORKLOADS: dict[str, Callable[[Setting], Work]] = {
    "decode": _decode,
    "pull-back-whole": lambda now: _pull_back(now, None),
    "pull-back-chunked": lambda now: _pull_back(now, now.size.chunk),
    **{f"discrepancy-{name}": functools.partial(_discrepancy, name=name) for name in DISCREPANCIES},
    **{
        f"sketching-{name}": functools.partial(_sketching, by=name)
        for name, part in DISCREPANCIES.items()
        if part.sketchable
    },
    "student": _student,
    "steps-sketch": lambda now: _steps(now, "sketch"),
    "steps-minibatches": lambda now: _steps(now, "minibatches"),
}
"""By name: ``(setting) -> work``; call ``work()`` as often as wanted."""


def prepared(name: str, size: Size = FULL) -> Work:
    """A workload's work, its inputs made and nothing of their making left to collect."""
    work = WORKLOADS[name](Setting(size))
    gc.collect()
    return work
