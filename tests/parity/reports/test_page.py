from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import replace
from itertools import pairwise

import pytest

from lstm_onnx.parity.reports import content
from lstm_onnx.parity.reports.page import page
from lstm_onnx.parity.results import CaseResult

from . import samples
from .pages import Element, read

EVERY = pytest.mark.parametrize("report", samples.REPORTS.values(), ids=samples.REPORTS.keys())


def titled(root: Element, title: str) -> Element:
    """The section with a title."""
    (found,) = (section for section in root.all("section") if section.all("h3")[0].text == title)
    return found


def cells(table: Element) -> list[list[str]]:
    return [[cell.text for cell in row.all("th", "td")] for row in table.all("tr")]


@EVERY
def test_the_page_stands_alone(report):
    """No script, no style of an element's own, nothing fetched; what is inline is let in by its digest."""
    root = read(page([report]))
    assert not root.all("script", "img", "link", "iframe", "object", "embed", "base", "form", "input", "image", "use")
    for element in root.walk():
        for name, value in element.attributes.items():
            assert not name.startswith("on")
            assert name not in ("style", "src", "srcset", "xlink:href", "action")
            if name == "href":
                assert re.fullmatch(r"#r\d+", value)
    (style,) = root.all("style")
    css = "".join(style.children)
    assert "url(" not in css
    assert "@import" not in css
    assert "@font-face" not in css
    (policy,) = (meta for meta in root.all("meta") if meta.attributes.get("http-equiv") == "Content-Security-Policy")
    digest = base64.b64encode(hashlib.sha256(css.encode()).digest()).decode()
    rules = dict(rule.strip().split(" ", 1) for rule in policy["content"].split(";"))
    assert rules == {
        "default-src": "'none'",
        "style-src": f"'sha256-{digest}'",
        "base-uri": "'none'",
        "form-action": "'none'",
    }


@EVERY
def test_the_page_is_accessible(report):
    root = read(page([report, report]))
    assert root["lang"] == "en"
    assert root.all("title")[0].text
    (viewport,) = (meta for meta in root.all("meta") if meta.attributes.get("name") == "viewport")
    assert viewport["content"] == "width=device-width, initial-scale=1"  # and may be zoomed
    ids = [element["id"] for element in root.walk() if "id" in element.attributes]
    assert len(set(ids)) == len(ids)
    for element in root.walk():
        for name in element.attributes.get("aria-labelledby", "").split():
            assert name in ids
        if element.tag == "a":
            assert element["href"][1:] in ids
    for table in root.all("table"):
        assert table.all("caption")[0].text
        head, *rows = table.all("tr")
        assert {cell["scope"] for cell in head.all("th")} == {"col"}
        assert all([cell["scope"] for cell in row.all("th")] == ["row"] for row in rows)
        names = [cell.text for cell in head.all("th")]
        assert all([cell["data-label"] for cell in row.all("td")] == names[1:] for row in rows)
    for chart in root.of_class("chart"):
        assert chart["role"] == "img"
        title, told = chart.all("title")[0], chart.all("desc")[0]
        assert chart["aria-labelledby"] == f"{title['id']} {told['id']}"
        assert len(told.text) > 30
    levels = [int(element.tag[1]) for element in root.all("h1", "h2", "h3")]
    assert levels[:2] == [1, 2]
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))


@EVERY
def test_numbers_of_drawings_are_finite(report):
    for element in read(page([report])).all("svg", "rect", "path", "polyline", "circle", "text"):
        for name, value in element.attributes.items():
            if name in ("x", "y", "cx", "cy", "width", "height", "points", "d", "viewbox"):
                assert not re.search("nan|inf", value or ""), (element.tag, name, value)


@EVERY
def test_the_same_report_is_the_same_page(report):
    assert page([report]) == page([replace(report)])


def test_the_verdict_is_first():
    for report, kind, answer in (
        (samples.passing, "good", "✓ In parity with PyTorch"),
        (samples.failing, "bad", "✗ NOT in parity with PyTorch"),
        (samples.unproven, "bad", "✗ In parity with PyTorch (NOT PROVEN)"),
    ):
        root = read(page([report]))
        (verdict,) = root.of_class("verdict")
        assert verdict["class"] == f"verdict {kind}"
        assert verdict.of_class("answer")[0].text == answer
        assert root.all("article")[0].children[0] is verdict
        assert root.all("title")[0].text == f"{report.file}: {answer[2].replace('I', 'i')}{answer[3:]}, models/net.toml"
    assert "1 of 3 cases failed on cpu" in read(page([samples.failing])).of_class("verdict")[0].text


def test_a_failure_says_where_and_why_before_all_else():
    root = read(page([samples.failing]))
    titles = [section.all("h3")[0].text for section in root.all("section")]
    assert titles == [
        "Likely causes",
        "First difference",
        "Error of output over time",
        "Outputs",
        "Failing cases",
        "Cases",
        "Notes",
    ]
    assert titled(root, "First difference").of_class("where")[0].text == str(samples.failing.location)
    (cause,) = titled(root, "Likely causes").all("li")
    assert [part.text for part in cause.all("strong", "p")] == [
        "gate order of layer 1",
        "with it PyTorch gives the file's numbers",
        "Fix: ONNX wants i,o,f,c",
    ]


def test_the_table_of_outputs():
    (table,) = titled(read(page([samples.failing])), "Outputs").all("table")
    assert cells(table) == [
        ["output", "largest error", "allowed error", "PyTorch's own", "ratio (max 32)", "where"],
        ["output fails", "0.5", "4e-06", "1.25e-07", "4e+06", "[3, 0, 2] of batch 5, time 4, states"],
        ["hn fails", "0.125", "4e-06", "1.25e-07", "1e+06", "[0, 0, 2] of batch 5, time 4, states"],
        ["cn ok", "7e-08", "4e-06", "1.25e-07", "0.56", "[0, 0, 2] of batch 3, time 4, states"],
    ]


def test_curves_and_heat_maps_of_outputs_with_a_time_axis():
    root = read(page([samples.failing]))
    section = titled(root, "Error of output over time")
    assert section.all("p")[0].text == "4 steps, in the case batch 5, time 4, states."
    curve, heat = section.all("figure")
    assert "step 2 is the first above it" in curve.all("desc")[0].text
    assert [item.text for item in curve.all("li")] == ["this file", "PyTorch's own", "the bound"]
    assert heat.all("path")
    assert not read(page([samples.stopped])).all("figure")
    broken = titled(read(page([samples.unbounded])), "Error of output over time")
    assert "not finite" in [item.text for item in broken.all("li")]


def test_the_chart_below_the_first_difference_is_that_of_its_case():
    """Another case, which is longer and further off, would come first without it."""
    longer = replace(samples.WRONG, label="batch 9, time 6", tensors=(samples.tensor("output", *[0.9] * 6),))
    report = replace(samples.failing, cases=(longer, *samples.failing.cases))
    sections = read(page([report])).all("section")
    at = next(index for index, section in enumerate(sections) if section.all("h3")[0].text == "First difference")
    assert sections[at].of_class("where")[0].text.endswith(f"in {samples.WRONG.label}")
    assert sections[at + 1].all("p")[0].text == f"4 steps, in the case {samples.WRONG.label}."
    elsewhere = read(page([replace(report, location=None)]))
    assert titled(elsewhere, "Error of output over time").all("p")[0].text == "6 steps, in the case batch 9, time 6."


def test_failing_cases_are_not_folded():
    section = titled(read(page([samples.failing])), "Failing cases")
    assert not section.all("details")
    wrong = "0.5 of output (allowed 4e-06, ratio 4e+06), 0.125 of hn (allowed 4e-06, ratio 1e+06)"
    assert cells(section)[1:] == [["batch 5, time 4, states fails", "on your data", wrong]]
    many = tuple(replace(samples.WRONG, label=f"case {index}") for index in range(25))
    section = titled(read(page([replace(samples.failing, cases=many)])), "Failing cases")
    assert len(cells(section)) == 21
    assert "5 further failing cases" in section.text
    assert "Failing cases" not in read(page([samples.passing])).text


def test_cases_are_folded_and_complete():
    folded = titled(read(page([samples.failing])), "Cases").all("details")[0]
    assert "open" not in folded.attributes
    assert folded.all("summary")[0].text == "4 cases"
    assert cells(folded)[1:] == [
        ["batch 1, time 1, states ok", "in one call", "output 0.88, hn 0.32, cn 0.24"],
        ["batch 3, time 4, states ok", "in one call", "output 0.8, hn 0.4, cn 0.56"],
        ["batch 5, time 4, states fails", "on your data", "output 4e+06, hn 1e+06, cn 0.56"],
        [
            "batch 9, time 400, states inconclusive",
            "in one call",
            "PyTorch's own error is too large here to judge by",
        ],
    ]
    (_, first, _) = cells(titled(read(page([samples.stopped])), "Cases"))
    assert first == ["batch 2, time 1, states fails", "in one call", samples.STOPPED.error]


def test_the_self_test():
    root = read(page([samples.unproven]))
    survivors = titled(root, "Mutants that survived")
    assert [item.text for item in survivors.all("li")] == ["time baked in (ratio 14.2 at batch 3, time 4, states)"]
    section = titled(root, "Self-test")
    assert "4 mutants: 2 rejected, 1 proven equivalent, 1 survived." in section.text
    assert cells(section)[1:] == [
        ["gates i and o exchanged", "rejected", "6.2e+05", "batch 3, time 4, states"],
        ["batch baked in", "rejected", "inf", "batch 1, time 1, states"],
        ["bias added twice", "proven equivalent: the biases are zeros", "-", "-"],
        ["time baked in", "survived", "14.2", "batch 3, time 4, states"],
    ]
    assert "survived" not in page([samples.passing])


def test_what_is_not_proven_has_a_next_step():
    assert "--data" in titled(read(page([samples.unproven])), "Mutants that survived").all("p")[0].text


def test_what_stopped_is_said_once():
    section = titled(read(page([samples.stopped])), "Errors")
    assert [item.text for item in section.all("li")] == [
        f"failed to run at batch 2, time 1, states and 1 more: {samples.STOPPED.error}"
    ]


def test_nothing_judged_is_said():
    assert "No case could be judged" in titled(read(page([samples.undecided])), "Nothing was judged").text


def test_versions_and_notes():
    root = read(page([samples.passing]))
    facts = [(each.all("dt")[0].text, each.all("dd")[0].text) for each in root.all("footer")[0].all("div")]
    assert facts == [("provider", "cpu"), ("took", "3.2 s"), *samples.VERSIONS.items()]
    assert [item.text for item in titled(root, "Notes").all("li")] == list(samples.passing.notes)


def test_the_circumstances_are_on_the_page():
    about = {"date": "2026-11-28T12:00:00+00:00", "command": "lstm-onnx verify net.toml", "commit": "0123456789ab"}
    footer = read(page([replace(samples.passing, digest="sha256:12", **about)])).all("footer")[0]
    facts = {each.all("dt")[0].text: each.all("dd")[0].text for each in footer.all("div")}
    expected = {"date": about["date"], "command": about["command"], "git commit": about["commit"]}
    assert facts.items() >= {**expected, "weights digest": "sha256:12"}.items()


@EVERY
def test_the_summary_for_notebooks_is_the_start_of_the_page(report):
    """Nothing in it loads, runs or is styled, and names are text."""
    made = report._repr_html_()
    root = read(f'<!DOCTYPE html>\n<html lang="en">{made}</html>\n')
    assert not root.all("script", "img", "style", "link")
    assert content.verdict(report) in root.text
    assert len(root.all("td")) == 5 * len(report.worst)
    assert len(root.all("li")) == len(report.causes)


def test_several_reports_are_on_one_page():
    other = replace(samples.failing, provider="cuda", source="models/other.toml")
    root = read(page([samples.passing, other]))
    assert root.all("title")[0].text == "1 of 2 pass: models/net.toml, models/other.toml"
    (contents,) = root.all("nav")
    assert [item.text for item in contents.all("li")] == ["net.onnx on cpu passes", "wrong.onnx on cuda fails"]
    assert [article["id"] for article in root.all("article")] == ["r0", "r1"]
    assert not read(page([samples.passing])).all("nav")


def test_names_are_text():
    """Every one of them, everywhere: the page's elements are those of a page of harmless names."""
    text = page([samples.hostile])
    root = read(text)
    assert not root.all("script", "img")
    shown = root.text
    assert "<script>parent.hacked=1</script>" in shown
    assert "]]><!-- --></style></svg>&amp;" in shown
    assert r"\x1b[31m\x9b\u202e" in shown
    assert all(char.isprintable() or char == "\n" for char in text)


def test_a_page_stays_small():
    assert len(page([samples.passing]).encode()) < 30_000
    long = tuple(1e-7 * (1 + step % 5) for step in range(400))
    outputs = tuple(replace(samples.tensor("output", *long), output=f"output {index}") for index in range(40))
    cases = tuple(CaseResult(f"case {index}", outputs) for index in range(20))
    text = page([replace(samples.passing, cases=cases)])
    assert len(text.encode()) < 500_000
    root = read(text)
    assert len(root.all("figure")) == 12
    assert "--json" in titled(root, "34 further outputs over time").text


def _themes() -> dict[str, dict[str, str]]:
    css = "".join(read(page([samples.passing])).all("style")[0].children)
    light, dark = re.findall(r":root\{(.*?)\}", css, flags=re.DOTALL)
    return {
        name: dict(re.findall(r"--([\w-]+):(#[0-9a-f]+)", text)) for name, text in (("light", light), ("dark", dark))
    }


def contrast(first: str, second: str) -> float:
    """As WCAG 2 defines it."""

    def luminance(colour: str) -> float:
        digits = colour[1:] if len(colour) == 7 else "".join(2 * digit for digit in colour[1:])
        parts = [int(digits[at : at + 2], 16) / 255 for at in (0, 2, 4)]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    low, high = sorted((luminance(first), luminance(second)))
    return (high + 0.05) / (low + 0.05)


def test_contrast_is_that_of_wcag():
    assert contrast("#000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#fff") == pytest.approx(4.48, abs=0.01)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_contrasts(theme):
    colours = _themes()[theme]
    assert set(colours) == set(_themes()["light"])
    text = [("text", "card"), ("text", "page"), ("quiet", "card"), ("quiet", "page"), ("file", "card")]
    text += [(kind, f"{kind}-soft") for kind in ("good", "bad")] + [("text", "good-soft"), ("text", "bad-soft")]
    for ink, ground in text:
        assert contrast(colours[ink], colours[ground]) >= 4.5, (ink, ground)
    for ink in ("file", "own", "bound", "broken"):
        for ground in ("card", "zone"):
            assert contrast(colours[ink], colours[ground]) >= 3, (ink, ground)


def test_what_was_tried_has_a_section():
    section = titled(read(page([samples.ranged])), "Tried")
    assert section.all("p")[0].text == "batch 1 to 3, 9; tokens 0 to 99; x -310 to 296."
