"""What a bundle costs: latents, labels, decoder, set against uint8 pixels and the raw set."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from latentdc.latents import AnyBank


@dataclass(frozen=True)
class Storage:
    """Bytes of a bundle as stored; latents, scales, labels and what was learned with them are counted per class.

    bytes_per_class = (latents + scales + labels + shared) / k

    File-format overhead and decoders are lines of their own: the decoder is shared by every set it decodes. What only
    this set's classes share, such as the styles of a formation, belongs to the set.
    """

    num_classes: int
    latents: int
    """Latent numbers in their stored type; of a distribution, its means and deviations."""
    scales: int
    """fp32 quantisation scales, one per class and latent key; 0 unless int8 or int4."""
    labels: int
    """One 4-byte count per class, and a seed for a distribution; soft labels and weights as stored."""
    shared: int = 0
    """What was learned or chosen for this set and serves all its classes: styles, bases, colour maps, masks."""
    private_decoder: int = 0
    """Other weights of a decoder (and formation) that only this bundle has."""
    public_decoder: int = 0
    """Weights of a decoder that can be had elsewhere under a public name."""
    overhead: int | None = None
    """All other bytes of the folder: headers, configuration, code, cards; None before the bundle is written."""
    pixels_uint8: int = 0
    """The decoded images as raw uint8 pixels, for comparison."""
    carried: bool = True
    """Whether the folder carries its public decoder, or only names it."""
    raw_set: int | None = None
    """The whole real training set as raw uint8 pixels and labels, where known."""

    @property
    def payload(self) -> int:
        """Latents, scales, labels and what the classes share, in bytes."""
        return self.latents + self.scales + self.labels + self.shared

    @property
    def bytes_per_class(self) -> float:
        """(latents + scales + labels + shared) / k."""
        return self.payload / self.num_classes

    @property
    def total(self) -> int | None:
        """Bytes of all files of the folder, or None before it is written."""
        if self.overhead is None:
            return None
        return self.weights + self.overhead

    @property
    def weights(self) -> int:
        """Bytes of all numbers in the folder: the set, and the decoder where the folder carries it."""
        return self.payload + self.private_decoder + (self.public_decoder if self.carried else 0)

    def to_dict(self) -> dict[str, Any]:
        """Every line, with ``bytes_per_class``, as JSON takes it."""
        lines = {name: value for name, value in asdict(self).items() if name != "carried"}
        return {**lines, "bytes_per_class": self.bytes_per_class}

    def lines(self) -> list[str]:
        """The table as text, cumulative: latents, labels, shared, private and public decoder; then comparisons."""
        latents = self.latents + self.scales
        sums = [
            ("latents" + (" with scales" if self.scales else ""), latents),
            ("+ labels", self.payload - self.shared),
            *([("+ shared by classes", self.payload)] if self.shared else []),
            ("+ private decoder", self.payload + self.private_decoder),
            ("+ public decoder", self.payload + self.private_decoder + self.public_decoder),
        ]
        rows = [f"{name:<22}{value:>15,} bytes" for name, value in sums]
        rows.append(f"{'per class':<22}{self.bytes_per_class:>15,.1f} bytes")
        if self.overhead is not None:
            rows.append(f"{'file overhead':<22}{self.overhead:>15,} bytes")
        for name, value in (("same images, uint8", self.pixels_uint8), ("raw training set", self.raw_set)):
            if value:
                times = "x all that is learned" if self.shared else "x latents and labels"
                ratio = value / self.payload
                shown = f"{ratio:,.1f}" if ratio >= 1 else f"{ratio:.2g}"
                rows.append(f"{name:<22}{value:>15,} bytes = {shown} {times}")
        return rows


def storage_of(
    bank: AnyBank,
    image_shape: Sequence[int],
    *,
    expands: int = 1,
    decoder_bytes: int = 0,
    shared: int = 0,
    public: bool = False,
    carried: bool = True,
    raw_set: int | None = None,
) -> Storage:
    """Storage of a bank with its decoder, before overhead is known.

    Args:
        bank: the rows.
        image_shape: ``(c, h, w)`` of a decoded image.
        expands: images that the formation makes of each row.
        decoder_bytes: weights of decoder and formation, without what is shared.
        shared: bytes of what was learned with the set and serves all its classes; see ``shared_bytes``.
        public: whether the decoder can be had elsewhere.
        carried: whether the folder carries the decoder.
        raw_set: bytes of the real training set.
    """
    payload = bank.payload_bytes()
    return Storage(
        num_classes=bank.num_classes,
        latents=payload["latents"],
        scales=payload["scales"],
        labels=payload["labels"],
        shared=shared,
        private_decoder=0 if public else decoder_bytes,
        public_decoder=decoder_bytes if public else 0,
        carried=carried,
        pixels_uint8=bank.num_rows * expands * math.prod(image_shape),
        raw_set=raw_set,
    )


def shared_bytes(*parts: object) -> int:
    """Bytes that formation and decoder add to the set itself, as they say of themselves; 0 for pretrained ones."""
    return sum(int(getattr(part, "shared_bytes", 0)) for part in parts)
