from __future__ import annotations

import re
from dataclasses import replace
from xml.etree import ElementTree as ET

import pytest

from lstm_onnx.parity.report import ParityReport
from lstm_onnx.parity.reports import junit
from lstm_onnx.parity.reports.table import plain
from lstm_onnx.parity.results import CaseResult

from . import samples

# What Jenkins' xUnit plugin, Surefire and GitLab agree on: each element with its required and its optional
# attributes, and the elements that may be in it.
SCHEMA = {
    "testsuites": ({"name"}, {"tests", "failures", "errors", "time"}, {"testsuite"}),
    "testsuite": (
        {"name", "tests", "failures", "errors"},
        {"skipped", "time", "timestamp", "hostname", "id", "package"},
        {"properties", "testcase", "system-out", "system-err"},
    ),
    "properties": (set(), set(), {"property"}),
    "property": ({"name", "value"}, set(), set()),
    "testcase": ({"name", "classname"}, {"time"}, {"skipped", "error", "failure", "system-out", "system-err"}),
    "failure": ({"message", "type"}, set(), set()),
    "error": ({"message", "type"}, set(), set()),
    "skipped": (set(), {"message", "type"}, set()),
    "system-out": (set(), set(), set()),
}
NUMBERS = {"tests", "failures", "errors", "skipped"}


def parsed(*reports: ParityReport) -> ET.Element:
    return ET.fromstring(junit.document(reports))  # noqa: S314 - our own


def assert_valid(root: ET.Element) -> None:
    assert root.tag == "testsuites"
    for element in root.iter():
        required, optional, inside = SCHEMA[element.tag]
        assert required <= set(element.attrib) <= required | optional, element.tag
        assert {child.tag for child in element} <= inside, element.tag
        for name in NUMBERS & set(element.attrib):
            assert element.attrib[name].isdecimal()
        if "time" in element.attrib:
            assert re.fullmatch(r"\d+\.\d{3}", element.attrib["time"])
    for suite in root:
        cases = suite.findall("testcase")
        assert int(suite.get("tests")) == len(cases)
        for name, result in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
            assert int(suite.get(name)) == len(suite.findall(f"testcase/{result}"))
        assert all(len(case) <= 1 for case in cases)
        names = [(case.get("classname"), case.get("name")) for case in cases]
        assert len(set(names)) == len(names)
    for name in ("tests", "failures", "errors"):
        assert int(root.get(name)) == sum(int(suite.get(name)) for suite in root)


def case(suite: ET.Element, name: str) -> ET.Element:
    (found,) = (case for case in suite.findall("testcase") if case.get("name") == name)
    return found


@pytest.mark.parametrize("report", samples.REPORTS.values(), ids=samples.REPORTS.keys())
def test_it_is_valid_and_fails_where_the_report_does(report):
    root = parsed(report)
    assert_valid(root)
    assert bool(report) == (root.get("failures") == root.get("errors") == "0")


def test_this_schema_can_fail():
    for change in (
        lambda root: root[0].attrib.pop("tests"),
        lambda root: root[0].set("errors", "1"),
        lambda root: root[0].set("time", "3.2 s"),
        lambda root: ET.SubElement(root[0], "testcase"),
        lambda root: ET.SubElement(root[0], "case"),
    ):
        root = parsed(samples.passing)
        change(root)
        with pytest.raises((AssertionError, KeyError)):
            assert_valid(root)


def test_a_suite_for_each_report():
    root = parsed(samples.passing, replace(samples.failing, provider="cuda"))
    assert_valid(root)
    assert [suite.get("name") for suite in root] == [
        "models/net.toml: net.onnx on cpu",
        "models/net.toml: wrong.onnx on cuda",
    ]
    assert root.get("time") == "6.500"
    assert root[0].get("time") == "3.250"
    owners = [{case.get("classname") for case in suite.findall("testcase")} for suite in root]
    assert owners == [{"models/net_toml.net_onnx.cpu"}, {"models/net_toml.wrong_onnx.cuda"}]


def test_cases_and_wrong_copies_are_test_cases():
    (suite,) = parsed(samples.unproven)
    assert [case.get("name") for case in suite.findall("testcase")] == [
        *(case.label for case in samples.unproven.cases),
        "rejects gates i and o exchanged",
        "rejects batch baked in",
        "rejects bias added twice",
        "rejects time baked in",
    ]
    assert len(case(suite, samples.RIGHT.label)) == 0
    assert case(suite, samples.UNCLEAR.label).find("skipped").get("type") == "inconclusive"
    same = case(suite, "rejects bias added twice").find("skipped")
    assert same.get("message") == "proven equivalent: the biases are zeros"
    failure = case(suite, "rejects time baked in").find("failure")
    assert failure.get("type") == "survived"
    assert "time baked in (ratio 14.2 at" in failure.get("message")


def test_a_failure_has_the_table_of_its_case():
    (suite,) = parsed(samples.failing)
    failure = case(suite, samples.WRONG.label).find("failure")
    assert failure.get("message") == (
        "not in parity, error 0.5 of output (allowed 4e-06, ratio 4e+06), 0.125 of hn (allowed 4e-06, ratio 1e+06); "
        "the largest ratio that passes is 32"
    )
    head, *lines = failure.text.splitlines()
    assert head.startswith("output  largest error")
    assert [line.split()[0] for line in lines] == ["output", "hn", "cn"]
    assert ["  FAILS  " in line for line in lines] == [True, True, False]
    assert suite.find("system-out").text == plain(samples.failing)


def test_a_case_that_did_not_run_is_an_error():
    (suite,) = parsed(samples.stopped)
    assert (suite.get("errors"), suite.get("failures")) == ("2", "0")
    assert case(suite, samples.STOPPED.label).find("error").get("message") == samples.STOPPED.error


def test_a_case_without_outputs_is_a_failure():
    (suite,) = parsed(replace(samples.passing, cases=(CaseResult("empty"),)))
    assert case(suite, "empty").find("failure").get("message") == "no output was compared"


def test_nothing_judged_is_a_failure():
    (suite,) = parsed(samples.undecided)
    assert suite.get("skipped") == "1"
    assert case(suite, "verdict").find("failure").get("message") == "no case could be judged"


def test_versions_are_properties():
    (suite,) = parsed(samples.passing)
    found = {item.get("name"): item.get("value") for item in suite.findall("properties/property")}
    assert found == {
        "file": "net.onnx",
        "source": "models/net.toml",
        "provider": "cpu",
        "limit": "32",
        **samples.VERSIONS,
    }


def test_the_circumstances_are_properties():
    about = {"command": "lstm-onnx verify net.toml", "commit": "0123456789ab", "digest": "sha256:12"}
    (suite,) = parsed(replace(samples.passing, date="2026-11-28T12:00:00+00:00", **about))
    found = {item.get("name"): item.get("value") for item in suite.findall("properties/property")}
    assert found.items() >= about.items()
    assert suite.get("timestamp") == "2026-11-28T12:00:00+00:00"


def test_cases_of_one_name_are_told_apart():
    twice = replace(samples.passing, cases=(samples.SHORT, samples.SHORT, samples.SHORT))
    (suite,) = parsed(twice)
    names = [case.get("name") for case in suite.findall("testcase")][:3]
    assert names == [samples.SHORT.label, f"{samples.SHORT.label} (2)", f"{samples.SHORT.label} (3)"]


def test_names_come_back_as_they_were_cleaned():
    root = parsed(samples.hostile)
    (suite,) = root
    assert case(suite, samples.EVIL[0]) is not None
    assert r"\x1b[31m\x9b\u202e" in suite.findall("testcase")[3].get("name")
    assert "é中🙂long" in suite.findall("testcase")[5].get("name")
    assert junit.document([samples.hostile]).startswith(b"<?xml version='1.0' encoding='utf-8'?>\n<testsuites ")


def test_the_same_report_is_the_same_bytes():
    assert junit.document([samples.failing]) == junit.document([replace(samples.failing)])


def test_what_was_tried_is_a_property():
    (suite,) = parsed(samples.ranged)
    (tried,) = (item for item in suite.iter("property") if item.get("name") == "tried")
    assert tried.get("value") == "batch 1 to 3, 9; tokens 0 to 99; x -310 to 296"
