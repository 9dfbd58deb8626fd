"""Where the files that come with the package are, in a checkout and in an installed wheel."""

from pathlib import Path

_PACKAGE = Path(__file__).parent


def embedded(name: str) -> Path:
    """The folder `inputs` or `lammps_plugin` that belongs to this installation.

    This module imports nothing heavy: the hook that LAMMPS calls at every start uses it.
    """
    in_wheel = _PACKAGE / "embedded" / name
    return in_wheel if in_wheel.exists() else _PACKAGE.parent / name
