"""What is learned or chosen with the set: colour maps, styles, bases, masks; their bytes and their budget."""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tiny_parts import SPEC, tiny_bank, tiny_decoder, tiny_formation

from latentdc.bundle import load_bundle, save_bundle, shared_bytes
from latentdc.condense import condense
from latentdc.data.store import ClassStore
from latentdc.errors import InputError, RecipeError
from latentdc.optim import Optim
from latentdc.portable.channels import ChannelsFormation
from latentdc.portable.frequency import FrequencyDecoder
from latentdc.portable.hallucinators import HallucinatorsFormation
from latentdc.portable.memory import MemoryDecoder
from latentdc.recipe import build, dry_run, make_bank, make_source, parse_recipe, to_toml
from latentdc.recipe.credit import citations

SMALL = {"source": {"arch": "mlp", "width": 8, "num_per_class": 12}, "augment": "none", "steps": 3}


def test_planes_are_coloured_and_packed_back() -> None:
    formation = ChannelsFormation([3, 8, 8])
    x = torch.rand(2, 3, 8, 8)
    assert formation.expands == 3
    assert torch.equal(formation(x)[4], x[1, 1].expand(3, 8, 8))  # At first a plane is a grey image.
    with torch.no_grad():
        formation.weight.copy_(torch.tensor([[0.2], [0.5], [0.3]]))
        formation.bias.copy_(torch.tensor([0.1, 0.0, 0.2]))
    torch.testing.assert_close(formation.pack(formation(x)), x)
    assert ChannelsFormation([4, 8, 8], per_plane=2).expands == 2
    assert formation.shared_bytes == 4 * 6


def test_a_style_has_the_published_size_and_starts_near_the_image() -> None:
    formation = HallucinatorsFormation([3, 32, 32], num=1)
    assert formation.shared_bytes == 4 * 5568
    exact = HallucinatorsFormation([1, 8, 8], num=2, spread=0.0)
    x = torch.rand(2, 1, 8, 8)
    torch.testing.assert_close(exact(x)[:2, :, 1:-1, 1:-1], x[:1, :, 1:-1, 1:-1].expand(2, 1, 6, 6))
    styles = HallucinatorsFormation([1, 8, 8], num=2)(x)
    assert not torch.equal(styles[0], styles[1])


def test_memory_adapted_to_images_of_low_rank_holds_them_exactly() -> None:
    decoder = MemoryDecoder([1, 8, 8], [0.4], [0.3], num_bases=3, downsample=2)
    rng = torch.Generator().manual_seed(0)
    with torch.no_grad():
        x = decoder({"a": torch.randn(20, 3, generator=rng)}, torch.zeros(20).long())
    small = torch.nn.functional.avg_pool2d(x, 2)
    decoder.adapt(torch.nn.functional.interpolate(small, scale_factor=2), torch.zeros(20).long())
    back = decoder.encode(torch.nn.functional.interpolate(small, scale_factor=2))["a"] @ decoder.bases.flatten(1)
    torch.testing.assert_close(back.unflatten(1, (1, 4, 4)) * 0.3 + 0.4, small, rtol=1e-4, atol=1e-5)


def test_masks_keep_what_varies_most_in_the_class() -> None:
    decoder = FrequencyDecoder([1, 8, 8], [0.4], [0.3], num_classes=2, num_coefficients=2)
    whole = FrequencyDecoder([1, 8, 8], [0.4], [0.3], num_classes=2, num_coefficients=64)
    owner = torch.tensor([0, 0, 0, 1, 1, 1])
    f = torch.zeros(6, 1, 64)
    order = whole.mask[0].tolist()
    f[:3, 0, order.index(5)] = torch.tensor([0.0, 5.0, 9.0])
    f[:3, 0, order.index(6)] = torch.tensor([1.0, 0.0, -1.0])
    f[3:, 0, order.index(60)] = torch.tensor([2.0, -2.0, 7.0])
    x = whole({"f": f}, owner)
    decoder.adapt(x, owner)
    assert decoder.mask[0].tolist() == [5, 6]
    assert int(decoder.mask[1, 0]) == 60
    torch.testing.assert_close(decoder(decoder.encode(x, owner), owner), x)
    assert decoder.mask.dtype == torch.int16
    assert decoder.shared_bytes == 2 * 2 * 2


@pytest.mark.parametrize("changes", [{"formation": "hallucinators"}, {"formation": "channels"}, {"decoder": "memory"}])
def test_what_the_classes_share_is_learned_with_the_set(changes: dict, tiny_store: ClassStore) -> None:
    recipe = parse_recipe({"images_per_class": 2, "init": "real", **SMALL, **changes})
    built = build(recipe, tiny_store.spec)
    part = built.formation or built.decoder
    bank = make_bank(built, tiny_store)
    before = {name: value.clone() for name, value in part.named_parameters()}
    assert before
    source = make_source(built, tiny_store)
    condense(
        built.decoder, bank, built.objective, source, steps=2, optim=Optim(lr=0.01), seed=0, formation=built.formation,
        chunk=4, progress=False,
    )  # fmt: skip
    for name, value in part.named_parameters():
        assert not torch.equal(value, before[name]), name


@pytest.mark.parametrize(
    ("decoder", "formation"), [("gan", "hallucinators"), ("memory", None), ("frequency", "channels")]
)
def test_bytes_of_what_is_shared_are_the_sets(decoder: str, formation: str | None, tmp_path: Path) -> None:
    module, form = tiny_decoder(decoder), tiny_formation(formation)
    folder = save_bundle(
        tmp_path / "b", bank=tiny_bank(module), decoder=module, formation=form, spec=SPEC, provenance={}
    )
    storage = load_bundle(folder).storage
    shared = shared_bytes(module, form)
    assert storage.shared == shared > 0
    assert storage.bytes_per_class == (storage.latents + storage.labels + shared) / 3
    assert storage.total == sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    assert "+ shared by classes" in "\n".join(storage.lines())
    assert "x all that is learned" in "\n".join(storage.lines())


def test_the_budget_pays_for_what_is_shared(tiny_store: ClassStore) -> None:
    table = {"bytes_per_class": 600, "decoder": {"kind": "memory", "num_bases": 4}, **SMALL}
    built = build(parse_recipe(table), tiny_store.spec)
    shared = 4 * 64 * 4
    assert built.counts == ((600 - 4 - shared // 3 - 1) // 16,) * 3
    told = dry_run(built, tiny_store, device=torch.device("cpu"))
    assert told["bytes_per_class"] == pytest.approx(built.counts[0] * 16 + 4 + shared / 3)
    assert told["bytes_per_class"] <= 600
    with pytest.raises(RecipeError, match=r"and 341\.3 of what the classes share \(see \[formation\], \[decoder\]\)"):
        build(parse_recipe(table | {"bytes_per_class": 300}), tiny_store.spec)


def test_a_dry_run_leaves_no_trace(tiny_store: ClassStore) -> None:
    built = build(parse_recipe({"images_per_class": 1, "decoder": "memory", **SMALL}), tiny_store.spec)
    before = built.decoder.bases.detach().clone()
    dry_run(built, tiny_store, device=torch.device("cpu"))
    assert torch.equal(before, built.decoder.bases)


def test_a_decoder_with_options_reads_writes_and_credits() -> None:
    recipe = parse_recipe({"images_per_class": 1, "decoder": "frequency"}, settings=["decoder.num_coefficients=9"])
    assert parse_recipe(tomllib.loads(to_toml(recipe))) == recipe
    assert "shin2023fred" in citations(recipe)
    assert build(recipe, SPEC).decoder.latent_shapes == {"f": (1, 9)}
    assert build(recipe, SPEC).decoder_name == "frequency"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ChannelsFormation([3, 8, 8], per_plane=2), r"per_plane = 2 does not divide images of 3 channels"),
        (lambda: ChannelsFormation([3, 8, 8])(torch.zeros(1, 1, 8, 8)), r"images of 1 channels.*was made for 3"),
        (lambda: ChannelsFormation([3, 8, 8]).pack(torch.zeros(4, 3, 8, 8)), "4 images cannot be packed by 3"),
        (lambda: HallucinatorsFormation([1, 8, 8], num=0), r"num = 0, images of \(1, 8, 8\): give at least 1 style"),
        (lambda: HallucinatorsFormation([1, 8, 8])(torch.zeros(1, 1, 4, 4)), r"made for \(1, 8, 8\)"),
        (lambda: MemoryDecoder([1, 8, 8], [0.4], [0.3], downsample=3), "downsample = 3: give at least 1 basis"),
        (lambda: MemoryDecoder([3, 8, 8], [0.4], [0.3]), "give 3 means and positive deviations"),
        (lambda: FrequencyDecoder([1, 8, 8], [0.4], [0.3], 3, 65), r"num_coefficients = 65: images of 8 x 8 have 64"),
        (lambda: FrequencyDecoder([1, 8, 8], [0.4], [0.0], 3), r"std = \(0\.0,\)"),
    ],
)
def test_refusals_of_parts(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_refusals_of_recipes(tiny_store: ClassStore) -> None:
    one = {"images_per_class": 1}
    with pytest.raises(RecipeError, match=r'decoder\.bases: "bases": no such option of memory.*"num_bases"'):
        parse_recipe(one | {"decoder": {"kind": "memory", "bases": 3}})
    with pytest.raises(InputError, match=r'"memry": no such decoder\. Did you mean "memory"'):
        build(parse_recipe(one | {"decoder": {"kind": "memry", "num_bases": 3}}), SPEC)
    recipe = parse_recipe(one | {"decoder": {"kind": "frequency", "num_coefficients": 65}})
    with pytest.raises(RecipeError, match=r"decoder \(frequency\): num_coefficients = 65"):
        build(recipe, tiny_store.spec)
