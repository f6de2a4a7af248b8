"""``convert``: a checkpoint's file in → a sealed decoder folder out, with a card that says where it came from."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from diffusers.models.modeling_utils import ModelMixin

from latentdc.atomic import destination
from latentdc.convert.biggan import read_biggan_pytorch, read_pretrained, read_studiogan
from latentdc.convert.module import Generator, read_module
from latentdc.convert.states import State
from latentdc.convert.stylegan import read_stylegan2
from latentdc.decoders.components import sha256_of
from latentdc.decoders.reference import CARD
from latentdc.decoders.writing import check_place, write_decoder
from latentdc.errors import InputError, unknown
from latentdc.portable.biggan import BigGanDecoder
from latentdc.portable.stylegan2 import StyleGan2Decoder
from latentdc.seeding import stream

UNSEEN = "layout re-derived, never checked on an authors' file"
"""What the card says of every layout so far: they were tried on files made in the sources' layout only."""

MODULE = "module"
_CARD = ("num_classes", "space", "generator", "arguments", "labels", "output_range")
"""What of a decoder's configuration its card repeats."""

Reader = Callable[[Path], tuple[dict[str, Any], State]]
KINDS: dict[str, tuple[type[ModelMixin], Reader]] = {
    "stylegan2": (StyleGan2Decoder, read_stylegan2),
    "biggan-pytorch": (BigGanDecoder, read_biggan_pytorch),
    "studiogan": (BigGanDecoder, read_studiogan),
    "pytorch-pretrained-biggan": (BigGanDecoder, lambda path: read_pretrained(path, None)),
}


def convert(
    file: str | Path,
    kind: str,
    out: str | Path,
    *,
    space: str = "z",
    truncation: float | None = None,
    generator: Generator | None = None,
) -> Path:
    """Write a decoder folder from somebody's checkpoint; returns the folder.

    Nothing in the file is run. The folder holds ``config.json``, safetensors, a README and a sealed ``card.json`` with
    the file's name and sha256.

    Args:
        file: the checkpoint.
        kind: its layout, one of ``KINDS``, or ``"module"`` for the weights of any importable class.
        out: folder to write; of a decoder that was converted to the same place its own files are replaced.
        space: latent space of the decoder: ``z``, or what the generator has besides.
        truncation: psi of StyleGAN2's mapping, or BigGAN's truncation of z; None for none.
        generator: of kind ``"module"``: the class and how it is called. Its code runs.

    Raises:
        InputError: an unknown kind or space, a layout that is not the kind's, a file that may not be unpickled or is
            not there, weights that give no finite image, or a place that is taken.
        BundleError: a damaged or hostile file.
    """
    if kind not in (*KINDS, MODULE):
        raise InputError(f"--kind {unknown('layout', kind, (*KINDS, MODULE))}")
    if (kind == MODULE) != (generator is not None):
        raise InputError(
            f"--kind {kind}: --module and --z-shape belong to --kind {MODULE}; give both with it, or none."
        )
    source, target = Path(file), destination(out)
    check_place(target, lambda card: {"source", "sha256"} <= card.keys(), "converted decoder")
    if generator is not None:
        if space != "z" or truncation is not None:
            raise InputError(f"--kind {MODULE}: a module has the space z and no truncation; leave both out.")
        decoder: Any = _finite(read_module(source, generator), source)
        return _written(target, decoder, _card(decoder, source, kind))
    made, reader = KINDS[kind]
    config, state = read_pretrained(source, truncation) if "pretrained" in kind else reader(source)
    if truncation is not None:
        config["truncation"] = truncation
    decoder = _built(made, {**config, "space": space}, state, source)
    return _written(target, decoder, _card(decoder, source, kind))


def _built(kind: type[ModelMixin], config: dict[str, Any], state: State, source: Path) -> Any:
    try:
        decoder: Any = kind(**config).eval()
        # Counters of training batches have no part in decoding; no source needs to have them.
        counters = {name: value for name, value in decoder.state_dict().items() if name.endswith("num_batches_tracked")}
        decoder.load_state_dict({**state, **counters})
    except (ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{source}: its weights do not fit together as a {kind.__name__}: {reason}") from error
    return _finite(decoder, source)


def _finite(decoder: Any, source: Path) -> Any:
    """The decoder, if its images are finite."""
    owner = torch.zeros(2, dtype=torch.int64)
    with torch.no_grad():
        images = decoder(decoder.prior(owner, stream(0, "convert")), owner)
    if not bool(images.isfinite().all()):
        raise InputError(f"{source}: its weights give images that are not finite; is the file whole?")
    return decoder


def _written(target: Path, decoder: Any, card: dict[str, Any]) -> Path:
    write_decoder(target, decoder, card, _readme(target.name, card))
    return target


def _card(decoder: Any, source: Path, kind: str) -> dict[str, Any]:
    return {
        "kind": kind,
        "image_shape": list(decoder.image_shape),
        **{name: decoder.config[name] for name in _CARD if name in decoder.config},
        "latents": {name: list(shape) for name, shape in decoder.latent_shapes.items()},
        "parameters": sum(parameter.numel() for parameter in decoder.parameters()),
        "source": {"file": source.name, "bytes": source.stat().st_size, "sha256": sha256_of(source)},
        "layout": f"weights of {decoder.config.generator}, loaded whole" if kind == MODULE else UNSEEN,
    }


def _readme(name: str, card: dict[str, Any]) -> str:
    latents = ", ".join(f"{key} {' x '.join(map(str, shape))}" for key, shape in card["latents"].items())
    loads = f'load_decoder("{name}")'
    lines = ["from latentdc.decoders.reference import load_decoder", ""]
    if "generator" in card:  # its code is somebody's own and runs only for whoever names it
        package, _, kind = card["generator"].partition(":")
        lines.insert(1, f"from {package} import {kind}")
        loads = f'load_decoder("{name}", classes=[{kind}])'
    shape = " x ".join(map(str, card["image_shape"]))
    classes = f"{card['num_classes']} classes" if card["num_classes"] else "no classes"
    return "\n".join(
        [
            f"# {name}",
            "",
            f"A generator converted from `{card['source']['file']}` (layout `{card['kind']}`, {card['layout']}): "
            f"images of {shape}, {classes}, latents {latents}, {card['parameters']:,} parameters. `{CARD}` holds the "
            "sha256 of the source and of every file here. The source's licence applies to these weights.",
            "",
            "```python",
            *lines,
            f"decoder = {loads}  # or a path to this folder; checks every sha256",
            "```",
            "",
        ]
    )
