"""The page, in a real browser."""

import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest

from rllib_attention.inspection.page import write_page
from tests.inspection.browser import CHROMIUM, Page
from tests.inspection.records import make_record, random_record

needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed")
EVIL = "</script><script>document.title='evil'</script><img src=x onerror=alert(1)>&"


def records():
    """Two episodes, dilated; the second is a fragment, and has odd text for actions."""
    first = random_record(40, window=4, strides=(1, 3))
    second = random_record(9, window=4, strides=(1, 3), num_past=5)
    actions = np.array([EVIL] * 9)
    return [
        first,
        make_record(second.weights, (1, 3), second.rewards, start=5, num_past=5),
    ], actions


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    [first, second], actions = records()
    object.__setattr__(second, "actions", actions)
    frames = [np.full((40, 60, 3), 5 * step, np.uint8) for step in range(40)]
    folder = tmp_path_factory.mktemp("page")
    return write_page(folder / "index.html", f"Title {EVIL}", [first, second], [frames, []])


def test_nothing_shown_can_become_markup(path):
    text = path.read_text()
    assert EVIL not in text
    assert "<img src=x" not in text
    [data] = re.findall(r'<script id="data" type="application/json">(.*?)</script>', text, re.S)
    episodes = json.loads(data)["episodes"]
    assert EVIL in episodes[1]["actions"][0]
    assert len(set(episodes[0]["frames"])) > 20
    assert not re.search(r'(src|href)="(?!data:)', text)


class Tags(HTMLParser):
    """What a browser makes of a page: its elements with their attributes."""

    def __init__(self, text):
        super().__init__()
        self.found = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, attrs))


def test_hostile_names_make_no_elements(path, tmp_path):
    """Titles and actions are all of a page's text that an environment or a checkpoint decides."""
    [first, second], _ = records()
    plain = write_page(tmp_path / "plain.html", "Title", [first, second], [[], []])
    assert Tags(path.read_text()).found == Tags(plain.read_text()).found
    assert ("script", []) in Tags(f"<p>{EVIL}").found  # the parser would see them


def test_frames_of_long_episodes_are_thinned(tmp_path):
    record = random_record(2500, window=2, strides=(1,), num_heads=1)
    frames = [np.zeros((2, 2, 3), np.uint8)] * 2500
    text = write_page(tmp_path / "page.html", "", [record], [frames]).read_text()
    assert '"frame_every": 3' in text
    assert text.count("data:image/jpeg") == 834


@pytest.fixture(scope="module")
def page(path, tmp_path_factory):
    found = Page(tmp_path_factory.mktemp("browser"))
    found.open(path)
    yield found
    found.close()


def value(page, name):
    return page.run(f"document.getElementById('{name}').value")


def hover(page):
    return page.run("document.getElementById('hover').textContent")


def box(page, selector):
    return page.run(
        f"(() => {{ const e = document.querySelector('{selector}'); e.scrollIntoView();"
        " const b = e.getBoundingClientRect(); return [b.x, b.y, b.width, b.height]; })()"
    )


@needs_browser
def test_the_page_works(page, path):
    first = records()[0][0]
    assert page.run("document.title") == f"Title {EVIL}"
    assert page.run("document.images.length") == 2  # the first step, which sees itself

    # The keyboard, without and with the focus on the slider.
    page.press("ArrowRight", "ArrowRight", "ArrowLeft")
    assert value(page, "step") == "1"
    page.press("End")
    assert value(page, "step") == "39"
    assert page.run("document.images.length") == 1 + 3
    page.run("document.getElementById('step').focus()")
    page.press("ArrowLeft")
    assert value(page, "step") == "38"
    page.press("h", "l")
    assert [value(page, name) for name in ("head", "layer")] == ["0", "1"]

    # The text says which key has most weight.
    weights = first.weights[1, 0, 38]
    best = int(weights.argmax())
    place = 38 - 3 * best
    said = f"step {place} · {3 * best} back from step 38 · weight {weights[best]:.3f}"
    assert said in hover(page)
    assert f"action {place} · reward " in hover(page)

    # The mouse: over the bar of the oldest key, then a click on the map.
    x, y, width, height = box(page, "#weights .u-over")
    page.move(x + width / 20, y + height / 2)
    assert hover(page).startswith(f"step 29 · 9 back from step 38 · weight {weights[3]:.3f} · ")
    x, y, width, height = box(page, "#map .u-over")
    page.move(x + width * 20.5 / 40, y + height / 8)
    weight = first.weights[1, 0, 20, 3]
    assert hover(page).startswith(
        f"step 11 · 9 back from step 20 · weight {weight:.3f} · action 11"
    )
    page.move(x + width * 20.5 / 40, y + height / 8, click=True)
    assert value(page, "step") == "20"
    x, y, width, height = box(page, "#rewards .u-over")
    page.move(x + width * 7.5 / 40, y + height / 2)
    assert hover(page).startswith("step 7 · action 7 · reward ")

    # The next episode: a fragment, without frames, with text that is no markup.
    page.press("e")
    assert page.run("document.getElementById('at').textContent") == "5 of 13"
    assert page.run("document.getElementById('pictures').hidden")
    assert "before this record" in hover(page) or EVIL in hover(page)
    assert page.run("document.querySelectorAll('img[onerror], script').length") == 3
    assert page.run("document.title") == f"Title {EVIL}"

    assert page.errors == []
    asked = {url for url in page.requests if not url.startswith("data:")}
    assert asked == {path.as_uri()}


@needs_browser
@pytest.mark.parametrize("width", [400, 1000])
def test_it_fits_and_is_readable_in_light_and_dark(page, width):
    page.resize(width)
    page.run("scrollTo(0, 0)")
    assert page.run("document.documentElement.scrollWidth") <= width
    for scheme in ("light", "dark"):
        page.colours(scheme)
        ink, paper = (
            page.run(f"getComputedStyle(document.body).{name}.match(/\\d+/g).map(Number)")
            for name in ("color", "backgroundColor")
        )
        assert contrast(ink[:3], paper[:3]) > 7
        assert (sum(paper[:3]) > sum(ink[:3])) == (scheme == "light")
    assert page.errors == []


def contrast(first, second):
    """The contrast of two colours by WCAG 2."""
    light, dark = sorted(
        (
            float(
                np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)
                @ (0.2126, 0.7152, 0.0722)
            )
            for c in (np.array(first) / 255, np.array(second) / 255)
        ),
        reverse=True,
    )
    return (light + 0.05) / (dark + 0.05)
