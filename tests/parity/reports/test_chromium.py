"""The page in a browser, where one is installed: it fits phones, follows the theme, loads and runs nothing.

Pages are put in frames of a phone's and of a desktop's width, since no window of Chromium is as narrow;
the frame's document is then measured by the script of the page around it.
"""

from __future__ import annotations

import html
import json
import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from matplotlib import image

from lstm_onnx.parity.reports.page import page

from . import samples
from .test_colours import scale

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = [
    pytest.mark.sweep(4),
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed (apt-get install chromium)"),
]

WIDTHS = (320, 390, 1280)
DARK, LIGHT = 0, 1
"""Blink's numbers of the preferred colour scheme."""
MEASURE = """
onload = () => {
  const measured = {};
  for (const frame of document.querySelectorAll("iframe")) {
    const inner = frame.contentDocument, all = [...inner.querySelectorAll("body, body *")];
    const seen = all.filter(each => !each.closest("thead"));  // which phones do not show
    inner.querySelectorAll("details").forEach(folded => folded.open = true);
    const style = name => frame.contentWindow.getComputedStyle(inner.querySelector(name));
    measured[frame.id] = {
      width: inner.documentElement.clientWidth,
      needs: Math.max(inner.documentElement.scrollWidth, ...seen.map(each => each.getBoundingClientRect().right)),
      background: style("body").backgroundColor,
      colour: style("body").color,
      filled: [...inner.querySelectorAll(".chart path")].map(each => frame.contentWindow.getComputedStyle(each).fill),
      charts: [...inner.querySelectorAll("svg.chart")].map(each => each.getBoundingClientRect().width),
      smallest: Math.min(...all.filter(each => each.textContent.trim()).map(
        each => parseFloat(frame.contentWindow.getComputedStyle(each).fontSize))),
    };
  }
  measured.hacked = window.hacked === 1;
  document.body.textContent = "MEASURED" + JSON.stringify(measured) + "END";
};
"""


def chromium(tmp_path: Path, around: str, *options: str, scheme: int = LIGHT) -> subprocess.CompletedProcess[str]:
    """Open a page without a network; what it says to the console is on stderr."""
    own = tmp_path / "around.html"
    own.write_text(around, encoding="utf-8")
    done = subprocess.run(
        [
            str(CHROMIUM),
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--hide-scrollbars",
            "--enable-logging=stderr",
            "--virtual-time-budget=2000",
            f"--user-data-dir={tmp_path / 'profile'}",
            f"--blink-settings=preferredColorScheme={scheme}",
            *options,
            own.as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={**os.environ, "HOME": str(tmp_path)},
    )
    assert done.returncode == 0, done.stderr
    return done


def frames(pages: Mapping[str, str], widths: tuple[int, ...]) -> str:
    made = (
        f'<iframe id="{name} {width}" width="{width}" height="999" srcdoc="{html.escape(text)}"></iframe>'
        for name, text in pages.items()
        for width in widths
    )
    head = "<!DOCTYPE html><meta charset=utf-8><style>iframe{border:0}</style>"
    return f"{head}<body>{''.join(made)}<script>{MEASURE}</script>"


def said(done: subprocess.CompletedProcess[str]) -> list[str]:
    return [line for line in done.stderr.splitlines() if ":CONSOLE" in line]


def measured(done: subprocess.CompletedProcess[str]) -> dict[str, dict[str, object]]:
    found = re.search("MEASURED(.*)END", done.stdout)
    assert found, done.stdout[:2000] + done.stderr
    told: dict[str, dict[str, object]] = json.loads(html.unescape(found[1]))
    return told


@pytest.fixture(scope="module")
def pages() -> dict[str, str]:
    made = {name: page([report]) for name, report in samples.REPORTS.items()}
    return {**made, "several": page(list(samples.REPORTS.values()))}


def test_pages_fit_phones_and_desktops_and_run_nothing(pages, tmp_path):
    done = chromium(tmp_path, frames(pages, WIDTHS), "--dump-dom")
    told = measured(done)
    assert said(done) == []
    assert told.pop("hacked") is False
    assert len(told) == len(pages) * len(WIDTHS)
    for name, each in told.items():
        assert each["width"] == int(name.split()[1])
        assert each["needs"] <= each["width"], name
        assert each["smallest"] >= 11, name
        assert all(width >= 240 for width in each["charts"]), name
        # The style was let in, also that of the levels of a heat map.
        assert each["background"] == "rgb(244, 245, 247)"
        assert "rgb(0, 0, 0)" not in each["filled"]
    assert len(told["failing 390"]["filled"]) > 3


def test_a_page_that_is_too_wide_or_runs_a_script_is_seen(pages, tmp_path):
    """So that the tests above can fail."""
    text = pages["passing"]
    script = "<main><script>parent.hacked=1</script>"
    made = {
        "wide": text.replace("<main>", f"<main><pre>{'x' * 200}</pre>"),
        "refused": text.replace("<main>", script),
        "styled": text.replace("<main>", '<main><p style="color:red">'),
    }
    done = chromium(tmp_path, frames(made, (390,)), "--dump-dom")
    told = measured(done)
    assert told["wide 390"]["needs"] > 390
    assert told["hacked"] is False
    assert len(said(done)) == 2
    assert all("Content Security Policy" in line for line in said(done))
    unguarded = re.sub("<meta http-equiv[^>]*>", "", text).replace("<main>", script)
    assert measured(chromium(tmp_path, frames({"": unguarded}, (390,)), "--dump-dom"))["hacked"] is True


def test_a_screenshot_shows_the_page_in_the_dark(pages, tmp_path):
    shot = tmp_path / "shot.png"
    options = (f"--screenshot={shot}", "--window-size=1000,1400")
    done = chromium(tmp_path, pages["failing"], *options, scheme=DARK)
    assert said(done) == []
    pixels = image.imread(shot)[..., :3]
    assert pixels.shape == (1400, 1000, 3)
    ground = pixels[-1, 0]
    assert (255 * ground).round().tolist() == [14, 17, 22]
    drawn = abs(pixels - ground).max(axis=-1) > 0.3
    assert drawn.mean() > 0.02
    # The heat map has many colours, from the darkest violet to the lightest yellow.
    colours = set(np.unique((255 * pixels).round().astype(int) @ (0x10000, 0x100, 1)).tolist())
    assert {int(colour[1:], 16) for colour in (scale()[0], scale()[-1])} <= colours
