"""Starts and the order of rows."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tiny_parts import tiny_decoder

from latentdc.bundle import save_bundle
from latentdc.clusters import medoids
from latentdc.data.augment import NoAugment
from latentdc.data.sampling import UniformSampler
from latentdc.data.store import ClassStore
from latentdc.discrepancies import DISCREPANCIES
from latentdc.errors import InputError
from latentdc.initialise import STARTS, herd, initialise, order_rows
from latentdc.initialise.bundled import Bundled
from latentdc.latents import decode
from latentdc.networks.base import build
from latentdc.networks.pool import FixedPool
from latentdc.portable.bank import LatentBank
from latentdc.portable.pixels import PixelsDecoder
from latentdc.portable.tiles import TilesFormation
from latentdc.representations import Features
from latentdc.source import Minibatches


def pixels(store: ClassStore) -> PixelsDecoder:
    return PixelsDecoder(store.spec.image_shape, store.spec.mean, store.spec.std)


def start(
    kind: str, store: ClassStore, counts: tuple[int, ...], seed: int = 0, **formation: TilesFormation
) -> LatentBank:
    net = build("mlp", store.spec, seed=0, width=8)
    return initialise(
        kind, pixels(store), counts, seed=seed, store=store, net=net, formation=formation.get("formation")
    )


@pytest.mark.parametrize("kind", [kind for kind in STARTS if kind not in {"class-mean", "bundle"}])  # Pixels have none.
def test_start_is_keyed_by_seed_and_class(kind: str, tiny_store: ClassStore) -> None:
    def begun(counts: tuple[int, ...], seed: int = 0, classes: list[int] | None = None) -> torch.Tensor:
        if kind in {"prototypes", "modes"}:  # Starts of diffusion models.
            bank = initialise(kind, tiny_decoder("diffusion-late"), counts, seed=seed, store=tiny_store)
        else:
            bank = start(kind, tiny_store, counts, seed)
        assert bank.counts == counts
        (values,) = bank.latents(bank.rows(classes)).values()
        return values.detach()

    first = begun((3, 2, 4))
    assert torch.equal(first, begun((3, 2, 4)))
    if kind not in {"medoids", "latent-medoids", "centroids", "mixture"}:  # Clusters may well be found again.
        assert not torch.equal(first, begun((3, 2, 4), 1))
    # Another class's number of rows changes nothing here.
    assert torch.equal(begun((3, 2, 4), classes=[2]), begun((3, 5, 4), classes=[2]))


@pytest.mark.parametrize("kind", ["real", "medoids"])
def test_real_starts_decode_to_real_images_of_their_class(kind: str, tiny_store: ClassStore) -> None:
    bank = start(kind, tiny_store, (3, 3, 3))
    batch = decode(pixels(tiny_store), bank)
    for x, owner in zip(batch.x, batch.owner.tolist(), strict=True):
        reals = tiny_store.of_class(owner).float() / 255
        assert float((reals - x).abs().flatten(1).amax(1).min()) < 1e-5
    assert len(torch.unique(batch.x, dim=0)) == 9


def test_tiles_start_from_as_many_images_as_they_hold(tiny_store: ClassStore) -> None:
    formation = TilesFormation(2)
    bank = start("real", tiny_store, (2, 2, 2), formation=formation)
    assert bank.num_rows == 6
    tile = bank.z["x"][0, :, :4, :4].detach() * tiny_store.spec.std[0] + tiny_store.spec.mean[0]
    shrunk = torch.nn.functional.interpolate(tiny_store.of_class(0).float() / 255, size=(4, 4), mode="area")
    assert float((shrunk - tile).abs().flatten(1).amax(1).min()) < 1e-5


def test_what_a_start_lacks_is_named(tiny_store: ClassStore) -> None:
    class Blind(torch.nn.Module):
        latent_shapes = {"z": (2,)}
        image_shape = (1, 8, 8)

        def prior(self, owner: torch.Tensor, rng: torch.Generator) -> dict[str, torch.Tensor]:
            return {"z": torch.randn(len(owner), 2, generator=rng)}

    with pytest.raises(InputError, match=r'"rael": no such start\. Did you mean "real"'):
        start("rael", tiny_store, (1, 1, 1))
    with pytest.raises(InputError, match='Blind has no encoder: use init = "prior"'):
        initialise("real", Blind(), (1, 1, 1), seed=0, store=tiny_store)
    with pytest.raises(InputError, match="needs real images"):
        initialise("real", pixels(tiny_store), (1, 1, 1), seed=0)
    with pytest.raises(InputError, match="13 images of class"):
        start("real", tiny_store, (13, 1, 1))


def test_a_bundle_is_gone_on_from(tiny_store: ClassStore, tmp_path: Path) -> None:
    decoder, bank = pixels(tiny_store), start("prior", tiny_store, (3, 2, 4)).quantise("int8")
    save_bundle(tmp_path / "b", bank=bank, decoder=decoder, spec=tiny_store.spec, provenance={"seed": 0})
    kind = Bundled(str(tmp_path / "b"))
    begun = initialise(kind, pixels(tiny_store), (2, 0, 4), seed=0, store=tiny_store)
    wanted = torch.cat([bank.latents(bank.rows([cls], num))["x"] for cls, num in ((0, 2), (2, 4))])
    assert begun.counts == (2, 0, 4)
    assert torch.equal(begun.latents()["x"], wanted)
    with pytest.raises(
        InputError, match=r'4 rows of class "class-0" are asked for and it has 3\. Ask for no more than that'
    ):
        initialise(kind, decoder, (4, 4, 4), seed=0, store=tiny_store)
    darker = PixelsDecoder(tiny_store.spec.image_shape, (0.1,), tiny_store.spec.std)
    with pytest.raises(InputError, match="its decoder differs from this run's in settings and weights"):
        initialise(kind, darker, (1, 1, 1), seed=0, store=tiny_store)
    turned = tiny_store.choose([2, 1, 0])
    with pytest.raises(InputError, match="condensed from other images"):
        initialise(kind, decoder, (1, 1, 1), seed=0, store=turned)
    with pytest.raises(InputError, match="its formation differs from this run's in class and settings"):
        initialise(kind, decoder, (1, 1, 1), seed=0, store=tiny_store, formation=TilesFormation(2))
    with pytest.raises(InputError, match="it has 3 classes, 2 are asked for"):
        initialise(kind, decoder, (1, 1), seed=0)
    with pytest.raises(InputError, match=r'init = "bundle", path = ".*none": .*no such folder'):
        initialise(Bundled(str(tmp_path / "none")), decoder, (1, 1, 1), seed=0)
    with pytest.raises(InputError, match='init = "bundle" needs the bundle'):
        initialise("bundle", decoder, (1, 1, 1), seed=0)


def test_medoids_of_clear_clusters() -> None:
    points = torch.cat([torch.randn(9, 2, generator=torch.Generator().manual_seed(c)) / 50 + 5 * c for c in range(3)])
    picked = medoids(points, 3, torch.Generator().manual_seed(0))
    assert sorted((picked // 9).tolist()) == [0, 1, 2]


def test_herding_matches_exhaustive_greed() -> None:
    points = torch.randn(7, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    target = torch.tensor([0.2, -0.1, 0.3], dtype=torch.float64)
    order = herd(points, target).tolist()
    assert sorted(order) == list(range(7))
    for length in range(1, 8):
        taken = order[: length - 1]
        best = min(
            (i for i in range(7) if i not in taken), key=lambda i: float((points[[*taken, i]].mean(0) - target).norm())
        )
        assert order[length - 1] == best


@pytest.mark.parametrize(("by", "factor"), [*((by, None) for by in DISCREPANCIES), ("mean", 2)])
def test_first_row_is_the_nearest_to_the_real_mean(by: str, factor: int | None, tiny_store: ClassStore) -> None:
    formation = None if factor is None else TilesFormation(factor)
    bank = start("prior", tiny_store, (5, 1, 5))
    mean = tiny_store.of_class(2).float().mean(0) / 255
    mean = mean if formation is None else formation.pack(mean[None].repeat(4, 1, 1, 1))[0]
    with torch.no_grad():
        bank.z["x"].mul_(5)  # Far from anything real, also after tiles have blurred what is planted.
        bank.z["x"][bank.rows([2])[3]] = ((mean - tiny_store.spec.mean[0]) / tiny_store.spec.std[0]).view_as(mean)
    planted = bank.z["x"][bank.rows([2])[3]].detach().clone()
    pool = FixedPool("mlp", tiny_store.spec, seed=0, num=2, width=8)
    source = Minibatches(tiny_store, UniformSampler(tiny_store, 12), pool, NoAugment(), seed=0)
    part = DISCREPANCIES[by]()
    ordered = order_rows(pixels(tiny_store), bank, source, Features(), part, formation=formation, num_views=2)
    assert torch.equal(ordered.z["x"][ordered.rows([2])[0]], planted)
    assert torch.equal(ordered.z["x"].sort(0).values, bank.z["x"].sort(0).values)
    assert torch.equal(ordered.z["x"][ordered.rows([1])], bank.z["x"][bank.rows([1])])
