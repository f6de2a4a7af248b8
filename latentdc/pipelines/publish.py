"""Bundles, decoder folders and decoded data sets to the Hub, verified before they leave."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from latentdc.bundle import looks_like_bundle
from latentdc.bundle.card import borrowed, in_python
from latentdc.decoders.reference import load_decoder, read_card
from latentdc.errors import InputError
from latentdc.hub import upload
from latentdc.pipelines.export import CLASSES
from latentdc.pipelines.synthesis import DatasetSynthesisPipeline

PARQUET = "data/train-00000-of-00001.parquet"
"""Where readers of data sets look for the only part of the only split."""
_README = """\
---
library_name: diffusers
tags:
- latentdc
- decoder
{license}---

# {name}

A `{kind}` for latentdc: latents {latents} decode to images {shape}. The weights are safetensors and run nothing.
{whose}
```python
from latentdc import CondensationPipeline{imports}

pipe = CondensationPipeline.from_pretrained("{repository}"{classes})   # add @revision to pin a commit
```

{facts}
"""
_WHOSE = """
It is made of `{path}`, whose package must be installed and whose code runs. On the command line:
`latentdc condense --data … --decoder {repository} --own {path} --out …`.
"""
_DATASET = """\
---
task_categories:
- image-classification
tags:
- latentdc
- dataset-condensation
- synthetic
{license}{files}---

# {name}

{what}

{facts}
"""


def push_to_hub(
    folder: str | Path,
    repo_id: str,
    *,
    component_classes: Sequence[type[nn.Module]] = (),
    private: bool | None = None,
    commit_message: str | None = None,
    revision: str | None = None,
    token: str | bool | None = None,
) -> str:
    """Upload a bundle, or a decoder's folder; returns the address of the commit.

    Args:
        folder: a bundle, or a folder with ``config.json`` and safetensors; every checksum is verified first.
        repo_id: ``owner/name``; made if it is not there.
        component_classes: classes of a decoder or formation that latentdc does not have.
        private: whether a repository made now is private.
        commit_message: of the upload.
        revision: branch to upload to.
        token: access token with the right to write.

    Raises:
        InputError: the folder is neither, or the Hub refused.
        BundleError: a file is damaged.
    """
    root = Path(folder)
    if not root.exists():
        raise InputError(f"{root}: no such folder; give that of a bundle or a decoder on this machine.")
    if looks_like_bundle(root):
        message = commit_message or "Upload a condensed data set"
        pipe = DatasetSynthesisPipeline.from_pretrained(root, component_classes=component_classes)
        return pipe.push_to_hub(repo_id, private=private, commit_message=message, revision=revision, token=token)
    if not any((root / name).is_file() for name in ("config.json", "model_index.json")):
        raise InputError(
            f"{root}: neither a bundle (no model_index.json) nor a decoder (no config.json or model_index.json); give "
            "the folder that condensing or `latentdc fit` wrote, or say that it is a data set (--dataset)."
        )
    decoder: Any = load_decoder(root, classes=component_classes)
    with tempfile.TemporaryDirectory() as parent:
        copy = Path(parent, "decoder")
        shutil.copytree(root, copy, ignore=shutil.ignore_patterns("*.py", "*.bin", "*.pt", "*.pth", "*.pkl", ".*"))
        if not (copy / "README.md").is_file():
            (copy / "README.md").write_text(_readme(repo_id, decoder, read_card(root)), encoding="utf-8")
        message = commit_message or "Upload a decoder"
        return upload(copy, repo_id, private=private, commit_message=message, revision=revision, token=token)


def push_dataset_to_hub(
    source: str | Path | DatasetSynthesisPipeline,
    repo_id: str,
    *,
    component_classes: Sequence[type[nn.Module]] = (),
    images_per_class: int | None = None,
    private: bool | None = None,
    commit_message: str = "Upload the images of a condensed data set",
    revision: str | None = None,
    token: str | bool | None = None,
) -> str:
    """Upload images as a data set that ``datasets.load_dataset("owner/name")`` reads; returns the commit's address.

    Args:
        source: a bundle (or a pipeline made of one), which is decoded to parquet; or what ``latentdc decode`` wrote: a
            parquet file, class folders with ``metadata.jsonl``, WebDataset shards with ``classes.json``.
        repo_id: ``owner/name``; made if it is not there.
        component_classes: classes of a bundle's decoder or formation that latentdc does not have.
        images_per_class: of a bundle, fewer images than stored.
        private: whether a repository made now is private.
        commit_message: of the upload.
        revision: branch to upload to.
        token: access token with the right to write.

    Raises:
        InputError: it is none of these, or the Hub refused.
        BundleError: a bundle that is damaged.
        MissingExtraError: pyarrow is not installed, which writing parquet needs.
    """
    with tempfile.TemporaryDirectory() as parent:
        copy = Path(parent, "dataset")
        pipe = source if isinstance(source, DatasetSynthesisPipeline) else None
        if not isinstance(source, DatasetSynthesisPipeline) and looks_like_bundle(source):
            pipe = DatasetSynthesisPipeline.from_pretrained(source, component_classes=component_classes)
        if pipe is not None:
            pipe.to_parquet(copy / PARQUET, images_per_class=images_per_class)
            card = _dataset_card(repo_id, pipe)
        else:
            _copied(Path(str(source)), copy, images_per_class)
            card = _dataset_card(repo_id, None)
        if not (copy / "README.md").is_file():
            (copy / "README.md").write_text(card, encoding="utf-8")
        return upload(
            copy,
            repo_id,
            dataset=True,
            private=private,
            commit_message=commit_message,
            revision=revision,
            token=token,
        )


def _copied(source: Path, copy: Path, images_per_class: int | None) -> None:
    """A data set on disk, laid out as its readers expect it.

    Raises:
        InputError: it is none that latentdc writes, or only a part of it is asked for.
    """
    if images_per_class is not None:
        raise InputError(f"{source}: images_per_class belongs to a bundle; decode fewer images, or leave it out.")
    if source.is_file() and source.suffix == ".parquet":
        (copy / PARQUET).parent.mkdir(parents=True)
        shutil.copyfile(source, copy / PARQUET)
    elif (source / "metadata.jsonl").is_file() or (source / CLASSES).is_file():
        shutil.copytree(source, copy, ignore=shutil.ignore_patterns("*.py", "*.pt", "*.pth", "*.pkl", ".*"))
    else:
        raise InputError(
            f"{source}: no data set to upload; give a bundle, or what `latentdc decode` wrote with --format folder, "
            "parquet or webdataset."
        )


def _dataset_card(repo_id: str, pipe: DatasetSynthesisPipeline | None) -> str:
    """The README.md of a data set: what it is, and for a bundle where it came from."""
    files, facts, licence = "", "", None
    what = "Images that were decoded from a condensed data set, made with latentdc."
    if pipe is not None:
        files = "configs:\n- config_name: default\n  data_files:\n  - split: train\n    path: data/train-*.parquet\n"
        known: Mapping[str, Any] = {} if pipe.bundle is None else pipe.bundle.provenance
        licence = known.get("license")
        data = known.get("data", "a data set")
        what = f"{data}, condensed with latentdc and decoded: images to train on in place of the real ones."
        plain = {name: value for name, value in known.items() if isinstance(value, (str, int, float))}
        facts = "\n".join(f"- {name}: {value}" for name, value in plain.items() if "\n" not in str(value))
    return _DATASET.format(
        license=f"license: {json.dumps(licence)}\n" if licence else "",
        files=files,
        name=repo_id.split("/")[-1],
        what=what,
        facts=facts,
    )


def _readme(repo_id: str, decoder: Any, card: dict[str, Any]) -> str:
    plain = {name: value for name, value in card.items() if isinstance(value, (str, int, float))}
    licence, own = plain.get("license"), borrowed(decoder)
    imports, names = in_python(own)
    return _README.format(
        whose="".join(_WHOSE.format(path=path, repository=repo_id) for path in own),
        imports=imports,
        classes=f", component_classes=[{names}]" if names else "",
        license=f"license: {json.dumps(licence)}\n" if licence else "",
        repository=repo_id,
        name=repo_id.split("/")[-1],
        kind=type(decoder).__name__,
        latents=", ".join(f"{name} {tuple(shape)}" for name, shape in decoder.latent_shapes.items()),
        shape=tuple(decoder.image_shape),
        facts="\n".join(f"- {name}: {value}" for name, value in plain.items()),
    )
