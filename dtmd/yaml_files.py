"""YAML files that the user writes: how they are read, and what is said of their mistakes."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import Path

import yaml

from dtmd.errors import DtmdError


def read_yaml(path: Path, wanted: str) -> object:
    """The content of a file, a dict or whatever else it holds.

    Args:
        wanted: what to give in place of a file that cannot be read, such as "the path of a YAML config".

    Raises:
        DtmdError: the file cannot be read or is not YAML.
    """
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DtmdError(f"{path}: cannot be read ({error.strerror}); give {wanted}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise DtmdError(f"{path}: not valid YAML: {error}") from error


def mapping(content: object, where: str) -> dict:
    """The content, a dict.

    Raises:
        DtmdError: it is none.
    """
    if not isinstance(content, dict):
        raise DtmdError(f"{where}: must be a mapping of keys to values, this is {type(content).__name__}")
    return content


def unknown_key(where: str, key: str, valid: Sequence[str], section: str = "") -> str:
    """What is said of a key that is not among the valid ones: the nearest of them, and all.

    Args:
        valid: at least one.
        section: stands before the key, as in data.stride.
    """
    (nearest,) = difflib.get_close_matches(key, valid, n=1, cutoff=0.0)
    shown = f"{section}.{key}" if section else key
    return f"{where}: unknown key {shown}; did you mean {nearest}? Valid here: {', '.join(valid)}"
