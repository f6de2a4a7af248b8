"""The bank: rows, labels, storage and bytes."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from latentdc.portable.bank import LEVELS, STORAGES, LatentBank, row_bytes
from latentdc.seeding import stream


def bank_of(counts: list[int], *, scale: float = 1.0, **extra: torch.Tensor) -> LatentBank:
    rng = stream(0, "bank")
    num = sum(counts)
    return LatentBank.of(
        {"z": scale * torch.randn(num, 5, generator=rng), "e": torch.randn(num, generator=rng)}, counts, **extra
    )


def test_rows_are_class_grouped_prefixes() -> None:
    bank = bank_of([2, 0, 3])
    assert bank.owner.tolist() == [0, 0, 2, 2, 2]
    assert bank.rows().tolist() == [0, 1, 2, 3, 4]
    assert bank.rows([2, 0]).tolist() == [2, 3, 4, 0, 1]
    assert bank.rows([2, 0], limit=2).tolist() == [2, 3, 0, 1]
    assert bank.rows([1]).tolist() == []
    assert (bank.num_rows, bank.num_classes) == (5, 3)


@pytest.mark.parametrize("wrong", [{"classes": [3]}, {"classes": [-1]}, {"limit": 0}])
def test_rows_refuses(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"classes lie in \[0, 3\), limit > 0"):
        bank_of([2, 0, 3]).rows(**wrong)


def test_hard_and_soft_labels() -> None:
    hard = bank_of([1, 0, 2])
    assert hard.y.tolist() == [[1, 0, 0], [0, 0, 1], [0, 0, 1]]
    assert hard.w is None
    soft, weights = torch.full((3, 3), 1 / 3), torch.tensor([1.0, 2.0, 3.0])
    bank = bank_of([1, 0, 2], y=soft, w=weights)
    assert torch.equal(bank.y, soft)
    assert torch.equal(bank.w, weights)
    assert {name for name, _ in bank.named_parameters()} == {"z.z", "z.e", "soft", "weight"}


@pytest.mark.parametrize(
    ("storage", "latents", "scales"), [("fp32", 120, 0), ("fp16", 60, 0), ("int8", 30, 24), ("int4", 20, 24)]
)
def test_payload_bytes(storage: str, latents: int, scales: int) -> None:
    assert 5 * row_bytes(storage, {"z": [5], "e": []}) == latents
    payload = bank_of([2, 0, 3]).quantise(storage).payload_bytes()
    assert payload == {"latents": latents, "scales": scales, "labels": 12}
    width = 4 if storage == "fp32" else 2
    rich = bank_of([2, 0, 3], y=torch.ones(5, 3), w=torch.ones(5)).quantise(storage).payload_bytes()
    assert rich["labels"] == 12 + width * (15 + 5)


@given(
    st.lists(st.integers(0, 4), min_size=1, max_size=5).filter(any),
    st.floats(1e-3, 1e3),
    st.sampled_from(STORAGES),
)
@settings(max_examples=30, deadline=None)
def test_quantising_errs_by_at_most_half_a_level(counts: list[int], scale: float, storage: str) -> None:
    bank = bank_of(counts, scale=scale)
    small = bank.quantise(storage)
    for name, value in bank.latents().items():
        error = (small.latents()[name] - value).detach().abs().reshape(bank.num_rows, -1)
        size = value.detach().abs().reshape(bank.num_rows, -1)
        if storage == "fp32":
            assert error.max() == 0
        elif storage == "fp16":
            assert bool((error <= size * 2**-11 + 2**-24).all())
        else:
            for cls in bank.owner.unique():
                mine = bank.owner == cls
                step = size[mine].max() / LEVELS[storage]
                if storage == "int8":
                    assert error[mine].max() <= step / 2 * (1 + 1e-4)
                else:  # nor does cutting the largest ever cost more than it saves
                    whole = (value[mine] / step).round() * step - value[mine]
                    assert error[mine].square().sum() <= whole.square().sum() * (1 + 1e-4)


def test_four_bits_are_packed_two_to_a_byte_the_first_one_high() -> None:
    values = torch.tensor([[-7.0, 7.0, 1.0], [0.0, -3.0, 2.0]])
    small = LatentBank.of({"z": values, "e": torch.tensor([0.0, 7.0])}, [2]).quantise("int4")
    assert small.codes.z.dtype == torch.uint8
    assert small.codes.z.tolist() == [[0x1F, 0x90], [0x85, 0xA0]]
    assert torch.equal(small.latents()["z"], values)
    assert torch.equal(small.latents(torch.tensor([1]))["e"], torch.tensor([7.0]))


def test_four_bits_cut_an_outlier_to_tell_the_others_apart() -> None:
    values = torch.cat([torch.linspace(-1, 1, 2000), torch.tensor([1.8])])[:, None]
    small = LatentBank.of({"z": values}, [2001]).quantise("int4")
    assert small.scales.z.item() == pytest.approx(2 / 15, rel=0.05)  # fifteen levels over [-1, 1]


def test_quantised_bank_cannot_learn_and_zero_latents_survive() -> None:
    small = LatentBank({"z": [3]}, [2, 2]).quantise("int8")
    assert not any(parameter.requires_grad for parameter in small.parameters())
    assert torch.equal(small.latents()["z"], torch.zeros(4, 3))
    assert small.latents()["z"].dtype == torch.float32
    for storage in LEVELS:
        again = bank_of([2, 2]).quantise(storage)
        assert torch.equal(again.quantise(storage).latents()["z"], again.latents()["z"])


def test_quantise_leaves_the_original_alone() -> None:
    bank = bank_of([2, 2])
    before = bank.latents()["z"].clone()
    bank.quantise("fp16")
    assert torch.equal(bank.latents()["z"], before)
    assert bank.z["z"].requires_grad


@pytest.mark.parametrize("storage", STORAGES)
def test_a_prefix_is_stored_as_the_whole(storage: str) -> None:
    soft, weights = torch.rand(5, 3, generator=stream(1, "bank")), torch.arange(5.0)
    bank = bank_of([3, 0, 2], y=soft, w=weights).quantise(storage)
    first, rows = bank.prefix(2), bank.rows(limit=2)
    assert (first.counts, first.storage) == ((2, 0, 2), storage)
    for name, value in bank.latents(rows).items():
        assert torch.equal(first.latents()[name], value)
    assert torch.equal(first.y, bank.y[rows])
    assert torch.equal(first.w, bank.w[rows])
    assert bank.prefix(9).counts == (3, 0, 2)
    with pytest.raises(ValueError, match="limit = 0"):
        bank.prefix(0)


def test_dtype_argument_does_not_round_latents(tmp_path) -> None:
    bank = bank_of([2, 1], scale=3.0)
    for storage in STORAGES:
        stored = bank.quantise(storage)
        stored.save_pretrained(tmp_path / storage)
        back = LatentBank.from_pretrained(tmp_path / storage, dtype=torch.bfloat16)
        assert torch.equal(back.latents()["z"], stored.latents()["z"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (({}, [1]), "a bank needs a latent key and a row"),
        (({"z": [2]}, []), "a bank needs a latent key and a row"),
        (({"z": [2]}, [0, 0]), "a bank needs a latent key and a row"),
        (({"z": [2]}, [2, -1]), "a bank needs a latent key and a row"),
        (({"z": [2]}, [1], "int2"), "known are fp32, fp16, int8, int4"),
    ],
)
def test_constructor_refuses(arguments: tuple[object, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LatentBank(*arguments)


def test_of_refuses_other_row_counts() -> None:
    with pytest.raises(ValueError, match=r"\{'z': 4\} rows were given where counts \[2, 3\] ask for 5"):
        LatentBank.of({"z": torch.zeros(4, 2)}, [2, 3])
    with pytest.raises(ValueError, match=r"\{'y': 1\} rows were given"):
        LatentBank.of({"z": torch.zeros(5, 2)}, [2, 3], y=torch.ones(1, 2))
