"""A run on the hub: its exported folder, model card included."""

from __future__ import annotations

import re
from pathlib import Path

REPOSITORY = re.compile(r"\w[\w.-]{0,95}/\w[\w.-]{0,95}")


def check_name(name: str) -> None:
    """Find that `name` is one of the hub's; ValueError, one line, where it is not."""
    if not REPOSITORY.fullmatch(name) or ".." in name or "--" in name:
        raise ValueError(f"{name!r} names no repository; allowed: OWNER/NAME of letters, digits, '.', '_' and '-'")


def files_of(folder: Path) -> dict[str, int]:
    """The files of a folder by name, and their sizes in bytes."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.stat().st_size for path in files}


def upload(folder: Path, name: str, private: bool) -> str:
    """Upload a folder to the repository `name`, which is made where it is not there; its address.

    Raises:
        ValueError: one line: huggingface_hub is not installed, nobody is logged in, or the hub refuses.
    """
    try:
        from huggingface_hub import HfApi
        from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError
    except ImportError:
        raise ValueError("push needs huggingface_hub: pip install 'fromnoise[diffusers]'") from None
    api = HfApi()
    try:
        api.create_repo(name, private=private, exist_ok=True)
        told = api.upload_folder(repo_id=name, folder_path=folder, commit_message="Upload by fromnoise")
    except LocalTokenNotFoundError:
        raise ValueError("nobody is logged in to the hub: run `hf auth login` first") from None
    except (HfHubHTTPError, OSError, RuntimeError) as error:
        raise ValueError(f"the hub did not take {name}: {' '.join(str(error).split())[:200]}") from None
    return str(told)
