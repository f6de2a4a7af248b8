"""State dictionaries: read without running code, unwrapped, spectral normalisation folded into the weights."""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy
import torch
from torch import Tensor
from torch.nn import functional

from latentdc.atomic import read_tensors
from latentdc.errors import BundleError, InputError

State = dict[str, Tensor]
_NESTS = ("G_ema", "g_ema", "G", "generator", "netG", "state_dict", "model_state_dict", "model")
"""Where a checkpoint keeps its generator, the averaged one first."""
WRAPPERS = ("module.", "_orig_mod.", "generator.", "G_ema.", "g_ema.", "G.", "netG.")
"""Prefixes that training code puts before all names."""
_NAMED = 12
"""Keys listed in a message."""


def read_state(path: Path) -> State:
    """Tensors by name of a state dictionary: safetensors, or what ``torch.save`` wrote, on the CPU.

    Nested dictionaries are opened (``state_dict``, ``G_ema`` …), prefixes that all names share are cut (``module.`` …).

    Raises:
        InputError: no such file, one whose unpickling would need code, or one without tensors.
        BundleError: a damaged file.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file; give a checkpoint's file.")
    found: Any = read_tensors(path)[0] if path.suffix == ".safetensors" else _loaded(path)
    return plain(found, str(path))


def plain(found: Any, where: str) -> State:
    """The tensors of a nested dictionary by their names in the generator.

    Raises:
        InputError: it holds no tensors under any name a generator is usually kept under.
    """
    level = found
    while not (isinstance(level, Mapping) and any(isinstance(value, Tensor) for value in level.values())):
        name = next((name for name in _NESTS if isinstance(level, Mapping) and name in level), None)
        if name is None:
            keys = listed(map(str, level)) if isinstance(level, Mapping) else type(level).__name__
            raise InputError(
                f"{where}: no state dictionary. Found: {keys}. Expected: names of tensors, or one of "
                f"{', '.join(_NESTS)} holding them."
            )
        level = level[name]
    state = {str(name): value.detach() for name, value in level.items() if isinstance(value, Tensor)}
    while wrapper := next((w for w in WRAPPERS if all(name.startswith(w) for name in state)), None):
        state = {name.removeprefix(wrapper): value for name, value in state.items()}
    return state


def _loaded(path: Path) -> Any:
    numbers = [type(numpy.dtype(code)) for code in ("f8", "f4", "i8", "i4", "?")]
    # Scores beside the weights are often numpy scalars: plain numbers, which torch does not allow by itself.
    scalar: Any = numpy._core.multiarray.scalar  # type: ignore[attr-defined]
    allowed: list[Any] = [numpy.dtype, *numbers, scalar, (scalar, "numpy.core.multiarray.scalar")]
    try:
        with torch.serialization.safe_globals(allowed), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's remarks on the pickle's protocol; what matters is raised
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        offenders = _offenders(path)
        if offenders is None:
            raise BundleError(f"{path}: no checkpoint that torch.save wrote, or damaged; give another.") from error
        raise InputError(
            f"{path}: not unpickled, because it names {offenders}: loading it would run code that is not "
            "latentdc's. Where you trust it, load it with its own code, torch.save(model.state_dict(), …), and convert "
            "that file; for StyleGAN2 pickles of NVIDIA's use --kind stylegan2."
        ) from error
    except Exception as error:  # Whatever the reader raises at a file that is no checkpoint, down to IndexError.
        raise BundleError(f"{path}: no readable checkpoint ({type(error).__name__}: {error}).") from error


def _offenders(path: Path) -> str | None:
    """What a checkpoint names beside tensors; None where its program cannot even be read."""
    try:
        names = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    except Exception:  # Whatever a wrecked pickle raises: no list, and no unpickling either.
        return None
    return ", ".join(sorted(map(str, names))) or "more than tensors"


def listed(names: Iterable[str]) -> str:
    """Names for a message: the first few, and how many more."""
    names = sorted(names)
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return (", ".join(names[:_NAMED]) or "nothing") + more


def folded(state: Mapping[str, Tensor]) -> State:
    """The state with plain weights: W / sigma wherever a weight is spectrally normalised.

    Three forms are known. torch keeps W, u and v, as ``weight_orig``, ``_u``, ``_v`` or as parametrisation:
    sigma = uᵀ W v. BigGAN-PyTorch keeps ``weight``, ``u0`` and ``sv0`` and takes one power step from u when it
    evaluates: v = Wᵀu / |Wᵀu|, sigma = |W v|.

    *Reference:* Miyato et al. 2018, arXiv 1802.05957, §2.1.
    """
    out = dict(state)
    for name in state:
        if name.endswith(".weight_orig"):
            stem = name.removesuffix("_orig")
            weight, u, v = out.pop(name), out.pop(f"{stem}_u"), out.pop(f"{stem}_v")
            out[stem] = weight / torch.dot(u, weight.flatten(1) @ v)
        elif name.endswith(".parametrizations.weight.original"):
            stem = name.removesuffix("original")
            weight, u, v = out.pop(name), out.pop(f"{stem}0._u"), out.pop(f"{stem}0._v")
            out[stem.replace("parametrizations.", "").rstrip(".")] = weight / torch.dot(u, weight.flatten(1) @ v)
        elif name.endswith(".u0"):
            stem = name.removesuffix("u0")
            weight, u = out[f"{stem}weight"], out.pop(name)
            v = functional.normalize(u.reshape(1, -1) @ weight.flatten(1), eps=1e-12)
            out[f"{stem}weight"] = weight / (v @ weight.flatten(1).T).norm()
            out.pop(f"{stem}sv0", None)
    return out


class Taken:
    """A state being used up name by name, so that what a layout does not explain is noticed.

    Args:
        state: tensors by name.
        layout: name of the layout, for messages.
    """

    ignored = ("num_batches_tracked", "resample_filter")

    def __init__(self, state: Mapping[str, Tensor], layout: str) -> None:
        self.layout = layout
        self.names = sorted(state)
        self.left = {name: value for name, value in state.items() if not name.endswith(self.ignored)}

    def has(self, name: str) -> bool:
        """Whether a tensor is there and not used yet."""
        return name in self.left

    def take(self, *names: str) -> Tensor:
        """The tensor under the first of several names that is there, in fp32.

        Raises:
            InputError: none is there: another layout.
        """
        for name in names:
            if name in self.left:
                return self.left.pop(name).float()
        raise InputError(
            f"not the {self.layout} layout: expected {' or '.join(names)}; found {listed(self.names)}. "
            "Take another --kind, or hand the model itself to latentdc.decoders.module.adapt."
        )

    def done(self) -> None:
        """Check that nothing is left.

        Raises:
            InputError: tensors that the layout does not have.
        """
        if self.left:
            raise InputError(
                f"not the {self.layout} layout: {listed(self.left)} would be left over, so the image would be another. "
                "Take another --kind, or hand the model itself to latentdc.decoders.module.adapt."
            )
