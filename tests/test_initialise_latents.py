"""Starts in latent space: clusters, mixtures, class means, inversion, and the report of a start."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tiny_parts import SPEC, tiny_decoder

from latentdc.data.store import ClassStore
from latentdc.errors import InputError
from latentdc.initialise import Inversion, initialise, invert, nearest_draws, reconstruction, start_images, start_report
from latentdc.initialise.latent_space import Mixture
from latentdc.initialise.mixture import mixture
from latentdc.initialise.start import ClassMean
from latentdc.latents import decode
from latentdc.networks.base import build
from latentdc.portable.pixels import PixelsDecoder
from latentdc.portable.tiles import TilesFormation
from latentdc.seeding import stream


def pixels(store: ClassStore) -> PixelsDecoder:
    return PixelsDecoder(store.spec.image_shape, store.spec.mean, store.spec.std)


class Mapped(torch.nn.Module):
    """A decoder whose latents have a mean per class."""

    latent_shapes = {"w": (4,)}
    image_shape = (1, 2, 2)

    def prior(self, owner: torch.Tensor, rng: torch.Generator) -> dict[str, torch.Tensor]:
        return {"w": owner[:, None] + torch.randn(len(owner), 4, generator=rng)}

    def class_mean(self, owner: torch.Tensor, rng: torch.Generator, num: int) -> dict[str, torch.Tensor]:
        return {"w": self.prior(owner.repeat(num), rng)["w"].mean(0, keepdim=True)}


def test_a_single_centroid_is_the_mean_of_the_class(tiny_store: ClassStore) -> None:
    for kind in ("centroids", "mixture"):
        bank = initialise(kind, pixels(tiny_store), (1, 1, 1), seed=0, store=tiny_store)
        shown = decode(pixels(tiny_store), bank).x
        for cls in range(3):
            mean = tiny_store.of_class(cls).float().mean(0) / 255
            torch.testing.assert_close(shown[cls], mean, rtol=0, atol=1e-5)


def test_latent_medoids_are_real_images(tiny_store: ClassStore) -> None:
    bank = initialise("latent-medoids", pixels(tiny_store), (2, 2, 2), seed=0, store=tiny_store)
    real = start_images("latent-medoids", pixels(tiny_store), (2, 2, 2), seed=0, store=tiny_store)
    assert float(reconstruction(pixels(tiny_store), bank, real).max()) < 1e-10
    formation = TilesFormation(2)
    packed = initialise("latent-medoids", pixels(tiny_store), (2, 2, 2), seed=0, store=tiny_store, formation=formation)
    assert packed.num_rows == 6


def test_real_images_and_decoder_are_on_the_device_asked_for(tiny_store: ClassStore) -> None:
    decoder = tiny_decoder("gan")
    real = start_images("inversion", decoder, (1, 1, 1), seed=0, store=tiny_store, device="meta")
    assert real is not None
    assert {real.x.device.type, real.owner.device.type, *(p.device.type for p in decoder.parameters())} == {"meta"}


def test_mixture_finds_separated_gaussians() -> None:
    rng = torch.Generator().manual_seed(0)
    wide = 10 + 2 * torch.randn(300, 2, generator=rng, dtype=torch.float64)
    narrow = -10 + 0.1 * torch.randn(100, 2, generator=rng, dtype=torch.float64)
    found = mixture(torch.cat([narrow, wide]), 2, rng)
    torch.testing.assert_close(found.weights, torch.tensor([0.75, 0.25], dtype=torch.float64))
    torch.testing.assert_close(found.means[0], wide.mean(0))
    torch.testing.assert_close(found.variances[0], wide.var(0, unbiased=False))
    torch.testing.assert_close(found.means[1], narrow.mean(0))


def test_class_mean_first_then_rows_between_it_and_the_prior() -> None:
    bank = initialise(ClassMean(num=2000, truncation=0.5), Mapped(), (2, 0, 3), seed=0)
    first = bank.z["w"][bank.rows([2])[0]].detach()
    assert float((first - 2).abs().max()) < 0.2
    prior = initialise("prior", Mapped(), (2, 0, 3), seed=0)
    row = bank.rows([2])[1]
    torch.testing.assert_close(bank.z["w"][row], first + 0.5 * (prior.z["w"][row] - first))
    assert len(torch.unique(bank.z["w"], dim=0)) == 5


def lively() -> torch.nn.Module:
    """A generator whose latents matter: weights far from their small initial values."""
    decoder = tiny_decoder("gan")
    for number, module in enumerate(each for each in decoder.modules() if isinstance(each, torch.nn.Linear)):
        module.weight.data.normal_(0, 0.5, generator=stream(number, "lively"))
    return decoder


def test_images_of_the_generator_are_recovered() -> None:
    decoder = lively()
    owner = torch.tensor([0, 0, 1, 2])
    with torch.no_grad():
        x = decoder(decoder.prior(owner, stream(0, "truth")), owner)
    begin = nearest_draws(decoder, x, owner, 16, seed=0)
    options = Inversion(steps=200, patience=100, batch_size=3)
    found = invert(decoder, x, owner, begin, net=build("mlp", SPEC, seed=0, width=8), options=options)
    assert bool((found.errors * 10 < found.start_errors).all())
    with torch.no_grad():
        again = (decoder(found.latents, owner) - x).square().flatten(1).mean(1)
    torch.testing.assert_close(again, found.errors, rtol=1e-4, atol=1e-9)
    repeat = invert(decoder, x, owner, begin, net=build("mlp", SPEC, seed=0, width=8), options=options)
    assert torch.equal(found.latents["z"], repeat.latents["z"])


def test_a_row_that_stopped_does_not_move_and_the_others_do_not_notice() -> None:
    decoder = tiny_decoder("gan").double()
    owner = torch.tensor([0, 1, 2])
    z = {"z": decoder.prior(owner, stream(0, "truth"))["z"].double()}
    with torch.no_grad():
        x = decoder(z, owner)
    begin = {"z": z["z"].clone()}
    begin["z"][1:] += 1  # Row 0 starts where it should end: nothing can improve it.
    options = Inversion(steps=60, patience=5, feature_weight=0, tolerance=0.0)
    found = invert(decoder, x, owner, begin, options=options)
    assert torch.equal(found.latents["z"][0], begin["z"][0])
    assert int(found.steps[0]) <= 5 < int(found.steps[1])
    alone = invert(decoder, x[1:], owner[1:], {"z": begin["z"][1:]}, options=options)
    torch.testing.assert_close(found.latents["z"][1:], alone.latents["z"], rtol=0, atol=1e-9)
    assert torch.equal(found.steps[1:], alone.steps)


def test_inversion_is_a_start_with_and_without_an_encoder(tiny_store: ClassStore) -> None:
    net = build("mlp", tiny_store.spec, seed=0, width=8)
    bank = initialise("inversion", pixels(tiny_store), (1, 1, 1), seed=0, store=tiny_store, net=net)
    real = start_images("inversion", pixels(tiny_store), (1, 1, 1), seed=0, store=tiny_store)
    assert float(reconstruction(pixels(tiny_store), bank, real).max()) < 1e-9  # It begins at encode, which is exact.
    decoder = tiny_decoder("gan")
    few, many = (
        initialise(Inversion(steps=steps, feature_weight=0), decoder, (2, 1, 1), seed=0, store=tiny_store)
        for steps in (1, 100)
    )
    real = start_images("inversion", decoder, (2, 1, 1), seed=0, store=tiny_store)
    assert float(reconstruction(decoder, many, real).sum()) < float(reconstruction(decoder, few, real).sum())


def test_the_report_shows_errors_and_one_picture(tiny_store: ClassStore, tmp_path: Path) -> None:
    decoder = pixels(tiny_store)
    real = start_images("real", decoder, (2, 1, 2), seed=0, store=tiny_store)
    began = initialise("real", decoder, (2, 1, 2), seed=0, store=tiny_store)
    ended = began.quantise("fp32")
    with torch.no_grad():
        ended.z["x"].add_(1.0)
    before, after = (decode(decoder, bank).x for bank in (began, ended))
    facts = start_report(tmp_path / "start.png", real, before, after, tiny_store.spec.class_names)
    assert facts["num_rows"] == 5
    assert facts["reconstruction_mse"] < 1e-10 < facts["mse_after"]
    assert facts["mse_after"] == pytest.approx(tiny_store.spec.std[0] ** 2, rel=1e-4)
    assert (tmp_path / "start.png").stat().st_size > 100


def test_refusals_name_what_would_do(tiny_store: ClassStore) -> None:
    decoder, gan = pixels(tiny_store), tiny_decoder("gan")
    for kind in ("centroids", "latent-medoids", "mixture"):
        with pytest.raises(InputError, match=f'"{kind}" encodes real images and GanDecoder has no encoder'):
            initialise(kind, gan, (1, 1, 1), seed=0, store=tiny_store)
        with pytest.raises(InputError, match=f'init = "{kind}" needs real images'):
            initialise(kind, decoder, (1, 1, 1), seed=0)
        with pytest.raises(InputError, match=f"13 {kind} of a class with 12 images"):
            initialise(kind, decoder, (13, 1, 1), seed=0, store=tiny_store)
    with pytest.raises(InputError, match="TilesFormation packs 4 images into one"):
        initialise("centroids", decoder, (1, 1, 1), seed=0, store=tiny_store, formation=TilesFormation(2))
    with pytest.raises(InputError, match='PixelsDecoder has no "class_mean"'):
        initialise("class-mean", decoder, (1, 1, 1), seed=0)
    with pytest.raises(InputError, match=r"feature_weight = 0\.1 needs a network"):
        initialise("inversion", decoder, (1, 1, 1), seed=0, store=tiny_store)
    with pytest.raises(InputError, match=r"steps = 0: give at least 1"):
        Inversion(steps=0)
    with pytest.raises(InputError, match=r"lr = -1"):
        Inversion(lr=-1)
    with pytest.raises(InputError, match="truncation = 0"):
        ClassMean(truncation=0)
    with pytest.raises(InputError, match="iterations = 0"):
        Mixture(iterations=0)
    with pytest.raises(InputError, match="between 1 and 2"):
        mixture(torch.zeros(2, 1), 3, torch.Generator())
    with pytest.raises(InputError, match="2 images, 2 classes and latents"):
        invert(
            gan,
            torch.zeros(2, 1, 8, 8),
            torch.zeros(2).long(),
            {"z": torch.zeros(1, 4)},
            options=Inversion(feature_weight=0),
        )
    bank = initialise("prior", decoder, (1, 1, 1), seed=0)
    with pytest.raises(InputError, match="3 rows and 1 real images"):
        reconstruction(decoder, bank, tiny_store.batch([0]))
