"""``latentdc fit``: train a decoder of your own data to condense through."""

from __future__ import annotations

import json as json_
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from latentdc.cli import options
from latentdc.cli.app import emit, group, say

if TYPE_CHECKING:
    from latentdc.fit.training import FitRecipe

app = group(
    """Train a decoder on your own images, to condense through with --decoder.

    \b
    Examples:
      latentdc fit gan --data my-images/ --size 32 --minutes 30 --out my-gan
      latentdc fit tune --data my-images/ --size 32 --decoder my-gan --minutes 20 --out my-tuned-gan
      latentdc fit autoencoder --data my-images/ --size 32 --minutes 20 --out my-vae
      latentdc fit diffusion --data my-images/ --size 32 --autoencoder my-vae --minutes 40 --out my-diffusion
      latentdc condense --data my-images/ --size 32 --decoder my-gan --images-per-class 10 --out runs/mine
    """
)

Steps = Annotated[int | None, typer.Option("--steps", min=1, help="Updates in all; or give --minutes.")]
Minutes = Annotated[float | None, typer.Option("--minutes", help="Training time in all; or give --steps.")]
Channels = Annotated[str, typer.Option("--channels", help="Feature maps, one number per level of resolution.")]
BatchSize = Annotated[int, typer.Option("--batch-size", min=2, help="Images per update.")]
Resume = Annotated[bool, typer.Option("--resume/--fresh", help="Go on from the checkpoint of --out.")]
AlsoFits = Annotated[
    str | None, typer.Option("--also-fits", help="Other data sets, by name, that it may be a default for.")
]
FiguresOption = Annotated[bool, typer.Option("--figures/--no-figures", help="Measure it on held-out images last.")]


@app.callback()
def fit() -> None:
    """Train a decoder."""


@dataclass(frozen=True)
class _Job:
    """What every kind of decoder is asked."""

    data: str
    out: Path
    steps: int | None
    minutes: float | None
    seed: int
    precision: options.Precision
    device: str | None
    resume: bool
    also_fits: str | None
    figures: bool
    size: int | None
    classes: str | None
    limit: int | None
    no_mirror: bool
    download: bool
    json: bool

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> _Job:
        """From the arguments of a command, by their names."""
        return cls(**{asked.name: given[asked.name] for asked in fields(cls)})

    def __call__(self, recipe: FitRecipe) -> None:
        """Train and say where the decoder is."""
        from latentdc.fit.run import fit as train

        out = options.writable(self.out)
        real = options.opened(
            self.data,
            size=self.size,
            classes=self.classes,
            limit=self.limit,
            download=self.download,
            no_mirror=self.no_mirror,
        )
        folder = train(
            real.train,
            recipe,
            out=out,
            steps=self.steps,
            minutes=self.minutes,
            seed=self.seed,
            device=options.place(self.device),
            precision=self.precision.value,
            resume=self.resume,
            figures=self.figures,
            also_fits=options.names(self.also_fits) or (),
        )
        if self.json:
            emit({"path": str(folder), "card": json_.loads((folder / "card.json").read_text(encoding="utf-8"))})
        else:
            say(f"decoder written to {folder}; use it with: latentdc condense --data {self.data} --decoder {folder} …")


@app.command()
def gan(
    *,
    data: options.Data,
    out: options.Out,
    steps: Steps = None,
    minutes: Minutes = None,
    z_dim: Annotated[int, typer.Option("--z-dim", min=1, help="Numbers per latent: the rate of the code.")] = 16,
    channels: Channels = "128,64,24",
    mapping: Annotated[int, typer.Option("--mapping", min=0, help="Layers of a network that opens w and w+.")] = 0,
    batch_size: BatchSize = 64,
    seed: options.Seed = 0,
    precision: options.PrecisionOption = options.Precision.fp32,
    device: options.Device = None,
    resume: Resume = True,
    also_fits: AlsoFits = None,
    figures: FiguresOption = True,
    size: options.Size = None,
    classes: options.Classes = None,
    limit: options.Limit = None,
    no_mirror: options.NoMirror = False,
    download: options.Download = False,
    json: options.Json = False,
) -> None:
    """Train a class-conditional generator: hinge game, projection critic, averaged weights, sample grids on the way.

    Writes a decoder folder (config, safetensors, card, samples) and keeps its checkpoint in OUT.training beside it.

    \b
    Examples:
      latentdc fit gan --data fashion-mnist-mini --minutes 20 --out my-gan
      latentdc fit gan --data my-images/ --size 32 --steps 20000 --z-dim 32 --out my-gan
    """
    from latentdc.fit.gan import GanRecipe

    levels = options.numbers("--channels", channels)
    job = _Job.of(locals())
    job(GanRecipe(z_dim=z_dim, channels=levels, mapping=mapping, batch_size=batch_size))


@app.command()
def tune(
    *,
    data: options.Data,
    out: options.Out,
    decoder: Annotated[
        str, typer.Option("--decoder", help="Folder or shipped name of a generator; gan for the shipped one that fits.")
    ] = "gan",
    steps: Steps = None,
    minutes: Minutes = None,
    per_class: Annotated[int, typer.Option("--per-class", min=2, help="Draws of each class in an update.")] = 48,
    batch_size: BatchSize = 480,
    networks: Annotated[int, typer.Option("--networks", min=1, help="Networks that are trained for it first.")] = 1,
    epochs: Annotated[int, typer.Option("--epochs", min=1, help="Passes that each of them is trained for.")] = 8,
    hard: Annotated[
        float,
        typer.Option(
            "--hard", min=0, max=1, help="Share of hard but right images among the real ones; 0: as they are."
        ),
    ] = 0.8,
    right: Annotated[
        float, typer.Option("--right", min=0, help="Weight of keeping draws on the side of their class.")
    ] = 0.1,
    seed: options.Seed = 0,
    precision: options.PrecisionOption = options.Precision.fp32,
    device: options.Device = None,
    resume: Resume = True,
    also_fits: AlsoFits = None,
    figures: FiguresOption = True,
    size: options.Size = None,
    classes: options.Classes = None,
    limit: options.Limit = None,
    no_mirror: options.NoMirror = False,
    download: options.Download = False,
    json: options.Json = False,
) -> None:
    """Tune a generator: match its draws with the real images, in features of networks that are trained on these.

    Not yet shown to gain: judge what it makes (`latentdc evaluate my-tuned-gan`, beside `my-gan`). Writes a decoder
    folder and keeps its checkpoint in OUT.training beside it.

    \b
    Example:
      latentdc fit tune --data my-images/ --size 32 --decoder my-gan --minutes 20 --out my-tuned-gan
    """
    from latentdc.fit.tune import TuneRecipe

    job = _Job.of(locals())
    job(TuneRecipe(decoder, per_class, batch_size, networks, epochs, hard=hard, right=right))


@app.command()
def autoencoder(
    *,
    data: options.Data,
    out: options.Out,
    steps: Steps = None,
    minutes: Minutes = None,
    latent_channels: Annotated[int, typer.Option("--latent-channels", min=1, help="Channels of a latent.")] = 1,
    channels: Channels = "16,32,64",
    batch_size: BatchSize = 64,
    seed: options.Seed = 0,
    precision: options.PrecisionOption = options.Precision.fp32,
    device: options.Device = None,
    resume: Resume = True,
    also_fits: AlsoFits = None,
    figures: FiguresOption = True,
    size: options.Size = None,
    classes: options.Classes = None,
    limit: options.Limit = None,
    no_mirror: options.NoMirror = False,
    download: options.Download = False,
    json: options.Json = False,
) -> None:
    """Train a variational autoencoder (AutoencoderKL of diffusers): absolute error and a weak divergence.

    A latent has a number for every 4 x 4 pixels of the image (with three levels of --channels) and latent channel.
    Writes a decoder folder and keeps its checkpoint in OUT.training beside it.

    \b
    Example:
      latentdc fit autoencoder --data my-images/ --size 32 --minutes 20 --latent-channels 4 --out my-vae
    """
    from latentdc.fit.autoencoder import AutoencoderRecipe

    levels = options.numbers("--channels", channels)
    job = _Job.of(locals())
    job(AutoencoderRecipe(latent_channels=latent_channels, channels=levels, batch_size=batch_size))


@app.command()
def diffusion(
    *,
    data: options.Data,
    out: options.Out,
    steps: Steps = None,
    minutes: Minutes = None,
    autoencoder: Annotated[
        str | None, typer.Option("--autoencoder", help="Folder or shipped name of an autoencoder; pixels if left out.")
    ] = None,
    channels: Channels = "64",
    num_steps: Annotated[int, typer.Option("--num-steps", min=1, help="Steps that the decoder takes.")] = 10,
    batch_size: BatchSize = 128,
    seed: options.Seed = 0,
    precision: options.PrecisionOption = options.Precision.fp32,
    device: options.Device = None,
    resume: Resume = True,
    also_fits: AlsoFits = None,
    figures: FiguresOption = True,
    size: options.Size = None,
    classes: options.Classes = None,
    limit: options.Limit = None,
    no_mirror: options.NoMirror = False,
    download: options.Download = False,
    json: options.Json = False,
) -> None:
    """Train a class-conditional diffusion model over pixels or over the latents of an autoencoder.

    Writes a decoder folder, its autoencoder inside, and keeps its checkpoint in OUT.training beside it.

    \b
    Example:
      latentdc fit diffusion --data my-images/ --size 32 --autoencoder my-vae --minutes 40 --out my-diffusion
    """
    from latentdc.fit.diffusion import DiffusionRecipe

    levels = options.numbers("--channels", channels)
    job = _Job.of(locals())
    job(DiffusionRecipe(autoencoder or "", channels=levels, num_steps=num_steps, batch_size=batch_size))
