"""Any module as a decoder: label forms, ranges, gradients through the waist, and what is refused with which words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from own_generator import Generator
from tiny_parts import SPEC, tiny_bank
from torch import Tensor, nn
from torch.nn import functional

from latentdc.bundle import save_bundle
from latentdc.decoders.module import adapt
from latentdc.errors import InputError
from latentdc.latents import decode, decoded
from latentdc.seeding import stream
from latentdc.types import Decoder

OWNER = torch.tensor([0, 2, 1])


class Toy(nn.Module):
    """z of 4 numbers (and 3 classes) → images (1, 8, 8) in (-1, 1)."""

    def __init__(self, classes: str = "none") -> None:
        super().__init__()
        self.classes = classes
        self.linear = nn.Linear(4 if classes == "none" else 7, 64)
        self.norm = nn.BatchNorm1d(64)

    def forward(self, z: Tensor, label: Tensor | None = None) -> Tensor:
        if self.classes == "index":
            z = torch.cat([z, functional.one_hot(label, 3).to(z.dtype)], 1)
        elif self.classes == "one-hot":
            z = torch.cat([z, label], 1)
        return self.norm(self.linear(z)).tanh().unflatten(1, (1, 8, 8))


class Odd(nn.Module):
    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how

    def forward(self, z: Tensor) -> Any:
        if self.how == "noise":
            return torch.rand(len(z), 1, 8, 8)
        return z if self.how == "flat" else [z]


def make(classes: str = "none") -> Toy:
    return Toy(classes)


@pytest.mark.parametrize("labels", ["none", "index", "one-hot", "concatenated"])
def test_label_forms(labels: str) -> None:
    toy = Toy(labels)
    decoder = adapt(toy, (4,), labels=labels, num_classes=0 if labels == "none" else 3)
    assert isinstance(decoder, Decoder)
    assert decoder.image_shape == SPEC.image_shape
    assert not any(parameter.requires_grad for parameter in decoder.parameters())
    z = decoder.prior(OWNER, stream(0, "m"))
    x = decoder(z, OWNER)
    assert 0 <= float(x.min()) <= float(x.max()) <= 1
    other = decoder(z, (OWNER + 1) % 3)
    assert torch.equal(x, other) == (labels == "none")
    hot = functional.one_hot(OWNER, 3).float()
    raw = (
        toy(z["z"])
        if labels == "none"
        else toy(
            torch.cat([z["z"], hot], 1) if labels == "concatenated" else z["z"], OWNER if labels == "index" else hot
        )
    )
    torch.testing.assert_close(x, (raw + 1) / 2)


def test_output_range_and_factory() -> None:
    plain = adapt(make, (4,), output_range=(0, 1), arguments={"classes": "none"})
    z = plain.prior(OWNER, stream(0, "m"))
    assert torch.equal(plain(z, OWNER), plain.module(z["z"]))
    named = adapt("torch.nn:Unflatten", (64,), arguments={"dim": 1, "unflattened_size": (1, 8, 8)})
    assert named.image_shape == (1, 8, 8)


def test_unconditional_rows_carry_the_class_and_learn() -> None:
    decoder = adapt(Toy(), (4,))
    bank = tiny_bank(decoder)
    with decoded(decoder, bank, bank.rows(), 2) as syn:
        assert syn.owner.tolist() == [0, 0, 0, 1, 2, 2]
        syn.x.square().sum().backward()
    chunked = bank.z["z"].grad.clone()
    assert bool((chunked.abs().sum(1) > 0).all())
    bank.zero_grad()
    with decoded(decoder, bank, bank.rows()) as syn:
        syn.x.square().sum().backward()
    torch.testing.assert_close(chunked, bank.z["z"].grad)
    assert decode(decoder, bank).x.shape == (6, 1, 8, 8)


REFUSALS: dict[str, tuple[Any, dict[str, Any], str]] = {
    "labels": (Toy(), {"labels": "onehot"}, 'labels = "onehot": no such form of label. Did you mean "one-hot"'),
    "classes": (Toy(), {"num_classes": 3}, 'labels = "none", num_classes = 3: give both'),
    "range": (Toy(), {"output_range": (0, 255)}, r"output_range = \(0, 255\): give \(-1, 1\) or \(0, 1\)"),
    "concatenated": (
        Toy(),
        {"labels": "concatenated", "num_classes": 3, "z_shape": (4, 1, 1)},
        "concatenated to a flat latent only",
    ),
    "no module": (dict, {}, "made a dict; give an nn.Module"),
    "no place": ("nowhere.at.all:make", {}, "cannot be imported .*package.module:callable"),
    "no name": ("torch.nn", {}, "cannot be imported"),
    "arguments": (Toy, {"arguments": {"widht": 3}}, r"Toy.*with arguments \{'widht': 3\}: .*unexpected keyword"),
    "no callable": ("math:pi", {}, "is a float; give something that can be called"),
    "shape": (
        Toy(),
        {"z_shape": (5,)},
        r'Toy does not decode latents \(n, 5\) with labels = "none": .* Change z_shape',
    ),
    "flat": (Odd("flat"), {}, r"Odd makes \(2, 4\) of two latents; images \(2, c, h, w\) are expected"),
    "noise": (Odd("noise"), {}, "same latents to different images; a decoder is deterministic"),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_refuses_with_the_reason(case: str) -> None:
    module, changes, said = REFUSALS[case]
    options = {"z_shape": (4,), **changes}
    with pytest.raises(InputError, match=said):
        adapt(module, options.pop("z_shape"), **options)


@pytest.mark.parametrize("given", [Toy(), make, type("Local", (Toy,), {})])
def test_what_nobody_can_make_again_cannot_be_stored(given: Any, tmp_path: Path) -> None:
    decoder = adapt(given, (4,))
    said = r'a ModuleDecoder cannot be stored; .* or adapt a class that can be imported: adapt\("package.module:Class"'
    with pytest.raises(InputError, match=said):
        save_bundle(tmp_path / "b", bank=tiny_bank(decoder), decoder=decoder, spec=SPEC, provenance={})


def test_a_class_by_itself_or_by_name_is_recorded() -> None:
    for given in (Generator, "own_generator:Generator"):
        decoder = adapt(given, (4,), arguments={"width": 5})
        assert decoder.storable
        assert decoder.config["generator"] == "own_generator:Generator"
        assert decoder.config["arguments"] == {"width": 5}
