"""How the class-conditional generator is trained: the recipe, and one step of the game with its full state.

The loop around it is ``latentdc.fit.fit``; the generator itself is ``latentdc.portable.gan.GanDecoder``.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from latentdc.data.store import ClassStore
from latentdc.errors import RecipeError
from latentdc.fit.critic import ProjectionCritic
from latentdc.fit.encoder import Encoder, reparameterise
from latentdc.fit.training import Training, check_levels, falling, follow
from latentdc.portable.gan import GanDecoder
from latentdc.seeding import global_seed, stream

_CALIBRATION = (40, 250)
"""Batches and their size from which the averaged generator's normalisation statistics are taken."""


@dataclass(frozen=True)
class GanRecipe:
    """Everything that decides a generator besides data, seed and duration.

    With generator G, critic D, encoder E, and f the half of the fakes decoded from E(x) of real images x:

    L_D = E[max(0, 1 - D(x, y))] + E[max(0, 1 + D(G(z, y), y))]

    L_G = -E[D(G(z, y), y)] + reconstruct * (|f - x|^2 + kl * KL(E(x) || N(0, 1)))

    The reconstruction term (a variational autoencoder sharing the generator as its decoder) keeps every real image
    within the generator's reach, where the game alone may drop modes; 0 turns it off.

    Raises:
        RecipeError: a value out of range.

    *Reference:* Miyato & Koyama 2018, arXiv 1802.05637; Heusel et al. 2017, arXiv 1706.08500 (two learning rates);
    Larsen et al. 2016, arXiv 1512.09300 (autoencoder and game with one decoder).
    """

    kind: ClassVar[str] = "gan"
    made_from: ClassVar[str] = ""
    cite: ClassVar[tuple[str, ...]] = ("miyato2018projection", "miyato2018spectral", "larsen2016vaegan")

    z_dim: int = 16
    channels: tuple[int, ...] = (128, 64, 24)
    """Feature maps of the generator from coarse to fine; each level after the first doubles height and width."""
    embed_dim: int = 16
    mapping: int = 0
    """Layers of the mapping network z → w, which opens the spaces w and w+; 0 for none."""
    critic_channels: tuple[int, ...] = (48, 96)
    """Feature maps of the critic from fine to coarse; each level halves height and width."""
    batch_size: int = 64
    generator_rate: float = 2e-4
    critic_rate: float = 4e-4
    encoder_rate: float = 1e-3
    betas: tuple[float, float] = (0.0, 0.99)
    constant: float = 0.5
    """Share of the run before the learning rates fall linearly to 0."""
    average: float = 0.999
    """Decay of the exponential average of the generator, which is what is kept."""
    reconstruct: float = 0.02
    kl: float = 0.1
    holdout: float = 0.1
    """Share of each class kept from training, on which the figures are measured."""

    def __post_init__(self) -> None:
        rates = (self.generator_rate, self.critic_rate, self.encoder_rate)
        if self.z_dim < 1 or self.batch_size < 2 or min(rates) <= 0 or not self.channels or not self.critic_channels:
            raise RecipeError(
                f"z_dim = {self.z_dim}, batch_size = {self.batch_size}, learning rates {rates}, channels = "
                f"{self.channels}, critic_channels = {self.critic_channels}: give z_dim >= 1, batch_size >= 2, "
                "rates above 0 and at least one level of channels"
            )
        if min(*self.channels, *self.critic_channels, self.embed_dim, self.mapping + 1) < 1:
            raise RecipeError(
                f"channels = {self.channels}, critic_channels = {self.critic_channels}, embed_dim = {self.embed_dim}, "
                f"mapping = {self.mapping}: give numbers of at least 1, and a mapping of at least 0 layers"
            )
        if not (0 <= self.constant < 1 and 0 <= self.average < 1 and 0 < self.holdout < 1):
            raise RecipeError(
                f"constant = {self.constant}, average = {self.average}, holdout = {self.holdout}: give shares in [0, 1)"
            )
        if self.reconstruct < 0 or self.kl < 0:
            raise RecipeError(f"reconstruct = {self.reconstruct}, kl = {self.kl}: give weights of at least 0")

    def check(self, image_shape: tuple[int, int, int]) -> None:
        """Whether images of this shape can be made and judged.

        Raises:
            RecipeError: their height or width cannot be halved as often as the channels ask.
        """
        check_levels(image_shape, self.channels)
        sides = image_shape[1:]
        least = max(4, 2 ** len(self.critic_channels))
        if min(sides) < least:
            raise RecipeError(
                f"critic_channels = {self.critic_channels}: {len(self.critic_channels)} levels need images of at least "
                f"{least} pixels, these are {sides[0]} x {sides[1]}. Give fewer levels or load them larger (--size)"
            )

    def training(self, store: ClassStore, *, seed: int, device: torch.device, bf16: bool) -> GanGame:
        """The game at its start.

        Raises:
            RecipeError: as ``check``.
        """
        return GanGame(store, self, seed=seed, device=device, bf16=bf16)


class Losses(NamedTuple):
    """What one step of the game saw."""

    critic: float
    generator: float
    error: float
    """Squared reconstruction error per image, 0 without reconstruction."""


class GanGame(Training):
    """Generator, its running average, critic, encoder and optimisers."""

    def __init__(self, store: ClassStore, recipe: GanRecipe, *, seed: int, device: torch.device, bf16: bool) -> None:
        self.recipe: GanRecipe = recipe
        shape, classes = store.spec.image_shape, store.spec.num_classes
        recipe.check(shape)
        with global_seed(seed, "gan-init"):
            sizes = (recipe.z_dim, recipe.channels, recipe.embed_dim)
            self.generator = GanDecoder(shape, classes, *sizes, mapping=recipe.mapping).to(device)
            self.critic = ProjectionCritic(shape, classes, recipe.critic_channels).to(device)
            self.encoder = Encoder(shape, classes, recipe.z_dim).to(device)
        self.average = copy.deepcopy(self.generator).requires_grad_(False)
        for net in (self.generator, self.critic, self.encoder):
            net.train()
        optimisers = {
            "generator": self._adam(self.generator, recipe.generator_rate),
            "critic": self._adam(self.critic, recipe.critic_rate),
            "encoder": self._adam(self.encoder, recipe.encoder_rate),
        }
        nets = {"generator": self.generator, "average": self.average, "critic": self.critic, "encoder": self.encoder}
        super().__init__(store, nets, optimisers, seed=seed, device=device, bf16=bf16)

    def _adam(self, net: nn.Module, rate: float) -> torch.optim.Adam:
        return torch.optim.Adam(net.parameters(), rate, betas=self.recipe.betas, fused=True)

    def step(self, number: int, progress: float) -> Losses:
        """One update of critic, generator, encoder and average; a function of the state and the arguments alone.

        Args:
            number: the step, from 0; keys every random draw.
            progress: share of the run that is over, in [0, 1]; decides the learning rates.
        """
        recipe = self.recipe
        for name, rate in self._rates(progress).items():
            self.optimisers[name].param_groups[0]["lr"] = rate
        rng = stream(self.seed, "gan-step", number)
        batch = self.store.batch(torch.randint(len(self.store), (recipe.batch_size,), generator=rng))
        real, owner = batch.x.to(self.device), batch.owner.to(self.device)
        paired = recipe.batch_size // 2 if recipe.reconstruct else 0
        drawn = torch.randint(self.store.spec.num_classes, (recipe.batch_size,), generator=rng).to(self.device)
        drawn = torch.cat([owner[:paired], drawn[paired:]])
        noise = self.generator.prior(drawn, rng)["z"]
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
            z, divergence = noise, noise.new_zeros(())
            if paired:
                code = self.encoder(real[:paired], owner[:paired])
                near, divergence = reparameterise(code, noise[:paired])
                z = torch.cat([near, noise[paired:]])
            fake = self.generator({"z": z}, drawn).float()
        critic_loss = self._critic_step(real, owner, fake.detach(), drawn)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
            generator_loss = -self._score(fake, drawn).mean()
        error = (fake[:paired] - real[:paired]).square().sum() / max(paired, 1)
        self._descend(generator_loss + recipe.reconstruct * (error + recipe.kl * divergence), ("generator", "encoder"))
        follow(self.average, self.generator, number, recipe.average)
        return Losses(float(critic_loss), float(generator_loss.detach()), float(error.detach()))

    def _critic_step(self, real: Tensor, owner: Tensor, fake: Tensor, drawn: Tensor) -> Tensor:
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
            scores = self.critic(torch.cat([real, fake]), torch.cat([owner, drawn]), groups=2)
        on_real, on_fake = scores.float().split([len(real), len(fake)])
        loss = functional.relu(1 - on_real).mean() + functional.relu(1 + on_fake).mean()
        self._descend(loss, ("critic",))
        return loss.detach()

    def _score(self, fake: Tensor, drawn: Tensor) -> Tensor:
        """Scores whose gradient reaches the images and not the critic's parameters."""
        self.critic.requires_grad_(False)
        scores: Tensor = self.critic(fake, drawn).float()
        self.critic.requires_grad_(True)
        return scores

    def _descend(self, loss: Tensor, names: tuple[str, ...]) -> None:
        for name in names:
            self.optimisers[name].zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        for name in names:
            self.optimisers[name].step()

    def _rates(self, progress: float) -> dict[str, float]:
        recipe = self.recipe
        share = falling(progress, recipe.constant)
        rates = {"generator": recipe.generator_rate, "critic": recipe.critic_rate, "encoder": recipe.encoder_rate}
        return {name: rate * share for name, rate in rates.items()}

    @torch.no_grad()
    def decoder(self) -> GanDecoder:
        """A copy of the averaged generator in eval mode, its normalisation statistics taken anew from the prior."""
        decoder: GanDecoder = copy.deepcopy(self.average)
        norms = [module for module in decoder.modules() if isinstance(module, nn.BatchNorm2d)]
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # a plain mean over the batches that follow
        decoder.train()
        batches, size = _CALIBRATION
        owner = torch.arange(size, device=self.device) % self.store.spec.num_classes
        for number in range(batches):
            decoder(decoder.prior(owner, stream(self.seed, "gan-calibrate", number)), owner)
        measure_means(decoder, self.seed)
        return decoder.eval()


@torch.no_grad()
def measure_means(generator: GanDecoder, seed: int) -> None:
    """Take the class means of w anew, where a mapping network makes them."""
    if generator.mapper is not None:
        kept = generator.mapper.get_buffer("means")
        labels = torch.arange(len(kept), device=kept.device)
        kept.copy_(generator.in_space("w").class_mean(labels, stream(seed, "gan-means"))["w"])
