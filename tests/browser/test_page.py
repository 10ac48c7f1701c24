"""What only a browser can tell about the page."""

import pytest

from reports._extensions import extensions

pytestmark = pytest.mark.browser

WIDTHS = [400, 768, 1280]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_loads_without_an_error_and_without_a_request(open_page, scheme):
    page = open_page(1280, color_scheme=scheme)
    page.wait_for_timeout(300)
    assert page.complaints == []


def test_every_figure_is_drawn_with_marks(open_page):
    page = open_page(1280)
    marks = page.eval_on_selector_all(
        ".chart",
        "charts => charts.map(chart => chart.querySelectorAll('svg .mark-symbol path, svg .mark-line path').length)",
    )
    assert len(marks) == 2 * len(extensions("reports.figures"))
    assert all(number > 1 for number in marks)


@pytest.mark.parametrize("width", WIDTHS)
def test_nothing_is_wider_than_the_page(open_page, width):
    page = open_page(width)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    inside = page.eval_on_selector_all(
        ".chart",
        "charts => charts.map(chart => chart.querySelector('svg').getBoundingClientRect().width - chart.clientWidth)",
    )
    assert all(excess <= 1 for excess in inside)
    assert page.complaints == []


def test_figures_follow_a_change_of_width(open_page):
    page = open_page(1280)
    before = page.eval_on_selector(".chart svg", "svg => svg.getBoundingClientRect().width")
    page.set_viewport_size({"width": 400, "height": 900})
    page.wait_until_drawn()
    assert page.eval_on_selector(".chart svg", "svg => svg.getBoundingClientRect().width") < before
    assert page.evaluate("document.documentElement.scrollWidth") <= 400


def column_of(page, heading):
    return page.evaluate(
        """heading => {
          const cell = [...document.querySelectorAll("th")].find((th) => th.textContent === heading);
          return [...cell.closest("table").tBodies[0].rows].map((row) => row.cells[cell.cellIndex].dataset.sort);
        }""",
        heading,
    )


def test_a_click_sorts_numbers_and_a_second_click_turns_them_round(open_page):
    page = open_page(1280)
    heading = page.locator("th", has_text="Drop from own dense (points)").first
    before = column_of(page, "Drop from own dense (points)")
    numbers = sorted(float(value) for value in before if value)
    assert before[0] == ""  # the dense network has no drop, and no value is last in either direction
    heading.locator("button").click()
    assert heading.get_attribute("aria-sort") == "ascending"
    assert [float(value) for value in column_of(page, "Drop from own dense (points)")[:-1]] == numbers
    heading.locator("button").click()
    assert heading.get_attribute("aria-sort") == "descending"
    after = column_of(page, "Drop from own dense (points)")
    assert [float(value) for value in after[:-1]] == numbers[::-1]
    assert after[-1] == ""


def test_the_keyboard_sorts_words_and_only_one_column_is_marked(open_page):
    page = open_page(1280)
    page.locator("th", has_text="Sparsity").first.locator("button").click()
    method = page.locator("th", has_text="Method").first
    method.locator("button").focus()
    page.keyboard.press("Enter")
    assert column_of(page, "Method") == sorted(column_of(page, "Method"), key=str.lower)
    marked = page.eval_on_selector_all(
        "table:first-of-type th:not([aria-sort=none])", "headings => headings.map(th => th.textContent)"
    )
    assert marked == ["Method"]


def test_a_name_that_is_markup_is_text(open_page):
    page = open_page(1280)
    assert page.locator("h2").nth(1).inner_text().startswith("<b>fc5</b>-long")
    assert page.locator("main b").count() == 0


def test_without_scripts_the_figures_are_pictures(open_page, report):
    page = open_page(1280, java_script_enabled=False)
    page.wait_for_timeout(300)
    widths = page.locator(".chart img").evaluate_all("images => images.map(image => image.naturalWidth)")
    assert len(widths) == 2 * len(extensions("reports.figures"))
    assert all(width > 100 for width in widths)
