"""A condensed data set as a folder: a diffusers pipeline with code beside the weights, checksums and provenance."""

from __future__ import annotations

from latentdc.bundle.contents import Bundle
from latentdc.bundle.layout import PICTURE, looks_like_bundle, recovered
from latentdc.bundle.loading import load_bundle
from latentdc.bundle.references import reference
from latentdc.bundle.saving import attach_report, check_savable, requantise, save_bundle
from latentdc.bundle.storage import Storage, shared_bytes, storage_of

__all__ = [
    "PICTURE",
    "Bundle",
    "Storage",
    "attach_report",
    "check_savable",
    "load_bundle",
    "looks_like_bundle",
    "recovered",
    "reference",
    "requantise",
    "save_bundle",
    "shared_bytes",
    "storage_of",
]
