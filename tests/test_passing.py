"""Whole sets through a decoder, and decoders as the subject of an evaluation."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_models import tiny_autoencoder

from latentdc.data.sources import Data
from latentdc.data.store import ClassStore
from latentdc.decoders.reference import seal
from latentdc.errors import InputError
from latentdc.evaluate import evaluate
from latentdc.evaluate.protocols import PROTOCOLS
from latentdc.evaluate.sets import is_decoder, subject_of
from latentdc.passing import reconstructions, samples
from latentdc.portable.gan import GanDecoder
from latentdc.portable.pixels import PixelsDecoder

ONE_EPOCH = dataclasses.replace(PROTOCOLS["whole-20"], epochs=1)


@pytest.fixture
def gan(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    module: Any = GanDecoder((1, 8, 8), 3, 4, (8, 4), 4)
    module.save_pretrained(tmp_path / "gan")
    seal(tmp_path / "gan", {"kind": "gan"})
    return tmp_path / "gan"


def test_lossless_images_come_back(tiny_store: ClassStore) -> None:
    spec = tiny_store.spec
    pixels = PixelsDecoder(list(spec.image_shape), list(spec.mean), list(spec.std)).eval()
    assert torch.equal(reconstructions(pixels, tiny_store.images, tiny_store.labels), tiny_store.images)


def test_images_do_not_depend_on_their_chunk(tiny_store: ClassStore, monkeypatch: pytest.MonkeyPatch) -> None:
    decoder = tiny_autoencoder("AutoencoderKL").eval()

    def both() -> torch.Tensor:
        drawn = samples(decoder, tiny_store.labels, seed=0)
        return torch.cat([reconstructions(decoder, tiny_store.images, tiny_store.labels), drawn]).int()

    whole, sizes = both(), []
    monkeypatch.setattr("latentdc.passing.images_at_once", lambda asked: 7 if asked is decoder else 0)
    decoder.register_forward_hook(lambda _, given, __: sizes.append(len(given[1])))
    assert (whole - both()).abs().max() <= 1
    assert max(sizes) == 7


def test_samples_are_repeatable(gan: Path, tiny_store: ClassStore) -> None:
    decoder = subject_of(gan, tiny_store).images
    again = subject_of(gan, tiny_store).images
    assert torch.equal(decoder.x, again.x)


def test_a_generator_stands_for_the_whole_set(gan: Path, tiny_store: ClassStore, tiny_test_store: ClassStore) -> None:
    report = evaluate(
        gan, Data(tiny_store, tiny_test_store), ONE_EPOCH, seeds=1, width=4, baselines=("random-real", "encoded"),
        progress=False,
    )  # fmt: skip
    bundle, real = report.rows
    assert (bundle.images_per_class, real.images_per_class) == (12, 12)
    assert report.source == "gan"
    assert "as many draws from the prior as real images" in report.notes
    assert any(note.startswith("encoded left out") for note in report.notes)


def test_an_autoencoder_passes_the_real_images(tiny_store: ClassStore, tmp_path: Path) -> None:
    module: Any = tiny_autoencoder("AutoencoderKL")
    module.save_pretrained(tmp_path / "vae")
    subject = subject_of(tmp_path / "vae", tiny_store)
    assert torch.equal(subject.images.x, reconstructions(module.eval(), tiny_store.images, tiny_store.labels))
    assert torch.equal(subject.images.owner, tiny_store.labels)
    assert subject.note == "every real image, encoded and decoded"


def test_a_decoder_of_other_images_is_refused(gan: Path, tiny_store: ClassStore) -> None:
    with pytest.raises(InputError, match=r"has .* and 2"):
        subject_of(gan, tiny_store.choose([0, 1]))


def test_what_counts_as_a_decoder(gan: Path, tmp_path: Path) -> None:
    assert is_decoder(gan)
    assert is_decoder("fashion-mnist-gan")
    assert not is_decoder(tmp_path)


def test_prior_samples_follow_their_seed(gan: Path, tiny_store: ClassStore) -> None:
    decoder: Any = GanDecoder.from_pretrained(gan).eval()  # type: ignore[no-untyped-call]
    first = samples(decoder, tiny_store.labels, seed=0)
    assert (first.dtype, first.shape) == (torch.uint8, tiny_store.images.shape)
    assert torch.equal(first, samples(decoder, tiny_store.labels, seed=0))
    assert not torch.equal(first, samples(decoder, tiny_store.labels, seed=1))
