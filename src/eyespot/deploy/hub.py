"""A student's folder onto the Hugging Face hub, where eyespot (`hf/`) and timm (`hf-hub:`) read it back."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, ModelCard, get_token
from huggingface_hub.errors import HfHubHTTPError
from huggingface_hub.utils import validate_repo_id

from eyespot.encoders import Encoder, load_encoder
from eyespot.encoders.kinds import code_needed
from eyespot.encoders.licenses import verdict
from eyespot.encoders.saved import ADAPTER_FILE, CONFIG_FILE, MODEL_FILE, find_model_folder

CARD_FILE = "README.md"
NO_NAME_YET = "USER/REPO"
"""Stands in a card's section on loading for the name that the repository will have."""


def push(
    run: str | Path,
    repo: str,
    *,
    private: bool = False,
    revision: str | None = None,
    message: str = "Upload student",
    say: Callable[[str], None] = print,
) -> str:
    """Uploads a student: weights, configuration, adapter heads and card, in one commit.

    The folder is checked first: complete, weights that fit, a card that the hub can read. The repository is made if it
    is not there. The card that is uploaded names it; the folder on disk is not touched.

    Args:
        run: a run's folder, or its student's.
        repo: name of the repository, USER/NAME, or NAME for one of your own.
        private: make a new repository private. An existing public one is refused then.
        revision: branch to commit to, made if it is not there; the main one if None.
        message: of the commit.
        say: shows remarks: the verdict on commercial use where a public student is not plainly free, and that a student
            of your own code needs that code wherever it is loaded.

    Returns:
        Address of the repository (of the branch, if one is named).

    Raises:
        FileNotFoundError: no finished student there.
        ValueError: a wrong name, weights that do not fit, or a card that the hub cannot read.
        PermissionError: no token, a wrong one, one that may not write there, or a public repository for `private`.
        ConnectionError: the hub cannot be reached, or fails. Nothing has been uploaded then.
    """
    place = find_model_folder(run)
    student = _checked(place)
    validate_repo_id(repo)
    api = HfApi(token=_token())
    with _explained(repo):
        address = api.create_repo(repo, private=private or None, exist_ok=True)
        name = address.repo_id
        is_private = bool(api.model_info(name).private)
        if private and not is_private:
            raise PermissionError(
                f"{name} is there already and is public: take another name, or make it private in its settings on the "
                "hub first. Nothing was uploaded."
            )
        judged = verdict([entry["licence"] for entry in student.lineage] or [student.license])
        if not is_private and not judged.commercial_use:
            say(f"{name} is public. {judged.sentence}")
        code = code_needed(student)
        if code:
            say(f"{name} can be loaded only where its code is, {code}: as run/FOLDER, once downloaded.")
        if revision is not None:
            api.create_branch(name, branch=revision, exist_ok=True)
        on_hub = api.list_repo_files(name, revision=revision)
        api.create_commit(name, _operations(place, name, on_hub), commit_message=message, revision=revision)
    return f"{address}/tree/{revision}" if revision else str(address)


def _checked(place: Path) -> Encoder:
    """The student of a folder that is ready for the hub."""
    missing = [name for name in (MODEL_FILE, CONFIG_FILE, CARD_FILE) if not (place / name).is_file()]
    if missing:
        raise FileNotFoundError(
            f"{place} is not a finished student: {', '.join(missing)} missing. Name a finished run's folder"
        )
    try:
        ModelCard.load(place / CARD_FILE)
    except Exception as error:
        raise ValueError(f"the header of {place / CARD_FILE} is not valid YAML: {error}") from error
    return load_encoder(f"run/{place}")


def _operations(place: Path, name: str, on_hub: list[str]) -> list[CommitOperationAdd | CommitOperationDelete]:
    """Everything of the folder that belongs to the student; adapters of an earlier one go if this one has none."""
    card = (place / CARD_FILE).read_text(encoding="utf-8").replace(NO_NAME_YET, name)
    files = [file for file in (MODEL_FILE, CONFIG_FILE, ADAPTER_FILE) if (place / file).is_file()]
    stale = [ADAPTER_FILE] if ADAPTER_FILE in on_hub and ADAPTER_FILE not in files else []
    return [
        CommitOperationAdd(CARD_FILE, card.encode()),
        *(CommitOperationAdd(file, place / file) for file in files),
        *(CommitOperationDelete(file) for file in stale),
    ]


def _token() -> str:
    token = get_token()
    if token is None:
        raise PermissionError(
            "there is no token for the Hugging Face hub: make one that may write, at "
            "https://huggingface.co/settings/tokens, then run `hf auth login`, or set HF_TOKEN"
        )
    return token


@contextmanager
def _explained(repo: str) -> Iterator[None]:
    """The hub's answers and the network's failures as errors that say what to do."""
    try:
        yield
    except HfHubHTTPError as error:
        code = error.response.status_code
        if code == 401:
            raise PermissionError(
                "the Hugging Face hub does not accept the token: run `hf auth login` with a valid one, or set HF_TOKEN"
            ) from error
        if code == 403:
            raise PermissionError(
                f"the token may not write to {repo}: take a name of your own, USER/NAME, and a token that may write"
            ) from error
        raise ConnectionError(f"the hub refused to take {repo}: {error}\nNothing was uploaded.") from error
    except (ValueError, TypeError, PermissionError):
        raise
    except Exception as error:  # whichever HTTP library huggingface_hub uses, its errors differ by version
        raise ConnectionError(
            f"the Hugging Face hub could not be reached ({type(error).__name__}: {error}). Nothing was uploaded; "
            "run the same command again"
        ) from error
