"""Does an input take what it is given? Asked before many runs do the wrong thing."""

from __future__ import annotations

import re
from collections.abc import Collection
from pathlib import Path

from dtmd.errors import DtmdError

_USE = r"\$\{NAME\}|\bv_NAME\b|\(variable,NAME\)"
_OTHER_FILES = re.compile(r"^\s*(include|jump\s+(?!SELF\b))", re.MULTILINE)


def check_input(input_file: Path, names: Collection[str]) -> None:
    """Refuse an input that does not use some of the variables; one that includes other files is let pass.

    Raises:
        DtmdError: names them, or the file cannot be read.
    """
    unused = [name for name in names if not _uses(input_file, name)]
    if unused and not _OTHER_FILES.search(_commands(input_file)):
        wanted = ", ".join(f"${{{name}}}" for name in unused)
        raise DtmdError(f"{input_file}: does not use {wanted}, so what is given for it would do nothing; use it in "
                        "the input, as inputs/h2pd6.in does, or do not give it")


def _uses(input_file: Path, name: str) -> bool:
    pattern = _USE.replace("NAME", re.escape(name)) + (rf"|\${re.escape(name)}" if len(name) == 1 else "")
    return re.search(pattern, _commands(input_file)) is not None


def _commands(input_file: Path) -> str:
    """The text without comments."""
    try:
        text = input_file.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise DtmdError(f"{input_file}: cannot be read ({error.strerror}); give a LAMMPS input") from error
    return re.sub(r"#.*", "", text)
