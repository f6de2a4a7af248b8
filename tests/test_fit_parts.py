"""Critic, encoder, figures and the state of the game, each against what its formula says."""

from __future__ import annotations

import pytest
import torch
from torch import distributions, nn

from latentdc.data.store import ClassStore
from latentdc.fit.critic import ProjectionCritic
from latentdc.fit.encoder import Encoder, reparameterise
from latentdc.fit.figures import density_coverage
from latentdc.fit.gan import GanGame, GanRecipe
from latentdc.seeding import global_seed, stream

TINY = GanRecipe(z_dim=4, channels=(8, 4), critic_channels=(8, 8), batch_size=8, embed_dim=4)


def game(store: ClassStore, recipe: GanRecipe = TINY) -> GanGame:
    return GanGame(store, recipe, seed=0, device=torch.device("cpu"), bf16=False)


def test_critic_layers_have_spectral_norm_one() -> None:
    with global_seed(0, "t"):
        critic = ProjectionCritic((1, 8, 8), 3, (8, 8))
    x, owner = torch.rand(4, 1, 8, 8, generator=stream(0, "t")), torch.tensor([0, 1, 2, 0])
    for _ in range(60):
        critic(x, owner)
    for module in critic.modules():
        if isinstance(module, nn.Conv2d | nn.Linear | nn.Embedding):
            top = torch.linalg.matrix_norm(module.weight.detach().flatten(1), 2)
            assert float(top) == pytest.approx(1, abs=0.02)


def test_critic_measures_deviation_by_group() -> None:
    critic = ProjectionCritic((1, 8, 8), 3, (8,)).eval()
    first, second = torch.rand(2, 4, 1, 8, 8, generator=stream(0, "t"))
    owner = torch.tensor([0, 1, 2, 0])
    both = critic(torch.cat([first, 0.1 * second]), torch.cat([owner, owner]), groups=2)
    apart = torch.cat([critic(first, owner), critic(0.1 * second, owner)])
    torch.testing.assert_close(both, apart)
    mixed = critic(torch.cat([first, 0.1 * second]), torch.cat([owner, owner]))
    assert not torch.allclose(mixed, apart)


def test_critic_reads_the_class() -> None:
    critic = ProjectionCritic((1, 8, 8), 3, (8,)).eval()
    x = torch.rand(1, 1, 8, 8).expand(3, -1, -1, -1)
    assert len(set(critic(x, torch.arange(3)).tolist())) == 3


def test_divergence_against_torch() -> None:
    code = torch.randn(6, 8, generator=stream(0, "t"), dtype=torch.float64)
    noise = torch.randn(6, 4, generator=stream(1, "t"), dtype=torch.float64)
    z, divergence = reparameterise(code, noise)
    mean, log_variance = code.chunk(2, dim=1)
    posterior = distributions.Normal(mean, (0.5 * log_variance).exp())
    prior = distributions.Normal(torch.zeros_like(mean), torch.ones_like(mean))
    torch.testing.assert_close(divergence, distributions.kl_divergence(posterior, prior).sum(1).mean())
    torch.testing.assert_close(posterior.log_prob(z), distributions.Normal(0, 1).log_prob(noise) - 0.5 * log_variance)


def test_encoder_reads_image_and_class() -> None:
    encoder = Encoder((1, 8, 8), 3, 4)
    x = torch.rand(3, 1, 8, 8)
    code = encoder(x, torch.tensor([0, 1, 2]))
    assert code.shape == (3, 8)
    assert not torch.allclose(code, encoder(x, torch.tensor([1, 2, 0])))


def brute(real: torch.Tensor, fake: torch.Tensor, k: int) -> tuple[float, float]:
    radii = [sorted(float((x - o).norm()) for j, o in enumerate(real) if j != i)[k - 1] for i, x in enumerate(real)]
    hits = [[float((f - x).norm()) < r for f in fake] for x, r in zip(real, radii, strict=True)]
    return sum(map(sum, hits)) / (k * len(fake)), sum(map(any, hits)) / len(real)


def test_density_coverage_against_loops() -> None:
    real = torch.randn(23, 3, generator=stream(0, "t"), dtype=torch.float64)
    fake = 0.5 + torch.randn(17, 3, generator=stream(1, "t"), dtype=torch.float64)
    assert density_coverage(real, fake, 4) == pytest.approx(brute(real, fake, 4))


def test_density_coverage_at_the_ends() -> None:
    real = torch.randn(600, 4, generator=stream(0, "t"))
    assert density_coverage(real, real + 100) == (0.0, 0.0)
    density, coverage = density_coverage(real, torch.randn(600, 4, generator=stream(1, "t")))
    assert density == pytest.approx(1, abs=0.1)
    assert coverage > 0.9
    _, collapsed = density_coverage(real, real[:1].expand(600, -1) + 1e-4)
    assert collapsed < 0.1


def test_state_round_trip_continues_alike(tiny_store: ClassStore) -> None:
    one = game(tiny_store)
    one.step(0, 0.0)
    two = game(tiny_store)
    two.load({name: value.clone() for name, value in one.tensors().items()})
    assert one.step(1, 0.6) == two.step(1, 0.6)
    theirs = two.tensors()
    assert all(torch.equal(value, theirs[name]) for name, value in one.tensors().items())


def test_reconstruction_alone_learns_the_images(tiny_store: ClassStore) -> None:
    learner = game(tiny_store, GanRecipe(**{**vars(TINY), "reconstruct": 1.0, "kl": 0.0, "generator_rate": 5e-3}))
    errors = [learner.step(number, 0.0).error for number in range(60)]
    assert sum(errors[-10:]) < 0.5 * sum(errors[:10])


def test_without_reconstruction_there_is_no_error(tiny_store: ClassStore) -> None:
    plain = game(tiny_store, GanRecipe(**{**vars(TINY), "reconstruct": 0.0}))
    before = {name: value.clone() for name, value in plain.encoder.state_dict().items()}
    assert plain.step(0, 0.0).error == 0.0
    assert all(torch.equal(value, before[name]) for name, value in plain.encoder.state_dict().items())


def test_decoder_statistics_come_from_the_prior(tiny_store: ClassStore) -> None:
    learner = game(tiny_store)
    learner.step(0, 0.0)
    decoder = learner.decoder()
    owner = torch.arange(3000) % 3
    condition = torch.cat([decoder.prior(owner, stream(9, "t"))["z"], decoder.embed(owner)], dim=1)
    maps = decoder.first(condition).unflatten(1, decoder.base).detach()
    norm = decoder.blocks[0].norm_up.norm
    torch.testing.assert_close(norm.running_mean, maps.mean(dim=(0, 2, 3)), rtol=0, atol=0.05)
    torch.testing.assert_close(norm.running_var, maps.var(dim=(0, 2, 3)), rtol=0.1, atol=0.05)
    assert not decoder.training
