"""The card that goes with an edit: what the hub reads, and what people must know."""

import pytest
import yaml

from aizheimer.evaluation.calibration import calibrate_labels
from aizheimer.proof.findings import read_findings
from aizheimer.reports.assemble import assemble
from aizheimer.reports.html import ReportContent, render
from aizheimer.reports.model_card import model_card
from aizheimer.reports.suite_tables import suite_tables
from tests.unit.proof.builders import attack, distance, good, provenance, rate, share, suite, sum_of, write_run
from tests.unit.reports.builders import result_of


@pytest.fixture
def found(tmp_path):
    families = suite("families", {"ua.synonyms": share(60, 100)}, warnings=["no other languages"])
    weak = attack(asr=35, before=5, warnings=["reaches only 20%"], random=rate(7))
    return read_findings(write_run(tmp_path / "run", evaluation=good(), suites=[families], attacks=[weak]))


def metadata(card):
    return yaml.safe_load(card.split("---\n")[1])


def test_the_hub_finds_the_figures(found):
    head = metadata(model_card(found))
    assert head["library_name"] == "aizheimer"
    (entry,) = head["model-index"]
    metrics = {metric["name"]: metric["value"] for metric in entry["results"][0]["metrics"]}
    assert metrics == {"UA": 1, "IRA": 1, "CRA": 1, "ASR seed-search": 0.35}


def test_suites_attacks_and_what_was_not_tried(found, monkeypatch):
    from aizheimer._registry import ATTACKS

    monkeypatch.setitem(ATTACKS.entries, "p4d", "nowhere:P4D")
    card = model_card(found)
    assert "| ua.synonyms | 60% |" in card
    assert "- no other languages" in card
    assert "| seed-search | black box | 5% | 35% | 26 to 44% | 100% |  | 7% | 100 | 5 judged, 2 s |" in card
    assert "- seed-search: budget tries 8" in card
    assert "- seed-search: reaches only 20%" in card
    assert "- attack p4d" in card
    assert "No grey box and no white box attack was tried" in card


def test_relearning_says_after_how_many_steps_the_concept_was_back(tmp_path):
    back = attack("relearn", asr=90, steps=40, details={"steps_to_recover": 20})
    found = read_findings(write_run(tmp_path / "run", evaluation=good(), attacks=[back]))
    assert "- relearn: recovered after 20 steps" in model_card(found)


def test_a_ua_stands_beside_the_errors_of_its_judge(tmp_path):
    errors = calibrate_labels("Santa Claus", judge="judge", shown=["Santa Claus", "cat"], clean=["cat"] * 20)
    canvas = suite("canvas", {"ua": share(9, 10)}, calibration=errors)
    found = read_findings(write_run(tmp_path / "run", evaluation=good(), suites=[canvas]))
    assert "| … judge misses the target | | 9 to 91% | 50% | 2 images |" in model_card(found)
    page = render(ReportContent(result=result_of(), columns=[], suites=found.suites))
    assert "<td>… judge sees it elsewhere</td>" in page


def test_distances_are_numbers_with_what_they_were_computed_with(tmp_path):
    quality = suite(
        "quality", {}, distances={"kid": distance(extractor="a|b"), "perceptual": distance(interval=(0, 1))}
    )
    found = read_findings(write_run(tmp_path / "run", evaluation=good(), suites=[quality]))
    card = model_card(found)
    assert "| kid | 0.0123 |  | 0.0045 | 256 images |" in card
    assert "| perceptual | 0.0123 | 0 to 1 | 0.0045 | 256 images |" in card
    assert "- kid: a distance by a\\|b (weights w, 128 numbers a picture), 256 pictures against 256" in card
    page = render(ReportContent(result=result_of(), columns=[], suites=found.suites))
    assert '<td data-label="edited">0.0123</td>' in page
    assert "256 pictures against 256" in page
    (figures,) = suite_tables(quality)
    assert list(figures.columns[1].cells) == ["0.0123", "0.0123"]
    assert "by a|b" in figures.caption


def test_an_edit_that_was_not_measured_says_so(tmp_path):
    card = model_card(read_findings(write_run(tmp_path / "run")))
    assert "Nothing: the edit was not evaluated." in card
    assert "model-index" not in metadata(card)


class TestWithoutBeingAsked:
    """What a card says that nobody gave a licence, a gate or an evaluation to."""

    def test_what_was_not_given_is_said(self, found):
        card = model_card(found)
        assert "- licence of the base: not stated; an edit is under the licence of its base" in card
        assert "## Gate\n\nThe edit was not held against a gate" in card
        assert not {"license", "base_model"} & metadata(card).keys()
        assert "- licence of the base: mit;" in model_card(found, licence="mit")

    def test_a_base_on_the_hub_is_named_for_the_hub_and_in_the_usage(self, found):
        card = model_card(found, base="somebody/sd-1-5", repository="me/no-santa")
        assert metadata(card)["base_model"] == "somebody/sd-1-5"
        assert 'load_model("somebody/sd-1-5")' in card
        assert "$ pip install aizheimer\n$ aizheimer pull me/no-santa --out edit\n" in card
        assert 'load_edit("edit")' in card

    def test_no_folder_of_whoever_made_it_is_in_the_usage(self, found):
        card = model_card(found)
        assert f'load_edit("{found.name}")' not in card
        assert "aizheimer pull OWNER/NAME --out edit" in card

    def test_attacks_without_an_evaluation_reach_the_hub(self, tmp_path):
        run = write_run(tmp_path / "run", attacks=[attack(asr=35)], edit=provenance(base_name="models/sd"))
        card = model_card(read_findings(run))
        (entry,) = metadata(card)["model-index"]
        (result,) = entry["results"]
        assert [(one["name"], one["value"]) for one in result["metrics"]] == [("ASR seed-search", 0.35)]
        assert result["dataset"]["name"] == "prompts of models/sd"
        assert "\n- evaluation\n" in card
        assert "evaluation evaluation" not in card


class TestSum:
    """A sum's card names every concept, not the first one alone."""

    def card(self, folder, **options):
        return model_card(read_findings(write_run(folder / "run", **options)))

    def test_all_its_concepts_are_named_with_their_strengths(self, tmp_path):
        card = self.card(tmp_path, edit=sum_of(1.0, 0.5, -0.25), evaluation=good())
        assert "# “Santa Claus” and “dog” forgotten, “cat” exaggerated\n" in card
        assert "model forget “Santa Claus” and “dog” and exaggerate “cat”, made with the method stack" in card
        assert "- forgets dog (uce, strength 0.5)\n- exaggerates cat (uce, strength -0.25)" in card
        assert (
            "also about “dog” and “cat”. Every figure is about “Santa Claus”: nothing is stated of the others." in card
        )

    def test_one_of_which_nothing_is_left_forgets_nothing(self, tmp_path):
        card = self.card(tmp_path, edit=sum_of())
        assert "# Nothing forgotten\n" in card
        assert "- nothing: every part was taken away" in card

    def test_concepts_of_one_run_are_named_too(self, tmp_path):
        card = self.card(tmp_path, edit=provenance(recipe={"also": ["dog", "fox"]}))
        assert "# “Santa Claus”, “dog” and “fox” forgotten\n" in card

    def test_an_edit_of_one_concept_needs_no_list(self, tmp_path):
        assert "What it is made of" not in self.card(tmp_path)
        assert "- exaggerates Santa Claus (esd, strength -1)" in self.card(tmp_path, edit=provenance(strength=-1.0))

    def test_its_report_names_them_beside_the_figures(self):
        page = render(ReportContent(result=result_of(), columns=[], parts=["forgets a<b (uce, strength 1)", "x"]))
        assert "it forgets a&lt;b (uce, strength 1); x. All figures here are about" in page


def test_words_from_outside_end_no_cell_and_are_no_markup(tmp_path):
    card = model_card(read_findings(write_run(tmp_path / "run", edit=provenance("<img src=x>|`rm`"))))
    assert "<img" not in card
    assert "# “&lt;img src=x&gt;\\|'rm'” forgotten" in card


class TestReport:
    def test_suites_and_attacks_are_in_the_report_when_there_are_any(self, found):
        page = render(ReportContent(result=result_of(), columns=[], suites=found.suites, attacks=found.attacks))
        assert "Attempts to bring “Santa Claus” back" in page
        assert "ua.synonyms" in page
        assert '<td data-label="ASR">35%</td>' in page
        assert "reaches only 20%" in page

    def test_nothing_is_said_of_what_was_not_run(self):
        page = render(ReportContent(result=result_of(), columns=[]))
        assert "Attempts to bring" not in page
        assert "Further questions" not in page

    def test_names_from_files_are_escaped(self):
        page = render(ReportContent(result=result_of(), columns=[], attacks={"<script>": attack()}))
        assert "<script" not in page

    def test_assembled_reports_pass_them_on(self):
        import inspect

        assert {"suites", "attacks"} <= inspect.signature(assemble).parameters.keys()
