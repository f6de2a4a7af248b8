"""decoded() and decode(): who gets gradients, how often the decoder runs, and what is refused."""

from __future__ import annotations

import pytest
import torch
from tiny_parts import tiny_bank, tiny_decoder, tiny_formation

from latentdc.errors import InputError
from latentdc.latents import decode, decoded
from latentdc.portable.tiles import TilesFormation


class Counting:
    """Counts forwards of a decoder, with and without a graph."""

    def __init__(self, decoder) -> None:
        self.decoder, self.calls = decoder, []

    def __call__(self, z, owner):
        self.calls.append((len(owner), torch.is_grad_enabled()))
        return self.decoder(z, owner)


@pytest.mark.parametrize("chunk", [None, 6, 100])
def test_one_chunk_keeps_its_graph(chunk: int | None) -> None:
    decoder = Counting(tiny_decoder("gan"))
    bank = tiny_bank(decoder.decoder)
    with decoded(decoder, bank, bank.rows(), chunk) as syn:
        syn.x.square().sum().backward()
    assert decoder.calls == [(6, True)]
    assert bank.z["z"].grad.abs().sum() > 0


def test_chunks_cost_one_more_forward() -> None:
    decoder = Counting(tiny_decoder("gan"))
    bank = tiny_bank(decoder.decoder)
    with decoded(decoder, bank, bank.rows(), 4) as syn:
        syn.x.square().sum().backward()
    assert decoder.calls == [(4, False), (2, False), (4, True), (2, True)]


def test_batch_describes_its_rows() -> None:
    decoder = tiny_decoder("gan")
    bank = tiny_bank(decoder, extras=True)
    rows = bank.rows([2, 0], 2)
    with decoded(decoder, bank, rows, 3, formation=tiny_formation("tiles")) as syn:
        assert syn.x.is_leaf
        assert syn.x.shape == (16, 1, 8, 8)
        assert syn.row.tolist() == [row for row in (4, 5, 0, 1) for _ in range(4)]
        assert syn.owner.tolist() == [2] * 8 + [0] * 8
        assert torch.equal(syn.y, bank.y[syn.row])
        assert torch.equal(syn.w, bank.w[syn.row])


def test_only_asked_rows_get_gradients() -> None:
    decoder = tiny_decoder("gan")
    bank = tiny_bank(decoder)
    with decoded(decoder, bank, bank.rows([1]), 1) as syn:
        syn.x.sum().backward()
    touched = bank.z["z"].grad.abs().sum(1) > 0
    assert touched.tolist() == [False, False, False, True, False, False]


@pytest.mark.parametrize("chunk", [None, 2])
def test_gradients_add_up_over_blocks_and_backwards(chunk: int | None) -> None:
    decoder, banks = tiny_decoder("gan"), [tiny_bank(tiny_decoder("gan")) for _ in range(2)]
    with decoded(decoder, banks[0], banks[0].rows(), chunk) as syn:
        (3 * syn.x.square().sum()).backward()
    for factor in (1, 2):
        with decoded(decoder, banks[1], banks[1].rows(), chunk) as syn:
            for _ in range(factor):
                syn.x.square().sum().backward()
    torch.testing.assert_close(banks[0].z["z"].grad, banks[1].z["z"].grad)


@pytest.mark.parametrize("chunk", [None, 4])
def test_trained_decoder_soft_labels_and_weights_get_gradients(chunk: int | None) -> None:
    decoder = tiny_decoder("gan").requires_grad_(True)
    bank = tiny_bank(decoder, extras=True)
    with decoded(decoder, bank, bank.rows(), chunk) as syn:
        (syn.x.mean((1, 2, 3)) * syn.y[:, 0] * syn.w).sum().backward()
    for parameter in (decoder.out.weight, bank.soft, bank.weight, bank.z["z"]):
        assert parameter.grad.abs().sum() > 0


def test_a_failure_inside_pulls_nothing_back() -> None:
    decoder = tiny_decoder("gan")
    bank = tiny_bank(decoder)

    def step() -> None:
        with decoded(decoder, bank, bank.rows()) as syn:
            syn.x.sum().backward()
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        step()
    assert bank.z["z"].grad is None


def test_nothing_backward_nothing_pulled() -> None:
    decoder = Counting(tiny_decoder("gan"))
    bank = tiny_bank(decoder.decoder)
    with decoded(decoder, bank, bank.rows(), 4):
        pass
    assert bank.z["z"].grad is None
    assert decoder.calls == [(4, False), (2, False)]


def test_decode_holds_no_graph_and_does_not_clamp() -> None:
    decoder = tiny_decoder("pixels")
    bank = tiny_bank(decoder)
    batch = decode(decoder, bank, chunk=4)
    assert not batch.x.requires_grad
    assert batch.x.min() < 0
    assert batch.w is None
    assert torch.equal(batch.x, decode(decoder, bank, chunk=None).x)
    assert torch.equal(decode(decoder, bank, bank.rows([2])).x, batch.x[4:])


def test_refusals() -> None:
    decoder = tiny_decoder("gan")
    bank = tiny_bank(decoder)
    with pytest.raises(InputError, match="chunk = 0: give the number of rows"), decoded(decoder, bank, bank.rows(), 0):
        pass
    with pytest.raises(InputError, match="rows is empty"), decoded(decoder, bank, bank.rows([])):
        pass
    with pytest.raises(InputError, match="rows is empty"):
        decode(decoder, bank, bank.rows([]))
    with pytest.raises(InputError, match="factor = 3 does not divide images of 8 x 8: factors that do are 1, 2, 4, 8"):
        decode(decoder, bank, formation=TilesFormation(3))
    small = bank.quantise("int8")
    with pytest.raises(InputError, match='stored as "int8"'), decoded(decoder, small, small.rows()):
        pass
