"""Files from the Hugging Face hub: downloaded once, then read from the cache."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from bench.core.errors import UserError
from bench.core.files import space_checked

VARIANTS = ("*.fp16[.-]*", "*.bf16[.-]*", "*.non_ema.*")
"""Files with other weights of a network than those that diffusers loads by default."""

HUB_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")


def hub_folder(
    repository: str,
    patterns: Sequence[str],
    *,
    kind: Literal["model", "dataset"],
    complaint: str,
    ignore: Sequence[str] = (),
    otherwise: str = "give a local copy",
) -> Path:
    """The local folder with the files of a repository that match some patterns; offline, its cached copy.

    Args:
        repository: ``owner/name``.
        patterns: patterns of the files; nothing else is downloaded.
        kind: kind of repository.
        complaint: how the error begins, for example ``prompts 'x' cannot be downloaded from the hub``.
        ignore: patterns of files to leave out.
        otherwise: end of the error for a hub that cannot be reached: what to do without a connection.

    Raises:
        UserError: the repository is gated, missing or cannot be reached, and the cache has no complete copy; or the
            download was interrupted, or the disk is full.
    """
    from huggingface_hub import constants, errors, snapshot_download

    try:
        with space_checked(Path(constants.HF_HUB_CACHE)):
            return Path(
                snapshot_download(
                    repository, repo_type=kind, allow_patterns=list(patterns), ignore_patterns=list(ignore) or None
                )
            )
    except errors.GatedRepoError as error:
        raise UserError(
            f"{complaint}: {repository} is gated; accept its terms on the hub's page and log in with `hf auth login`"
        ) from error
    except (errors.RepositoryNotFoundError, errors.HFValidationError) as error:
        raise UserError(
            f"{complaint}: the hub has no {kind} {repository}, or it is private; check the name, and log in with "
            "`hf auth login` if it is private"
        ) from error
    except errors.LocalEntryNotFoundError as error:
        why = "HF_HUB_OFFLINE is set" if constants.HF_HUB_OFFLINE else "the hub cannot be reached"
        raise UserError(
            f"{complaint}: {why} and the cache has no complete copy of {repository}; connect, or {otherwise}"
        ) from error
    except errors.HfHubHTTPError as error:
        raise UserError(f"{complaint}: the hub answers {error.response.status_code}; try again later") from error
    # HTTPError is that of the HTTP library, which differs between versions of huggingface_hub; RuntimeError is hf_xet's.
    except (errors.HTTPError, OSError, RuntimeError) as error:  # type: ignore[attr-defined]
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise UserError(
            f"{complaint}: the download of {repository} was interrupted ({reason}); check the connection and that "
            f"{constants.HF_HUB_CACHE} can be written, then run the same command again"
        ) from error


def hub_model(repository: str, patterns: Sequence[str], *, complaint: str, ignore: Sequence[str] = ()) -> Path:
    """As `hub_folder` for a model, without variants of weights, except in folders whose weights are all variants.

    Args:
        repository: ``owner/name``.
        patterns: patterns of the files; each names files of one folder.
        complaint: see `hub_folder`.
        ignore: see `hub_folder`.

    Raises:
        UserError: as `hub_folder`.
    """
    folder = hub_folder(repository, patterns, kind="model", complaint=complaint, ignore=[*ignore, *VARIANTS])
    bare = {pattern.rpartition("/")[0] for pattern in patterns if _finds_no_weights(folder, pattern)}
    if not bare:
        return folder
    wanted = [pattern for pattern in patterns if pattern.rpartition("/")[0] in bare]
    return hub_folder(repository, wanted, kind="model", complaint=complaint, ignore=ignore)


def _finds_no_weights(folder: Path, pattern: str) -> bool:
    place, _, files = pattern.rpartition("/")
    # Tokenizers and schedulers have no config.json and no weights in any variant.
    may_have = place == "" or (folder / place / "config.json").is_file()
    return files == "*.safetensors" and may_have and not any(folder.glob(pattern))


def push_to_hub(repository: str, files: Mapping[str, Path], message: str) -> str:
    """Upload files to a model repository in one commit; makes the repository, a private one, if there is none.

    Args:
        repository: ``owner/name``.
        files: by their path in the repository.
        message: of the commit.

    Returns:
        The address of the commit.

    Raises:
        UserError: the name is not allowed, the hub refuses or cannot be reached, or a token is missing.
    """
    from huggingface_hub import CommitOperationAdd, HfApi, constants, errors

    complaint = f"{repository} cannot be uploaded to the hub"
    if not HUB_ID.fullmatch(repository):
        raise UserError(f"--push {repository!r} is not of the form owner/name")
    if constants.HF_HUB_OFFLINE:
        raise UserError(f"{complaint}: HF_HUB_OFFLINE is set; unset it")
    try:
        api = HfApi()
        api.create_repo(repository, private=True, exist_ok=True)
        operations = [
            CommitOperationAdd(path_in_repo=name, path_or_fileobj=path) for name, path in sorted(files.items())
        ]
        return str(api.create_commit(repository, operations, commit_message=message).commit_url)
    except errors.HfHubHTTPError as error:
        code = error.response.status_code
        what = (
            "log in with `hf auth login` as somebody who may write there" if code in {401, 403} else "try again later"
        )
        raise UserError(f"{complaint}: the hub answers {code}; {what}") from error
    except (errors.HTTPError, errors.HFValidationError, OSError, RuntimeError) as error:  # type: ignore[attr-defined]
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise UserError(
            f"{complaint}: {reason}; check the name and the connection, then run the same command again"
        ) from error
