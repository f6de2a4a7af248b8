"""How a generator is tuned: its draws are matched with the real images, as a set's images are in condensation.

The loop around it is ``latentdc.fit.fit``; what is tuned is a ``latentdc.portable.gan.GanDecoder``.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar, NamedTuple, cast

import torch
from torch import Tensor
from torch.nn import functional

from latentdc.data.augment import DSA, per_image
from latentdc.data.sampling import UniformSampler
from latentdc.data.store import ClassStore
from latentdc.decoders.reference import resolve_decoder
from latentdc.discrepancies import Energy
from latentdc.errors import InputError, RecipeError
from latentdc.fit.gan import measure_means
from latentdc.fit.training import Training, falling, follow
from latentdc.networks.blended import BlendedPool
from latentdc.networks.pool import fingerprint
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

    With generator G, networks ψ between their start and the end of a training on the real images, an augmentation
    draw ω of each class and step, m draws z and m real images of each class c:

    L = mean over the classes of a batch of energy( ψ(ω(G(z, c))), ψ(ω(x_c)) )

    the energy distance of features, which is zero only where the distributions are equal. There is no critic, so that
    the target does not move. As a V-statistic it draws the points of a class together by a share of 1 / m.

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
    networks: int = 2
    """Networks that are trained."""
    epochs: int = 2
    """Passes over the training images that each is trained for."""
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
    """Energy distance of a class, in units of the features."""


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
        self.pool = BlendedPool("convnet", store.spec, seed, trainer, num=recipe.networks, epochs=recipe.epochs)
        sampler = UniformSampler(store, recipe.per_class)
        self.source = Minibatches(store, sampler, self.pool, augment, seed=seed).to(device)
        self.objective = Match(Features(), Energy())
        adam = torch.optim.Adam(self.generator.parameters(), recipe.rate, betas=recipe.betas, fused=True)
        nets = {"generator": self.generator, "average": self.average}
        super().__init__(store, nets, {"generator": adam}, seed=seed, device=device, bf16=bf16)

    def prepare(self) -> Iterator[str]:
        """Train the networks that a checkpoint did not bring."""
        for index in range(self.recipe.networks):
            yield f"training network {index + 1} of {self.recipe.networks}"
            self.pool.trained(index)

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
        view = self.source.view(number)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
            x = self.generator(z, owner).float()
            batch = Batch(x, functional.one_hot(owner, num_classes).to(x), owner)
            loss = self.objective(view, batch) / len(classes)
        optimiser.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        optimiser.step()
        follow(self.average, self.generator, number, recipe.average)
        return TuneLosses(float(loss.detach()))

    @torch.no_grad()
    def decoder(self) -> GanDecoder:
        """A copy of the averaged generator."""
        decoder: GanDecoder = copy.deepcopy(self.average).eval()
        measure_means(decoder, self.seed)
        return decoder
