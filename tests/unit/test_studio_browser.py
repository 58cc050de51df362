"""The studio as a clinician meets it: the command, a browser, pictures, an export."""

import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.gated import install_base, make_site
from vgmedgen.data import adapters

pytest.importorskip("gradio")
playwright = pytest.importorskip("playwright.sync_api")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
COMMAND = (sys.executable, "-c", "from vgmedgen.cli import main; main()", "studio")
WAIT_MS = 300_000

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")


@pytest.fixture(scope="module")
def site(bundle, micro, tmp_path_factory):
    made = make_site(tmp_path_factory.mktemp("studio") / "site", bundle, phantoms=64)
    install_base(made, micro.plan)
    return made


@pytest.fixture(scope="module")
def address(site):
    """Of `vgmedgen studio`, running as the command that it is."""
    process = subprocess.Popen(
        [*COMMAND, "--site", str(site.folder), "--port", "0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        text=True,
    )
    line = process.stdout.readline()
    if not line:
        pytest.fail(process.communicate()[1])
    yield re.search(r"http://\S+", line).group()
    process.send_signal(signal.SIGTERM)
    _, told = process.communicate(timeout=120)
    assert process.returncode == 0, told
    assert "Traceback" not in told
    assert not (site.folder / "cache" / "studio").exists()


@pytest.fixture
def page(address):
    with playwright.sync_playwright() as play:
        browser = play.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"]
        )
        tab = browser.new_page(viewport={"width": 1440, "height": 900})
        tab.set_default_timeout(WAIT_MS)
        tab.asked, tab.trouble = [], []
        tab.on("request", lambda request: tab.asked.append(request.url))
        tab.on("pageerror", lambda error: tab.trouble.append(str(error)))
        tab.on(
            "response",
            lambda answer: answer.status >= 400 and tab.trouble.append(answer.url),
        )
        tab.goto(address)
        tab.wait_for_selector("#vg-generate", timeout=WAIT_MS)
        yield tab
        browser.close()


def pick(page, name, word):
    """Choose a word in one of the boxes."""
    page.click(f"#vg-{name} input")
    page.locator("ul[role=listbox] li", has_text=re.compile(f"^\\W*{word}$")).click()


def test_a_release_that_is_trusted_no_longer_is_not_drawn_from(page, site):
    path = site.folder / "site.yaml"
    held = path.read_text()
    path.write_text(
        held.replace("policy: {}", f"policy: {{coordinators: [{'a' * 64}]}}")
    )
    assert path.read_text() != held
    try:
        page.click("#vg-generate")
        page.wait_for_selector("#vg-told .vg-error", timeout=WAIT_MS)
    finally:
        path.write_text(held)
    assert "is no longer trusted: nobody has signed it" in page.inner_text("#vg-told")
    assert page.locator("button.vg-card").count() == 0
    page.click("#vg-generate")
    page.wait_for_selector("button[data-place='3']", timeout=WAIT_MS)


def prompt(page):
    return page.input_value("#vg-prompt textarea")


def test_a_clinician_picks_generates_looks_and_exports(page, site, tmp_path):
    pick(page, "class", "melanoma")
    page.wait_for_function(
        "document.querySelector('#vg-prompt textarea').value.includes('melanoma')"
    )
    pick(page, "size", "small")
    page.wait_for_function(
        "document.querySelector('#vg-prompt textarea').value.includes('small lesion')"
    )
    assert prompt(page) == "dermoscopic image of a melanoma; small lesion"
    page.click("#vg-generate")
    page.wait_for_selector("button[data-place='3']", timeout=WAIT_MS)
    cards = page.locator("button.vg-card")
    assert cards.count() == 4
    assert page.locator("button.vg-card .vg-badge").count() == 4
    drawn = "[...document.querySelectorAll('.vg-card img')].map((i) => i.naturalWidth)"
    assert page.evaluate(drawn) == [32] * 4

    cards.nth(1).click()
    page.wait_for_selector(".vg-near img", timeout=WAIT_MS)
    assert page.locator(".vg-reals figure").count() == 3
    assert cards.nth(1).get_attribute("aria-pressed") == "true"
    assert "For your eyes only" in page.inner_text(".vg-near")
    assert "melanoma" in page.inner_text(".vg-facts")

    cleared = page.locator("button.vg-cleared").count()
    assert cleared > 0
    page.click("#vg-export")
    page.wait_for_selector("#vg-told a", timeout=WAIT_MS)
    folder = Path(page.inner_text("#vg-told code"))
    assert folder.parent == site.folder.resolve() / "exports"
    records = adapters.read("table", folder).records
    assert len(records) == cleared
    assert {record.caption for record in records} == {prompt(page)}
    with page.expect_download() as waiting:
        page.click("#vg-told a")
    waiting.value.save_as(tmp_path / "export.zip")
    shutil.unpack_archive(tmp_path / "export.zip", tmp_path)
    assert len(adapters.read("table", tmp_path / folder.name).records) == cleared

    asked = {urlsplit(url) for url in page.asked}
    assert len(asked) > 20
    assert {url.hostname for url in asked if url.scheme != "data"} == {"127.0.0.1"}
    assert page.trouble == []
    assert page.locator("footer:visible").count() == 0


def test_a_mistake_is_told_in_one_line_on_the_page(page):
    page.fill("#vg-prompt textarea", " ")
    page.click("#vg-generate")
    line = page.wait_for_selector("#vg-told .vg-error", timeout=WAIT_MS).inner_text()
    assert line == "The prompt is empty; pick a class or write a few words."
    page.fill("#vg-prompt textarea", "lesion " * 200)
    page.click("#vg-generate")
    page.wait_for_selector("#vg-told .vg-error:has-text('shorten it')", timeout=WAIT_MS)
    page.click("#vg-export")
    page.wait_for_selector("#vg-told .vg-error:has-text('generate some')")
    assert page.locator("button.vg-card").count() == 0


def test_the_browser_itself_refuses_to_go_elsewhere(page):
    reach = """async (address) => {
        try { await fetch(address, {mode: "no-cors"}); return "reached"; }
        catch (error) { return "refused"; }
    }"""
    other = "http://127.0.0.2:9/"
    with page.expect_console_message(lambda m: "Content Security Policy" in m.text):
        assert page.evaluate(reach, other) == "refused"
    assert page.evaluate(reach, "/config") == "reached"


def test_no_picture_stays_in_the_browser(page):
    page.click("#vg-generate")
    page.wait_for_selector("button[data-place='3']", timeout=WAIT_MS)
    kept = page.evaluate(
        """async () => ({
            bases: (await indexedDB.databases()).map((base) => base.name),
            local: JSON.stringify(localStorage), session: JSON.stringify(sessionStorage),
            caches: await caches.keys(),
        })"""
    )
    assert "data:image" not in kept["local"] + kept["session"]
    assert kept["bases"] == []
    assert kept["caches"] == []
