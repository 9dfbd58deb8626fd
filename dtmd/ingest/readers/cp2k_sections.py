"""CP2K's input language: sections, keywords, variables and included files."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from dtmd.ingest.source import Lines

_WITHOUT = "take the input away: time step and cell then come from .ener, .cell and the log"


@dataclass
class Section:
    """`&NAME parameter … &END`; names and keywords in capitals."""

    name: str
    parameter: str = ""
    keywords: list[tuple[str, str]] = field(default_factory=list)
    sections: list[Section] = field(default_factory=list)

    def all(self, *path: str) -> list[Section]:
        """The sections below this one along `path`."""
        found = [self]
        for name in path:
            found = [section for parent in found for section in parent.sections if section.name == name]
        return found

    def get(self, *path: str) -> str | None:
        """First value of the keyword that ends `path`."""
        values = (value for parent in self.all(*path[:-1]) for key, value in parent.keywords if key == path[-1])
        return next(values, None)

    def on(self, *path: str) -> bool:
        """Whether the logical keyword that ends `path` is true; false where it is absent."""
        value = self.get(*path)
        return value is not None and value.strip(".").upper() in ("", "T", "TRUE", "ON", "YES")


def parse(path: Path, open_lines: Callable[[Path], Lines]) -> Section:
    """The whole input as a section without name.

    Raises:
        DtmdError: a line that cannot be understood.
    """
    parser = _Parser(open_lines)
    parser.parse(path, 0)
    return parser.root


class _Parser:
    """Sections and keywords of an input with its included files."""

    def __init__(self, open_lines: Callable[[Path], Lines]) -> None:
        self._open_lines = open_lines
        self.root = Section("")
        self._stack = [self.root]
        self._variables: dict[str, str] = {}

    def parse(self, path: Path, depth: int) -> None:
        pending = ""
        with closing(self._open_lines(path)) as lines:
            for raw in lines:
                line = pending + re.split(r"[!#]", raw, maxsplit=1)[0].strip()
                pending = line[:-1] + " " if line.endswith("\\") else ""
                if line and not pending:
                    self._parse_line(lines, self._substitute(lines, line), depth)

    def _parse_line(self, lines: Lines, line: str, depth: int) -> None:
        word, _, rest = line.partition(" ")
        word, rest = word.upper(), rest.strip()
        if word == "@SET":
            name, _, value = rest.partition(" ")
            self._variables[name.upper()] = value.strip()
        elif word == "@INCLUDE":
            included = lines.path.parent / rest.strip("'\"")
            if not included.is_file() or depth > 9:
                raise lines.error(f"{rest} is included but not there; copy it beside the input, or {_WITHOUT}")
            self.parse(included, depth + 1)
        elif word in ("@IF", "@ENDIF"):
            raise lines.error(f"dtmd does not understand {word}; write the input without conditions, or {_WITHOUT}")
        elif word.startswith("&END"):
            if len(self._stack) == 1:
                raise lines.error(f"&END without a section; repair the input, or {_WITHOUT}")
            self._stack.pop()
        elif word.startswith("&"):
            section = Section(word[1:], rest)
            self._stack[-1].sections.append(section)
            self._stack.append(section)
        elif not word.startswith("@"):
            self._stack[-1].keywords.append((line.split()[0].upper(), rest))

    def _substitute(self, lines: Lines, line: str) -> str:
        def value(match: re.Match) -> str:
            name, default = match[1] or match[3], match[2]
            if name.upper() not in self._variables and default is None:
                raise lines.error(f"variable {name} has no value; write @SET {name} … before, or {_WITHOUT}")
            return self._variables.get(name.upper(), default)
        return re.sub(r"\$\{(\w+)(?:-([^}]*))?\}|\$(\w+)", value, line)
