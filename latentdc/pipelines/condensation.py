"""From a data set to a bundle, with the manners of a Hugging Face pipeline."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from latentdc.atomic import destination
from latentdc.bundle import reference
from latentdc.condense import Step
from latentdc.data.sources import Data, open_data
from latentdc.data.store import ClassStore
from latentdc.decoders import BASES
from latentdc.decoders.diffusers_folder import is_diffusers_folder
from latentdc.decoders.reference import DEFAULT, KINDS, load_decoder
from latentdc.devices import device_of
from latentdc.errors import InputError, unknown
from latentdc.hub import fetch, repository_of
from latentdc.pipelines.run import CondensationOutput, Run
from latentdc.recipe import Built, Part, as_sketched, build, dry_run, forgone, load_recipe
from latentdc.resources import shipped
from latentdc.sketch import Sketch

__all__ = ["CondensationOutput", "CondensationPipeline"]

_log = logging.getLogger(__name__)
_PRECISIONS = {torch.float32: "fp32", torch.bfloat16: "bf16"}


class CondensationPipeline:
    """Condense a data set through a decoder: data, sketch or mini-batches, start, loop, order of rows, bundle, picture.

        pipe = CondensationPipeline.from_pretrained("fashion-mnist-gan")
        out = pipe("fashion-mnist-mini", recipe="dm-gan", images_per_class=1, out="runs/first")

    Args:
        decoder: a decoder module, ``"pixels"``, the name of a shipped checkpoint, a checkpoint folder, or None for the
            one the recipe names.
        device: where to compute; None for the best there is (see ``latentdc.devices.device_of``).
        precision: ``"fp32"`` or ``"bf16"``; None for the recipe's.
        decoder_public: public name of the decoder, where it can be had without the bundle.
        decoder_reference: the same for machines: repo_id, revision and subfolder on the Hub, and sha256 by file.

    Raises:
        InputError: no such device.
    """

    def __init__(
        self,
        decoder: nn.Module | str | Path | None = None,
        *,
        device: str | torch.device | None = None,
        precision: str | None = None,
        decoder_public: str | None = None,
        decoder_reference: Mapping[str, Any] | None = None,
    ) -> None:
        self.decoder, self.precision, self.decoder_public = decoder, precision, decoder_public
        self.decoder_reference = decoder_reference
        self._fetched: Path | None = None
        self._device = device_of(device)
        self._progress = True

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | Path | None = None,
        *,
        dtype: torch.dtype | None = None,
        component_classes: Sequence[type[nn.Module]] = (),
        subfolder: str = "",
        revision: str | None = None,
        cache_dir: str | Path | None = None,
        token: str | bool | None = None,
        local_files_only: bool = False,
        force_download: bool = False,
    ) -> CondensationPipeline:
        """A pipeline around a decoder.

        Args:
            pretrained_model_name_or_path: ``"pixels"``, a shipped checkpoint, a folder, ``owner/name`` or
                ``owner/name@revision`` on the Hub, or None for the decoder that the recipe names.
            dtype: ``torch.float32`` or ``torch.bfloat16`` for the arithmetic of the run.
            component_classes: classes that the decoder is made of and latentdc does not have; their code runs.
            subfolder: where in the folder or repository the decoder lies, such as ``"vae"``; empty for its top.
            revision: branch, tag or commit on the Hub.
            cache_dir: where downloads are kept.
            token: access token for private repositories.
            local_files_only: look at the cache only.
            force_download: download again.

        Raises:
            InputError: no such decoder, or a dtype that is not for condensing.
        """
        if dtype is not None and dtype not in _PRECISIONS:
            raise InputError(f"dtype = {dtype}: condense in torch.float32 or torch.bfloat16.")
        precision = None if dtype is None else _PRECISIONS[dtype]
        name = pretrained_model_name_or_path
        known = {"pixels", DEFAULT, *KINDS, *BASES, *shipped("checkpoints")}
        if name is None or str(name) in known:
            if subfolder:
                raise InputError(
                    f'subfolder = "{subfolder}": lies in a folder or an owner/name; give one as the decoder, not '
                    f"{name or 'none'}."
                )
            return cls(name, precision=precision)
        if Path(name).is_dir():
            return cls(_opened(Path(name, subfolder), component_classes), precision=precision)
        if "/" not in str(name):
            raise InputError(f"decoder {unknown('name', str(name), known)} A folder or owner/name will do too.")
        folder = fetch(
            str(name),
            "decoder",
            revision=revision,
            cache_dir=cache_dir,
            token=token,
            local_files_only=local_files_only,
            force_download=force_download,
            subfolder=subfolder,
        )
        repo_id = repository_of(str(name), revision).repo_id
        public = "/".join(part for part in (f"{repo_id}@{folder.name}", subfolder) if part)
        pinned = reference(repo_id, folder, subfolder=subfolder)
        found = _opened(folder / subfolder, component_classes)
        pipe = cls(found, precision=precision, decoder_public=public, decoder_reference=pinned)
        pipe._fetched = folder / subfolder
        return pipe

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return self._device

    def to(self, device: str | torch.device) -> CondensationPipeline:
        """Compute on this device from now on.

        Raises:
            InputError: no such device; the message says why.
        """
        self._device = device_of(device)
        return self

    def set_progress_bar_config(self, *, disable: bool = False) -> None:
        """Show or hide progress bars."""
        self._progress = not disable

    def prepare(
        self,
        data: str | Path | Data | ClassStore,
        recipe: str | Path = "dm-gan",
        *,
        sketch: Sketch | None = None,
        settings: Sequence[str] = (),
        overrides: Mapping[str, Any] | None = None,
    ) -> tuple[ClassStore, Built]:
        """The real images and the parts of a run, checked against each other; nothing is computed.

        Args:
            data: a data set, or what ``open_data`` opens.
            recipe: name of a shipped recipe, or a TOML file.
            sketch: a sketch of the real set, in place of the source that the recipe names.
            settings: ``"key=value"`` changes to the recipe, as on the command line.
            overrides: changes to the recipe by dotted key, applied last; entries of None do nothing.

        Raises:
            InputError: data, recipe or decoder do not exist or do not fit each other, or the source is described both
                by a sketch and by keys of the recipe.
        """
        opened = data if isinstance(data, (Data, ClassStore)) else open_data(data)
        store = opened.train if isinstance(opened, Data) else opened
        changes: dict[str, Any] = {"precision": self.precision, **(overrides or {})}
        if self.decoder is not None:  # in place of the recipe's, with the settings that were given here
            named = isinstance(self.decoder, (str, Path))
            changes["decoder"] = str(self.decoder) if named else type(self.decoder).__name__
        changes = {name: value for name, value in changes.items() if value is not None}
        resolved = load_recipe(recipe, settings=settings, overrides=changes)
        if "decoder" in changes and (lost := forgone(load_recipe(recipe), resolved)):
            _log.warning("%s", lost)
        if sketch is not None:
            asked = {name.partition("=")[0].strip() for name in (*changes, *settings)}
            resolved = as_sketched(resolved, sketch, asked)
        own: Any = self.decoder if isinstance(self.decoder, nn.Module) else None
        return store, build(resolved, store.spec, decoder=own, decoder_name=self.decoder_public)

    def estimate(
        self,
        data: str | Path | Data | ClassStore,
        recipe: str | Path = "dm-gan",
        *,
        out: str | Path | None = None,
        sketch: Sketch | str | Path | None = None,
        settings: Sequence[str] = (),
        overrides: Mapping[str, Any] | None = None,
        resume: bool = True,
        copy_decoder: bool = True,
    ) -> dict[str, Any]:
        """What a run would take, measured on a few steps: see ``latentdc.recipe.dry_run``.

        Args:
            data, recipe, sketch, settings, overrides, resume, copy_decoder: as for the run itself.
            out: where the run would write; looked at if given.

        Raises:
            InputError: as the run itself.
        """
        given = Sketch.load(sketch) if isinstance(sketch, (str, Path)) else sketch
        store, built = self.prepare(data, recipe, sketch=given, settings=settings, overrides=overrides)
        named = None if copy_decoder else self._named(built)
        if out is not None:
            Run(built, store, destination(out), self.device, decoder_reference=named).check(given, resume=resume)
        return dry_run(built, store, given=given, device=self.device, copy_decoder=copy_decoder)

    def __call__(
        self,
        data: str | Path | Data | ClassStore,
        recipe: str | Path = "dm-gan",
        *,
        out: str | Path,
        images_per_class: int | None = None,
        bytes_per_class: int | None = None,
        storage: str | None = None,
        steps: int | None = None,
        seed: int | None = None,
        sketch: Sketch | str | Path | None = None,
        settings: Sequence[str] = (),
        overrides: Mapping[str, Any] | None = None,
        resume: bool = True,
        checkpoint_seconds: float = 60.0,
        copy_decoder: bool = True,
        on_step: Sequence[Callable[[Step], None]] = (),
    ) -> CondensationOutput:
        """Condense, and write the bundle with its picture to ``out``; the run's own state lies in ``<out>.run``.

        Args:
            data: a data set, or what ``open_data`` opens: a name, a folder, parquet.
            recipe: name of a shipped recipe, or a TOML file.
            out: folder of the bundle.
            images_per_class: stored rows of each class; or give ``bytes_per_class``.
            bytes_per_class: as many rows as fit, with scales and labels.
            storage: ``"fp32"``, ``"fp16"``, ``"int8"`` or ``"int4"``.
            steps: optimisation steps.
            seed: every random draw follows from it.
            sketch: a sketch of the real set, or its file, in place of the source that the recipe names.
            settings: ``"key=value"`` changes to the recipe, as on the command line.
            overrides: changes to the recipe by dotted key.
            resume: go on from a checkpoint that an interrupted run with the same arguments left; False starts over.
            checkpoint_seconds: at most this much is lost when the run is killed.
            copy_decoder: False for a bundle that names the decoder on the Hub, with its commit and checksum, instead of
                carrying it.
            on_step: called after each step.

        Raises:
            InputError: data, recipe, decoder, budget or sketch do not exist or do not fit each other, or the place
                cannot be written.
            DivergenceError: the loss became NaN or infinite.
            KeyboardInterrupt: raised again after the checkpoint is written.
        """
        out = destination(out)
        given = {"images_per_class": images_per_class, "bytes_per_class": bytes_per_class, "storage": storage}
        changes = {**given, "steps": steps, "seed": seed, **(overrides or {})}
        real_side = Sketch.load(sketch) if isinstance(sketch, (str, Path)) else sketch
        store, built = self.prepare(data, recipe, sketch=real_side, settings=settings, overrides=changes)
        named = None if copy_decoder else self._named(built)
        run = Run(built, store, out, self.device, self.decoder_public, self._progress, named, self._fetched)
        return run(real_side, resume=resume, checkpoint_seconds=checkpoint_seconds, on_step=on_step)

    def _named(self, built: Built) -> Mapping[str, Any]:
        """What a bundle writes down of the decoder that it does not carry: where it is, and how it is read."""
        if self.decoder_reference is None:
            raise InputError(
                "copy_decoder = False: the bundle would have no decoder, since this one is not from the Hub. Load it "
                'by owner/name with CondensationPipeline.from_pretrained("owner/name"), or let the bundle carry it.'
            )
        decoder = built.recipe.decoder
        settings = {"settings": dict(decoder.options)} if isinstance(decoder, Part) else {}
        return {**self.decoder_reference, **settings}


def _opened(folder: Path, classes: Sequence[type[nn.Module]]) -> Any:
    """The decoder in a folder if classes of the caller's are needed; else the folder, read for the data it will meet.

    Raises:
        InputError: no such folder, or a class that is not known.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; give that of a decoder.")
    return load_decoder(folder, classes=classes) if classes and not is_diffusers_folder(folder) else folder
