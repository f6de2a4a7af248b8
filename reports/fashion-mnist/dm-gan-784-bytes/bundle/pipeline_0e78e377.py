"""Turns a bundle into images wherever diffusers is installed."""

# diffusers' own classes carry no types.
# mypy: disable-error-code="untyped-decorator,no-untyped-call"

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from diffusers.models.modeling_utils import ModelMixin
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from diffusers.utils.outputs import BaseOutput
from diffusers.utils.pil_utils import numpy_to_pil
from torch import Tensor

OUTPUT_TYPES = ("pil", "pt", "np", "latent")
OPTIONAL = ["decoder", "formation"]


@dataclass
class DatasetSynthesisOutput(BaseOutput):
    """A decoded data set: one entry per image, classes grouped in the order asked for."""

    images: Any
    """PIL images; a tensor ``(n, c, h, w)`` or an array ``(n, h, w, c)`` in [0, 1]; or, for latents, a dict."""
    labels: Tensor
    """Classes ``(n,)`` int64, or distributions over classes ``(n, k)`` where the bundle stores soft labels."""
    weights: Tensor | None = None
    """Weights ``(n,)`` where the bundle stores them."""


class DatasetSynthesisBundle(DiffusionPipeline):
    """A condensed data set that decodes itself: bank → decoder → formation → images.

    Args:
        decoder: called as ``decoder(z, owner)`` on a dict of latents and the classes of its rows; None where the bundle
            names a public one, which is then to be passed.
        bank: the stored latents.
        formation: turns each decoded image into several, or None.
        class_names: names of the k classes, or None.
        format_version: version of the bundle's layout.
        decoder_reference: repo_id, revision, subfolder and sha256 of a decoder that the bundle does not carry, or None.
    """

    model_cpu_offload_seq: Any = "decoder"
    _optional_components: Any = OPTIONAL
    config: Any
    decoder: Any
    bank: Any
    formation: Any

    def __init__(
        self,
        decoder: ModelMixin | None,
        bank: ModelMixin,
        formation: ModelMixin | None = None,
        class_names: list[str] | None = None,
        format_version: int = 1,
        decoder_reference: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        # torch may compute a linear layer by another path, rounded differently, where its weights want a gradient.
        if decoder is not None:
            decoder.requires_grad_(False)
        self.register_modules(decoder=decoder, bank=bank, formation=formation)
        self.register_to_config(
            class_names=class_names, format_version=format_version, decoder_reference=decoder_reference
        )

    @property
    def expands(self) -> int:
        """Images per stored row."""
        return 1 if self.formation is None else int(self.formation.expands)

    @property
    def max_images_per_class(self) -> tuple[int, ...]:
        """How many images of each class are stored; of a distribution, how many are drawn unless more are asked for."""
        return tuple(int(count) * self.expands for count in self.bank.config.counts)

    def class_ids(self, classes: Sequence[int | str] | None) -> list[int]:
        """Class indices of names or indices; all classes for None.

        Raises:
            ValueError: no class at all, or one that the bundle does not have.
        """
        if classes is None:
            return list(range(self.bank.num_classes))
        if len(classes) == 0:
            raise ValueError("classes: none were given; name at least one, or leave it out for all")
        names = list(self.config.class_names or [])
        ids = [names.index(c) if isinstance(c, str) and c in names else c for c in classes]
        for given in ids:
            if isinstance(given, str) or not 0 <= given < self.bank.num_classes:
                known = ", ".join(names) or f"0 to {self.bank.num_classes - 1}"
                raise ValueError(f"classes: {given!r} is not a class of this bundle; known: {known}")
        return [int(c) for c in ids]

    def plan(self, images_per_class: int | None, classes: Sequence[int | str] | None) -> tuple[Tensor, Tensor]:
        """Stored rows ``(m,)`` to decode and how many of each row's images to keep ``(m,)``.

        Raises:
            ValueError: more images of a class asked for than are stored; the message names the maximum.
        """
        ids = self.class_ids(classes)
        most = min(self.max_images_per_class[c] for c in ids)
        if getattr(self.bank, "endless", False):  # A distribution, which rows are drawn from.
            if images_per_class is not None and images_per_class < 1:
                raise ValueError(f"images_per_class = {images_per_class}: give 1 or more, or nothing for {most}")
        elif images_per_class is not None and not 1 <= images_per_class <= most:
            raise ValueError(
                f"images_per_class = {images_per_class}: this bundle stores at most {most} of each class asked for; "
                f"give 1 to {most}, or nothing for all"
            )
        limit = None if images_per_class is None else -(-images_per_class // self.expands)
        rows = self.bank.rows(ids, limit)
        keep = torch.full_like(rows, self.expands)
        if limit is not None and images_per_class is not None:
            keep[limit - 1 :: limit] = images_per_class - (limit - 1) * self.expands
        return rows, keep

    def decode_rows(self, rows: Tensor, keep: Tensor, batch_size: int) -> Iterator[Tensor]:
        """Images ``(n, c, h, w)`` clamped to [0, 1] in fp32, for ``batch_size`` rows at a time.

        Raises:
            ValueError: the bundle names its decoder instead of carrying it, and none was passed.
        """
        if self.decoder is None:
            raise ValueError(
                f"this bundle does not carry its decoder, it names one: {self.config.decoder_reference}. Load that and "
                "pass it, from_pretrained(..., decoder=decoder), or load the bundle with latentdc, which fetches it"
            )
        device, dtype = self.decoder.device, self.decoder.dtype
        place = torch.arange(self.expands)
        for start in range(0, len(rows), batch_size):
            part = rows[start : start + batch_size]
            z = {name: value.to(device, dtype) for name, value in self.bank.latents(part).items()}
            x = self.decoder(z, self.bank.owner[part].to(device))
            x = x if self.formation is None else self.formation(x)
            kept = (place < keep[start : start + batch_size].cpu()[:, None]).flatten()
            yield x.float().clamp(0, 1)[kept.to(x.device)]

    @torch.no_grad()
    def __call__(
        self,
        images_per_class: int | None = None,
        classes: Sequence[int | str] | None = None,
        batch_size: int = 256,
        output_type: str = "pil",
        return_dict: bool = True,
    ) -> DatasetSynthesisOutput | tuple[Any, ...]:
        """Decode the set, or the first ``images_per_class`` images of some classes.

        Args:
            images_per_class: images of each class, in their stored order (prefixes are meant to be used); None for all.
                A bundle that stores a distribution gives any number.
            classes: class indices or names; None for all.
            batch_size: stored rows decoded at a time.
            output_type: ``"pil"`` (uint8), ``"pt"``, ``"np"`` (floats in [0, 1]) or ``"latent"`` (dict of latents).
            return_dict: False for a tuple.

        Raises:
            ValueError: an unknown class or output type, or more images than stored.
        """
        if output_type not in OUTPUT_TYPES or batch_size < 1:
            raise ValueError(
                f"output_type = {output_type!r}, batch_size = {batch_size}: "
                f"output_type is one of {', '.join(OUTPUT_TYPES)}, batch_size at least 1"
            )
        rows, keep = self.plan(images_per_class, classes)
        images: Any
        if output_type == "latent":
            images, source = self.bank.latents(rows), rows
        else:
            x = torch.cat(list(self.decode_rows(rows, keep, batch_size)))
            images, source = export(x, output_type), rows.repeat_interleave(keep)
        labels = self.bank.owner[source] if self.bank.soft is None else self.bank.y[source].detach()
        weights = None if self.bank.weight is None else self.bank.w[source].detach()
        out = DatasetSynthesisOutput(images=images, labels=labels, weights=weights)
        return out if return_dict else (images, labels, weights)


def export(x: Tensor, output_type: str) -> Any:
    """Images ``(n, c, h, w)`` in [0, 1] as ``"pt"``, ``"np"`` ``(n, h, w, c)`` or ``"pil"`` (rounded to uint8)."""
    if output_type == "pt":
        return x
    array = x.permute(0, 2, 3, 1).cpu().numpy()
    if output_type == "np":
        return array
    if array.shape[-1] not in (1, 3):
        raise ValueError(f"images of {array.shape[-1]} channels have no PIL form: take output_type = 'pt' or 'np'")
    return numpy_to_pil(array)
