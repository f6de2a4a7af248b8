"""The one student trainer: every protocol, pool and figure trains its networks here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from latentdc.errors import DivergenceError, InputError
from latentdc.networks.base import Network
from latentdc.networks.compiled import compiled, precision_context, require_compiler
from latentdc.networks.infer import accuracy, device_of, embed, to_float
from latentdc.seeding import stream

__all__ = ["TrainSpec", "accuracy", "embed", "train_student"]

Augment = Callable[[Tensor, torch.Generator], Tensor]
Mix = Callable[[Tensor, Tensor, torch.Generator], tuple[Tensor, Tensor]]
BatchLoss = Callable[[Network, Tensor, Tensor, Tensor | None], Tensor]
_FLOAT_BYTES_KEPT = 256 * 2**20
"""A set that takes no more than this as float is converted once; a larger one stays uint8 until a batch needs it."""
_CHECK_EVERY = 50
"""Epochs between two looks at the loss: each look waits for the device."""


@dataclass(frozen=True)
class TrainSpec:
    """How a student is trained; the defaults are the protocol of DC, DSA and DM with augmentation.

    With E = ``epochs`` the student passes **E + 1** times over the set (the authors' loop is ``range(E + 1)``). After
    pass number E // 2 + 1 (counted from 0) the learning rate is multiplied by ``decay_factor`` and the optimiser is
    made anew, which sets its momentum to zero. With ``milestones`` the student passes E times over the set, and the
    rate is multiplied before each of these passes, the momentum kept. The network after the last pass counts.

    Raises:
        InputError: a value out of range.

    *Reference:* Zhao & Bilen 2021 (DSA), arXiv 2102.08259, §4.1, and the authors' evaluation loop; with milestones
    Kim et al. 2022 (IDC), arXiv 2205.14959, §5.1.
    """

    epochs: int = 1000
    lr: float = 0.01
    momentum: float = 0.9
    weight_decay: float = 5e-4
    batch_size: int = 256
    decay_factor: float = 0.1
    milestones: tuple[int, ...] | None = None
    """Passes, counted from 0, before which the rate falls; empty for a constant rate, None for DSA's schedule."""

    def __post_init__(self) -> None:
        if self.epochs < 0 or self.batch_size < 1 or self.lr <= 0:
            raise InputError(
                f"epochs = {self.epochs}, batch_size = {self.batch_size}, lr = {self.lr}: "
                "epochs must be at least 0, the batch size at least 1 and the learning rate above 0"
            )
        if not 0 <= self.momentum < 1 or not self.weight_decay >= 0:
            raise InputError(
                f"momentum = {self.momentum}, weight_decay = {self.weight_decay}: momentum must lie in [0, 1) and the "
                "weight decay must be at least 0"
            )

    @property
    def passes(self) -> int:
        """Passes over the training set: E + 1, or E with milestones."""
        return self.epochs + 1 if self.milestones is None else self.epochs

    @property
    def renewed_after(self) -> int | None:
        """Number (from 0) of the pass after which DSA's schedule makes the optimiser anew; None with milestones."""
        return self.epochs // 2 + 1 if self.milestones is None else None

    def lr_in(self, epoch: int) -> float:
        """Learning rate of pass ``epoch``, counted from 0."""
        before = (self.epochs // 2 + 2,) if self.milestones is None else self.milestones
        return self.lr * self.decay_factor ** sum(epoch >= each for each in before)


def _batch_loss(network: Network, x: Tensor, y: Tensor, w: Tensor | None) -> Tensor:
    losses = functional.cross_entropy(network(x).float(), y, reduction="none")
    return losses.mean() if w is None else (w * losses).mean()


def sgd(network: Network, spec: TrainSpec) -> torch.optim.Optimizer:
    """The optimiser of a training, for one that goes on in several calls of ``train_student``."""
    parameters = [p for p in network.parameters() if p.requires_grad]
    return torch.optim.SGD(parameters, spec.lr, spec.momentum, weight_decay=spec.weight_decay, fused=True)


def _prepared(
    x: Tensor, y: Tensor, w: Tensor | None, device: torch.device, *, mixed: bool
) -> tuple[Tensor, Tensor, Tensor | None]:
    if len(x) == 0 or len(x) != len(y) or (w is not None and len(w) != len(x)):
        weights = "" if w is None else f" and {len(w)} weights"
        raise InputError(f"a training set of {len(x)} images, {len(y)} labels{weights}: give one per image, and some")
    if mixed and y.ndim != 2:
        raise InputError("mixing images mixes their labels: give y as distributions over classes (n, k)")
    x = x.to(device)
    if x.numel() * 4 <= _FLOAT_BYTES_KEPT:
        x = to_float(x)
    y = y.to(device, torch.float32 if y.ndim == 2 else torch.int64)
    if w is not None:
        w = w.to(device, torch.float32)
        total = float(w.sum())
        if not total > 0:
            raise InputError("sample weights must have a positive sum; leave them out for equal weights")
        w = w * (len(w) / total)  # mean 1 over the set: the learning rate keeps its meaning
        if mixed:  # an image's weight goes with its label where it is pasted; cross-entropy is linear in the target
            y, w = w[:, None] * y, None
    return x, y, w


def train_student(
    network: Network,
    x: Tensor,
    y: Tensor,
    spec: TrainSpec | None = None,
    *,
    w: Tensor | None = None,
    augment: Augment | None = None,
    mix: Mix | None = None,
    optimiser: torch.optim.Optimizer | None = None,
    seed: int,
    device: torch.device | str | None = None,
    precision: str = "fp32",
    compile: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Network:
    """Train a network on a (small) set by cross-entropy, and return it: the same object, in eval mode.

    Order, augmentation and thus the result depend on the arguments alone (repeatable bit for bit on one machine
    with the same number of threads). BatchNorm layers train on batch statistics.

    Args:
        network: a freshly built student; see ``latentdc.networks.base.build``.
        x: images ``(n, c, h, w)``, uint8 or float in [0, 1].
        y: classes ``(n,)`` int64, or distributions over classes ``(n, k)``.
        spec: the protocol; ``TrainSpec()`` if None.
        w: weight of each image ``(n,)`` or None; scaled to mean 1 over the set.
        augment: ``(x, rng) -> x`` applied to every mini-batch of float images in [0, 1].
        mix: ``(x, y, rng) -> (x, y)`` applied after it; needs ``y`` as distributions.
        optimiser: goes on with the momentum of an earlier call; one of ``sgd``, made here if None.
        seed: decides the order and the augmentation.
        device: where to train; the network's own device if None.
        precision: ``"fp32"``, or ``"bf16"`` for autocast (parameters and loss stay fp32).
        compile: compile the forward and backward pass; pays off from some thousands of steps on a CPU.
        progress: called after every pass with (passes done, passes in all).

    Raises:
        InputError: sizes that disagree, or an unknown precision.
        MissingExtraError: ``compile`` without a compiler.
        DivergenceError: the loss is no longer finite.
    """
    spec = spec or TrainSpec()
    target = device_of(network) if device is None else torch.device(device)
    network.to(target).train()
    x, y, w = _prepared(x, y, w, target, mixed=mix is not None)
    batch_loss: BatchLoss = _batch_loss
    if compile:
        require_compiler(target)
        batch_loss = compiled(_batch_loss)
    optimiser = optimiser or sgd(network, spec)
    for epoch in range(spec.passes):
        for group in optimiser.param_groups:
            group["lr"] = spec.lr_in(epoch)
        order = torch.randperm(len(x), generator=stream(seed, "student-shuffle", epoch)).to(target)
        for number, start in enumerate(range(0, len(x), spec.batch_size)):
            rows = order[start : start + spec.batch_size]
            images, targets = to_float(x[rows]), y[rows]
            if augment is not None:
                images = augment(images, stream(seed, "student-augment", epoch, number))
            if mix is not None:
                images, targets = mix(images, targets, stream(seed, "student-mix", epoch, number))
            with precision_context(precision, target):
                loss = batch_loss(network, images, targets, None if w is None else w[rows])
            optimiser.zero_grad(set_to_none=True)
            torch.autograd.backward(loss)
            optimiser.step()
        if epoch == spec.renewed_after:
            optimiser = sgd(network, spec)
        if (epoch % _CHECK_EVERY == 0 or epoch == spec.passes - 1) and not bool(torch.isfinite(loss.detach())):
            raise DivergenceError(f"training diverged in pass {epoch}: loss {loss.item()}; lower lr = {spec.lr}")
        if progress is not None:
            progress(epoch + 1, spec.passes)
    return network.eval()
