"""Several concepts at once, and one more later."""

import pytest
import torch

from aizheimer import api
from aizheimer._registry import METHODS
from aizheimer.api.several import takes_several
from aizheimer.concepts import Concept
from aizheimer.edits import load_edit
from aizheimer.edits.compose import stack, subtract, targets_of
from aizheimer.edits.hooks.negative_prompt import NegativePromptHook
from aizheimer.engine.run_folder import PARTS
from aizheimer.errors import ConceptError, EditError, RecipeError, RunFolderError
from tests.snapshot import same_snapshot, snapshot

FEW = {"retain_neighbours": 1, "retain_others": 1, "retain_general": 1}


CLOSED_FORMS = {"uce", "rece", "mace", "speed", "closed-distraction"}


def test_methods_that_take_several():
    several = {name for name in METHODS.entries if takes_several(METHODS.get(name)())}
    assert several == CLOSED_FORMS | {"spm", "sepme", "negative-prompt", "sld", "safree", "adavd"}


def test_a_method_that_can_does_it_in_one_run(tiny_backbone):
    done = api.forget_several(tiny_backbone, ["cat", "dog", "tree"], method="negative-prompt")
    assert done.natively
    assert isinstance(done.edit.hook, NegativePromptHook)
    assert done.edit.hook.words == "cat, dog, tree"


def test_what_each_keeps_is_kept_by_all_and_all_that_went_is_listed(tiny_backbone):
    concepts = [Concept("cat", keep=("fox",)), Concept("dog", keep=("tree",))]
    done = api.forget_several(tiny_backbone, concepts, method="negative-prompt")
    assert done.edit.provenance.concept.keep == ("fox", "tree")
    assert targets_of(done.edit) == ("cat", "dog")
    alone = api.forget(tiny_backbone, "tree", method="negative-prompt")
    both = stack(done.edit, alone)
    assert targets_of(both) == ("cat", "dog", "tree")
    assert both.provenance.concept.keep == ("fox",)
    assert targets_of(subtract(both, done.edit)) == ("tree",)


def test_a_kind_that_would_be_lost_is_refused(tiny_backbone):
    """Names of other concepts are words only: what the world does not list is taken for one like the first."""
    with pytest.raises(
        ConceptError, match="'unicorn' is of the kind object, and would be trained as style beside 'noto'"
    ):
        api.forget_several(tiny_backbone, ["noto", "unicorn"], method="sepme")
    api.forget_several(tiny_backbone, ["noto", "unicorn"], method="negative-prompt")
    with pytest.raises(RecipeError, match="'dog' is named twice in also and reserved"):
        api.forget_several(tiny_backbone, ["cat", "dog"], method="sepme", reserved=("dog",))


@pytest.mark.parametrize("method", ["uce", "speed"])
def test_a_closed_form_solves_for_all_and_keeps_what_is_kept(tiny_backbone, tmp_path, method):
    words = {"method": method, "keep": ["fox"], "out": tmp_path / "run", **FEW}
    done = api.forget_several(tiny_backbone, ["cat", "dog", "tree"], **words)
    assert done.natively
    assert targets_of(done.edit) == ("cat", "dog", "tree")
    assert done.edit.provenance.concept.keep == ("fox",)
    assert load_edit(tmp_path / "run").digest == done.edit.digest
    again = api.forget_several(tiny_backbone, ["cat", "dog", "tree"], resume=True, **words)
    assert again.edit.digest == done.edit.digest
    with pytest.raises(RunFolderError, match=r"started with other parameters \(also\)"):
        api.forget_several(tiny_backbone, ["cat", "dog", "fish"], resume=True, **words)
    with pytest.raises(ConceptError, match="'Fox' cannot be kept and forgotten"):
        api.forget_several(tiny_backbone, ["cat", "Fox"], **words)


def test_what_words_cannot_say_is_refused(tiny_backbone):
    with pytest.raises(ConceptError, match="'unicorn' is of the kind object, and would be read as style"):
        api.forget_several(tiny_backbone, ["noto", "unicorn"], method="uce", **FEW)
    with pytest.raises(ConceptError, match="'dog' has the anchor 'cat', and in one run only the first concept, 'fox'"):
        api.forget_several(tiny_backbone, ["fox", Concept("dog", anchor="cat")], method="uce", **FEW)
    api.forget_several(tiny_backbone, [Concept("dog", anchor="cat"), "fox"], method="uce", **FEW)


def test_any_other_forgets_each_alone_and_adds(tiny_backbone, tmp_path):
    before = snapshot(tiny_backbone.pipe)
    done = api.forget_several(tiny_backbone, ["cat", "dog"], method="oce", keep=["fox"], out=tmp_path / "run", **FEW)
    assert not done.natively
    assert [edit.provenance.concept.target for edit in done.parts] == ["cat", "dog"]
    for name, delta in done.edit.deltas.items():
        assert torch.allclose(delta, sum(part.deltas[name] for part in done.parts), atol=1e-6)
    assert same_snapshot(before, snapshot(tiny_backbone.pipe))
    saved = load_edit(tmp_path / "run")
    assert saved.digest == done.edit.digest
    assert targets_of(saved) == ("cat", "dog")
    assert saved.provenance.concept.keep == ("fox",)
    assert api.model_of_run(tmp_path / "run") == tiny_backbone.pipe.name_or_path
    assert sorted(path.name for path in (tmp_path / "run" / PARTS).iterdir()) == ["cat", "dog"]


def test_an_interrupted_run_goes_on_where_it_was(tiny_backbone, tmp_path, monkeypatch):
    from aizheimer.methods.oce import OCE as Method

    unlearn, seen = Method.unlearn, []

    def counted(self, backbone, concept, **options):
        seen.append(concept.target)
        if seen == ["cat", "dog"]:
            raise KeyboardInterrupt
        return unlearn(self, backbone, concept, **options)

    monkeypatch.setattr(Method, "unlearn", counted)
    words = {"method": "oce", "out": tmp_path / "run", **FEW}
    with pytest.raises(KeyboardInterrupt):
        api.forget_several(tiny_backbone, ["cat", "dog"], **words)
    done = api.forget_several(tiny_backbone, ["cat", "dog"], resume=True, **words)
    assert seen == ["cat", "dog", "dog"]
    again = api.forget_several(tiny_backbone, ["cat", "dog"], overwrite=True, **words)
    assert again.edit.digest == done.edit.digest
    assert seen == ["cat", "dog", "dog", "cat", "dog"]


def test_concepts_that_spell_the_same_folder_are_told_apart(tiny_backbone, tmp_path):
    words = {"method": "oce", "out": tmp_path / "run", **FEW}
    done = api.forget_several(tiny_backbone, ["cat++", "cat#"], **words)
    assert [edit.provenance.concept.target for edit in done.parts] == ["cat++", "cat#"]
    again = api.forget_several(tiny_backbone, ["cat++", "cat#"], resume=True, **words)
    assert [edit.provenance.concept.target for edit in again.parts] == ["cat++", "cat#"]
    assert again.edit.digest == done.edit.digest


def test_a_run_goes_on_only_with_what_it_was_started_with(tiny_backbone, tmp_path):
    run = tmp_path / "run"
    api.forget_several(tiny_backbone, ["cat++", "dog"], method="oce", out=run, **FEW)
    recipe = (run / "recipe.yaml").read_bytes()
    with pytest.raises(RunFolderError, match=r"started with other parameters \(ridge\)"):
        api.forget_several(tiny_backbone, ["cat++", "dog"], method="oce", out=run, resume=True, ridge=5.0, **FEW)
    with pytest.raises(RunFolderError, match="started with the method oce, not dp"):
        api.forget_several(tiny_backbone, ["cat++", "dog"], method="dp", out=run, resume=True)
    assert (run / "recipe.yaml").read_bytes() == recipe
    with pytest.raises(RunFolderError, match=r"cat holds 'cat\+\+', wanted 'cat#'"):
        api.forget_several(tiny_backbone, ["cat#", "dog"], method="oce", out=run, resume=True, **FEW)
    with pytest.raises(RunFolderError, match=r"holds 'cat\+\+', wanted 'cat\+\+', keeping fox"):
        api.forget_several(tiny_backbone, ["cat++", "dog"], method="oce", keep=["fox"], out=run, resume=True, **FEW)


def test_a_part_of_a_run_that_was_replaced_is_not_taken_for_one_of_this(tiny_backbone, tmp_path, monkeypatch):
    from aizheimer.methods.oce import OCE as Method

    words = {"method": "oce", "out": tmp_path / "run", **FEW}
    api.forget_several(tiny_backbone, ["cat", "dog"], **words)

    def interrupted(self, backbone, concept, **options):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Method, "unlearn", interrupted)
        with pytest.raises(KeyboardInterrupt):
            api.forget_several(tiny_backbone, ["cat", "dog"], overwrite=True, ridge=5.0, **words)
    done = api.forget_several(tiny_backbone, ["cat", "dog"], resume=True, ridge=5.0, **words)
    assert [edit.provenance.recipe["ridge"] for edit in done.parts] == [5.0, 5.0]


def test_after_bad_input_the_parts_of_the_run_that_was_to_be_replaced_are_there(tiny_backbone, tmp_path):
    words = {"method": "oce", "out": tmp_path / "run", **FEW}
    done = api.forget_several(tiny_backbone, ["cat", "dog"], **words)
    with pytest.raises(ConceptError, match="cut off"):
        api.forget_several(tiny_backbone, ["cat " * 40, "dog"], overwrite=True, **words)
    again = api.forget_several(tiny_backbone, ["cat", "dog"], resume=True, **words)
    assert again.edit.digest == done.edit.digest


@pytest.mark.parametrize(
    ("concepts", "keep", "words"),
    [
        ([], (), "got no concept"),
        (["cat", "Cat"], (), "'Cat' is named twice|'cat' is named twice"),
        (["cat", "dog"], ("Dog",), "cannot be kept and forgotten at once"),
    ],
)
def test_concepts_that_cannot_be_used(tiny_backbone, concepts, keep, words):
    with pytest.raises(ConceptError, match=words):
        api.forget_several(tiny_backbone, concepts, method="oce", keep=keep)


def test_bad_input_costs_no_run(tiny_backbone, tmp_path):
    with pytest.raises(ConceptError, match="cut off"):
        api.forget_several(tiny_backbone, ["cat " * 40, "dog"], method="oce", out=tmp_path / "run", **FEW)
    assert not (tmp_path / "run").exists()


class TestOnto:
    def test_one_more_is_made_on_the_edited_model_and_holds_what_went(self, tiny_backbone, tmp_path, monkeypatch):
        from aizheimer.methods.uce import UCE as Method

        earlier = api.forget(tiny_backbone, "cat", method="uce", out=tmp_path / "cat", **FEW)
        unlearn, seen = Method.unlearn, []

        def noted(self, backbone, concept, **options):
            seen.append((backbone.fingerprint(), concept.keep))
            return unlearn(self, backbone, concept, **options)

        monkeypatch.setattr(Method, "unlearn", noted)
        before = snapshot(tiny_backbone.pipe)
        total = api.forget_onto(
            tiny_backbone, "dog", earlier=tmp_path / "cat", method="uce", keep=["fox"], out=tmp_path / "both", **FEW
        )
        (fingerprint, keep), *_ = seen
        assert fingerprint != earlier.provenance.base_fingerprint
        assert keep == ("fox", "cat")
        assert same_snapshot(before, snapshot(tiny_backbone.pipe))
        assert targets_of(total) == ("dog", "cat")
        assert load_edit(tmp_path / "both").digest == total.digest
        with total.applied(tiny_backbone.pipe):
            pass
        alone = api.forget(tiny_backbone, "dog", method="uce", keep=["fox"], **FEW)
        name = next(iter(total.deltas))
        assert not torch.allclose(total.deltas[name], earlier.deltas[name] + alone.deltas[name], atol=1e-6)

    def test_refusals(self, tiny_backbone):
        hook = api.forget(tiny_backbone, "cat", method="negative-prompt")
        with pytest.raises(EditError, match="forget the concept alone and stack the two"):
            api.forget_onto(tiny_backbone, "dog", earlier=hook, method="uce", **FEW)
        with pytest.raises(ConceptError, match="is forgotten by the earlier edit already"):
            api.forget_onto(tiny_backbone, "Cat", earlier=hook, method="uce", **FEW)
