"""Laws of every decoder and formation of the tables."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from own_generator import Generator
from tiny_parts import EVERY, SPEC, tiny_bank, tiny_decoder, tiny_formation

from latentdc.decoders import FORMATIONS
from latentdc.decoders.components import load_component
from latentdc.seeding import stream
from latentdc.types import Decoder, Formation

decoders = pytest.mark.parametrize("name", EVERY)
formations = pytest.mark.parametrize("name", FORMATIONS)
OWNER = torch.tensor([0, 2, 1, 1, 0, 2, 2])
FLOAT32_INSIDE = {"autoencoder-dc"}
"""Its linear attention computes in float32 whatever it is given, so differences must be larger than that rounding."""

LEAST_COSINE = {"diffusion-vq": 0.97}
"""Steps that predict the sample leave the gradient no way around the network: measured 0.984 after two of them."""


def draw(decoder, dtype: torch.dtype = torch.float32) -> dict[str, torch.Tensor]:
    return {key: value.to(dtype) for key, value in decoder.prior(OWNER, stream(0, "laws")).items()}


@decoders
def test_keeps_the_protocol(name: str) -> None:
    decoder = tiny_decoder(name)
    assert isinstance(decoder, Decoder)
    assert tuple(decoder.image_shape) == SPEC.image_shape
    assert decoder.latent_shapes.keys() == draw(decoder).keys()
    for key, value in draw(decoder).items():
        assert value.shape == (7, *decoder.latent_shapes[key])
        assert value.dtype == torch.float32


@decoders
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_shapes_dtype_finite(name: str, dtype: torch.dtype) -> None:
    decoder = tiny_decoder(name).to(dtype)
    x = decoder(draw(decoder, dtype), OWNER)
    assert (x.shape, x.dtype) == ((7, *SPEC.image_shape), dtype)
    assert bool(x.isfinite().all())
    assert len(decoder({key: value[:0] for key, value in draw(decoder, dtype).items()}, OWNER[:0])) == 0


@decoders
def test_prior_follows_its_generator(name: str) -> None:
    decoder = tiny_decoder(name)
    again = decoder.prior(OWNER, stream(0, "laws"))
    other = decoder.prior(OWNER, stream(1, "laws"))
    drawn = draw(decoder)
    for key, value in drawn.items():
        assert torch.equal(value, again[key])
        assert key != "c" or torch.equal(value, other[key]), "a condition is the class's own"
    assert not all(torch.equal(value, other[key]) for key, value in drawn.items())


@decoders
def test_deterministic(name: str) -> None:
    decoder = tiny_decoder(name)
    state = {key: value.clone() for key, value in decoder.state_dict().items()}
    first = decoder(draw(decoder), OWNER)
    torch.rand(5)
    assert torch.equal(first, decoder(draw(decoder), OWNER))
    assert all(torch.equal(value, state[key]) for key, value in decoder.state_dict().items())


@decoders
def test_rows_do_not_see_each_other(name: str) -> None:
    """Alone or in any company a row decodes to the same image, up to the rounding of other batch shapes."""
    decoder = tiny_decoder(name).double()
    z = draw(decoder, torch.float64)
    whole = decoder(z, OWNER)
    for rows in (torch.tensor([3]), torch.tensor([6, 0]), torch.arange(6, -1, -1)):
        part = decoder({key: value[rows] for key, value in z.items()}, OWNER[rows])
        torch.testing.assert_close(part, whole[rows], rtol=0, atol=1e-12)
    mates = {key: torch.cat([value[:1], 100 + value[1:]]) for key, value in z.items()}
    torch.testing.assert_close(decoder(mates, OWNER)[0], whole[0], rtol=0, atol=1e-12)


@decoders
def test_gradient_against_finite_differences(name: str) -> None:
    decoder = tiny_decoder(name).double()
    z = {key: value[:2].requires_grad_() for key, value in draw(decoder, torch.float64).items()}
    keys, float32 = list(z), name in FLOAT32_INSIDE

    def images(*values: torch.Tensor) -> torch.Tensor:
        return decoder(dict(zip(keys, values, strict=True)), OWNER[:2])

    eps, atol, rtol = (1e-3, 1e-3, 1e-2) if float32 else (1e-6, 1e-6, 1e-5)
    fast = getattr(decoder, "heavy", False)  # along random directions, where every entry would take minutes
    assert torch.autograd.gradcheck(images, tuple(z.values()), eps=eps, atol=atol, rtol=rtol, fast_mode=fast)
    images(*z.values()).square().sum().backward()
    for value in z.values():
        assert bool((value.grad.flatten(1).abs().sum(1) > 0).all())


@decoders
def test_half_precision_keeps_the_direction(name: str) -> None:
    """The gradient in bfloat16 points where the one in float32 does: cosine of at least 0.99 over all latents."""
    directions = []
    for dtype in (torch.float32, torch.bfloat16):
        decoder = tiny_decoder(name).to(dtype)
        z = {key: value.requires_grad_() for key, value in draw(decoder, dtype).items()}
        x = decoder(z, OWNER)
        x.backward(torch.randn(x.shape, generator=stream(3, "laws")).to(dtype))
        directions.append({key: value.grad.float().flatten() for key, value in z.items()})
    for key, exact in directions[0].items():
        assert torch.cosine_similarity(exact, directions[1][key], 0) >= LEAST_COSINE.get(name, 0.99), key


@decoders
def test_class_conditions_or_does_not(name: str) -> None:
    """A decoder with classes uses them, given as owner or as a condition; others give any owner the same image."""
    decoder = tiny_decoder(name)
    shifted = (OWNER + 1) % 3
    z = draw(decoder)
    if "c" in z:
        z["c"] = decoder.prior(shifted, stream(0, "laws"))["c"]
    carried = "w" in z and not name.startswith("gan")  # these codes hold the class themselves
    conditional = bool(decoder.config.get("num_classes")) and not carried
    assert torch.equal(decoder(z, shifted), decoder(draw(decoder), OWNER)) != conditional


@decoders
def test_stored_bit_equal(name: str, tmp_path: Path) -> None:
    decoder = tiny_decoder(name)
    decoder.save_pretrained(tmp_path)
    back = load_component(type(decoder), tmp_path, own=[Generator]).requires_grad_(
        False
    )  # as decoders are used; it may change a bit
    assert not any(module.training for module in back.modules())
    assert torch.equal(back(draw(decoder), OWNER), decoder(draw(decoder), OWNER))


@decoders
def test_encode_inverts_where_offered(name: str) -> None:
    """Exactly, or, where the model compresses, to latents that fit, depend on their own image only, and repeat."""
    decoder = tiny_decoder(name)
    if not hasattr(decoder, "encode"):
        assert name.startswith(("gan", "stylegan2", "biggan", "module"))
        return
    if not getattr(decoder, "invertible", True):
        with pytest.raises(ValueError, match="only deterministic steps, more than one, can be gone backwards"):
            decoder.encode(torch.rand(7, *SPEC.image_shape), OWNER)
        return
    x = torch.rand(7, *SPEC.image_shape, generator=stream(2, "laws"))
    z = decoder.encode(x, OWNER)
    if not getattr(decoder, "lossy", False):
        torch.testing.assert_close(decoder(z, OWNER), x)
    for key, value in z.items():
        assert value.shape == (7, *decoder.latent_shapes[key])
        assert bool(value.isfinite().all())
        assert torch.equal(value, decoder.encode(x, OWNER)[key])
        torch.testing.assert_close(decoder.encode(x[3:4], OWNER[3:4])[key], value[3:4])


@formations
def test_formation_keeps_the_protocol(name: str) -> None:
    formation = tiny_formation(name)
    x = torch.rand(3, *SPEC.image_shape, generator=stream(0, "laws"))
    assert isinstance(formation, Formation)
    assert formation(x).shape == (3 * formation.expands, *SPEC.image_shape)
    assert torch.equal(formation(x), formation(x))
    for i in range(3):
        block = slice(i * formation.expands, (i + 1) * formation.expands)
        torch.testing.assert_close(formation(x[i : i + 1]), formation(x)[block])


@formations
def test_formation_gradient(name: str) -> None:
    formation = tiny_formation(name).double()
    x = torch.rand(2, 1, 8, 8, dtype=torch.float64, generator=stream(0, "laws")).requires_grad_()
    assert torch.autograd.gradcheck(formation, (x,))


@formations
def test_formation_stored_bit_equal(name: str, tmp_path: Path) -> None:
    formation = tiny_formation(name)
    formation.save_pretrained(tmp_path)
    x = torch.rand(3, *SPEC.image_shape)
    assert torch.equal(load_component(type(formation), tmp_path)(x), formation(x))


@decoders
@pytest.mark.parametrize("storage", ["fp32", "fp16", "int8"])
def test_bank_stores_any_decoders_latents(name: str, storage: str, tmp_path: Path) -> None:
    bank = tiny_bank(tiny_decoder(name), extras=True).quantise(storage)
    bank.save_pretrained(tmp_path)
    back = load_component(type(bank), tmp_path)
    for key, value in bank.latents().items():
        assert torch.equal(value, back.latents()[key])
