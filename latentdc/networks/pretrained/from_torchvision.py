"""Image classifiers of torchvision, as they are before their classifier."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torchvision import models
from torchvision.models.feature_extraction import create_feature_extractor, get_graph_node_names

from latentdc.atomic import read_tensors
from latentdc.errors import BundleError, InputError, first_line, unknown
from latentdc.networks.pretrained.backbone import Backbone
from latentdc.networks.pretrained.seeing import MODES, Seeing, centred, resized
from latentdc.types import DataSpec


class TorchvisionBackbone(Backbone):
    """A classifier of ``torchvision.models`` without its classifier.

    Maps: of those that its parts and theirs give, the last one of each resolution, from fine to coarse. The embedding
    is what the last linear layer reads.

    Args:
        model: the whole classifier.
        spec: the data.
        seeing: how it sees them.
        maps: show maps.

    Raises:
        InputError: it has no linear classifier.
    """

    def __init__(self, model: nn.Module, spec: DataSpec, seeing: Seeing, *, maps: bool) -> None:
        super().__init__(spec, seeing, maps=maps)
        model.eval()
        linear = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
        nodes = get_graph_node_names(model, suppress_diff_warning=True)[1]
        if not linear or linear[-1] not in nodes:
            raise InputError(f"{type(model).__name__} has no linear classifier whose input could be looked at.")
        self.embedding = nodes[nodes.index(linear[-1]) - 1]
        ends = _ends(model, nodes[: nodes.index(self.embedding)])
        self.depths = _last_of_each_size(_traced(model, ends)(self.blank())) if ends else ()
        self.model = _traced(model, [*self.depths, self.embedding])

    def look(self, x: Tensor) -> tuple[Sequence[Tensor], Tensor]:
        """Maps and embedding."""
        shown = self.model(x)
        return [shown[name] for name in self.depths], shown[self.embedding].flatten(1)


def load(name: str, spec: DataSpec, weights: Path | None, *, maps: bool) -> TorchvisionBackbone:
    """A classifier by its name, with the weights that torchvision takes by default, or those of a file.

    Args:
        name: a name of ``torchvision.models.list_models``.
        spec: the data it will see.
        weights: a state dictionary in safetensors or in torch's format (nothing in it is run); None for
            torchvision's own, from torch's cache or downloaded.
        maps: show maps.

    Raises:
        InputError: no such classifier, or its weights cannot be had.
        BundleError: the file does not hold this model's weights.
    """
    zoo: Any = models
    preset = preset_of(name)
    if weights is None:
        try:
            model = zoo.get_model(name, weights="DEFAULT", progress=False)
        except OSError as error:
            raise InputError(
                f'the weights of "torchvision:{name}" are not in torch\'s cache and could not be downloaded: {error}. '
                "Give a file with source.pool.weights."
            ) from error
    else:
        model = zoo.get_model(name)
        if hasattr(model, "transform_input"):
            model.transform_input = True  # as torchvision does with its own weights of the Inception family
        try:
            model.load_state_dict(_state(weights))
        except RuntimeError as error:
            told = " ".join(str(error).split())[:200]  # it lists all that is missing
            raise BundleError(f'{weights}: not the weights of "torchvision:{name}": {told} …') from error
    seeing = _seeing(preset, spec)
    seeing.must_agree(preset, spec.image_shape, f"torchvision:{name}")
    return TorchvisionBackbone(model, spec, seeing, maps=maps)


def preset_of(name: str) -> Any:
    """How torchvision prepares images for a model with its default weights.

    Raises:
        InputError: there is no such image classifier.
    """
    zoo: Any = models
    known = zoo.list_models(module=models)
    if name not in known:
        raise InputError(f"torchvision:{unknown('image classifier of torchvision', name, known)}")
    return zoo.get_model_weights(name).DEFAULT.transforms()


def _seeing(preset: Any, spec: DataSpec) -> Seeing:
    _, height, width = spec.image_shape
    size, mode = resized(height, width, *preset.resize_size), str(preset.interpolation.value)
    if mode not in MODES:
        raise InputError(f'resizing by "{mode}" interpolation has no gradient: use a model with one of {MODES}.')
    side = (preset.crop_size[0], preset.crop_size[-1])
    return Seeing(tuple(preset.mean), tuple(preset.std), size, centred(size, side, round), mode)


def _traced(model: nn.Module, nodes: Sequence[str]) -> nn.Module:
    traced: nn.Module = create_feature_extractor(
        model, train_return_nodes=list(nodes), eval_return_nodes=list(nodes), suppress_diff_warning=True
    )
    return traced.eval()


def _ends(model: nn.Module, nodes: Sequence[str]) -> list[str]:
    """The nodes at which parts of the model, and parts of these, end; in the order in which they run."""
    parts = [name for name, _ in model.named_modules() if name and name.count(".") < 2]
    inside = [[node for node in nodes if f"{node}.".startswith(f"{part}.")] for part in parts]
    ends = {each[-1] for each in inside if each}
    return [node for node in nodes if node in ends]


def _last_of_each_size(shown: dict[str, Any]) -> tuple[str, ...]:
    """Names of the last map of each size, of several positions; of a square image maps ``(1, d, h, w)`` are square."""
    last = {
        tuple(value.shape[2:]): name
        for name, value in shown.items()
        if torch.is_tensor(value) and value.ndim == 4 and value.shape[2] == value.shape[3] > 1
    }
    return tuple(last[size] for size in sorted(last, reverse=True))


def _state(path: Path) -> dict[str, Tensor]:
    if path.suffix == ".safetensors":
        return read_tensors(path)[0]
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever a damaged archive or pickle raises
        raise BundleError(
            f"{path}: cannot be read as weights, a state dictionary saved by torch or in safetensors: "
            f"{first_line(error)}"
        ) from error
    if not isinstance(state, dict) or not all(torch.is_tensor(value) for value in state.values()):
        raise BundleError(f"{path}: holds no state dictionary, a tensor for each name.")
    return state
