"""The Hub: repositories of bundles and decoders, fetched by name and revision, and uploaded; no code is fetched."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from latentdc.errors import InputError, first_line

if TYPE_CHECKING:
    from huggingface_hub import HfApi

WANTED = ("*.json", "*.safetensors", "*.md")
"""What is downloaded: weights that run nothing, settings, cards. Code, pickles and pictures stay where they are."""

_OF_MODELS = ("*.py", "*.safetensors", "*.json", "bank/*", "decoder/*", "formation/*")
_OF_DATASETS = ("*.parquet", "*.tar", "*.png", "*.json", "*.jsonl")
_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*(@[\w./-]+)?")


class Repository(NamedTuple):
    """A repository on the Hub."""

    repo_id: str
    """``owner/name``."""
    revision: str | None = None
    """Branch, tag or commit; None for the default branch."""


def is_repository(name: str) -> bool:
    """Whether a text could name a repository: ``owner/name``, perhaps with ``@revision``."""
    return _NAME.fullmatch(name) is not None


def repository_of(name: str, revision: str | None = None, *, what: str = "repository") -> Repository:
    """``owner/name`` or ``owner/name@revision`` taken apart.

    Args:
        name: the text.
        revision: the same said elsewhere; at most one of the two.
        what: what is looked for, for messages.

    Raises:
        InputError: it is no such name, or the revision is given twice.
    """
    if not is_repository(name):
        raise InputError(
            f'"{name}" is no folder of a {what}, and not an owner/name on the Hub (perhaps with @revision). Check the '
            f"path (a bundle is what --out wrote).{_apart(name) if what == 'decoder' else ''}"
        )
    repo_id, _, pinned = name.partition("@")
    if pinned and revision is not None and revision != pinned:
        raise InputError(f'"{name}" and revision = "{revision}": give the revision once.')
    return Repository(repo_id, pinned or revision)


def _apart(name: str) -> str:
    """How a folder in a repository is named, if that seems to be meant."""
    *top, inside = name.split("/", 2)
    if len(top) < 2 or not inside or not is_repository("/".join(top)):
        return ""
    told = f'"{"/".join(top)}" with --subfolder {inside}, in Python subfolder="{inside}"'
    return f" A folder in a repository on the Hub is given apart: {told}."


def _api(token: str | bool | None) -> HfApi:
    from huggingface_hub import HfApi

    # The library reads the address once, when it is first imported; who sets it later means it too.
    return HfApi(endpoint=os.environ.get("HF_ENDPOINT"), token=token)


def _failures() -> tuple[type[Exception], ...]:
    """What the Hub's client raises when the Hub does not answer, or not as was hoped."""
    from huggingface_hub import errors

    # Its base of all errors of transport, which one of two packages defines, depending on the client's version.
    transport: type[Exception] = errors.HTTPError  # type: ignore[attr-defined]
    return (transport, errors.HFValidationError, errors.OfflineModeIsEnabled, OSError)


def _reason(error: Exception) -> str:
    said = first_line(error)
    return said if said.endswith((".", "!", "?")) else f"{said}."


def fetch(
    repository: str,
    what: str,
    *,
    revision: str | None = None,
    cache_dir: str | Path | None = None,
    token: str | bool | None = None,
    local_files_only: bool = False,
    force_download: bool = False,
    subfolder: str = "",
) -> Path:
    """Download the weights, settings and cards of a repository and return its folder, named by the commit.

    Nothing that could run is downloaded, so nothing of it can be run.

    Args:
        repository: ``owner/name`` or ``owner/name@revision``.
        what: what is looked for, for messages: ``"bundle"`` or ``"decoder"``.
        revision: branch, tag or commit, if the name does not say.
        cache_dir: where downloads are kept.
        token: access token for private repositories.
        local_files_only: look at the cache only.
        force_download: download again.
        subfolder: of a whole pipeline, the only folder to download.

    Raises:
        InputError: the name is no ``owner/name``, the Hub did not give it, or it has no such folder.
    """
    wanted = repository_of(repository, revision, what=what)
    try:
        root = Path(
            _api(token).snapshot_download(
                wanted.repo_id,
                revision=wanted.revision,
                cache_dir=cache_dir,
                local_files_only=local_files_only,
                force_download=force_download,
                allow_patterns=[f"{subfolder}/{pattern}" if subfolder else pattern for pattern in WANTED],
            )
        )
    except _failures() as error:
        raise InputError(
            f'"{repository}" is no folder of a {what}, and the Hub did not give it: {_reason(error)} Check the path, '
            "the name and the revision."
        ) from None
    if not (root / subfolder).is_dir():
        raise InputError(f'"{repository}": has no folder "{subfolder}" with weights or settings. Check the subfolder.')
    return root


def upload(
    folder: Path,
    repository: str,
    *,
    dataset: bool = False,
    private: bool | None = None,
    commit_message: str,
    revision: str | None = None,
    token: str | bool | None = None,
) -> str:
    """Upload a folder as a repository, which is made if it is not there; returns the address of the commit.

    Args:
        folder: what to upload, all of it.
        repository: ``owner/name``, or ``name`` for the token's owner.
        dataset: whether it is a repository of a data set, rather than of a model.
        private: whether a repository made now is private.
        commit_message: of the upload.
        revision: branch to upload to.
        token: access token with the right to write.

    Raises:
        InputError: the name cannot be one, or the Hub refused or was not reached.
    """
    api, kind = _api(token), "dataset" if dataset else "model"
    try:
        made = api.create_repo(repository, private=private, exist_ok=True, repo_type=kind)
        # Of an older upload in the repository nothing may stay: code carries a hash in its name, loading refuses files
        # that no manifest lists, and a data set's readers take every shard they find.
        commit = api.upload_folder(
            repo_id=made.repo_id,
            repo_type=kind,
            folder_path=folder,
            commit_message=commit_message,
            revision=revision,
            delete_patterns=list(_OF_DATASETS if dataset else _OF_MODELS),
        )
    except _failures() as error:
        raise InputError(
            f'"{repository}": the Hub did not take it: {_reason(error)} Check the connection, the name and the token.'
        ) from None
    return str(commit.commit_url)
