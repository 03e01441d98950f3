"""Download of dataset repositories of the Hugging Face hub, into its cache or from there."""

from collections.abc import Sequence
from pathlib import Path

from ssltransfer.errors import InputError, first_line
from ssltransfer.hub import PREFIX, HubDataset


def fetch_hub_dataset(dataset: HubDataset, patterns: Sequence[str] | None = None, cached: bool = False) -> Path:
    """Return the folder of a repository's files, downloaded where the cache of the hub lacks them.

    Parameters
    ----------
    dataset : HubDataset
    patterns : sequence of str, optional
        Files that are needed, such as ``data/*.parquet``; all by default.
    cached : bool
        Take what is in the cache alone.

    Raises
    ------
    InputError
        The repository cannot be reached or read, or is not in the cache.
    """
    from huggingface_hub import snapshot_download

    try:
        folder = snapshot_download(
            dataset.repository,
            repo_type="dataset",
            revision=dataset.revision,
            allow_patterns=None if patterns is None else list(patterns),
            local_files_only=cached,
        )
    except Exception as error:  # of the network, of the hub, or of a login
        raise InputError(
            f"{PREFIX}{dataset.repository}@{dataset.revision}: cannot be fetched ({first_line(error)}); check the name "
            "and the network, or accept the terms on its page and log in with: hf auth login"
        ) from None
    return Path(folder)
