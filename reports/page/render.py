"""The page: one HTML file that holds everything it needs and asks no network for anything."""

import base64
import functools
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import jinja2
import vl_convert
from markupsafe import Markup

from reports._notices import notices
from reports._results import Results
from reports.page.content import TaskSection
from reports.page.provenance import cell_counts, environments, study_json, versions

_FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class _Script:
    """Text of a script element, and its digest as a content security policy names it."""

    text: Markup
    digest: str


def render_page(results: Results, sections: Sequence[TaskSection], command: str) -> str:
    """Return the whole page.

    Every text from the results is escaped by the template. The policy in the page's head lets only the two scripts
    written here run, known by their digests, and forbids every connection, so that even a mistake in escaping could
    neither run code nor send anything.

    Args:
        results: of all tasks.
        sections: one per task.
        command: the command that writes the report; the one that made the results is in the results.

    Cost: about 1 MB of text, nearly all of it the bundle that draws the figures.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_FOLDER),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    scripts = [_script(_vega_bundle()), _script(_text("page.js"))]
    return environment.get_template("page.html.jinja").render(
        results=results,
        sections=sections,
        command=command,
        versions=versions(results),
        environments=environments(results),
        cell_counts=cell_counts(results),
        notices=notices(results),
        study_json=study_json(results),
        scripts=scripts,
        style=Markup(_text("page.css")),  # noqa: S704 - a file of this folder
        logo=Markup(_text("logo.svg")),  # noqa: S704 - a file of this folder
    )


@functools.cache
def _vega_bundle() -> str:
    return str(vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;"))  # a second or two


def _text(name: str) -> str:
    return (_FOLDER / name).read_text(encoding="utf-8")


def _script(source: str) -> _Script:
    # A browser reads every line end as \n before it takes the digest.
    text = source.replace("\r\n", "\n").replace("\r", "\n")
    if "</script" in text.lower() or "<!--" in text:
        text = text.replace("</script", r"<\/script").replace("<!--", r"<\!--")
    digest = base64.b64encode(hashlib.sha256(text.encode("utf-8")).digest()).decode("ascii")
    return _Script(Markup(text), f"'sha256-{digest}'")  # noqa: S704 - written here or by the pinned vl-convert
