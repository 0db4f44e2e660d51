"""Several concepts in one solve: the papers' equations on all rows, whatever the order, and no target held."""

import pytest
import torch
from pydantic import ValidationError

from aizheimer._registry import METHODS
from aizheimer.concepts import Concept
from aizheimer.data.rows import anchor_pairs, encode_rows, prompt_rows
from aizheimer.engine.callbacks import Callbacks
from aizheimer.errors import ConceptError
from aizheimer.methods import _distraction
from aizheimer.methods._closed_form import begin, prior_sums
from aizheimer.methods._revival import undoing
from tests.optimum import check_change

NAMES = ("uce", "rece", "mace", "speed", "closed-distraction")
SMALL = {"retain_neighbours": 1, "retain_others": 1, "retain_general": 1}
QUICK = {
    "mace": {"lora_steps": 2, "lora_pictures": 1, "lora_lr": 0.01},
    "closed-distraction": {"average_of": 4, "prior_prompts": 8, "pictures": 1, "picture_steps": 1},
}
SANTA = Concept("santa claus", anchor="old man", keep=("fox",))

every_method = pytest.mark.parametrize("name", NAMES)


def method_of(name, **options):
    return METHODS.get(name)(**SMALL | QUICK.get(name, {}) | options)


def unlearn(name, backbone, concept=SANTA, **options):
    heard = {}
    edit = method_of(name, **options).unlearn(backbone, concept, callbacks=Callbacks(on_data=heard.update))
    return edit, heard


def originals(backbone, edit):
    """The weights that an edit changes, and its change, in float64."""
    parameters = dict(backbone.denoiser.named_parameters())
    for name, delta in edit.deltas.items():
        yield parameters[name.removeprefix("unet.")].detach().double(), delta


def rows_of(backbone, *concepts, policy, empty="null", prompts=None):
    """Keys and sources of concepts, one below the other, each in its bare words or in its templates."""
    pairs = [
        anchor_pairs(
            backbone,
            [one.target] if prompts is None else backbone.world.prompts(one),
            concept=one,
            policy=policy,
            empty=empty,
        )
        for one in concepts
    ]
    return torch.cat([one.keys for one in pairs]), torch.cat([one.sources for one in pairs])


def solved(weight, groups, *, ridge):
    """(sum a W s k' + ridge W) (sum a k k' + ridge I)^-1 for groups of (keys, sources, a)."""
    eye = torch.eye(weight.shape[1], dtype=torch.float64)
    left = sum(factor * (weight @ sources.T) @ keys for keys, sources, factor in groups) + ridge * weight
    gram = sum(factor * keys.T @ keys for keys, _, factor in groups) + ridge * eye
    return torch.linalg.solve(gram, left.T).T


@every_method
def test_the_order_of_the_targets_changes_nothing_but_rounding(name, tiny_backbone):
    words = ("santa claus", "cat", "noto")
    edits = []
    for first in (0, 1):
        concept = Concept(words[first], keep=("fox",))
        others = tuple(reversed([word for word in words if word != concept.target]))
        edits.append(unlearn(name, tiny_backbone, concept, also=others)[0])
    one, other = edits
    assert not one.is_noop
    for parameter, delta in one.deltas.items():
        scale = float(delta.abs().max())
        torch.testing.assert_close(delta, other.deltas[parameter], atol=1e-5 * scale, rtol=1e-4)
    alone, _ = unlearn(name, tiny_backbone, Concept("santa claus", keep=("fox",)))
    parameter = next(iter(alone.deltas))
    assert not torch.allclose(alone.deltas[parameter], one.deltas[parameter], atol=1e-4)


@every_method
def test_each_is_read_in_prompts_of_its_own_kind_and_none_is_held(name, tiny_backbone):
    concepts = [SANTA, Concept("cat"), Concept("noto", kind="style")]
    method = method_of(name, also=("cat", "noto"), retain_neighbours=2, retain_others=20, prompts="both")
    heard = {}
    task = begin(tiny_backbone, SANTA, method=method, prompts="both", callbacks=Callbacks(on_data=heard.update))
    assert [target.concept.kind for target in task.targets] == ["object", "object", "style"]
    assert [target.concept.anchor for target in task.targets] == ["old man", "", ""]
    world = tiny_backbone.world
    wanted = [text for one in concepts for text in (one.target, *world.prompts(one))]
    assert heard["forget_prompts"] == wanted
    assert not set(wanted) & set(task.retained.prompts)
    assert not {"cat", "santa claus", "noto"} & set(task.labels)
    assert "flat" in task.labels
    assert not any(word in text for text in task.retain_texts for word in ("cat", "noto", "santa claus"))
    some = prior_sums(task, prompts=10_000).count / tiny_backbone.max_tokens
    left = [text for item in world.vocabulary for text in world.prompts_for(item.label)] + list(world.general_prompts)
    assert some == len([t for t in left if not any(w in t for w in ("cat", "santa claus", "noto"))])


@every_method
def test_names_that_cannot_be_used(name, tiny_backbone):
    with pytest.raises(ValidationError, match="also has an empty entry"):
        method_of(name, also=("cat", " "))
    with pytest.raises(ValidationError, match="'red apple' is named twice in also"):
        method_of(name, also=("red apple", "Red  apple"))
    for also, words in {
        "Santa  Claus": "also: 'Santa Claus' is the concept to forget itself",
        "Fox": "keep: 'Fox' cannot be kept and forgotten at once",
        "cat " * 40: "cut off",
    }.items():
        with pytest.raises(ConceptError, match=words):
            unlearn(name, tiny_backbone, also=(also,))


@pytest.mark.parametrize("rows", ["2023", "2025"])
def test_uce_is_its_equation_on_all_rows(tiny_backbone, rows):
    """The anchor is the first concept's; the other's rows answer as the empty prompt's end."""
    policy = "last..end" if rows == "2023" else "last"
    edit, heard = unlearn("uce", tiny_backbone, also=("cat",), rows=rows, preserve_scale=0.3, erase_scale=2.0)
    keys, sources = rows_of(tiny_backbone, SANTA, Concept("cat"), policy=policy)
    if rows == "2023":
        kept = encode_rows(tiny_backbone, ["", *heard["retain_prompts"]]).flatten(0, 1)
    else:
        task = begin(tiny_backbone, SANTA, method=method_of("uce", also=("cat",)), prompts="bare", callbacks=None)
        kept = prompt_rows(tiny_backbone, task.retain_texts, policy="last")
    for weight, delta in originals(tiny_backbone, edit):
        check_change(delta, solved(weight, [(keys, sources, 2.0), (kept, kept, 0.3)], ridge=0.5) - weight)


def test_rece_is_uce_and_a_round_on_all_rows_that_were_found(tiny_backbone):
    edit, heard = unlearn("rece", tiny_backbone, also=("cat",), epochs=1)
    kept = encode_rows(tiny_backbone, ["", *heard["retain_prompts"]]).flatten(0, 1)
    concepts = (SANTA, Concept("cat"))
    keys, sources = rows_of(tiny_backbone, *concepts, policy="last..end")
    first = {
        name: solved(weight, [(keys, sources, 1.0), (kept, kept, 0.1)], ridge=0.5)
        for name, (weight, _) in zip(edit.deltas, originals(tiny_backbone, edit), strict=True)
    }
    before = {name: weight for name, (weight, _) in zip(edit.deltas, originals(tiny_backbone, edit), strict=True)}
    keys, sources = rows_of(tiny_backbone, *concepts, policy="all")
    found = keys @ undoing(first, before, damping=0.01).T
    for name, weight in first.items():
        wanted = solved(weight, [(found, sources, 1.0), (kept, kept, 0.1)], ridge=0.1)
        check_change(edit.deltas[name], wanted - before[name])


def test_mace_sums_up_what_each_concept_means(tiny_backbone):
    """Each counts as much beside the prior as if it were alone, whatever its number of rows."""
    edit, heard = unlearn("mace", tiny_backbone, also=("noto",), lora=False, prior_weight=0.0, retain_weight=0.5)
    kept = encode_rows(tiny_backbone, ["", *heard["retain_prompts"]]).flatten(0, 1)
    groups = [(kept, kept, 0.5 / len(kept))]
    for one in (SANTA, Concept("noto", kind="style")):
        keys, sources = rows_of(tiny_backbone, one, policy="others", empty="template", prompts="templates")
        groups.append((keys, sources, 1 / len(keys)))
    for weight, delta in originals(tiny_backbone, edit):
        check_change(delta, solved(weight, groups, ridge=0.01) - weight)


def test_speed_is_its_equation_on_all_rows(tiny_backbone):
    """Delta W = W (A - T) P Q M with the ridge of one concept over two, the means being over both's rows."""
    edit, _ = unlearn("speed", tiny_backbone, also=("cat",), filter=False, copies=0, invariant=0)
    task = begin(tiny_backbone, SANTA, method=method_of("speed", also=("cat",)), prompts="bare", callbacks=None)
    kept = prompt_rows(tiny_backbone, task.retain_texts, policy="last")
    keys, sources = rows_of(tiny_backbone, SANTA, Concept("cat"), policy="last")
    t, a = keys.T @ keys / len(keys), sources.T @ keys / len(keys)
    eye = torch.eye(keys.shape[1], dtype=torch.float64)
    project = eye - kept.T @ torch.linalg.solve(kept @ kept.T, kept)
    m = torch.linalg.inv(t @ project + 0.5 * eye)
    for weight, delta in originals(tiny_backbone, edit):
        check_change(delta, weight @ (a - t) @ project @ m)
    assert edit.provenance.extra["leakage"] < 1e-10


@pytest.mark.parametrize(
    "options",
    [{}, {"rounds": 1}, {"synonyms": ("man",)}, {"values": "null-space", "tolerance": 0.3}],
)
def test_closed_distraction_replaces_the_rows_of_each(tiny_backbone, options):
    found, _ = unlearn("closed-distraction", tiny_backbone, also=("cat", "noto"), residual=0.75, **options)
    held, _ = unlearn("closed-distraction", tiny_backbone, also=("cat", "noto"), residual=0.9, **options)
    assert found.provenance.extra["residual"] < held.provenance.extra["residual"]
    assert found.provenance.recipe["also"] == ["cat", "noto"]
    assert len(found.provenance.extra.get("revived", ())) == options.get("rounds", 0)


def test_closed_distraction_leaves_as_much_of_each(tiny_backbone, monkeypatch):
    def left():
        edit, _ = unlearn("closed-distraction", tiny_backbone, also=("cat", "noto"), residual=0.5)
        return edit.provenance.extra["most_residual"] - edit.provenance.extra["residual"]

    even = left()
    monkeypatch.setattr(_distraction, "EVENLY", 0)
    alike = left()
    assert 0 <= even < 0.02 < alike
