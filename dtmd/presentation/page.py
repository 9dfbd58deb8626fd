"""HTML pages that are one file: style and figures inside, nothing fetched from elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from dtmd.presentation.numbers import duration, number, percent

_PACKAGE = Path(__file__).parents[1]


def render_page(template: str, filters: Mapping[str, Callable], **content: object) -> str:
    """The page of a template that extends `presentation/page.html`.

    Args:
        template: its path in the package.
        filters: of the template, beside those for numbers.
        content: what the template shows; an undefined name is an error.
    """
    environment = Environment(
        loader=FileSystemLoader(_PACKAGE), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )
    environment.filters.update(number=number, percent=percent, duration=duration, **filters)
    return environment.get_template(template).render(**content)
