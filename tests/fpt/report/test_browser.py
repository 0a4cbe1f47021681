"""The page in a real browser: nothing fails, nothing is fetched, every plot is drawn, tables sort, phones fit."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.browser import NEEDED, started

pytestmark = NEEDED


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with started() as driver:
        yield driver


def opened(browser: Any, page: Path, *, width: int = 1280, dark: bool = False) -> None:
    scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
    size = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    for kind in ("browser", "performance"):
        browser.get_log(kind)  # what was before is not of this page
    browser.get(page.as_uri())


@pytest.mark.parametrize("width", [360, 1280])
def test_it_opens_without_an_error_or_a_request(browser: Any, page: Path, width: int) -> None:
    opened(browser, page, width=width)
    assert browser.get_log("browser") == []
    assert browser.title == "fpt report: 3 runs"
    events = [json.loads(row["message"])["message"] for row in browser.get_log("performance")]
    asked = [event["params"]["request"]["url"] for event in events if event["method"] == "Network.requestWillBeSent"]
    assert [url for url in asked if not url.startswith("data:")] == [page.as_uri()]
    assert browser.execute_script("return performance.getEntriesByType('resource').length") == 0


@pytest.mark.parametrize("width", [360, 1280])
def test_it_fits_and_every_plot_is_drawn(browser: Any, page: Path, width: int) -> None:
    opened(browser, page, width=width)
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    plots = browser.execute_script(
        """return [...document.querySelectorAll("figure svg")].map((svg) => {
          const box = svg.getBoundingClientRect();
          const sized = [...svg.querySelectorAll("path, use")].filter((item) => item.getBoundingClientRect().width > 0);
          const inside = ({ left, right }) => left > box.left - 8 && right < box.right + 8;
          const texts = [...svg.querySelectorAll("text")].filter((text) => !inside(text.getBoundingClientRect()));
          const outside = texts.map((text) => text.textContent);
          return [box.width, box.height, sized.length, outside];
        })"""
    )
    assert len(plots) == 2 * 6 + 4
    for wide, high, drawn, outside in plots:
        assert 200 < wide <= max(width, 500)
        assert high > 100
        assert drawn > 5
        assert outside == []


def test_a_header_sorts_its_table_by_click_and_by_key(browser: Any, page: Path) -> None:
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys

    opened(browser, page)
    stages = browser.find_element(By.CSS_SELECTOR, "[aria-label=Stages]")

    def column(number: int) -> list[str]:
        return [cell.text for cell in stages.find_elements(By.CSS_SELECTOR, f"tbody td:nth-child({number})")]

    def header(number: int) -> Any:
        return stages.find_element(By.CSS_SELECTOR, f"th:nth-child({number})")

    before = column(2)
    header(2).find_element(By.TAG_NAME, "button").click()
    assert header(2).get_attribute("aria-sort") == "descending"
    assert column(2) == sorted(before, key=int, reverse=True)
    header(2).find_element(By.TAG_NAME, "button").send_keys(Keys.ENTER)
    assert header(2).get_attribute("aria-sort") == "ascending"
    assert column(2) == sorted(before, key=int)
    header(10).find_element(By.TAG_NAME, "button").send_keys(Keys.SPACE)
    assert header(2).get_attribute("aria-sort") is None
    scores = [float(text) for text in column(10) if text != "–"]
    assert scores == sorted(scores, reverse=True)
    assert column(10)[-1] == "–"  # what is not known comes last
    header(3).find_element(By.TAG_NAME, "button").click()
    assert column(3) == sorted(column(3), key=lambda text: [int(part) for part in text.split("+")])


def test_text_is_legible_in_light_and_dark(browser: Any, page: Path) -> None:
    """Plots take the page's ink; its contrast against the cards is WCAG's 4.5 and more."""
    for dark in (False, True):
        opened(browser, page, dark=dark)
        ink, card = browser.execute_script(
            """const style = (item) => getComputedStyle(document.querySelector(item));
            const of = (item, name) => style(item)[name].match(/[\\d.]+/g).map(Number);
            return [of("figure svg text", "fill"), of("figure", "backgroundColor")];"""
        )
        lighter, darker = sorted((luminance(ink), luminance(card)), reverse=True)
        assert (lighter + 0.05) / (darker + 0.05) > 4.5
        assert (luminance(card) < 0.2) == dark


def luminance(colour: list[float]) -> float:
    """Relative luminance of an sRGB colour, as WCAG 2 defines it."""
    parts = [value / 255 for value in colour[:3]]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def test_it_prints_with_every_setting(browser: Any, page: Path) -> None:
    """What is folded away on the screen stands on paper."""
    opened(browser, page)
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    heights = browser.execute_script("return [...document.querySelectorAll('details pre')].map((e) => e.offsetHeight)")
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})
    assert len(heights) == 3
    assert min(heights) > 100
