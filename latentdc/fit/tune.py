"""How a generator is tuned: its draws are matched with the real images, as a set's images are in condensation.

The loop around it is ``latentdc.fit.fit``; what is tuned is a ``latentdc.portable.gan.GanDecoder``.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, NamedTuple, cast

import torch
from torch import Tensor
from torch.nn import functional

from latentdc.data.augment import DSA, per_image
from latentdc.data.store import ClassStore
from latentdc.decoders.reference import resolve_decoder
from latentdc.discrepancies import Energy
from latentdc.errors import InputError, RecipeError
from latentdc.fit.gan import measure_means
from latentdc.fit.hard import HardSampler
from latentdc.fit.training import Training, falling, follow
from latentdc.networks.base import Network
from latentdc.networks.blended import BlendedPool
from latentdc.networks.pool import FreshPool, fingerprint
from latentdc.networks.trained import Trainer
from latentdc.objectives import Match
from latentdc.portable.gan import GanDecoder
from latentdc.representations import Features
from latentdc.seeding import stream
from latentdc.source import Minibatches
from latentdc.types import Batch

_POOL = "pool/"


@dataclass(frozen=True)
class TuneRecipe:
    """Everything that decides a tuned generator besides data, seed and duration.

    With generator G, networks ψ, an augmentation draw ω of each class and step, m draws z and m real images of each
    class c, and p the probability that a trained network gives to a class:

    L = mean over the classes of a batch of energy( ψ(ω(G(z, c))), ψ(ω(x_c)) )
      + ``right`` · mean over the draws of max(0, ln ½ − ln p(c | G(z, c)))

    The first term is the energy distance of features, without bias and relative to the spread of the real ones, which
    is zero only where the distributions are equal; there is no critic, so that the target does not move. Every other
    step ψ is a fresh network, every other one lies between the start of a network and the end of its training on the
    real images. The second term keeps draws on the side of their class: half of the probability, and no more is asked.
    Of the real images those that are hard but right are shown more often (see ``latentdc.fit.hard``): students learn
    faster from them.

    Raises:
        RecipeError: a value out of range.

    *Reference:* Li, Swersky & Zemel 2015, arXiv 1502.02761 (a generator that matches moments, without a critic);
    Santos et al. 2019, arXiv 1904.02762 (of features); Zhang et al. 2024 (DANCE), arXiv 2406.01063 (the networks).
    """

    kind: ClassVar[str] = "gan"
    cite: ClassVar[tuple[str, ...]] = ("li2015gmmn", "santos2019gfmn", "szekely2013energy", "zhang2024dance")

    decoder: str = "gan"
    """What is tuned: a folder, a shipped name, or ``gan`` for the shipped one that fits."""
    per_class: int = 48
    """m: draws and real images of each class in an update."""
    batch_size: int = 480
    """Draws in an update: of so many classes as it holds, another choice of them each time."""
    networks: int = 1
    """Networks that are trained."""
    epochs: int = 8
    """Passes over the training images that each is trained for."""
    width: int | None = 40
    """Channels of all networks: narrow ones see nearly as much and take a fraction of the time; None as published."""
    hard: float = 0.8
    """Share of the real images of a step that are hard but right."""
    right: float = 0.1
    """Weight of the second term."""
    rate: float = 3e-4
    betas: tuple[float, float] = (0.5, 0.99)
    constant: float = 0.5
    """Share of the run before the learning rate falls linearly to 0."""
    average: float = 0.99
    """Decay of the exponential average of the weights, which is what is kept."""
    holdout: float = 0.1
    """Share of each class kept from training, on which the figures are measured."""

    def __post_init__(self) -> None:
        if min(self.networks, self.epochs) < 1 or self.rate <= 0:
            raise RecipeError(
                f"networks = {self.networks}, epochs = {self.epochs}, rate = {self.rate}: give numbers of at least 1 "
                "and a rate above 0"
            )
        if not (0 <= self.hard <= 1 and self.right >= 0) or (self.width is not None and self.width < 1):
            raise RecipeError(
                f"hard = {self.hard}, right = {self.right}, width = {self.width}: give a share in [0, 1] (--hard), a "
                "weight of at least 0 (--right) and at least one channel"
            )
        if not 2 <= self.per_class <= self.batch_size:
            raise RecipeError(
                f"per_class = {self.per_class}, batch_size = {self.batch_size}: give at least two images of a class "
                "(--per-class), and a batch that holds them (--batch-size)"
            )
        if not (0 <= self.constant < 1 and 0 <= self.average < 1 and 0 < self.holdout < 1):
            raise RecipeError(
                f"constant = {self.constant}, average = {self.average}, holdout = {self.holdout}: give shares in [0, 1)"
            )

    @property
    def made_from(self) -> str:
        """What is tuned."""
        return self.decoder

    def training(self, store: ClassStore, *, seed: int, device: torch.device, bf16: bool) -> Tuning:
        """The tuning at its start; its networks are trained before the first step.

        Raises:
            InputError: the generator is not there, is none, or makes other images than the data's.
        """
        return Tuning(store, self, seed=seed, device=device, bf16=bf16)


class TuneLosses(NamedTuple):
    """What one step saw."""

    energy: float
    """Energy distance of a class, relative to the spread of its real images; below zero by chance where it is small."""
    wrong: float
    """How far draws are on the wrong side of their class: mean of max(0, ln ½ − ln p)."""


class Tuning(Training):
    """Generator, its running average and the optimiser, under networks that the checkpoint keeps too."""

    def __init__(self, store: ClassStore, recipe: TuneRecipe, *, seed: int, device: torch.device, bf16: bool) -> None:
        self.recipe = recipe
        found = resolve_decoder(recipe.decoder, store.spec)
        if not isinstance(found, GanDecoder) or found.psi != 1:
            what = f"truncated to psi = {found.psi}" if isinstance(found, GanDecoder) else type(found).__name__
            raise InputError(
                f'decoder = "{recipe.decoder}" ({what}): give a generator as `latentdc fit gan` wrote it (--decoder)'
            )
        # Its normalisation keeps the statistics it came with: a draw must not depend on those beside it.
        self.generator = cast(GanDecoder, found.in_space("z").to(device).eval().requires_grad_(True))
        self.average = copy.deepcopy(self.generator).requires_grad_(False)
        self.came_as = fingerprint(self.generator)
        precision = "bf16" if bf16 else "fp32"
        augment = DSA().for_data(store.spec)
        trainer = Trainer(
            store.images, store.labels, store.spec.num_classes, per_image(augment, store.spec), precision=precision
        )
        self.pool = BlendedPool(
            "convnet", store.spec, seed, trainer, width=recipe.width, num=recipe.networks, epochs=recipe.epochs
        )
        self.augment = augment
        self.objective = Match(Features(), Energy(relative=True, unbiased=True))
        adam = torch.optim.Adam(self.generator.parameters(), recipe.rate, betas=recipe.betas, fused=True)
        nets = {"generator": self.generator, "average": self.average}
        super().__init__(store, nets, {"generator": adam}, seed=seed, device=device, bf16=bf16)

    def prepare(self) -> Iterator[str]:
        """Train the networks that a checkpoint did not bring."""
        for index in range(self.recipe.networks):
            yield f"training network {index + 1} of {self.recipe.networks}"
            self.pool.trained(index)
        yield "looking at the real images"
        _ = self.sources

    @cached_property
    def classifier(self) -> Network:
        """The first network, trained."""
        net = self.pool.network(0)
        net.load_state_dict(self.pool.trained(0))
        return net.to(self.device)

    @cached_property
    def sources(self) -> tuple[Minibatches, Minibatches]:
        """Real images under fresh networks, and under those between their start and the end of their training."""
        sampler = HardSampler(self.store, self.recipe.per_class, self.classifier, share=self.recipe.hard)
        fresh = FreshPool("convnet", self.store.spec, self.seed, self.recipe.width)
        found = (Minibatches(self.store, sampler, pool, self.augment, seed=self.seed) for pool in (fresh, self.pool))
        one, other = (source.to(self.device) for source in found)
        return one, other

    def origin(self) -> dict[str, str]:
        """The weights that it started from."""
        return {"decoder_sha256": self.came_as}

    def tensors(self) -> dict[str, Tensor]:
        """The whole state as named tensors, the trained networks among them."""
        trained = self.pool.state_dict().items()
        return super().tensors() | {f"{_POOL}{name}": value for name, value in trained if torch.is_tensor(value)}

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Put a state back.

        Raises:
            BundleError: the state is of another recipe or another kind of image.
        """
        super().load(tensors)
        trained = {name.removeprefix(_POOL): value for name, value in tensors.items() if name.startswith(_POOL)}
        self.pool.load_state_dict(self.pool.identity() | trained)
        for made in ("classifier", "sources"):  # of the networks that were there before
            self.__dict__.pop(made, None)

    def step(self, number: int, progress: float) -> TuneLosses:
        """One update of the weights and their average."""
        recipe, optimiser = self.recipe, self.optimisers["generator"]
        optimiser.param_groups[0]["lr"] = recipe.rate * falling(progress, recipe.constant)
        rng = stream(self.seed, "tune-step", number)
        num_classes = self.store.spec.num_classes
        classes = torch.randperm(num_classes, generator=rng)[: recipe.batch_size // recipe.per_class]
        owner = classes.sort().values.repeat_interleave(recipe.per_class)
        z = {name: value.to(self.device) for name, value in self.generator.prior(owner, rng).items()}
        owner = owner.to(self.device)
        # Not under autocast: it would show a network that trains for the view the weights it began with.
        view = self.sources[number % 2].view(number)
        classifier = self.classifier
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
            x = self.generator(z, owner).float()
            batch = Batch(x, functional.one_hot(owner, num_classes).to(x), owner)
            energy = self.objective(view, batch) / len(classes)
            sure = classifier(x).float().log_softmax(1).gather(1, owner[:, None])
        wrong = functional.relu(math.log(0.5) - sure).mean()
        loss = energy + recipe.right * wrong
        optimiser.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        optimiser.step()
        follow(self.average, self.generator, number, recipe.average)
        return TuneLosses(float(energy.detach()), float(wrong.detach()))

    @torch.no_grad()
    def decoder(self) -> GanDecoder:
        """A copy of the averaged generator."""
        decoder: GanDecoder = copy.deepcopy(self.average).eval()
        measure_means(decoder, self.seed)
        return decoder
