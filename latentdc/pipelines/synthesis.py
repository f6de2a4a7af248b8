"""From a bundle to images on demand, with the manners of a Hugging Face pipeline."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from latentdc.bundle import PICTURE, Bundle, load_bundle, recovered, save_bundle
from latentdc.errors import InputError
from latentdc.hub import fetch, upload
from latentdc.pipelines import export
from latentdc.portable.pipeline import OUTPUT_TYPES, DatasetSynthesisBundle, DatasetSynthesisOutput
from latentdc.portable.pipeline import export as as_type

__all__ = ["DatasetSynthesisOutput", "DatasetSynthesisPipeline"]


class DatasetSynthesisPipeline(DatasetSynthesisBundle):
    """Decode a condensed data set: as PIL images, tensors, batches, class folders or parquet.

    It is the pipeline that travels inside the bundle, with loading that verifies every checksum and runs no remote
    code, and with exports. ``.to(device)``, ``.device``, ``.components`` and ``set_progress_bar_config`` are those of
    any diffusers pipeline.

        pipe = DatasetSynthesisPipeline.from_pretrained("runs/first")
        images = pipe(images_per_class=1, output_type="pil").images
    """

    _bundle: Bundle | None = None
    """What was loaded: the components and what is known of them."""

    @classmethod
    def from_pretrained(  # type: ignore[override]  # the base class takes any keyword; these are the ones that act
        cls,
        pretrained_model_name_or_path: str | Path,
        *,
        dtype: torch.dtype | None = None,
        component_classes: Sequence[type[Any]] = (),
        decoder_folder: str | Path | None = None,
        revision: str | None = None,
        cache_dir: str | Path | None = None,
        token: str | bool | None = None,
        local_files_only: bool = False,
        force_download: bool = False,
    ) -> DatasetSynthesisPipeline:
        """Load a bundle from a folder, or from a repository on the Hub.

        Args:
            pretrained_model_name_or_path: a bundle folder, or ``owner/name`` or
                ``owner/name@revision`` on the Hub.
            dtype: floating type of the decoder; latents are kept as stored.
            component_classes: classes of a decoder or formation that latentdc does not have.
            decoder_folder: a copy of the decoder of a bundle that names it instead of carrying it.
            revision: branch, tag or commit on the Hub.
            cache_dir: where downloads are kept.
            token: access token for private repositories.
            local_files_only: look at the cache only.
            force_download: download again.

        Raises:
            InputError: neither a folder nor a repository that can be reached.
            BundleError: a damaged, incomplete or unknown bundle; the message says which file.
        """
        folder = recovered(pretrained_model_name_or_path)
        if not folder.is_dir():
            folder = fetch(
                str(pretrained_model_name_or_path),
                "bundle",
                revision=revision,
                cache_dir=cache_dir,
                token=token,
                local_files_only=local_files_only,
                force_download=force_download,
            )
        bundle = load_bundle(folder, classes=component_classes, decoder_folder=decoder_folder)
        pipe = cls(bundle.decoder, bundle.bank, bundle.formation, class_names=list(bundle.spec.class_names))
        pipe._bundle = bundle
        if dtype is not None:
            pipe.decoder.to(dtype)
        return pipe

    def save_pretrained(self, save_directory: str | Path) -> None:  # type: ignore[override]
        """Write the bundle it was loaded from, with the components as they are now, to another folder.

        Unlike the method of other pipelines it takes nothing but the folder: a bundle has one form, which
        ``from_pretrained`` verifies.

        Raises:
            InputError: it was not loaded from a bundle, or the place is taken by something that is no bundle.
        """
        if self._bundle is None:
            raise InputError(
                "this pipeline was put together from components, and a bundle also says what data they stand for: "
                "write it with latentdc.save_bundle(folder, bank=…, decoder=…, spec=…, provenance=…)."
            )
        was = self._bundle
        picture = None if was.path is None else was.path / PICTURE
        save_bundle(
            save_directory,
            bank=self.bank,
            decoder=self.decoder,
            formation=self.formation,
            spec=was.spec,
            provenance=was.provenance,
            hints=was.hints,
            report=was.report,
            decoder_public=was.decoder_public,
            decoder_reference=was.decoder_reference,
            raw_set_bytes=was.raw_set_bytes,
            picture=picture if picture is not None and picture.is_file() else None,
        )

    def push_to_hub(  # type: ignore[override]  # the keywords that act, as in from_pretrained
        self,
        repo_id: str,
        *,
        private: bool | None = None,
        commit_message: str = "Upload a condensed data set",
        revision: str | None = None,
        token: str | bool | None = None,
    ) -> str:
        """Upload the bundle to the Hub, made as ``save_pretrained`` makes it; returns the address of the commit.

        Args:
            repo_id: ``owner/name``; made if it is not there.
            private: whether a repository made now is private.
            commit_message: of the upload.
            revision: branch to upload to.
            token: access token with the right to write.

        Raises:
            InputError: it was not loaded from a bundle, or the Hub refused.
        """
        with tempfile.TemporaryDirectory() as parent:
            self.save_pretrained(Path(parent, "bundle"))
            return upload(
                Path(parent, "bundle"),
                repo_id,
                private=private,
                commit_message=commit_message,
                revision=revision,
                token=token,
            )

    @property
    def bundle(self) -> Bundle | None:
        """The bundle it was loaded from, with its provenance; None for one put together from components."""
        return self._bundle

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the k classes."""
        return tuple(self.config.class_names or map(str, range(self.bank.num_classes)))

    def plan(self, images_per_class: int | None, classes: Sequence[int | str] | None) -> tuple[Tensor, Tensor]:
        """Stored rows ``(m,)`` to decode and how many images of each to keep ``(m,)``.

        Raises:
            InputError: an unknown class, or more images than stored; the message names the maximum.
        """
        try:
            return super().plan(images_per_class, classes)
        except ValueError as error:
            raise InputError(str(error)) from None

    @torch.no_grad()
    def iter_batches(
        self,
        batch_size: int = 64,
        *,
        images_per_class: int | None = None,
        classes: Sequence[int | str] | None = None,
        output_type: str = "pt",
    ) -> Iterator[DatasetSynthesisOutput]:
        """The same images as ``__call__``, decoded only when the next batch is asked for.

        Args:
            batch_size: stored rows per batch; a formation makes several images of each row.
            images_per_class: images of each class; None for all stored.
            classes: class indices or names; None for all.
            output_type: ``"pt"``, ``"np"`` or ``"pil"``.

        Raises:
            InputError: an unknown class or output type, or more images than stored.
        """
        if output_type not in OUTPUT_TYPES[:3] or batch_size < 1:
            known = ", ".join(OUTPUT_TYPES[:3])
            raise InputError(
                f"output_type = {output_type!r}, batch_size = {batch_size}: "
                f"output_type is one of {known}; batch_size at least 1."
            )
        rows, keep = self.plan(images_per_class, classes)
        with self.progress_bar(total=len(rows)) as bar:
            for start in range(0, len(rows), batch_size):
                part, kept = rows[start : start + batch_size], keep[start : start + batch_size]
                images: Any = as_type(next(self.decode_rows(part, kept, batch_size)), output_type)
                source = part.repeat_interleave(kept)
                labels = self.bank.owner[source] if self.bank.soft is None else self.bank.y[source]
                weights = None if self.bank.weight is None else self.bank.w[source]
                yield DatasetSynthesisOutput(images=images, labels=labels, weights=weights)
                bar.update(len(part))

    def to_folder(
        self,
        folder: str | Path,
        *,
        images_per_class: int | None = None,
        classes: Sequence[int | str] | None = None,
        batch_size: int = 64,
    ) -> Path:
        """Write class folders of PNG files and ``metadata.jsonl``; see ``latentdc.pipelines.export``.

        Raises:
            InputError: the folder is not empty, or the request does not fit the bundle.
        """
        batches = self.iter_batches(batch_size, images_per_class=images_per_class, classes=classes, output_type="pil")
        return export.write_folder(Path(folder), batches, self.class_names)

    def to_webdataset(
        self,
        folder: str | Path,
        *,
        images_per_class: int | None = None,
        classes: Sequence[int | str] | None = None,
        batch_size: int = 64,
        images_per_shard: int = export.IMAGES_PER_SHARD,
    ) -> Path:
        """Write tar shards in WebDataset's convention and ``classes.json``; see ``latentdc.pipelines.export``.

        Raises:
            InputError: the folder is not empty, or the request does not fit the bundle.
        """
        batches = self.iter_batches(batch_size, images_per_class=images_per_class, classes=classes, output_type="pil")
        return export.write_webdataset(Path(folder), batches, self.class_names, images_per_shard=images_per_shard)

    def to_parquet(
        self,
        path: str | Path,
        *,
        images_per_class: int | None = None,
        classes: Sequence[int | str] | None = None,
        batch_size: int = 64,
    ) -> Path:
        """Write one parquet file that ``datasets.load_dataset`` reads with image and label columns.

        Raises:
            MissingExtraError: pyarrow is not installed; the message names the extra.
            InputError: the request does not fit the bundle.
        """
        batches = self.iter_batches(batch_size, images_per_class=images_per_class, classes=classes, output_type="pil")
        return export.write_parquet(Path(path), batches, self.class_names)

    def to_tensors(
        self,
        path: str | Path,
        *,
        images_per_class: int | None = None,
        classes: Sequence[int | str] | None = None,
        batch_size: int = 64,
    ) -> Path:
        """Write one ``.pt`` file with uint8 ``images`` ``(n, c, h, w)``, ``labels`` and ``class_names``.

        Raises:
            InputError: the request does not fit the bundle.
        """
        batches = self.iter_batches(batch_size, images_per_class=images_per_class, classes=classes)
        return export.write_tensors(Path(path), batches, self.class_names)
