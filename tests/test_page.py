"""The report page in a browser: headless Chromium, as a reader has it, and as an attacker would want it."""

import json
import os
import re
import shutil
from dataclasses import dataclass

import pytest
from axe_playwright_python.sync_playwright import Axe
from finished_runs import LABELS, anomalous, classified, segmented, written
from playwright.sync_api import sync_playwright

from m3dspy.signatures.values import Design, Index, Request, Trial
from m3dspy.workspace import emit
from m3dspy.workspace.report import report
from m3dspy.workspace.runs import Run

pytestmark = pytest.mark.slow

SECTIONS = [
    "outcome", "plan", "data", "design", "training", "tuning",
    "results", "cases", "timeline", "models", "again", "limits",
]  # fmt: skip
HOSTILE = '</script><script>alert(1)</script><img src=x onerror="alert(2)">\u202egnp.exe{{ 7*7 }}' + "long" * 60
CONTRASTS = """
() => {
  const light = (colour) => {
    const linear = (part) => (part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4);
    const parts = colour.map((part) => linear(part / 255));
    return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2];
  };
  const read = (colour) => colour.match(/[\\d.]+/g).slice(0, 3).map(Number);
  const between = (a, b) => (Math.max(light(a), light(b)) + 0.05) / (Math.min(light(a), light(b)) + 0.05);
  const paper = read(getComputedStyle(document.body).backgroundColor);
  const found = [];
  for (const drawing of document.querySelectorAll(".drawing")) {
    const cells = [...drawing.querySelectorAll(".mark-rect path[opacity]")];
    const darkest = cells.map((cell) => [Number(cell.getAttribute("opacity")), read(getComputedStyle(cell).fill)])
      .reduce((most, cell) => (cell[0] > most[0] ? cell : most), [0, paper]);
    const behind = paper.map((part, n) => part * (1 - darkest[0]) + darkest[1][n] * darkest[0]);
    for (const text of drawing.querySelectorAll("text")) {
      const inside = text.closest(".mark-text.role-mark");
      found.push(between(read(getComputedStyle(text).fill), inside ? behind : paper));
    }
  }
  return found;
}
"""


@pytest.fixture(scope="module")
def browser():
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if not found:
        missing = "Chromium is not installed: apt-get install chromium"
        if os.environ.get("CI") or os.environ.get("M3DSPY_CI"):
            pytest.fail(missing)
        pytest.skip(missing)
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(
            executable_path=found,
            args=["--no-sandbox"] if os.geteuid() == 0 else [],  # Chromium's own needs a user
        )
        yield opened
        opened.close()


@dataclass
class Reading:
    """A page as it is shown, and everything that went wrong or over the network."""

    page: object
    complaints: list
    asked: list


@pytest.fixture
def read(browser):
    contexts = []

    def opened(path, width=1280, **how):
        contexts.append(browser.new_context(viewport={"width": width, "height": 900}, **how))
        reading = Reading(contexts[-1].new_page(), [], [])
        reading.page.on("console", lambda message: reading.complaints.append(message.text))
        reading.page.on("pageerror", lambda error: reading.complaints.append(str(error)))
        reading.page.on("dialog", lambda dialog: (reading.complaints.append(dialog.message), dialog.dismiss()))
        reading.page.on("request", lambda request: reading.asked.append(request.url))
        reading.page.goto(path.as_uri())
        return reading

    yield opened
    for context in contexts:
        context.close()


def tuned_classification(tmp_path):
    """With eight trials, the script, and a conversation."""
    trials = [
        Trial(number=n, state="complete", score=0.5 + n / 20, settings={"lr": 10.0 ** -(1 + n % 4), "batch": 2 + n})
        for n in range(8)
    ]
    folder = classified(tmp_path, trials=tuple(trials), settings=trials[-1].settings)
    run = Run(folder)
    emit.emit(run.load("design", Design), run.load("index", Index), folder / "code")
    run.event("stage", name="plan", status="start")
    run.event("repair", role="task_manager", complaint="No such column.\nUse one of: Group.")
    messages = [{"role": "system", "content": "Choose one task."}, {"role": "user", "content": "a model"}]
    call = {"time": 1.0, "role": "task_manager", "model": "m", "input_tokens": 9, "output_tokens": 1, "cost": 0.01}
    (folder / "lm.jsonl").write_text(json.dumps({**call, "seconds": 1, "messages": messages, "answer": ["{}"]}))
    return folder


KINDS = {
    "classification": tuned_classification,
    "segmentation": segmented,
    "anomalies": anomalous,
    "reports": written,
}


@pytest.mark.parametrize(
    "kind",
    [
        "classification",
        "segmentation",
        pytest.param("anomalies", marks=pytest.mark.soak),
        pytest.param("reports", marks=pytest.mark.soak),
    ],
)
def test_a_page_is_whole_quiet_and_accessible_in_both_themes_and_on_a_phone(kind, read, tmp_path):
    path = report(KINDS[kind](tmp_path))
    for scheme in ("light", "dark"):
        reading = read(path, color_scheme=scheme)
        page = reading.page
        shown = page.evaluate("[...document.querySelectorAll('section')].map((section) => section.id)")
        assert shown == SECTIONS
        assert page.locator(".view image.base").count() >= 6
        page.evaluate("document.querySelectorAll('details').forEach((each) => { each.open = true; })")
        found = Axe().run(page, options={"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]})
        assert found.violations_count == 0, found.generate_report()
        contrasts = page.evaluate(CONTRASTS)
        assert contrasts
        assert min(contrasts) >= 4.5
        assert (reading.complaints, reading.asked) == ([], [path.as_uri()])
    phone = read(path, width=390)
    assert phone.page.evaluate("document.documentElement.scrollWidth") == 390
    assert phone.complaints == []


def test_slices_are_turned_by_the_keyboard(read, tmp_path):
    page = read(report(segmented(tmp_path))).page
    view = page.locator(".view").first
    slider, svg = view.locator("input[type=range]"), view.locator(".film svg")
    height = float(view.locator(".film").get_attribute("data-height"))
    before = int(slider.input_value())
    slider.focus()
    page.keyboard.press("ArrowRight")
    assert svg.get_attribute("viewBox").split()[1] == f"{(before + 1) * height:g}"
    assert view.locator("output").inner_text() == f"axial slice {before + 2} of 10"
    assert slider.get_attribute("aria-valuetext") == f"axial slice {before + 2} of 10"
    page.keyboard.press("End")
    assert view.locator("output").inner_text() == "axial slice 10 of 10"


def test_what_the_model_and_the_expert_marked_can_be_hidden(read, tmp_path):
    page = read(report(segmented(tmp_path))).page
    view = page.locator(".view").first
    for name, layer in (("the model", "answer"), ("the expert", "truth")):
        assert view.locator(f"image.{layer}").is_visible()
        view.get_by_label(name).uncheck()
        assert not view.locator(f"image.{layer}").is_visible()


def test_the_theme_can_be_chosen_and_a_mark_tells_its_numbers(read, tmp_path):
    page = read(report(classified(tmp_path)), color_scheme="light").page
    background = "getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(background)
    page.get_by_role("button", name="Dark theme").click()
    assert page.evaluate(background) != light
    assert page.get_by_role("button", name="Light theme").is_visible()
    page.locator("#outcome .mark-symbol path").first.hover()
    assert "macro AUROC: 0.74" in page.locator("#tip").inner_text()


def test_all_text_is_there_without_a_script(read, tmp_path):
    page = read(report(segmented(tmp_path)), java_script_enabled=False).page
    text = page.inner_text("body")
    assert "mean Dice of 0.820" in text
    assert "axial slice" in text
    assert not page.locator("input[type=range]").first.is_visible()


def hostile(tmp_path):
    """A run in which everything that comes from outside is made to break out."""
    folder = tuned_classification(tmp_path)
    run = Run(folder)
    plan = json.loads((folder / "plan.json").read_text())
    (folder / "plan.json").write_text(json.dumps({**plan, "goal": HOSTILE, "images": HOSTILE}))
    run.commit("request", Request(text=HOSTILE, data=run.load("request", Request).data))
    for name in ("index", "outcome"):
        path = folder / f"{name}.json"
        path.write_text(path.read_text().replace(f'"{LABELS[0]}"', json.dumps(HOSTILE)))
    run.event("warning", text=HOSTILE)
    run.event("repair", role="data_engineer", complaint=HOSTILE)
    call = json.loads((folder / "lm.jsonl").read_text())
    messages = [{"role": HOSTILE, "content": HOSTILE}]
    (folder / "lm.jsonl").write_text(json.dumps({**call, "model": HOSTILE, "messages": messages, "answer": [HOSTILE]}))
    table = folder / "predictions" / "predictions.csv"
    quoted = '"' + HOSTILE.replace('"', '""') + '"'
    table.write_text(table.read_text().replace(LABELS[0], quoted))
    return folder


def test_hostile_text_stays_text(read, tmp_path):
    path = report(hostile(tmp_path))
    for width in (1280, 390):
        reading = read(path, width=width)
        page = reading.page
        page.evaluate("document.querySelectorAll('details').forEach((each) => { each.open = true; })")
        assert page.evaluate("document.querySelectorAll('script').length") == 1
        assert page.evaluate("document.querySelectorAll('img, iframe, object, [onerror]').length") == 0
        assert page.evaluate("document.documentElement.scrollWidth") == width
        text = page.inner_text("body")
        assert text.count("<script>alert(1)</script>") > 10
        assert "\u202e" not in page.content()
        assert "{{ 7*7 }}" in text
        assert (reading.complaints, reading.asked) == ([], [path.as_uri()])


def test_no_script_runs_but_the_page_s_own_and_nothing_is_loaded(read, tmp_path):
    path = report(classified(tmp_path))
    (policy,) = re.findall(r'Content-Security-Policy" content="([^"]*)"', path.read_text())
    assert "default-src &#39;none&#39;" in policy
    assert "unsafe" not in policy
    reading = read(path)
    reading.page.evaluate(
        """() => {
          const script = document.createElement("script");
          script.textContent = "window.broken = true";
          const picture = new Image();
          picture.src = "http://127.0.0.1:9/x.png";
          document.body.append(script, picture);
        }"""
    )
    reading.page.wait_for_timeout(200)
    assert reading.page.evaluate("window.broken") is None
    assert len(reading.complaints) == 2
    assert all("Content Security Policy" in complaint for complaint in reading.complaints)
