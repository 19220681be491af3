"""A trained scorer goes to the Hub, when and where its owner says."""

from __future__ import annotations

from pathlib import Path

from palate.errors import RunError
from palate.evaluation.trained.describe import DATA_AUDIT, MEASURED
from palate.runs import RECORD

# The record and the audit name files and prompts of the owner's data: they stay here.
_STAYS = (RECORD, DATA_AUDIT, MEASURED, "logs/*", "material/*", "state.pt", ".*")


def push_trained(run: Path, repo: str, *, public: bool = False) -> str:
    """Upload a scorer's weights, card and pictures to a repository of the Hub; give its address.

    The repository is made if it is not there, private unless ``public``. Whoever is logged in (``hf auth
    login``, or ``HF_TOKEN``) uploads. Nothing of the choices is uploaded but the counts and findings in the card.
    Raises RunError in one sentence where the Hub refuses or cannot be reached; the folder stays as it is.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import httpx  # type: ignore[attr-defined]

    try:
        api = HfApi()
        address = api.create_repo(repo, private=not public, exist_ok=True)
        api.upload_folder(
            repo_id=address.repo_id,
            folder_path=run,
            ignore_patterns=list(_STAYS),
            commit_message="A scorer taught from people's choices",
        )
    except (OSError, httpx.HTTPError, HFValidationError) as error:
        reason = str(error.__cause__ or error).strip().split("\n")[0]
        raise RunError(f"{run}: could not be pushed to the Hub as {repo}: {reason}") from error
    return str(address)
