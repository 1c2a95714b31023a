"""The pages in a real browser, Debian's Chromium without a display.

``SCREENSHOTS`` names a directory that keeps the pictures; else they go with the test's own directory.
"""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable

import pytest

from ..support.process import WAIT
from .conftest import Files, Serve
from .test_uploads import BOTH, KINDS, MIB

pytest.importorskip("gunicorn")
pytest.importorskip("flask")
pytest.importorskip("django")
webdriver = pytest.importorskip("selenium.webdriver")

#: What the browser may send in a second: slow enough to see the bar move.
RATE = 4 * MIB


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Any]:
    """A browser that saves downloads in the test's directory."""
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if chromium is None or driver is None:
        pytest.skip("there is no Chromium: apt-get install chromium chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-proxy-server"):
        options.add_argument(argument)
    (tmp_path / "downloads").mkdir()
    options.add_experimental_option("prefs", {"download.default_directory": str(tmp_path / "downloads")})
    found = webdriver.Chrome(options, webdriver.ChromeService(driver))
    yield found
    found.quit()


@BOTH
def test_the_page(files: Callable[[str], Files], serve: Serve, browser: Any, tmp_path: Path, application: str) -> None:
    """Choose a file, see the bar move, read the digest, follow the link, cancel, and be told what went wrong."""
    site = serve(application, files("local").url, *KINDS["gthread"])
    body = random.Random(3).randbytes(6 * MIB)
    file = tmp_path / "Übersicht 2026.pdf"
    file.write_bytes(body)

    browser.set_window_size(1000, 720)
    browser.get(f"http://127.0.0.1:{site.port}/")
    assert browser.title == "Send a file"
    picture(browser, tmp_path, f"{application}-empty")
    element(browser, "file").send_keys(str(file))
    throttle(browser, RATE)
    element(browser, "send").click()
    seen: list[float] = []
    end = time.monotonic() + 2 * WAIT
    while not element(browser, "result").is_displayed():
        assert time.monotonic() < end, element(browser, "state").text
        seen.append(float(element(browser, "progress").get_attribute("value")))
        if len(set(seen)) == 3 and seen[-1] != seen[-2]:
            picture(browser, tmp_path, f"{application}-under-way")
        time.sleep(0.02)
    assert seen == sorted(seen) and len({value for value in seen if 0 < value < 100}) >= 3, seen
    assert element(browser, "state").text == "Stored."
    assert element(browser, "digest").text == hashlib.sha256(body).hexdigest()
    assert element(browser, "name").text == file.name
    picture(browser, tmp_path, f"{application}-stored")
    narrow(browser)
    picture(browser, tmp_path, f"{application}-narrow")
    assert browser.execute_script("return document.documentElement.scrollWidth <= window.innerWidth")

    throttle(browser, -1)
    element(browser, "link").click()
    saved = tmp_path / "downloads" / file.name
    until(saved.exists, "nothing was saved")
    assert hashlib.sha256(saved.read_bytes()).digest() == hashlib.sha256(body).digest()

    throttle(browser, MIB)
    element(browser, "send").click()
    until(lambda: float(element(browser, "progress").get_attribute("value")) > 0, "the bar does not move")
    element(browser, "stop").click()
    until(lambda: "Cancelled" in element(browser, "state").text, "not cancelled")
    throttle(browser, -1)
    assert element(browser, "send").is_enabled() and not element(browser, "result").is_displayed()
    until(lambda: not list(files("local").store.glob("*.part")), "something was left behind")


@BOTH
def test_the_page_shows_what_went_wrong(serve: Serve, browser: Any, tmp_path: Path, application: str) -> None:
    """No engine: the browser gets the answer although it was still sending."""
    site = serve(application, "ws://127.0.0.1:9", *KINDS["gthread"])
    file = tmp_path / "file"
    file.write_bytes(bytes(20 * MIB))
    browser.set_window_size(1000, 720)
    browser.get(f"http://127.0.0.1:{site.port}/")
    element(browser, "file").send_keys(str(file))
    element(browser, "send").click()
    until(lambda: "Service Unavailable" in element(browser, "state").text, "no explanation")
    assert not element(browser, "progress").is_displayed()
    browser.execute_cdp_cmd(
        "Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": "dark"}]}
    )
    picture(browser, tmp_path, f"{application}-failed-dark")


def element(browser: Any, name: str) -> Any:
    """An element of the page."""
    return browser.find_element("id", name)


def throttle(browser: Any, rate: int) -> None:
    """Limit what the browser sends, in bytes a second; -1 for no limit."""
    browser.set_network_conditions(latency=0, download_throughput=-1, upload_throughput=rate)


def narrow(browser: Any) -> None:
    """Make it a telephone's screen; windows do not get that narrow."""
    size = {"width": 360, "height": 740, "deviceScaleFactor": 2, "mobile": True}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)


def picture(browser: Any, directory: Path, name: str) -> None:
    """Keep what the page looks like."""
    folder = Path(os.environ.get("SCREENSHOTS", directory))
    folder.mkdir(parents=True, exist_ok=True)
    assert browser.save_screenshot(str(folder / f"{name}.png"))


def until(condition: Callable[[], Any], otherwise: str) -> None:
    """Look until it is so."""
    end = time.monotonic() + WAIT
    while not condition():
        assert time.monotonic() < end, otherwise
        time.sleep(0.02)
