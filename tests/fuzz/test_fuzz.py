"""Mutated files end with exit codes 0, 1 or 2, and the campaign sees what does not."""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator

import onnx
import pytest

from tests.hostile_files import ENDING

from .campaign import SHARES, Job, Outcome, Worker, campaign, job, structure_job
from .faults import FAULTS
from .mutate import mutated
from .schema import mutated_model
from .seeds import ON_CPU, Seed, of_kind, seeds
from .wire import mutated_message, packed, parsed

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the memory limit is Linux's RLIMIT_AS")


def _run(numbers: range, seed: int) -> Outcome:
    outcome = campaign(numbers, seed, seeds(modules=len(numbers) > 1000), workers=1 if len(numbers) < 1000 else 2)
    assert sum(outcome.codes.values()) == len(numbers)
    assert outcome.findings == {}
    return outcome


def test_some_mutated_files_are_refused_or_run() -> None:
    outcome = _run(range(40), seed=7)
    assert outcome.changed > 36
    assert {codes.partition(" ")[0] for codes in outcome.codes} == set(SHARES)
    assert {code for codes in outcome.codes for code in codes.split()[1].split(",")} == {"0", "1", "2"}


@pytest.mark.slow
@pytest.mark.parametrize("part", range(10))
def test_twenty_thousand_mutated_files_are_refused_or_run(part: int) -> None:
    _run(range(2000 * part, 2000 * (part + 1)), seed=0)


# --- structures -----------------------------------------------------------------------------------------


def _structures(numbers: range, seed: int) -> Outcome:
    among = seeds(modules=len(numbers) > 1000)
    outcome = campaign(numbers, seed, among, workers=1 if len(numbers) < 1000 else 2, structures=True)
    assert sum(outcome.codes.values()) == len(numbers)
    assert outcome.findings == {}
    return outcome


def test_some_models_of_any_structure_are_checked_run_and_inspected() -> None:
    outcome = _structures(range(6), seed=5)
    assert {code for codes in outcome.codes for code in codes.split()[1].split(",")} <= {"0", "1", "2"}
    assert all(codes.count(",") == 2 for codes in outcome.codes)


@pytest.mark.slow
@pytest.mark.parametrize("part", range(5))
def test_ten_thousand_models_of_any_structure_are_checked_run_and_inspected(part: int) -> None:
    _structures(range(2000 * part, 2000 * (part + 1)), seed=0)


def test_a_campaign_counts_the_children_that_end() -> None:
    """Files that end whoever opens them, in the children that a campaign makes by forks."""
    own = of_kind("onnx", seeds(modules=False))[0]
    names = ("RandomUniform, low above high", "GatherND of negative batch_dims")
    commands = [["check", "m.onnx", "--provider", "cpu"], ["run", "m.onnx", *ON_CPU], ["inspect", "m.onnx"]]
    outcome, worker = Outcome(), Worker()
    try:
        for number, name in enumerate(names):
            made = Job(number, own, ENDING[name]().SerializeToString(), commands)
            outcome.add(made, worker.run(made))
    finally:
        worker.close()
    assert outcome.findings == {}
    assert outcome.codes == {"onnx 1,2,0": 2}
    assert outcome.ended == {
        "ended the process (SIGABRT) in a run": 1,
        "ended the process (SIGABRT) in the first": 1,
        "ended the process (SIGSEGV) in shape inference": 1,
        "ended the process (SIGSEGV) in session creation": 1,
    }
    assert len(outcome.slowest) == 5


def test_structures_follow_from_their_numbers_and_are_models() -> None:
    among = seeds(modules=False)
    for number in range(30):
        one, same = structure_job(number, 3, among), structure_job(number, 3, among)
        assert (one.data, one.commands, one.seed) == (same.data, same.commands, same.seed)
        assert onnx.load_model_from_string(one.data).ByteSize() > 0
    assert len({structure_job(number, 3, among).data for number in range(30)}) == 30


# --- the campaign sees what is wrong ------------------------------------------------------------------


@pytest.fixture
def worker() -> Iterator[Worker]:
    made = Worker(f"{__package__}.faults")
    yield made
    made.close()


def _job(*commands: str) -> Job:
    return Job(0, Seed("toml", "none", "net.toml", b"", ()), b"", [[command] for command in commands])


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_a_finding_and_the_next_job_runs(
    fault: str, worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = worker.run(_job("nothing"))
    assert (answer["codes"], answer["said"], answer["problem"]) == ([0], [""], None)
    monkeypatch.setattr("tests.fuzz.campaign.SECONDS", 2.0 if fault == "hang" else 60.0)
    outcome = Outcome()
    outcome.add(_job(), worker.run(_job("nothing", fault)))
    assert FAULTS[fault][1] in outcome.findings[0]
    assert worker.run(_job("nothing"))["problem"] is None


# --- what mutations make ------------------------------------------------------------------------------


def test_a_file_follows_from_its_number_alone() -> None:
    among = seeds(modules=False)
    for number in range(20):
        one, same = job(number, 3, among), job(number, 3, among)
        assert (one.data, one.commands, one.seed.name) == (same.data, same.commands, same.seed.name)
    assert len({job(number, 3, among).data for number in range(20)}) > 15


@pytest.mark.parametrize("kind", SHARES)
def test_most_copies_are_changed_each_in_its_own_way(kind: str) -> None:
    alike = of_kind(kind, seeds(modules=False))[:6]
    rng = random.Random(0)  # noqa: S311
    for seed in alike:
        copies = [mutated(kind, seed.data, alike[0].data, rng) for _ in range(20)]
        assert sum(copy != seed.data for copy in copies) > 14
        assert len(set(copies)) > 11


def test_a_models_wire_form_is_taken_apart_and_put_together() -> None:
    data = of_kind("onnx", seeds(modules=False))[0].data
    fields = parsed(data)
    assert fields is not None
    assert packed(fields) == data
    rng = random.Random(1)  # noqa: S311
    assert all(mutated_message(data, rng) for _ in range(20))


def test_a_model_that_is_wrong_by_its_schema_is_a_model_still() -> None:
    data = of_kind("onnx", seeds(modules=False))[0].data
    rng = random.Random(2)  # noqa: S311
    models = [onnx.load_model_from_string(mutated_model(data, rng)) for _ in range(50)]
    whole = onnx.load_model_from_string(data)
    assert sum(model != whole for model in models) > 40
