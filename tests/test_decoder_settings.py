"""A decoder under other settings: the same weights, read in another space, with other steps, guidance or scale."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tiny_models import DDIM, tiny_diffusion
from tiny_parts import EVERY, tiny_decoder

from latentdc.decoders import BASES, DECODERS
from latentdc.decoders.schedules import plan_of
from latentdc.decoders.settings import SETTINGS, check_settings, configured, current_settings, known_settings, thinned
from latentdc.errors import InputError
from latentdc.seeding import stream

OWNER = torch.tensor([0, 2, 1])


def test_every_pretrained_decoder_has_its_settings() -> None:
    assert set(SETTINGS) == {kind for name, kind in DECODERS.items() if name not in ("pixels", "module", *BASES)}
    for kind in SETTINGS:
        assert {*SETTINGS[kind]} <= {*known_settings(kind)}
    assert known_settings(DECODERS["pixels"]) == {}


@pytest.mark.parametrize("name", EVERY)
def test_its_own_settings_change_nothing(name: str) -> None:
    """Taken apart and put together again a decoder is what it was, and its weights are there once."""
    decoder = tiny_decoder(name)
    again = configured(decoder, current_settings(decoder))
    assert again.state_dict().keys() == decoder.state_dict().keys()
    for mine, its in zip(decoder.parameters(), again.parameters(), strict=True):
        assert mine.data_ptr() == its.data_ptr()
        assert not its.requires_grad
    assert not again.training
    z = decoder.prior(OWNER, stream(0, "settings"))
    assert torch.equal(decoder(z, OWNER), again(z, OWNER))


@pytest.mark.parametrize(
    ("name", "given", "shapes"),
    [
        ("gan:mapped-z", {"space": "w+"}, {"w": (3, 4)}),
        ("gan:mapped-w+", {"space": "z", "truncation": 0.5}, {"z": (4,)}),
        ("stylegan2", {"space": "f2"}, {"f": (4, 8, 8), "skip": (1, 4, 4), "w": (2, 5)}),
        ("biggan", {"space": "f0"}, {"f": (8, 4, 4), "w": (1, 5)}),
        ("autoencoder", {"latent_scale": 2.0, "latent_shift": 0.0}, {"z": (2, 4, 4)}),
        ("diffusion", {"learn_condition": True, "skip": "state"}, {"z": (1, 8, 8), "c": (32,)}),
        ("diffusion-dit", {"guidance": 3.0, "backward_steps": 1}, {"z": (2, 4, 4)}),
    ],
)
def test_other_settings(name: str, given: dict[str, Any], shapes: dict[str, tuple[int, ...]]) -> None:
    decoder = tiny_decoder(name)
    other = configured(decoder, given)
    assert other.latent_shapes == shapes
    assert current_settings(other).items() >= {k: v for k, v in given.items() if v not in ("z",)}.items()
    assert other.state_dict().keys() == decoder.state_dict().keys()
    x = other(other.prior(OWNER, stream(0, "settings")), OWNER)
    assert bool(x.isfinite().all())
    assert dict(decoder.config) == dict(tiny_decoder(name).config)


def test_a_space_is_the_one_the_class_itself_gives() -> None:
    decoder = tiny_decoder("gan:mapped-z")
    ours, its = configured(decoder, {"space": "w"}), decoder.in_space("w")
    z = its.prior(OWNER, stream(0, "settings"))
    assert torch.equal(ours.prior(OWNER, stream(0, "settings"))["w"], z["w"])
    assert torch.equal(ours(z, OWNER), its(z, OWNER))


def test_fewer_steps_are_those_of_the_scheduler() -> None:
    """Of a plan that ends on the last time step, every m-th step is the scheduler's own shorter plan."""
    trailing = {**DDIM, "timestep_spacing": "trailing"}
    whole, wanted = plan_of(trailing, 10)[1], plan_of(trailing, 5)[1]
    found = thinned(whole, 5)
    assert [step[0] for step in found] == [step[0] for step in wanted]
    torch.testing.assert_close(torch.tensor(found), torch.tensor(wanted))
    assert thinned(whole, 10) == whole
    assert configured(tiny_diffusion(steps=4), {"steps": 2}).config["plan"] == thinned(tiny_diffusion(steps=4).plan, 2)


@pytest.mark.parametrize(
    ("name", "given", "message"),
    [
        ("gan", {"spcae": "w"}, r'decoder\.spcae: "spcae": no such setting of a GanDecoder\. Did you mean "space"\?'),
        ("gan", {"space": "w"}, r'decoder with space = "w": space "w": this generator has z and f0 to f1\. w and w\+'),
        ("pixels", {"space": "w"}, r"no such setting of a PixelsDecoder\. Known: none"),
        ("diffusion", {"steps": 1.0}, r"decoder\.steps = 1\.0: this decoder's plan has 2"),
        ("gan", {"truncation": 0.5}, r"truncation = 0\.5: give 0 to 1 to a generator with a mapping network"),
        ("diffusion", {"steps": 7}, r"decoder\.steps = 7: this decoder's plan has 2, of which 1, 2 can be taken"),
        ("diffusion", {"guidance": 2.0}, "guidance = 2.0: needs a class for none"),
        ("autoencoder", {"quantise": True}, "only a VQModel quantises"),
        ("autoencoder", {"model_class": "VQModel"}, "no such setting of a AutoencoderDecoder"),
    ],
)
def test_refusals(name: str, given: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        configured(tiny_decoder(name), given)


def test_a_name_for_what_it_is() -> None:
    with pytest.raises(InputError, match='"spcae": no such setting of a decoder pixels'):
        check_settings(DECODERS["pixels"], {"spcae": 1}, "decoder pixels")
