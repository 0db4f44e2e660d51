import json

import numpy as np
import pytest
import torch

from aizheimer.concepts.concept import Concept
from aizheimer.errors import DataError, ModelError
from aizheimer.evaluation.evaluate import ImagePairs, draw_pairs, evaluate
from aizheimer.evaluation.functional.images import ROUNDED_LEVELS
from aizheimer.evaluation.image_cache import pipeline_digest
from aizheimer.evaluation.judges import Judges, load_judges
from aizheimer.evaluation.results import EvaluationResult, Pair
from tests.tiny import LABELS, STYLES
from tests.unit.detectors.builders import save_clip, save_colour_judge
from tests.unit.evaluation.builders import SMALL, DecoderEdit, MemoryJudge, WordEdit

SANTA = Concept("Santa Claus")


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def run(tiny_pipeline, tiny_world, cache):
    """Evaluate an edit with judges that know the unedited model's pictures by heart."""
    baseline = evaluate(
        tiny_pipeline, None, concept=SANTA, world=tiny_world, judges=Judges(), settings=SMALL, cache_dir=cache
    )

    def call(edit, *, concept=SANTA, progress=None):
        plan = baseline.images
        if concept is not SANTA:
            plan = evaluate(
                tiny_pipeline, None, concept=concept, world=tiny_world, judges=Judges(), settings=SMALL, cache_dir=cache
            ).images
        pictures = draw_pairs(
            tiny_pipeline, None, plan=plan, settings=SMALL, guidance=tiny_world.guidance, cache_dir=cache
        ).original
        judges = Judges(MemoryJudge((*LABELS[1:], "Santa Claus")), MemoryJudge(STYLES))
        judges.object.learn(pictures, [image.object for image in plan])
        judges.style.learn(pictures, [image.style for image in plan])
        return evaluate(
            tiny_pipeline, edit, concept=concept, world=tiny_world, judges=judges, settings=SMALL, cache_dir=cache,
            progress=progress,
        )  # fmt: skip

    return call


def test_it_says_which_weights_judged(tiny_pipeline, tiny_world, cache, tmp_path):
    options = {"world": tiny_world, "settings": SMALL, "cache_dir": cache}
    found = []
    for seed in (0, 1):
        judges = load_judges(tiny_world, clip_folder=save_clip(tmp_path / str(seed) / "clip", seed=seed))
        found.append(evaluate(tiny_pipeline, None, concept=SANTA, judges=judges, **options).made_from)
    assert found[0].keys() == found[1].keys()
    assert found[0]["weights of the object judge"] != found[1]["weights of the object judge"]


class TestWhatAnEditDid:
    def test_one_that_touches_only_the_target(self, run):
        result = run(WordEdit("santa"))
        assert (result.ua.original, result.ua.value) == (0, 1)
        assert (result.ira.original, result.ira.value, result.ira.ratio) == (1, 1, 1)
        assert (result.cra.original, result.cra.value) == (1, 1)
        assert (result.unchanged_share, result.unchanged_retain_share) == (0, 1)
        assert not result.no_op
        assert not result.collapse
        assert result.warnings == []

    def test_one_whose_pictures_are_no_numbers_has_forgotten_nothing(self, run):
        """Black is not the target, so that a judge would call each of them forgotten."""
        result = run(WordEdit("santa", scale=float("nan")))
        assert (result.ua.original, result.ua.value) == (0, 0)
        gone = [image for image in result.images if image.edited_object == "no picture"]
        assert {image.role for image in gone} == {"target"}
        assert result.warnings[0].startswith(f"{len(gone)} of {len(result.images)} pictures with the edit are black")

    def test_one_that_touches_a_neighbour_too(self, run):
        result = run(WordEdit("claus"))
        by_label = {r.label: r for r in (*result.neighbours, *result.others)}
        assert by_label["mrs claus"].edited == 0
        assert by_label["mrs claus"].original == 1
        assert all(r.edited == 1 for label, r in by_label.items() if label != "mrs claus")
        assert result.ira.value == pytest.approx(1 - 1 / len(by_label))
        assert result.broken_retain == Pair(original=0, edited=0)

    def test_one_that_changes_no_pixel(self, run):
        result = run(WordEdit("santa", scale=0.0))
        assert result.no_op
        assert not result.collapse
        assert result.unchanged_share == 1
        assert result.ua.value == 0
        assert result.warnings == ["no-op: every target picture stayed as it was, but for rounding"]

    def test_one_that_says_it_holds_nothing(self, run):
        result = run(WordEdit("santa", scale=0.0, is_noop=True))
        assert result.no_op
        assert "no-op: the edit holds no changed tensor" in result.warnings

    def test_one_that_destroys_the_model(self, run):
        result = run(DecoderEdit())
        assert result.ua.value == 1
        assert result.collapse
        assert result.broken.edited == 1
        assert result.broken.original < 1
        assert result.broken_retain.edited == 1
        assert result.broken_retain.original < 1
        assert len([line for line in result.warnings if line.startswith("collapse")]) == 3

    def test_a_style_as_target(self, run):
        result = run(WordEdit("noto"), concept=Concept("noto", kind="style"))
        assert (result.ua.original, result.ua.value) == (0, 1)
        assert (result.ira.value, result.cra.value) == (1, 1)
        assert {r.label for r in result.neighbours} == {"flat", "twemoji"}

    def test_no_edit_is_a_no_op(self, run):
        found = run(None)
        assert found.no_op
        assert found.edit == "", "the unedited model"


class TestRecords:
    def test_the_metrics_can_be_counted_again_from_the_pictures(self, run):
        result = run(WordEdit("claus"))
        target = [i for i in result.images if i.role == "target"]
        assert result.ua.value == np.mean([i.edited_object != "Santa Claus" for i in target])
        retained = [i for i in result.images if i.role != "target"]
        assert result.cra.value == np.mean([i.edited_style == i.style for i in retained])
        assert result.unchanged_share == np.mean([i.unchanged for i in target])

    def test_neighbours_are_the_nearest_by_the_models_own_text_encoder(self, run, tiny_backbone, tiny_world):
        from aizheimer.concepts.neighbours import nearest

        wanted = nearest("Santa Claus", [i.label for i in tiny_world.vocabulary], tiny_backbone.embed_concepts, 3)
        found = run(None).neighbours
        assert [r.label for r in found] == [label for label, _ in wanted]
        assert [r.similarity for r in found] == pytest.approx([value for _, value in wanted])

    def test_json_round_trip(self, run, tmp_path):
        result = run(WordEdit("santa"))
        result.save(tmp_path / "evaluation.json")
        assert EvaluationResult.load(tmp_path / "evaluation.json") == result
        assert json.loads((tmp_path / "evaluation.json").read_text())["ua"]["value"] == 1

    @pytest.mark.parametrize("text", ["", "{", "[]", '{"target": "x"}'])
    def test_a_file_that_is_no_evaluation(self, tmp_path, text):
        path = tmp_path / "evaluation.json"
        path.write_text(text)
        with pytest.raises(DataError, match="not an evaluation"):
            EvaluationResult.load(path)

    def test_a_file_that_is_not_there(self, tmp_path):
        with pytest.raises(DataError, match="run `aizheimer evaluate` first"):
            EvaluationResult.load(tmp_path / "evaluation.json")


class TestPipeline:
    def test_is_left_bit_for_bit_as_it_was(self, run, tiny_pipeline):
        before = pipeline_digest(tiny_pipeline)
        run(WordEdit("santa"))
        assert pipeline_digest(tiny_pipeline) == before

    def test_another_edit_draws_no_original_again(self, run, tiny_pipeline, tiny_world, cache, monkeypatch):
        run(WordEdit("santa"))
        drawn = []
        forward = tiny_pipeline.unet.forward
        monkeypatch.setattr(
            tiny_pipeline.unet, "forward", lambda x, *a, **k: (drawn.append(len(x)), forward(x, *a, **k))[1]
        )
        result = evaluate(
            tiny_pipeline, WordEdit("santa", scale=0.3), concept=SANTA, world=tiny_world, judges=Judges(),
            settings=SMALL, cache_dir=cache,
        )  # fmt: skip
        assert sum(drawn) == 2 * SMALL.steps * len(result.images)

    def test_progress_counts_both_models(self, run):
        calls = []
        result = run(WordEdit("santa"), progress=lambda done, total: calls.append((done, total)))
        total = 2 * len(result.images)
        assert calls[-1] == (total, total)
        assert {n for _, n in calls} == {total}
        assert [done for done, _ in calls] == sorted(done for done, _ in calls)


class TestJudgesOnDisk:
    def test_a_world_brings_its_own(self, tiny_folder):
        from aizheimer.backbones.base import backbone_for, load_pipeline

        root = tiny_folder.parent
        world = json.loads((root / "world.json").read_text())
        world["judges"] = {"object": "judges/object", "style": "judges/style", "clip": "clip"}
        (root / "world.json").write_text(json.dumps(world))
        save_colour_judge(root / "judges" / "object", names=LABELS[:3])
        save_colour_judge(root / "judges" / "style", names=STYLES)
        save_clip(root / "clip")
        pipe = load_pipeline(tiny_folder)
        result = evaluate(pipe, WordEdit("santa"), concept=SANTA, settings=SMALL, cache_dir=False)
        assert result.model_name == "tiny"
        assert (result.ua.judge, result.cra.judge) == ("object classifier", "style classifier")
        assert all(i.edited_object in LABELS[:3] and i.edited_style in STYLES for i in result.images)
        assert result.clip_target.edited != result.clip_target.original
        assert result.clip_retain.edited == result.clip_retain.original
        assert backbone_for(pipe).world.judges["clip"] == "clip"

    def test_clip_judges_where_nothing_was_trained(self, tiny_world, tmp_path):
        judges = load_judges(tiny_world, clip_folder=save_clip(tmp_path / "clip"), extra=("unicorn",))
        assert judges.object.classes == (*LABELS, "unicorn")
        assert judges.style.classes == STYLES

    def test_none_at_all(self, tiny_world):
        assert load_judges(tiny_world) == Judges()

    def test_a_broken_clip_folder(self, tiny_world, tmp_path):
        with pytest.raises(ModelError, match="no config"):
            load_judges(tiny_world, clip_folder=tmp_path)


def test_half_precision_pipelines_work(tiny_pipeline, tiny_world):
    pipe = tiny_pipeline.to(torch.bfloat16)
    settings = SMALL.model_copy(update={"target_images": 1, "neighbours": 1, "neighbour_images": 1, "others": 0})
    result = evaluate(pipe, None, concept=SANTA, world=tiny_world, judges=Judges(), settings=settings, cache_dir=False)
    assert len(result.images) == 2


def test_pictures_that_were_rounded_more_may_be_further_apart():
    """In bfloat16 the last bit of one weight moves single pixels by ten levels; that is not what an edit does."""
    drawn = np.full((2, 4, 4, 3), 100, dtype=np.uint8)
    again = drawn.copy()
    again[1, 0, 0, 0] += 10
    assert ImagePairs(drawn, again).unchanged().tolist() == [True, False]
    assert ImagePairs(drawn, again, ROUNDED_LEVELS).unchanged().tolist() == [True, True]
