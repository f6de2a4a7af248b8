"""Backbones with random weights and the smallest sizes, in folders as transformers writes them."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import transformers

from latentdc.seeding import global_seed

_PLACE = tempfile.TemporaryDirectory(prefix="latentdc-backbones-")
_TOWER: dict[str, Any] = {
    "hidden_size": 8,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 14,
    "patch_size": 7,
}
_TEXT: dict[str, Any] = {
    "hidden_size": 8,
    "intermediate_size": 8,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "vocab_size": 20,
    "max_position_embeddings": 8,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
_SQUARE = {"height": 14, "width": 14}


def _clip() -> Any:
    config = transformers.CLIPConfig(text_config=_TEXT, vision_config={**_TOWER, "intermediate_size": 8})
    return transformers.CLIPModel(config)


def _resnet() -> Any:
    sizes = {"embedding_size": 4, "hidden_sizes": [4, 8], "depths": [1, 1], "layer_type": "basic"}
    return transformers.ResNetModel(transformers.ResNetConfig(**sizes))


MADE: dict[str, tuple[Callable[[], Any], Callable[[], Any]]] = {
    "dinov2": (
        lambda: transformers.Dinov2Model(transformers.Dinov2Config(**_TOWER, mlp_ratio=2)),
        lambda: transformers.BitImageProcessor(size={"shortest_edge": 16}, crop_size=_SQUARE),
    ),
    "clip": (_clip, lambda: transformers.CLIPImageProcessor(size={"shortest_edge": 14}, crop_size=_SQUARE)),
    "resnet": (_resnet, lambda: transformers.ConvNextImageProcessor(size={"shortest_edge": 24}, crop_pct=0.875)),
    "vit-classifier": (
        lambda: transformers.ViTForImageClassification(transformers.ViTConfig(**_TOWER, intermediate_size=8)),
        lambda: transformers.ViTImageProcessor(size=_SQUARE),
    ),
}
"""Model and image processor by name. The classifier's file lacks weights of the pooler that the bare model asks for."""


def write_backbone(folder: Path, name: str = "dinov2", *, seed: int = 0) -> Path:
    """Write a model and its processor; returns the folder."""
    model, processor = MADE[name]
    with global_seed(seed, "tiny-backbone"):
        made = model()
    for weight in made.parameters():  # the usual initial ones show next to nothing
        weight.data.mul_(5)
    made.save_pretrained(folder)
    processor().save_pretrained(folder)
    return folder


@cache
def backbone_folder(name: str = "dinov2") -> str:
    """A folder that is there as long as the tests run."""
    return str(write_backbone(Path(_PLACE.name) / name, name))
