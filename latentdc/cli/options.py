"""Options that several commands share, worded once."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from latentdc.errors import InputError

if TYPE_CHECKING:
    from latentdc.data.sources import Data as Opened


class Precision(StrEnum):
    """Arithmetic of a run."""

    fp32 = "fp32"
    bf16 = "bf16"


class Storage(StrEnum):
    """How latents are kept."""

    fp32 = "fp32"
    fp16 = "fp16"
    int8 = "int8"
    int4 = "int4"


Data = Annotated[
    str,
    typer.Option(
        "--data",
        help="fashion-mnist-mini (shipped), fashion-mnist, cifar10, a folder of class folders of images, "
        "or parquet with an image and a label column.",
    ),
]
Size = Annotated[
    int | None,
    typer.Option(
        "--size",
        min=4,
        help="Bring every image to this side in pixels: the shorter side to that many pixels (bilinear, antialiased), "
        "then the central square.",
    ),
]
Classes = Annotated[
    str | None, typer.Option("--classes", help="Only these classes, by name or else number, separated by commas.")
]
Limit = Annotated[
    int | None,
    typer.Option("--limit", min=1, help="The first this many training images of each class; no class may have fewer."),
]
Download = Annotated[bool, typer.Option("--download", help="Allow fetching a named data set through torchvision.")]
HoldOut = Annotated[
    bool,
    typer.Option(
        "--hold-out",
        help="Leave a slice of the training images out, to compare settings on it with evaluate --split held-out.",
    ),
]
NoMirror = Annotated[
    bool, typer.Option("--no-mirror", help="A mirrored image is another label, as for digits: never mirror one.")
]
Compile = Annotated[
    bool, typer.Option("--compile", help="Compile networks and light decoders; pays off for long runs.")
]
Seed = Annotated[int, typer.Option("--seed", help="Every random draw follows from this number.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON value instead of text.")]
Out = Annotated[Path, typer.Option("--out", help="Where to write.")]
OptionalOut = Annotated[Path | None, typer.Option("--out", help="Where to write; nothing is written without it.")]
PrecisionOption = Annotated[
    Precision, typer.Option("--precision", help="Arithmetic of the networks; bf16 is faster where the machine has it.")
]
Device = Annotated[
    str | None, typer.Option("--device", help="cpu, cuda, cuda:1, mps, …; left out, CUDA where there is one, else cpu.")
]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", help="Change one key of the recipe, for instance --set optim.lr=0.05; may be repeated."),
]
Recipe = Annotated[str, typer.Option("--recipe", help="A shipped recipe (see latentdc recipes) or a TOML file.")]
NumPairs = Annotated[
    int | None, typer.Option("--num-pairs", min=1, help="(network, augmentation) pairs of the sketch.")
]
Project = Annotated[
    int | None,
    typer.Option(
        "--project",
        min=1,
        help="Compare features (of gradients, those of each unit) after a seeded random projection to this many "
        "numbers a layer, which shrinks a sketch as much and keeps distances nearly; alike for a sketch and what is "
        "condensed from it. Short for --set objective.see.project=N.",
    ),
]
Own = Annotated[
    list[str] | None,
    typer.Option(
        "--own",
        help="A class that the decoder or formation is made of and latentdc does not have, package.module:Class; its "
        "code runs. May be repeated.",
    ),
]
BundlePath = Annotated[str, typer.Argument(metavar="BUNDLE", help="A bundle folder, or a repository on the Hub.")]


def own_classes(own: list[str] | None) -> list[type[Any]]:
    """The classes that may be loaded besides latentdc's own.

    Raises:
        InputError: one cannot be imported.
    """
    from latentdc.resources import own_class

    return [own_class(path) for path in own or []]


def opened(
    data: str,
    *,
    size: int | None,
    classes: str | None,
    limit: int | None,
    download: bool,
    no_mirror: bool,
    hold_out: bool = False,
) -> Opened:
    """The data set that the options describe."""
    from latentdc.data.sources import open_data

    return open_data(
        data,
        size=size,
        classes=names(classes),
        download=download,
        limit=limit,
        mirror=not no_mirror,
        hold_out=hold_out,
    )


def writable(out: Path) -> Path:
    """The place to write to, checked before any work; absolute if it had no name of its own.

    Raises:
        InputError: nothing can be written there.
    """
    from latentdc.atomic import destination

    return destination(out)


def vacant(out: Path) -> Path:
    """The place of a new file, checked before any work.

    Raises:
        InputError: something is there already, or nothing can be written there.
    """
    place = writable(out)
    if place.exists():
        raise InputError(f"{out} exists already. Delete it, or choose another --out.")
    return place


def place(device: str | None) -> str:
    """The device, if this machine has it; None for the best there is.

    Raises:
        InputError: it has not, or there is no such device.
    """
    from latentdc.devices import device_of

    return str(device_of(device))


def names(text: str | None) -> list[str] | None:
    """The parts of a comma-separated option."""
    return None if text is None else [part.strip() for part in text.split(",") if part.strip()]


def numbers(option: str, text: str) -> tuple[int, ...]:
    """The whole numbers of a comma-separated option.

    Raises:
        InputError: something else is in it.
    """
    try:
        return tuple(int(part) for part in names(text) or [])
    except ValueError:
        raise InputError(f"{option} {text}: give whole numbers separated by commas, for instance 128,64,24.") from None


def pairs(settings: list[str] | None) -> dict[str, str]:
    """Recipe keys and their new values from ``--set key=value``.

    Raises:
        InputError: an entry has no ``=``.
    """
    wrong = [entry for entry in settings or [] if "=" not in entry]
    if wrong:
        raise InputError(f"--set {wrong[0]}: give key=value, for instance --set optim.lr=0.05.")
    return {key.strip(): value.strip() for key, _, value in (entry.partition("=") for entry in settings or [])}
