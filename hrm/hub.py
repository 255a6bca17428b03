"""Models on the Hugging Face hub: a folder down, a folder up. Needs the extra `hub`."""

from __future__ import annotations

import re
from importlib import import_module
from pathlib import Path
from typing import Any

from hrm.errors import UserError

FILES = ("config.json", "model.safetensors", "metrics.json", "calibration.json", "README.md")
"""What an exported model is made of, and all that is downloaded."""

_PART = r"[A-Za-z0-9][\w.-]*"
_ID = re.compile(f"{_PART}/{_PART}", re.ASCII)


def is_hub_id(name: str) -> bool:
    """Whether `name` reads as USER/NAME."""
    return _ID.fullmatch(name) is not None


def library(why: str) -> Any:
    """The module huggingface_hub. Raises UserError, which starts with `why`, if it is missing."""
    try:
        return import_module("huggingface_hub")
    except ImportError:
        raise UserError(f"{why} needs huggingface_hub: pip install 'hrm[hub]'") from None


def download(name: str) -> Path:
    """The folder of model USER/NAME, in the hub's own cache.

    Raises:
        UserError: the extra is missing, or there is no such model or no network.
    """
    hub = library(f"{name}: no such folder; to look for that name on the Hugging Face hub hrm")
    try:
        return Path(hub.snapshot_download(name, allow_patterns=list(FILES)))
    except Exception as error:  # The library's errors have no base in common.
        raise UserError(
            f"{name}: no such folder, and the Hugging Face hub does not give it ({_reason(error)})"
        ) from error


def upload(folder: Path, name: str) -> str:
    """Make the repository USER/NAME if need be, put `folder` into it, and return its address.

    Raises:
        UserError: the extra is missing, or the hub refuses; `hf auth login` stores a token.
    """
    hub = library("an upload")
    try:
        api = hub.HfApi()
        address = api.create_repo(name, exist_ok=True)
        api.upload_folder(repo_id=name, folder_path=str(folder), commit_message="hrm export")
    except Exception as error:
        raise UserError(
            f"{name}: the Hugging Face hub does not take {folder} ({_reason(error)}); a token is "
            "stored by hf auth login"
        ) from error
    return str(address)


def _reason(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return ": ".join([type(error).__name__, *lines[:1]])
