"""What a report says of release: the gate on what is there now, the certificate, and when that is out of date."""

import json

import pytest

from aizheimer.errors import DataError, InputError
from aizheimer.proof.certificate import certify
from aizheimer.proof.check import check
from aizheimer.proof.findings import read_findings
from aizheimer.proof.gate import Gate
from aizheimer.reports.certificate_page import write_certificate_page
from aizheimer.reports.html import ReportContent, render
from aizheimer.reports.release import Release, release_of
from tests.unit.proof.builders import attack, good, suite, write_run
from tests.unit.reports.builders import result_of
from tests.unit.reports.test_html import ATTACK, Page

GATE = Gate(min_ua=0.9, max_asr={"seed-search": 0.3})


def run_of(folder, *, asr=0, certified=True):
    """A run, and what it holds; with a certificate of its own."""
    found = read_findings(write_run(folder, evaluation=good(), attacks=[attack(asr=asr)]))
    if certified:
        stated = certify(found, verdict=check(found, GATE, gate_name="ours"))
        stated.save(folder / "certificate.json")
        write_certificate_page(folder / "certificate.html", stated)
    return found


def page_of(release, **changes):
    return render(ReportContent(result=result_of(), columns=[], release=release, **changes))


def test_nothing_was_asked_and_nothing_certified(tmp_path):
    release = release_of(run_of(tmp_path, certified=False), report=tmp_path / "report.html")
    assert release == Release()
    assert "Gate “" not in page_of(release)
    assert "Certificate" not in page_of(release)


def test_the_certificates_gate_is_held_against_what_the_run_holds_now(tmp_path):
    run_of(tmp_path)
    again = run_of(tmp_path, asr=60, certified=False)
    release = release_of(again, report=tmp_path / "report.html")
    assert release.certificate.verdict.passed
    assert not release.verdict.passed
    assert release.outdated
    text = page_of(release)
    assert "not passed, recoverable" in text
    assert "The run has changed since it was written" in text


def test_a_certificate_of_this_run_is_not_out_of_date_and_is_linked(tmp_path):
    found = run_of(tmp_path)
    release = release_of(found, report=tmp_path / "report.html")
    assert (release.outdated, release.page) == (False, "certificate.html")
    text = page_of(release)
    page = Page(text)
    assert ("a", "href", "certificate.html") in page.attributes
    assert "has changed since" not in text
    assert release.certificate.edit_sha256 in text
    assert "max_asr.seed-search" in text
    assert "All 4 lines hold." in text


def test_a_report_elsewhere_finds_the_page_and_no_page_is_no_link(tmp_path):
    found = run_of(tmp_path / "my run")
    assert release_of(found, report=tmp_path / "out" / "r.html").page == "../my%20run/certificate.html"
    (tmp_path / "my run" / "certificate.html").unlink()
    assert release_of(found, report=tmp_path / "r.html").page == ""


def test_a_gate_that_is_asked_takes_the_certificates_place(tmp_path):
    found = run_of(tmp_path)
    release = release_of(found, gate="quick", report=tmp_path / "report.html")
    assert release.verdict.gate_name == "quick"
    with pytest.raises(InputError, match="quik"):
        release_of(found, gate="quik", report=tmp_path / "report.html")


def test_a_damaged_certificate_is_one_line(tmp_path):
    found = run_of(tmp_path)
    (tmp_path / "certificate.json").write_text(json.dumps({"target": "x"}))
    with pytest.raises(DataError, match="not a certificate; run `aizheimer certificate` again"):
        release_of(found, report=tmp_path / "report.html")


def test_a_suites_own_tables_are_shown_and_long_ones_folded():
    curve = {"half_distance": 0.2, "low": None, "reason": "no interval", "p_value": 1e-5}
    tables = {
        "curve": [curve],
        "nearest": [{"concept": f"thing {i}", "edited": 0.5} for i in range(10)],
        "concepts": [{"concept": ATTACK, "edited": i / 60} for i in range(60)],
        "ineffective": [],
    }
    text = render(ReportContent(result=result_of(), columns=[], suites={"neighbours": suite("n", {}, tables=tables)}))
    page = Page(text)
    words = [word.strip() for word in page.text if word.strip()]
    assert "neighbours: ineffective" not in words
    assert words[words.index("half distance") + 1] == "0.200"
    assert words[words.index("p value") + 1] == "1.0e-05"
    assert "low" not in words, "what one row leaves empty says nothing"
    assert words.count("0.500") == 11
    assert ("td", "data-label", "edited") in page.attributes
    assert text.count('<details class="table" open>') == 2
    assert text.count('<details class="table">') == 1
    assert "script" not in page.tags


def test_relearning_is_told_in_steps_and_attacks_in_what_they_took():
    back = attack("relearn", asr=90, steps=40, details={"steps_to_recover": 20})
    text = render(ReportContent(result=result_of(), columns=[], attacks={"relearn": back}))
    assert "relearn: recovered after 20 steps" in text
    assert "40 steps, 5 judged, 2 s" in text
    never = attack("relearn", steps=40, details={"steps_to_recover": None})
    text = render(ReportContent(result=result_of(), columns=[], attacks={"relearn": never}))
    assert "relearn: not recovered within 40 steps" in text


def test_what_a_gate_found_is_escaped(tmp_path):
    verdict = check(run_of(tmp_path), GATE, gate_name=ATTACK)
    page = Page(page_of(Release(verdict=verdict)))
    assert "script" not in page.tags
    assert all(value != "x" for _, name, value in page.attributes if name == "src")
    assert ATTACK in "".join(page.text)
