"""Folders from the Hub: bundles and decoders that are not on this machine yet."""

from __future__ import annotations

from pathlib import Path

from latentdc.errors import InputError


def fetch(
    repository: str,
    what: str,
    *,
    revision: str | None = None,
    cache_dir: str | Path | None = None,
    token: str | bool | None = None,
    local_files_only: bool = False,
    force_download: bool = False,
) -> Path:
    """Download a repository and return its folder; nothing in it is run.

    Args:
        repository: ``owner/name``.
        what: what is looked for, for messages: ``"bundle"`` or ``"decoder"``.
        revision: branch, tag or commit.
        cache_dir: where downloads are kept.
        token: access token for private repositories.
        local_files_only: look at the cache only.
        force_download: download again.

    Raises:
        InputError: the name is no ``owner/name``, or the Hub did not give it.
    """
    missing = f'"{repository}" is no folder of a {what}'
    if repository.startswith((".", "/", "~")) or repository.count("/") != 1:
        raise InputError(f"{missing}, and not an owner/name on the Hub. Check the path (a bundle is what --out wrote).")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(
            snapshot_download(
                repository,
                revision=revision,
                cache_dir=cache_dir,
                token=token,
                local_files_only=local_files_only,
                force_download=force_download,
            )
        )
    except (HFValidationError, HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"{missing}, and the Hub did not give it: {reason} Check the path or the name.") from None


def upload(
    folder: Path,
    repository: str,
    *,
    private: bool | None = None,
    commit_message: str,
    revision: str | None = None,
    token: str | bool | None = None,
) -> str:
    """Upload a folder as a repository, which is made if it is not there; returns the address of the commit.

    Args:
        folder: what to upload, all of it.
        repository: ``owner/name``.
        private: whether a repository made now is private.
        commit_message: of the upload.
        revision: branch to upload to.
        token: access token with the right to write.

    Raises:
        InputError: the name cannot be one, or the Hub refused.
    """
    from huggingface_hub import create_repo, upload_folder
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    try:
        made = create_repo(repository, private=private, token=token, exist_ok=True)
        # Of an older bundle in the repository nothing may stay: code carries a hash in its name, and loading refuses
        # files that no manifest lists.
        commit = upload_folder(
            repo_id=made.repo_id,
            folder_path=folder,
            commit_message=commit_message,
            revision=revision,
            token=token,
            delete_patterns=["*.py", "*.safetensors", "*.json", "bank/*", "decoder/*", "formation/*"],
        )
    except (HFValidationError, HfHubHTTPError, OSError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f'"{repository}": the Hub did not take it: {reason} Check the name and the token.') from None
    return str(commit.commit_url)
