"""Render the templates of templates/ into self-contained HTML: styles and scripts are inlined, everything else is escaped.

The page's policy names each style and script by its digest, so a text of a model that reached the page as markup could run nothing.
"""

from __future__ import annotations

import hashlib
from base64 import b64encode
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

CHART_LIBRARY = ("chart.umd.min.js", "error-bars.umd.min.js")
"""Files of percasym/assets/charts, in the order in which a browser needs them."""


def render(template: str, **values: Any) -> str:
    """The text of a template. A value that the template uses and `values` lacks raises jinja2.UndefinedError."""
    return _environment().get_template(template).render(values)


def asset(name: str) -> Markup:
    """A style or script of templates/, as it stands between its tags."""
    return Markup((files("percasym.report") / "templates" / name).read_text(encoding="utf-8"))


def chart_library() -> Markup:
    """Chart.js with error bars (percasym/assets/charts), without the names of their source maps, which no page has."""
    folder = files("percasym") / "assets" / "charts"
    parts = ((folder / name).read_text(encoding="utf-8") for name in CHART_LIBRARY)
    return Markup("\n".join(part.partition("//# sourceMappingURL=")[0] for part in parts))


def policy(styles: Sequence[str], scripts: Sequence[str]) -> Markup:
    """A Content-Security-Policy that admits these styles and scripts by their digests, pictures in the page, and nothing else.

    >>> str(policy(["a{}"], []))
    "default-src 'none'; img-src data:; style-src 'sha256-X1RutGBrXCt9KkSaXMK7tHftWiRscFHOhxsS8tv8hBk='; script-src 'none'; base-uri 'none'"
    """
    digests = [" ".join(map(_digest, texts)) or "'none'" for texts in (styles, scripts)]
    return Markup(f"default-src 'none'; img-src data:; style-src {digests[0]}; script-src {digests[1]}; base-uri 'none'")


def _digest(text: str) -> str:
    return f"'sha256-{b64encode(hashlib.sha256(str(text).encode()).digest()).decode('ascii')}'"


@cache
def _environment() -> Environment:
    made = Environment(
        loader=PackageLoader("percasym.report"), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    made.globals |= {"asset": asset, "chart_library": chart_library, "policy": policy}
    made.policies["json.dumps_kwargs"] = {"separators": (",", ":"), "allow_nan": False}
    return made
