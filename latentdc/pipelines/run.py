"""One condensation, from its parts to its bundle."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers.utils.outputs import BaseOutput
from torch import Tensor, nn

from latentdc.bundle import PICTURE, Bundle, check_savable, load_bundle, save_bundle
from latentdc.checkpoint import Checkpoints, checkpoints_in, digest
from latentdc.condense import Step, condense
from latentdc.data.store import ClassStore
from latentdc.devices import accelerator_on, is_main_process
from latentdc.errors import InputError
from latentdc.evaluate.sets import exported
from latentdc.initialise import order_rows, start_report, stored
from latentdc.labels import Lesson, relabelled
from latentdc.latents import AnyBank, decode
from latentdc.networks import fingerprint
from latentdc.pipelines.finished import must_be_of_this_run
from latentdc.portable.bank import LatentBank
from latentdc.portable.distribution import DistributionBank
from latentdc.portable.module import ModuleDecoder
from latentdc.recipe import (
    Built,
    Recipe,
    identity,
    make_bank,
    make_source,
    plain_source,
    start_batch,
    to_toml,
    with_start,
)
from latentdc.recipe.parts import make_part
from latentdc.report import save_grid
from latentdc.sketch import Sketch
from latentdc.source import Source
from latentdc.types import Batch

_OF_SKETCH = ("source.", "objective.", "augment.", "seed", "precision", "data.")
"""What decides a sketch; two runs that agree in these share one."""


@dataclass
class CondensationOutput(BaseOutput):
    """What a condensation made."""

    bundle: Bundle
    """The bundle, loaded again from its folder with every checksum verified."""
    path: Path
    """The folder."""
    recipe: Recipe
    """The recipe as it was resolved."""
    loss: float
    """Loss of the last step."""


@dataclass
class Run:
    """One condensation, from its parts to its bundle.

    Args:
        built: the parts.
        store: the real images.
        out: folder of the bundle; ``<out>.run`` keeps checkpoints, log and sketch.
        device: where to compute.
        decoder_public: public name of the decoder, or None.
        progress: show bars on standard error.
        decoder_reference: where the decoder is, for a bundle that does not carry it; None for one that does.
        decoder_folder: where it was fetched to.
    """

    built: Built
    store: ClassStore
    out: Path
    device: torch.device
    decoder_public: str | None = None
    progress: bool = True
    decoder_reference: Mapping[str, Any] | None = None
    decoder_folder: Path | None = None

    def __call__(
        self,
        given: Sketch | None,
        *,
        resume: bool,
        checkpoint_seconds: float,
        on_step: Sequence[Callable[[Step], None]],
    ) -> CondensationOutput:
        """Source, start, loop, order of rows, bundle, picture; see ``CondensationPipeline.__call__``."""
        built, recipe = self.built, self.built.recipe
        self.check(given, resume=resume)
        accelerator: Any = accelerator_on(self.device)  # Parts of accelerate carry no types.
        if recipe.steps and recipe.source.kind != "sketch":
            make_source(built, self.store)  # made again where it is used: here its options are looked at
        # Before the sketch, which takes longer and is of no use to a start that the decoder does not have.
        began = make_bank(built, self.store, device=self.device, progress=self.progress and is_main_process())
        torch.nn.Module.to(began, self.device)
        if recipe.steps:
            loss = self._condensed(began, given, accelerator, resume, checkpoint_seconds, on_step)
        else:
            loss = math.nan
            if accelerator.is_main_process:
                start = self._start_report(self._start_images(began), began)
                self._write(self._stored(self._labelled(began)), start, {}, None)
        accelerator.wait_for_everyone()
        # A decoder that is not carried is not fetched again, perhaps without a token.
        fetched = None if self.decoder_reference is None else self.decoder_folder
        bundle = load_bundle(self.out, classes=self._classes(), decoder_folder=fetched)
        return CondensationOutput(bundle, self.out, recipe, loss)

    def _condensed(
        self,
        began: AnyBank,
        given: Sketch | None,
        accelerator: Any,
        resume: bool,
        checkpoint_seconds: float,
        on_step: Sequence[Callable[[Step], None]],
    ) -> float:
        """Write the bundle that the loop makes of a start; returns the last loss."""
        built, recipe = self.built, self.built.recipe
        if not isinstance(began, LatentBank):
            raise InputError(f'init = "{recipe.init.kind}" gives a distribution, which has no steps: give steps = 0.')
        with accelerator.main_process_first():  # The others find the sketch that the first process wrote.
            source = self._source(given)
        state = Checkpoints(self.folder, identity(built, source=source), every_seconds=checkpoint_seconds)
        if not resume and accelerator.is_main_process:
            for file in (*state.files(), state.log_path):
                file.unlink(missing_ok=True)
        accelerator.wait_for_everyone()
        started = self._start_images(began) if accelerator.is_main_process else None
        bank = condense(
            built.decoder,
            began,
            built.objective,
            with_start(built, source, self.store, device=self.device),
            steps=recipe.steps,
            optim=recipe.optim,
            seed=recipe.seed,
            chunk=recipe.chunk,
            accelerator=accelerator,
            device=self.device,
            precision=recipe.precision,
            compile=recipe.compile,
            formation=built.formation,
            checkpoints=state,
            on_step=on_step,
            progress=self.progress,
        )
        last = state.last_record()
        if accelerator.is_main_process:
            start = self._start_report(started, bank)
            taken = source.manifest.digest() if isinstance(source, Sketch) else None
            self._write(self._stored(self._labelled(self._ordered(bank, source))), start, last, taken)
        return float(last.get("loss", math.nan))

    def _ordered(self, bank: LatentBank, source: Source) -> LatentBank:
        """The set with prefixes as good as can be, if the run did not see to that itself."""
        built = self.built
        if built.objective.orders:
            return bank
        looked = plain_source(built, self.store, source, device=self.device)
        return order_rows(built.decoder, bank, looked, built.see, built.by, formation=built.formation)

    def _labelled(self, bank: AnyBank) -> AnyBank:
        """The set with the labels that the recipe asks for."""
        built, recipe = self.built, self.built.recipe
        if not isinstance(bank, LatentBank):  # a distribution has no rows; the recipe refuses labels for it
            return bank
        lesson = Lesson(self.store, recipe.seed, self.device, recipe.precision, recipe.compile)
        return relabelled(make_part("labels", recipe.labels), bank, built.decoder, built.formation, lesson)

    def check(self, given: Sketch | None, *, resume: bool) -> None:
        """Refuse what would stop the run at its end, or lose what stands in its place, before its first step.

        Raises:
            InputError: the place cannot be written, holds the finished bundle of another run, or is the bundle that
                this one starts from; or a sketch is given to a run without steps.
        """
        recipe, carried = self.built.recipe, self.decoder_reference is None
        check_savable(self.out, decoder=self.built.decoder, formation=self.built.formation, carried=carried)
        if resume and not checkpoints_in(self.folder):
            must_be_of_this_run(self.out, recipe, self.built.spec)
        if (place := recipe.init.options.get("path")) and Path(place).resolve() == self.out.resolve():
            raise InputError(
                f"{self.out}: a bundle cannot be written over the one it starts from. Give another folder."
            )
        if given is not None and not recipe.steps:
            raise InputError("steps = 0 keeps the start as it is, so no sketch is looked at: leave --sketch out.")

    @property
    def folder(self) -> Path:
        """Where checkpoints, log and sketch of the run lie."""
        return self.out.with_name(self.out.name + ".run")

    def _source(self, given: Sketch | None) -> Source:
        named = {key: value for key, value in identity(self.built).items() if key.startswith(_OF_SKETCH)}
        if self.built.recipe.source.kind == "sketch" and given is None:
            self.folder.mkdir(parents=True, exist_ok=True)
        return make_source(
            self.built,
            self.store,
            given=given,
            out=self.folder / f"sketch-{digest(named)[:12]}.safetensors",
            device=self.device,
            progress=self.progress and is_main_process(),
        )

    def _start_images(self, bank: AnyBank) -> tuple[Batch, Tensor] | None:
        """The real images that the rows start from and what the rows decode to; before anything is learned."""
        real = start_batch(self.built, self.store, device=self.device)
        return None if real is None else (real, decode(self.built.decoder, bank).x.cpu())

    def _start_report(self, started: tuple[Batch, Tensor] | None, bank: AnyBank) -> dict[str, Any]:
        """Reconstruction error of the start; real | start | condensed as ``<out>.run/start.png``, the rows in order."""
        if started is None:
            told: dict[str, Any] = getattr(make_part("init", self.built.recipe.init), "told", dict)()
            return told
        ended = decode(self.built.decoder, bank).x.cpu()
        return start_report(self.folder / "start.png", *started, ended, self.built.spec.class_names)

    def _stored(self, bank: AnyBank) -> AnyBank:
        """The set in the storage asked for, on the CPU as are the modules it is decoded with."""
        modules: tuple[Any, ...] = (self.built.decoder, self.built.formation, bank)
        for module in modules:
            if isinstance(module, nn.Module):
                module.to("cpu")
        storage = self.built.recipe.storage
        if isinstance(bank, DistributionBank):
            return stored(bank, storage)
        return bank.quantise(storage)

    def _write(self, bank: AnyBank, start: Mapping[str, Any], last: Mapping[str, Any], taken: str | None) -> None:
        built, recipe, spec = self.built, self.built.recipe, self.built.spec
        decoder: Any = built.decoder  # A module that also keeps the Decoder protocol.
        formation: Any = built.formation
        provenance = {
            "recipe": recipe.name,
            "recipe_toml": to_toml(recipe),
            "decoder_name": built.decoder_name,
            "decoder_sha256": fingerprint(decoder),
            "precision": recipe.precision,
            "data": spec.name,
            "data_fingerprint": spec.fingerprint,
            "num_real_images": len(self.store),
            "seed": recipe.seed,
            "steps": recipe.steps,
            "start": {"kind": recipe.init.kind, **start},
            # Of the whole run, however often it was interrupted; taking the sketch not included.
            "loss": last.get("loss"),
            "seconds": last.get("seconds"),
            "sketch": taken,
        }
        images = exported(decode(decoder, bank, formation=formation))
        picture = self.folder / PICTURE
        save_grid(picture, images.x, images.owner, spec.class_names)
        save_bundle(
            self.out,
            bank=bank,
            decoder=decoder,
            formation=formation,
            spec=spec,
            provenance=provenance,
            hints={"augment": recipe.augment.kind},
            decoder_public=self.decoder_public,
            decoder_reference=self.decoder_reference,
            raw_set_bytes=self.store.images.numel() + len(self.store),
            picture=picture,
        )

    def _classes(self) -> list[type[Any]]:
        decoder, formation = self.built.decoder, self.built.formation
        inside = [decoder.module] if isinstance(decoder, ModuleDecoder) else []
        return [type(part) for part in (decoder, formation, *inside) if part is not None]
