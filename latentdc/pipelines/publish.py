"""Bundles and decoder folders to the Hub, verified before they leave."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

from latentdc.decoders.reference import load_decoder, read_card
from latentdc.errors import InputError
from latentdc.hub import upload
from latentdc.pipelines.synthesis import DatasetSynthesisPipeline

_README = """\
---
library_name: diffusers
tags:
- latentdc
- decoder
{license}---

# {name}

A `{kind}` for latentdc: latents {latents} decode to images {shape}. The weights are safetensors and run nothing.

```python
from latentdc import CondensationPipeline

pipe = CondensationPipeline.from_pretrained("owner/name")   # this repository; add @revision to pin a commit
```

{facts}
"""


def push_to_hub(
    folder: str | Path,
    repo_id: str,
    *,
    private: bool | None = None,
    commit_message: str | None = None,
    revision: str | None = None,
    token: str | bool | None = None,
) -> str:
    """Upload a bundle, or a decoder's folder; returns the address of the commit.

    Args:
        folder: a bundle, or a folder with ``config.json`` and safetensors; every checksum is verified first.
        repo_id: ``owner/name``; made if it is not there.
        private: whether a repository made now is private.
        commit_message: of the upload.
        revision: branch to upload to.
        token: access token with the right to write.

    Raises:
        InputError: the folder is neither, or the Hub refused.
        BundleError: a file is damaged.
    """
    root = Path(folder)
    if (root / "model_index.json").is_file():
        message = commit_message or "Upload a condensed data set"
        pipe = DatasetSynthesisPipeline.from_pretrained(root)
        return pipe.push_to_hub(repo_id, private=private, commit_message=message, revision=revision, token=token)
    if not (root / "config.json").is_file():
        raise InputError(
            f"{root}: neither a bundle (no model_index.json) nor a decoder (no config.json); give the folder that "
            "condensing or `latentdc fit` wrote."
        )
    decoder: Any = load_decoder(root)
    with tempfile.TemporaryDirectory() as parent:
        copy = Path(parent, "decoder")
        shutil.copytree(root, copy, ignore=shutil.ignore_patterns("*.py", "*.bin", "*.pt", "*.pth", "*.pkl", ".*"))
        if not (copy / "README.md").is_file():
            (copy / "README.md").write_text(_readme(repo_id, decoder, read_card(root)), encoding="utf-8")
        message = commit_message or "Upload a decoder"
        return upload(copy, repo_id, private=private, commit_message=message, revision=revision, token=token)


def _readme(repo_id: str, decoder: Any, card: dict[str, Any]) -> str:
    plain = {name: value for name, value in card.items() if isinstance(value, (str, int, float))}
    licence = plain.get("license")
    return _README.format(
        license=f"license: {licence}\n" if licence else "",
        name=repo_id.split("/")[-1],
        kind=type(decoder).__name__,
        latents=", ".join(f"{name} {tuple(shape)}" for name, shape in decoder.latent_shapes.items()),
        shape=tuple(decoder.image_shape),
        facts="\n".join(f"- {name}: {value}" for name, value in plain.items()),
    )
