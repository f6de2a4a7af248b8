"""Vision models of transformers, from a folder with their weights and the numbers of their image processor."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor, nn

from latentdc.errors import BundleError, InputError, first_line
from latentdc.networks.pretrained.backbone import Backbone
from latentdc.networks.pretrained.seeing import Seeing, centred, resized
from latentdc.types import DataSpec

PROCESSOR = "preprocessor_config.json"
_MODES = {2: "bilinear", 3: "bicubic"}
"""Interpolation by the number that processors give it."""
_UNCROPPED = 384
"""From this size on the processor of ConvNeXt and ResNet resizes to a square and cuts nothing off."""


class TransformersBackbone(Backbone):
    """A vision model of transformers: DINOv2, the vision tower of CLIP or SigLIP, ViT, ResNet, ConvNeXt and the like.

    Maps: its hidden states behind the first, those of tokens laid out in the grid of their patches. The embedding is
    the model's pooled output; where it has none, or the file no weights for it, the class token or the mean over the
    positions of the last state.

    Args:
        model: the model.
        spec: the data.
        seeing: how it sees them.
        maps: show maps.
    """

    def __init__(self, model: nn.Module, spec: DataSpec, seeing: Seeing, *, maps: bool) -> None:
        super().__init__(spec, seeing, maps=maps)
        self.model = model
        patch: Any = getattr(model.config, "patch_size", None)
        height, width = patch if isinstance(patch, list | tuple) else (patch, patch)
        self.grid = (seeing.side[0] // height, seeing.side[1] // width) if height else None

    def look(self, x: Tensor) -> tuple[Sequence[Tensor], Tensor]:
        """Maps and embedding."""
        shown = self.model(pixel_values=x, output_hidden_states=True)
        states = shown.get("reshaped_hidden_states") or shown.get("hidden_states") or ()
        maps = [found for state in states[1:] if (found := self._map(state)) is not None]
        pooled, last = shown.get("pooler_output"), shown["last_hidden_state"]
        if pooled is not None:
            return maps, pooled.flatten(1)
        if last.ndim == 4:
            return maps, last.mean((2, 3))
        return maps, last[:, 0] if self._num_before(last) else last.mean(1)

    def _map(self, state: Tensor) -> Tensor | None:
        """``(n, d, h, w)`` of a state, or None where its tokens are in no grid."""
        if state.ndim == 4:
            return state
        if self.grid is None or self._num_before(state) < 0:
            return None
        tokens = state[:, self._num_before(state) :].transpose(1, 2)
        return tokens.reshape(*tokens.shape[:2], *self.grid)

    def _num_before(self, tokens: Tensor) -> int:
        """Tokens before those of the patches: of the class, and registers."""
        return int(tokens.shape[1] - self.grid[0] * self.grid[1]) if self.grid is not None else 0


def load(folder: Path, spec: DataSpec, *, maps: bool) -> TransformersBackbone:
    """The vision model of a folder in float32, from safetensors only; no code of the folder is run.

    Args:
        folder: with ``config.json``, safetensors and ``preprocessor_config.json``, as ``save_pretrained`` writes them.
        spec: the data it will see.
        maps: show maps.

    Raises:
        InputError: no vision model, or one that prepares its images in an unknown way.
        BundleError: weights or the processor's numbers are missing or damaged.
    """
    if not (folder / PROCESSOR).is_file():
        raise BundleError(f"{folder}: {PROCESSOR} is missing, which says what size, mean and std the model sees.")
    local = {"local_files_only": True, "trust_remote_code": False}
    library: Any = transformers
    with _quiet(library.logging):
        try:
            config = library.AutoConfig.from_pretrained(folder, **local)
            # Of a model of images and texts, the tower that sees images.
            vision = getattr(config, "vision_config", config)
            model, info = library.AutoModel.from_pretrained(
                folder, config=vision, dtype=torch.float32, use_safetensors=True, output_loading_info=True, **local
            )
            processor = library.AutoImageProcessor.from_pretrained(folder, backend="torchvision", **local)
        except Exception as error:  # whatever the library raises of a damaged or foreign folder
            raise BundleError(f"{folder}: cannot be loaded by transformers: {first_line(error)}") from error
    if getattr(model, "main_input_name", None) != "pixel_values":
        raise InputError(f"{folder}: {type(model).__name__} sees no images; give a vision model.")
    missing = sorted(info["missing_keys"])
    if any(not name.startswith("pooler.") for name in missing) or info["mismatched_keys"]:
        wrong = ", ".join(map(str, [*missing, *info["mismatched_keys"]][:5]))
        raise BundleError(f"{folder}: weights of {type(model).__name__} are missing or of another shape: {wrong}, ….")
    if missing:  # they were drawn at random
        model.pooler = None
    seeing = _seeing(processor, getattr(vision, "num_channels", 3), spec)
    seeing.must_agree(lambda x: _processed(processor, x), spec.image_shape, str(folder))
    return TransformersBackbone(model, spec, seeing, maps=maps)


def _seeing(processor: Any, channels: int, spec: DataSpec) -> Seeing:
    """The processor's numbers, for images of the data's shape."""
    _, height, width = spec.image_shape
    side: tuple[int, int] | None = None
    size, shortest = (height, width), processor.do_resize and processor.size.shortest_edge
    crop_pct = getattr(processor, "crop_pct", None)
    if shortest and crop_pct:
        side = (shortest, shortest)
        size = side if shortest >= _UNCROPPED else resized(height, width, int(shortest / crop_pct))
    elif shortest:
        size = resized(height, width, shortest)
    elif processor.do_resize:
        size = (processor.size.height or 0, processor.size.width or 0)
    if getattr(processor, "do_center_crop", False):
        side = (processor.crop_size.height, processor.crop_size.width)
    mode = _MODES.get(int(processor.resample)) if processor.do_resize else "bilinear"
    if mode is None or 0 in size:
        raise InputError(
            f"the model's processor resizes to {processor.size} with resample = {int(processor.resample)}: a "
            "shortest edge, or a height and width, and 2 (bilinear) or 3 (bicubic) are understood."
        )
    plain = [0.0] * channels, [1.0] * channels
    mean, std = (processor.image_mean, processor.image_std) if processor.do_normalize else plain
    return Seeing(tuple(mean), tuple(std), size, centred(size, side or size, int), mode)


def _processed(processor: Any, x: Tensor) -> Tensor:
    """What the processor itself makes of images in [0, 1], which it takes as numbers up to 255."""
    made = processor(images=255 * x, input_data_format="channels_first", return_tensors="pt")
    pixels: Tensor = made["pixel_values"]
    return pixels


@contextmanager
def _quiet(reports: Any) -> Iterator[None]:
    """No reports and bars of the library: what they say of missing and left-over weights is judged here."""
    verbosity, bars = reports.get_verbosity(), reports.is_progress_bar_enabled()
    reports.set_verbosity_error()
    reports.disable_progress_bar()
    try:
        yield
    finally:
        reports.set_verbosity(verbosity)
        if bars:
            reports.enable_progress_bar()
