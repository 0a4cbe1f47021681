"""Send a folder to the Hugging Face Hub."""

import re
from pathlib import Path

from fpt.errors import UserError, reason


def check(repo: str) -> None:
    """Refuse what cannot be sent to before anything is written.

    Raises:
        UserError: no name of a repository, or nobody is logged in.
    """
    from huggingface_hub import get_token

    if not re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", repo):
        raise UserError(f"push-to-hub={repo}: expected OWNER/NAME")
    if get_token() is None:
        raise UserError(f"push-to-hub={repo}: not logged in; run 'hf auth login' or set HF_TOKEN, or leave it out")


def push(folder: Path, repo: str) -> str:
    """Send a folder to a model repository, made if need be; returns its address.

    Raises:
        UserError: the Hub cannot be reached, or refuses.
    """
    from huggingface_hub import HfApi

    hub = HfApi()
    try:
        address = hub.create_repo(repo, exist_ok=True)
        hub.upload_folder(repo_id=repo, folder_path=folder, commit_message="Add what fpt export wrote")
    except Exception as error:  # the Hub client raises httpx, OS and its own errors
        raise UserError(
            f"push-to-hub={repo}: failed ({reason(error)}); {folder} is whole, and 'hf upload {repo} {folder}' sends it"
        ) from None
    return str(address)
