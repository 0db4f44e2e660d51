import dataclasses
from collections import Counter

import pytest

from aizheimer.concepts.concept import Concept
from aizheimer.concepts.world import DEFAULT_WORLD, World, WorldItem
from aizheimer.errors import InputError
from aizheimer.evaluation.plan import candidates, plan_images
from aizheimer.evaluation.settings import EvaluationSettings

STYLES = ("noto", "blob", "flat")
WORLD = World(
    name="grid",
    object_templates=tuple(f"{{concept}} in {style} style" for style in STYLES),
    style_templates=("{subject} in {concept} style",),
    subjects=tuple(f"thing {i}" for i in range(30)),
    styles=STYLES,
    vocabulary=tuple(WorldItem(label=f"thing {i}", group=f"group {i % 3}") for i in range(30)),
    general_prompts=("a picture",),
)
SETTINGS = EvaluationSettings(target_images=7, neighbours=2, neighbour_images=3, others=9, other_images=1, seed=100)
SANTA = Concept("Santa Claus")


def plan_of(concept, *, neighbours=("thing 4", "thing 5"), world=WORLD, settings=SETTINGS):
    return plan_images(concept, world, neighbours=neighbours, settings=settings)


class TestObjects:
    def test_counts_and_roles(self):
        assert Counter(image.role for image in plan_of(SANTA)) == {"target": 7, "neighbour": 6, "other": 9}

    def test_target_pictures_go_through_all_prompts_before_the_next_seed(self):
        target = [image for image in plan_of(SANTA) if image.role == "target"]
        assert [image.seed for image in target] == [100, 100, 100, 101, 101, 101, 102]
        assert [image.style for image in target[:3]] == list(STYLES)
        assert target[0].prompt == "Santa Claus in noto style"

    def test_no_picture_is_planned_twice(self):
        settings = EvaluationSettings(target_images=40, neighbours=2, neighbour_images=20, others=9, other_images=9)
        plan = plan_of(SANTA, settings=settings)
        assert len({(image.prompt, image.seed) for image in plan}) == len(plan)

    def test_others_come_evenly_from_all_groups_and_are_neither_target_nor_neighbour(self):
        plan = plan_of(Concept("thing 0"))
        others = {image.object for image in plan if image.role == "other"}
        assert len(others) == 9
        assert not others & {"thing 0", "thing 4", "thing 5"}
        groups = Counter(int(label.split()[1]) % 3 for label in others)
        assert max(groups.values()) - min(groups.values()) <= 1

    def test_pictures_of_others_are_shared_between_targets(self):
        first = {(i.prompt, i.seed) for i in plan_of(Concept("thing 0")) if i.role == "other"}
        second = {(i.prompt, i.seed) for i in plan_of(Concept("thing 1")) if i.role == "other"}
        assert len(first & second) >= 7

    def test_every_prompt_asks_for_its_object_in_its_style(self):
        for image in plan_of(SANTA):
            assert image.prompt == f"{image.object} in {image.style} style"

    def test_retained_pictures_start_from_several_noises(self):
        assert len({image.seed for image in plan_of(SANTA) if image.role == "other"}) >= 3

    def test_where_objects_name_no_style_styles_are_asked_for_apart(self):
        plan = plan_of(SANTA, neighbours=("man",), world=DEFAULT_WORLD)
        cross = [image for image in plan if image.role == "cross"]
        assert len(cross) == 9
        assert all(image.style is None for image in plan if image.role != "cross")
        assert all(image.style in image.prompt for image in cross)
        assert not any(image.object.startswith("a ") for image in cross)

    def test_more_others_than_there_are(self):
        plan = plan_of(SANTA, settings=SETTINGS.model_copy(update={"others": 500}))
        assert len({image.object for image in plan if image.role == "other"}) == 28

    def test_no_templates(self):
        with pytest.raises(InputError, match="no object_templates"):
            plan_of(SANTA, world=dataclasses.replace(WORLD, object_templates=()))


class TestStyles:
    BLOB = Concept("blob", kind="style")

    def test_only_other_styles_are_retained(self):
        plan = plan_of(self.BLOB, neighbours=("flat",))
        assert {image.style for image in plan if image.role == "target"} == {"blob"}
        assert {image.style for image in plan if image.role == "neighbour"} == {"flat"}
        assert {image.style for image in plan if image.role == "other"} == {"noto"}
        assert Counter(image.style for image in plan) == {"blob": 7, "flat": 7, "noto": 7}

    def test_every_prompt_asks_for_its_subject(self):
        plan = plan_of(self.BLOB, neighbours=("flat",))
        assert all(image.prompt == f"{image.object} in {image.style} style" for image in plan)
        assert len({image.object for image in plan if image.role == "target"}) == 7

    def test_no_picture_is_planned_twice(self):
        settings = SETTINGS.model_copy(update={"target_images": 75})
        plan = plan_of(self.BLOB, neighbours=("flat",), settings=settings)
        assert len({(image.prompt, image.seed) for image in plan}) == len(plan)

    def test_no_subjects(self):
        with pytest.raises(InputError, match="no style_templates or subjects"):
            plan_of(self.BLOB, world=dataclasses.replace(WORLD, subjects=()))


def test_candidates_are_the_targets_own_domain_without_the_target():
    assert candidates(Concept("BLOB", kind="style"), WORLD) == ["noto", "flat"]
    assert len(candidates(Concept("Thing 3"), WORLD)) == 29
    assert len(candidates(SANTA, WORLD)) == 30
