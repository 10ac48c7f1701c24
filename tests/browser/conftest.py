"""A report in a real browser: Debian's chromium, driven offline."""

import importlib.util
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from reports.write import write_report

_ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]


def _studies() -> ModuleType:
    path = Path(__file__).parents[1] / "reports" / "conftest.py"
    spec = importlib.util.spec_from_file_location("report_studies", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a study with two tasks, one of them with a name that wants to be markup."""
    studies, folder = _studies(), tmp_path_factory.mktemp("browser")
    tasks = ("mlp-digits", "<b>fc5</b>-" + 40 * "long")
    studies.write_results(folder / "results.h5", studies.Study(tasks=tasks, networks=("lomp", "imp")))
    return write_report(folder / "results.h5", folder / "report", command="espalier report runs/quickstart")


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """Chromium; where it is missing the tests are skipped, except in CI, where that is a failure."""
    names = ("chromium", "chromium-browser", "google-chrome")  # those that install-chromium looks for
    executable = next((found for name in names if (found := shutil.which(name))), None)
    if executable is None:
        message = "chromium is not installed. Debian: apt install chromium."
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=executable, args=_ARGUMENTS)
        yield started
        started.close()


def wait_until_drawn(page: Any) -> None:
    """Wait until every figure is drawn at the width that its box has now.

    Asked again and again from here: the page's policy forbids a script that waits inside the page.
    """
    drawn = "[...document.querySelectorAll('.chart')].every((box) => Number(box.dataset.drawn) === box.clientWidth)"
    for _ in range(200):
        if page.evaluate(drawn):
            return
        page.wait_for_timeout(50)
    pytest.fail("The figures were not drawn within ten seconds.")


@pytest.fixture
def open_page(browser: Any, report: Path) -> Iterator[Any]:
    """Return a function that opens the report and waits until every figure is drawn.

    The page object carries `wait_until_drawn`, and `complaints`: console errors, uncaught errors, and requests other
    than for the page.
    """
    contexts = []

    def open_at(width: int, **options: Any) -> Any:
        contexts.append(browser.new_context(offline=True, viewport={"width": width, "height": 900}, **options))
        page = contexts[-1].new_page()
        page.complaints = []
        page.wait_until_drawn = lambda: wait_until_drawn(page)
        page.on("console", lambda message: message.type == "error" and page.complaints.append(message.text))
        page.on("pageerror", lambda error: page.complaints.append(str(error)))
        page.on("request", lambda request: request.url == report.as_uri() or page.complaints.append(request.url))
        page.goto(report.as_uri())
        if options.get("java_script_enabled", True):
            wait_until_drawn(page)
        return page

    yield open_at
    for context in contexts:
        context.close()
