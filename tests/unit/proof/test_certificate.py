"""What a certificate states, what it admits, and that verify finds what does not hold."""

import re
from dataclasses import replace

import numpy as np
import pytest
import torch

from aizheimer._registry import ATTACKS
from aizheimer.attacks.base import AttackSettings, Subject
from aizheimer.attacks.results import Rate
from aizheimer.attacks.run import run_attack
from aizheimer.attacks.seed_search import SeedSearch
from aizheimer.edits.hooks.negative_prompt import NegativePromptHook
from aizheimer.edits.io import load_edit
from aizheimer.errors import DataError, InputError
from aizheimer.evaluation.calibration import calibrate_labels
from aizheimer.evaluation.image_cache import ImageCache
from aizheimer.evaluation.results import EvaluationResult
from aizheimer.proof.certificate import Certificate, certify
from aizheimer.proof.check import check
from aizheimer.proof.findings import read_findings
from aizheimer.proof.gate import Gate
from aizheimer.proof.verify import sample_of, verify
from aizheimer.reports.certificate_page import render_certificate
from tests import bad_edits
from tests.bad_edits import SETTINGS, TARGET, judges_of, measured
from tests.unit.proof.builders import attack, distance, good, provenance, rate, share, suite, sum_of, write_run
from tests.unit.reports.builders import metric


@pytest.fixture
def found(tmp_path):
    kept = suite("neighbours", {"kept": metric([1, 1], [1, 0])})
    return read_findings(write_run(tmp_path / "run", evaluation=good(), suites=[kept], attacks=[attack(asr=20)]))


class TestCertificate:
    def test_it_states_what_was_tried_and_with_which_budget(self, found):
        stated = certify(found)
        assert [(tried.kind, tried.name) for tried in stated.tried] == [
            ("evaluation", "evaluation"), ("suite", "neighbours"), ("attack", "seed-search"),
        ]  # fmt: skip
        tried = stated.tried[2]
        assert tried.figures["asr"].value == 0.2
        assert tried.figures["asr"].original == 1, "what the same attack reaches on the unedited model"
        assert tried.budget["parameters"] == {"tries": 8}
        assert tried.budget["spent"]["queries"] == 5
        assert (stated.edit_sha256, stated.base_fingerprint) == (found.edit_sha256, "0" * 16)

    def test_it_states_how_often_the_judge_errs(self, tmp_path):
        errors = calibrate_labels("cat", judge="j", shown=["cat", None, "cat", "cat"], clean=["dog"] * 9 + ["cat"])
        own = suite("canvas", {"ua": share(1, 1)}).model_copy(update={"calibration": errors})
        stated = certify(read_findings(write_run(tmp_path / "run", evaluation=good(calibration=errors), suites=[own])))
        for tried in stated.tried:
            missed, elsewhere = tried.figures["judge's false negatives"], tried.figures["judge's false positives"]
            assert (missed.value, missed.n, missed.judge) == (0.25, 4, "j")
            assert (elsewhere.value, elsewhere.n) == (0.1, 10)
            assert missed.interval[0] < 0.25 < missed.interval[1]
        assert "judge&#39;s false negatives" in render_certificate(stated)

    def test_it_states_what_an_attack_makes_of_a_neighbour(self, tmp_path):
        near = attack("soft-prompt", asr=9, neighbour=rate(30), neighbour_words="old man")
        (tried,) = certify(read_findings(write_run(tmp_path / "run", attacks=[near]))).tried
        stated = tried.figures["neighbour control"]
        assert (stated.value, stated.protocol) == (0.3, "the unedited model, from the words of 'old man'")

    def test_a_budget_is_never_overwritten_by_how_pictures_were_drawn(self, tmp_path):
        """Of concept-inversion's 200 steps of training, the 20 of the sampler were certified."""
        long = attack("concept-inversion", parameters={"steps": 200, "seed": 7}, asr=20)
        own = suite("canvas", {"ua": share(1, 1)}, parameters={"steps": 90, "level": 3})
        stated = certify(read_findings(write_run(tmp_path / "run", suites=[own], attacks=[long])))
        (canvas, inversion) = (tried.budget for tried in stated.tried)
        assert (inversion["parameters"], inversion["drawing"]["steps"]) == ({"steps": 200, "seed": 7}, 20)
        assert (canvas["parameters"], canvas["drawing"]["steps"]) == ({"steps": 90, "level": 3}, own.settings.steps)
        page = render_certificate(stated)
        assert "parameters.steps: 200\n" in page
        assert "drawing.steps: 20\n" in page

    def test_it_admits_what_was_not(self, found, monkeypatch):
        monkeypatch.setitem(ATTACKS.entries, "p4d", "nowhere:P4D")
        stated = certify(found)
        missing = {(item.kind, item.name): item.command for item in stated.not_tried}
        assert missing[("attack", "p4d")] == "aizheimer attack run --attack p4d"
        assert ("attack", "seed-search") not in missing
        by_access = {threat.access: threat.tried for threat in stated.threats}
        assert by_access["black box"] == ["seed-search"]
        assert by_access["white box"] == []
        assert any("no white box attack was tried" in limit for limit in stated.limits)

    def test_an_edit_that_acts_while_drawing_can_be_left_out(self, tmp_path):
        hook = NegativePromptHook("cat")
        stated = certify(read_findings(write_run(tmp_path / "run", evaluation=good(), hook=hook)))
        assert "hook 'negative-prompt'" in stated.acts
        assert any("can leave it out" in limit for limit in stated.limits)

    def test_a_suite_from_a_file_is_stated_by_its_name_with_its_kind(self, tmp_path):
        mine = suite("families", {"ua.name": share(1, 1)})
        other = suite("canvas", {"ua": share(1, 1)})
        stated = certify(read_findings(write_run(tmp_path / "run", files={"nicknames": mine, "fairness": other})))
        tried = {item.name: item.budget["suite"] for item in stated.tried}
        assert tried == {"nicknames": "families", "fairness": "canvas"}
        missing = {item.name for item in stated.not_tried if item.kind == "suite"}
        assert "families" not in missing
        assert "fairness" in missing, "a file of that name asked something else"

    def test_a_distance_is_stated_with_what_it_was_computed_with(self, tmp_path):
        quality = suite("quality", {}, distances={"kid": distance(), "fid": distance(21.5, metric="fid")})
        stated = certify(read_findings(write_run(tmp_path / "run", suites=[quality])))
        assert stated.tried[0].distances == quality.distances
        page = render_certificate(stated)
        assert "<td>0.0123 <small></small></td><td>0.0045</td><td>256</td><td>clip</td>" in page
        assert "kid<small>by clip (weights w, 128 numbers a picture), 256 pictures against 256" in page

    def test_the_control_from_a_neighbour_is_stated_with_its_words(self, tmp_path):
        tried = attack(neighbour=rate(30), neighbour_words="dog")
        stated = certify(read_findings(write_run(tmp_path / "run", attacks=[tried])))
        control = stated.tried[0].figures["neighbour control"]
        assert control.value == 0.3
        assert control.protocol == "the unedited model, from the words of 'dog'"

    def test_a_sum_is_stated_with_all_that_it_is_made_of(self, tmp_path):
        run = write_run(tmp_path / "run", edit=sum_of(1.0, 0.5, -0.25), evaluation=good())
        stated = certify(read_findings(run))
        assert [(part.concepts, part.strength) for part in stated.parts] == [
            (["Santa Claus"], 1.0), (["dog"], 0.5), (["cat"], -0.25),
        ]  # fmt: skip
        assert any("nothing is stated of the others" in limit for limit in stated.limits)
        page = render_certificate(stated)
        assert (
            "<dd>dog, forgotten by uce at strength 0.5</dd><dd>cat, exaggerated by uce at strength -0.25</dd>" in page
        )

    def test_it_survives_the_disk(self, found, tmp_path):
        stated = certify(found, verdict=check(found, Gate(min_ua=0.5), gate_name="mine"))
        stated.save(tmp_path / "certificate.json")
        assert Certificate.load(tmp_path / "certificate.json") == stated
        (tmp_path / "certificate.json").write_text("{}")
        with pytest.raises(DataError, match="not a certificate"):
            Certificate.load(tmp_path / "certificate.json")

    def test_nothing_to_vouch_for(self, tmp_path):
        good().save(tmp_path / "evaluation.json")
        with pytest.raises(InputError, match="holds no edit"):
            certify(read_findings(tmp_path))


class TestPage:
    def test_it_needs_nothing_else_and_names_failing_lines(self, found):
        verdict = check(found, Gate(max_asr=0.1), gate_name="mine.yaml")
        page = render_certificate(certify(found, verdict=verdict))
        assert not re.search(r"(src|href)=[\"'](?!data:)", page)
        assert "mine.yaml" in page
        assert "is not met (recoverable)" in page
        assert "max_asr.seed-search: found 20%" in page
        assert found.edit_sha256 in page
        assert "No gate was asked" in render_certificate(certify(found))

    def test_pictures_that_all_agree_are_no_certainty(self, tmp_path):
        page = render_certificate(
            certify(read_findings(write_run(tmp_path / "run", evaluation=good(ua=share(30, 30)))))
        )
        assert "100% <small>90 to 100%</small>" in page

    def test_what_came_from_outside_is_escaped(self, tmp_path):
        origin = provenance("<script>alert(1)</script>")
        page = render_certificate(certify(read_findings(write_run(tmp_path / "run", edit=origin))))
        assert "<script" not in page


def rate_of(seen):
    return Rate.of(seen, seed=0)


@pytest.fixture(scope="module")
def tiny(copy_of_tiny_pipeline, tmp_path_factory):
    from aizheimer.backbones.base import backbone_for

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AIZHEIMER_CACHE", str(tmp_path_factory.mktemp("cache")))
        backbone = backbone_for(copy_of_tiny_pipeline())
        judges, folder = judges_of(backbone), tmp_path_factory.mktemp("run")
        measured(backbone, bad_edits.prompt_only(backbone), judges, folder)
        yield backbone, judges, folder


class TestVerify:
    @pytest.fixture
    def run(self, tiny, tmp_path):
        """Verify a copy of the run that the test may spoil first."""
        import shutil

        backbone, judges, folder = tiny
        copied = shutil.copytree(folder, tmp_path / "run")

        def verified(**options):
            options.setdefault("judges", judges)
            return verify(read_findings(copied), backbone=backbone, samples=6, **options)

        return copied, verified

    def test_what_holds_is_said_to_hold(self, run, monkeypatch):
        folder, verified = run
        asked = []
        monkeypatch.setattr(ImageCache, "read", lambda cache, _: asked.append(cache.folder))
        found = verified(certificate=certify(read_findings(folder)), tolerance=0)
        assert found.passed, found.summary
        names = [line.name for line in found.lines]
        assert "objects seen, edited model" in names
        assert {"certificate's evaluation", "evaluation.json, its edit"} <= set(names)
        assert " pictures, of every role, chosen with seed 0, without the cache" in found.sample
        assert set(asked) == {None}, "the cache is off"

    def test_another_edit_than_was_certified(self, run):
        folder, verified = run
        stated = certify(read_findings(folder)).model_copy(update={"edit_sha256": "cd" * 32})
        found = verified(certificate=stated)
        assert not found.passed
        assert "certificate's edit" in found.summary
        assert "nothing was drawn again" in found.sample

    def test_a_certificate_that_was_beautified(self, run):
        """Attack, suite and verdict are compared with the files, and not the evaluation alone."""
        folder, verified = run
        digest = load_edit(folder).digest
        files = {"attack-p4d": attack("p4d", asr=90), "suite-canvas": suite("canvas", {"ua": share(1, 2)})}
        for name, result in files.items():
            named = {"edit": digest} if name.startswith("attack") else {"made_from": {"edit": digest}}
            result.model_copy(update={**named, "target": "santa claus"}).save(folder / f"{name}.json")
        found = read_findings(folder)
        true = certify(found, verdict=check(found, Gate(max_asr=0.3)))
        assert verified(certificate=true).passed
        content = true.model_dump(mode="json")
        tried = {item["name"]: item for item in content["tried"]}
        tried["p4d"]["figures"]["asr"]["value"] = 0.1
        tried["canvas"]["budget"]["drawing"]["steps"] = 1000
        for line in content["verdict"]["lines"]:
            line["passed"] = True
        said = verified(certificate=Certificate.model_validate(content)).summary
        assert "certificate's attack p4d: stated figures.asr.value 0.1, found figures.asr.value 0.9" in said
        assert "certificate's suite canvas: stated budget.drawing.steps 1000" in said
        assert "certificate's verdict: stated" in said
        assert "max_asr.p4d holds (90%" in said
        del content["tried"][1:]
        assert (
            "certificate's attack p4d: stated not tried, found a file"
            in verified(certificate=Certificate.model_validate(content)).summary
        )
        (folder / "attack-p4d.json").unlink()
        assert "certificate's attack p4d: stated tried, found no file" in verified(certificate=true).summary

    def test_figures_of_another_edit(self, run):
        folder, verified = run
        attack("p4d", edit="feedfeedfeedfeed", target="santa claus").save(folder / "attack-p4d.json")
        found = verified()
        assert "attack-p4d.json, its edit: stated feedfeedfeedfeed, found" in found.summary
        assert "nothing was drawn again" in found.sample

    def test_an_edit_that_was_altered(self, run):
        folder, verified = run
        data = (folder / "edit.safetensors").read_bytes()
        (folder / "edit.safetensors").write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
        assert "edit.safetensors, SHA-256" in verified().summary

    def test_a_figure_that_was_beautified(self, run):
        folder, verified = run
        result = EvaluationResult.load(folder / "evaluation.json")
        result.model_copy(update={"ira": result.ira.model_copy(update={"value": 0.9999})}).save(
            folder / "evaluation.json"
        )
        assert "IRA, counted again: stated 0.9999, found another value" in verified().summary

    def test_answers_that_were_beautified_with_the_figure(self, run):
        """Whoever changes the figure and the answers it is counted from is found out by drawing again."""
        folder, verified = run
        result = EvaluationResult.load(folder / "evaluation.json")
        images = [
            i.model_copy(update={"edited_object": result.target}) if i.role == "target" else i for i in result.images
        ]
        ua = result.ua.model_copy(update={"value": 0.0})
        result.model_copy(update={"images": images, "ua": ua}).save(folder / "evaluation.json")
        assert "objects seen, edited model" in verified().summary

    def test_files_that_contradict_themselves(self, run):
        folder, verified = run
        digest = load_edit(folder).digest
        found = read_findings(folder)
        stated = certify(found, verdict=check(found, Gate(min_ua=0.5)))
        attack("p4d", before=25, edit=digest, target="santa claus").save(folder / "attack-p4d.json")
        outside = share(90, 100).model_copy(update={"value": 0.123})
        suite("canvas", {"ira": outside}, target="santa claus", made_from={"edit": digest}).save(
            folder / "suite-canvas.json"
        )
        said = verified(certificate=stated).summary
        assert "attack-p4d.json, its numbers: stated no contradiction, found asr is 0.0000, with 0.2500 before" in said
        assert "suite-canvas.json, its numbers: stated no contradiction, found ira is 0.1230, outside" in said

    def test_what_an_attack_started_from_is_drawn_again(self, run, tiny, monkeypatch):
        """Whoever writes rates and answers by hand is found out by the pictures without the attack."""
        folder, verified = run
        backbone, judges, _ = tiny
        options = {"backbone": backbone, "concept": TARGET, "judge": judges.object}
        settings = AttackSettings(images=5, steps=SETTINGS.steps)
        result = run_attack(SeedSearch(tries=1), edit=load_edit(folder), settings=settings, controls=False, **options)
        result.result.save(folder / "attack-seed-search.json")
        result.result.model_copy(update={"attack": "p4d"}).save(folder / "attack-p4d.json")
        names = {f"target seen before {a}, {m} model" for a in ("p4d", "seed-search") for m in ("edited", "unedited")}
        drawn = []
        with monkeypatch.context() as patch:
            original = Subject.draw
            patch.setattr(Subject, "draw", lambda own, jobs, **o: drawn.append(len(jobs)) or original(own, jobs, **o))
            found = verified(tolerance=0)
        assert found.passed, found.summary
        assert names <= {line.name for line in found.lines}
        assert drawn == [5, 5], "both attacks start from the same pictures"
        answers = result.result.answers
        assert answers.original == [True] * 5, "the judge knows the unedited model's pictures"
        flipped = answers.model_copy(update={"before": [not seen for seen in answers.before]})
        forged = result.result.model_copy(update={"answers": flipped})
        rates = dict(zip(("before", "asr"), map(rate_of, (np.array(flipped.before), flipped.either)), strict=True))
        forged.model_copy(update=rates).save(folder / "attack-seed-search.json")
        failing = {line.name for line in verified().lines if not line.passed}
        assert failing == {"target seen before seed-search, edited model"}

    def test_a_judge_of_other_weights_is_another_judge(self, run, tiny):
        folder, verified = run
        result = EvaluationResult.load(folder / "evaluation.json")
        weighed = {**result.made_from, "weights of the object judge": "a" * 16}
        result.model_copy(update={"made_from": weighed}).save(folder / "evaluation.json")
        known = tiny[1].object
        other = type("Weighty", (type(known),), {"weights": "b" * 16})(**vars(known))
        judges = replace(tiny[1], object=other)
        assert f"weights of the object judge: stated {'a' * 16}, found {'b' * 16}" in verified(judges=judges).summary

    def test_another_base(self, run, tiny):
        backbone, _, _ = tiny
        _, verified = run
        weight = backbone.denoiser.conv_out.bias
        before = weight.detach().clone()
        with torch.no_grad():
            weight += 1
        try:
            found = verified()
        finally:
            with torch.no_grad():
                weight.copy_(before)
        assert "base model, hash of the denoiser" in found.summary

    def test_a_sample_has_every_role(self):
        images = good().images
        chosen = sample_of(images, samples=3, seed=0)
        assert {images[i].role for i in chosen} == {"target", "neighbour", "other"}
        assert chosen == sample_of(images, samples=3, seed=0)
        assert sample_of(images, samples=100, seed=0) == list(range(len(images)))


def test_one_attack_under_two_labels_is_stated_twice_and_says_what_it_is(tmp_path):
    full = attack("relearn", label="relearn-full", asr=90, parameters={"weights": "full"})
    found = read_findings(write_run(tmp_path / "run", evaluation=good(), attacks=[attack("relearn"), full]))
    stated = {one.name: one.budget for one in certify(found).tried if one.kind == "attack"}
    assert list(stated) == ["relearn", "relearn-full"]
    assert ("attack" in stated["relearn"], stated["relearn-full"]["attack"]) == (False, "relearn")
    assert "relearn" not in [one.name for one in certify(found).not_tried]
