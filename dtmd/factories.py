"""A user's `module:factory`: a function that gives any ASE calculator, without arguments or with those given."""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ase.calculators.abc import GetPropertiesMixin

from dtmd.errors import DtmdError

_FACTORY = re.compile(r"([A-Za-z_][\w.]*):([A-Za-z_]\w*)")


def is_factory(named: str) -> bool:
    """Whether it has the form of a factory, and no file has this name."""
    return bool(_FACTORY.fullmatch(named)) and not Path(named).exists()


def called(function: str, arguments: Mapping[str, object]) -> str:
    """A call in letters, such as `xtb(method='GFN1-xTB')`, the same for arguments in any order."""
    return f"{function}({', '.join(f'{name}={arguments[name]!r}' for name in sorted(arguments))})"


def made_by_factory(named: str, arguments: Mapping[str, object] | None = None) -> GetPropertiesMixin:
    """The calculator of a factory in a module of the current directory or an installed package.

    Args:
        named: `module:factory`.
        arguments: by name, of the factory.

    Raises:
        DtmdError: no such module or function, it failed, or gave no calculator.
    """
    module_name, name = _FACTORY.fullmatch(named).groups()
    factory, call = _factory(named, module_name, name), called(name, arguments or {})
    try:
        calculator = factory(**(arguments or {}))
    except Exception as error:  # the factory is the user's
        raise DtmdError(f"{named}: {call} failed ({told(error)})") from error
    if not isinstance(calculator, GetPropertiesMixin):
        raise DtmdError(f"{named}: {call} gave a {type(calculator).__name__}, not an ASE calculator")
    return calculator


def _factory(named: str, module_name: str, name: str) -> Callable[..., Any]:
    here = str(Path.cwd())
    sys.path.insert(0, here)
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        raise DtmdError(f"{named}: no module {error.name} in {here} or among the installed packages") from error
    except Exception as error:  # the module is the user's
        raise DtmdError(f"{named}: the module {module_name} cannot be imported ({told(error)})") from error
    finally:
        sys.path.remove(here)
    factory = getattr(module, name, None)
    if not callable(factory):
        raise DtmdError(f"{named}: {module.__file__} has no function {name}")
    return factory


def told(error: Exception) -> str:
    """An exception of someone else's code in a line."""
    return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no message'}"
