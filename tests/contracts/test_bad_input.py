"""Bad input, for every method that it can be given to: one line that says what was got, what was wanted, what to do."""

from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
from diffusers import UNet2DConditionModel

from aizheimer import api
from aizheimer._registry import METHODS
from aizheimer.backbones.base import Backbone, backbone_for
from aizheimer.concepts import Concept
from aizheimer.edits.io import load_edit
from aizheimer.engine.callbacks import Callbacks
from aizheimer.errors import ConceptError, DataError, EditError, InputError, ModelError, RecipeError, SelectorError
from aizheimer.methods.base import Method
from tests import tiny_families
from tests.contracts.quick import has, quick_recipe
from tests.tiny import tiny_pipeline, tiny_world

SANTA = Concept("santa claus")


@dataclass(frozen=True)
class Bad:
    """One kind of bad input.

    Args:
        overrides: Parameters that make it.
        concept: What is to be forgotten.
        backbone: Makes the model.
        error: What must be raised.
        said: A pattern of the message.
        early: Whether it must be told before anything is drawn, encoded or trained.
        merge: Whether the edit is made, and asked to become weights.
    """

    error: type[InputError]
    said: str
    overrides: tuple[str, ...] = ()
    concept: Concept = SANTA
    backbone: Callable[[], Backbone] = field(default=lambda: tiny())
    early: bool = True
    merge: bool = False


def quick(name: str, *overrides: str) -> Method:
    return quick_recipe(name, *overrides).method


def tiny() -> Backbone:
    return backbone_for(tiny_pipeline(), world=tiny_world())


def large() -> Backbone:
    return backbone_for(tiny_families.BUILDERS["sdxl"](seed=0), world=tiny_world())


def in_half_precision() -> Backbone:
    pipe = tiny_pipeline()
    pipe.unet.half()
    pipe.text_encoder.half()
    return backbone_for(pipe, world=tiny_world())


def without_cross_attention() -> Backbone:
    """A denoiser that reads no words, as those of unconditional models."""
    pipe = tiny_pipeline()
    pipe.unet = UNet2DConditionModel(
        sample_size=8,
        layers_per_block=1,
        block_out_channels=(16, 16),
        down_block_types=("DownBlock2D", "DownBlock2D"),
        mid_block_type=None,
        up_block_types=("UpBlock2D", "UpBlock2D"),
        norm_num_groups=8,
    ).eval()
    return backbone_for(pipe, world=tiny_world())


def missing_anchor(name: str) -> Bad | None:
    """The paper's own default, not the recipe's: a recipe may let the empty prompt take an anchor's place."""
    ways = {"relabel": "relabel=anchor", "empty_anchor": "empty_anchor=refuse"}
    method = METHODS.get(name)()
    if name == "hirm":
        said = (
            "hirm with direction=anchor needs a super-category .* got none; name one with --anchor, or set direction to"
        )
        return Bad(ConceptError, said, ("direction=anchor",))
    if "anchor" not in method.info.needs and not has(method, "relabel"):
        return None
    (way,) = [word for key, word in ways.items() if has(method, key)]
    return Bad(ConceptError, rf"{name}\b.* needs an anchor.*got none; name one with --anchor, or set ", (way,))


def more_than_fits(name: str) -> Bad | None:
    """32 dimensions, of which retained rows may take 31; prompts that leave an attack less room than it asks for."""
    if name == "advunlearn":
        return Bad(
            ConceptError, r"40 free tokens do not fit before '.*'.*; take at most \d+, or", ("attack.tokens=40",)
        )
    if name == "receler":
        said = r"receler: 40 adversarial vectors do not fit after .*; set attack_tokens=\d+ or less"
        return Bad(ConceptError, said, ("attack_tokens=40",))
    if name == "forget-me-not":
        said = r"40 learned words do not fit into '.*' in the place of 'santa.*; set inversion.tokens=\d+ or less"
        return Bad(ConceptError, said, ("inversion={tokens: 40}",))
    if name == "sepme":
        overrides = ("protect=6", "tolerance=0", "retain={neighbours: 2, others: 4, general: 1}")
        said = r"6 protected prompts leave no null space in 32 dimensions .*; (\d+) fit: set protect=\1, or raise tol"
        return Bad(ConceptError, said, overrides, early=False)
    if name in ("speed", "dp"):
        words = ("cat", "dog", "tree", "car", "house", "fox")
        keep = tuple(f"{a} {b}" for a in words for b in words if a != b)[:28]
        overrides = ("retain_neighbours=10", "retain_others=10", "retain_general=3", "tolerance=0")
        overrides += ("filter=false",) if name == "speed" else ()
        said = r"retaining \d+ rows leaves none of the text's 32 directions free; at most 31 independent rows fit"
        return Bad(RecipeError, said, overrides, Concept("santa claus", keep=keep), early=False)
    return None


def more_reserved_than_fit(name: str) -> Bad | None:
    if name != "sepme":
        return None
    overrides = ("protect=0", "tolerance=0", "reserved=[dog, tree]", "reserved_prompts=3")
    said = r"0 protected and 6 reserved prompts leave no null space in 32 dim.*; (\d+) fit: set protect=0 and "
    return Bad(ConceptError, said + r"reserve at most \1 prompts, or raise tolerance", overrides, early=False)


def contradiction(name: str) -> Bad | None:
    """Fields that name what the concept, or another field, already says something else of."""
    if name == "sepme":
        return Bad(ConceptError, "reserved: 'Santa Claus' is the concept to forget itself", ("reserved=[Santa Claus]",))
    if name == "forget-me-not":
        said = "inversion learns words from the concept's pictures, and images=zeros has none; set images to a folder"
        return Bad(RecipeError, said, ("inversion={tokens: 2}", "images=zeros"))
    if name == "concept-ablation":
        said = "anchor_prompts: 'a Santa Claus' names 'santa claus', which is to be forgotten; write it without"
        return Bad(ConceptError, said, ("anchor_prompts=[a Santa Claus]",))
    return None


def not_for_a_style(name: str) -> Bad | None:
    if name != "concept-ablation":
        return None
    said = "augmentation=object shows an object smaller and larger, and 'noto' is a style; set augmentation to none"
    return Bad(ConceptError, said, ("augmentation=object", "empty_anchor=auto"), Concept("noto", kind="style"))


def several_text_encoders(name: str) -> Bad | None:
    if name != "forget-me-not":
        return None
    said = "inversion learns words of one text encoder, and Stable Diffusion XL reads several; wanted Stable"
    return Bad(ModelError, said, ("inversion={tokens: 2}",), backbone=large)


def kept_and_forgotten(name: str) -> Bad | None:
    if name != "sepme":
        return None
    concept = Concept("santa claus", keep=("dog",))
    return Bad(ConceptError, "keep: 'Dog' cannot be kept and forgotten .* or of also", ("also=[Dog]",), concept)


def no_such_folder(name: str) -> Bad | None:
    if not has(METHODS.get(name)(), "images"):
        return None
    return Bad(DataError, "no-such-folder does not exist; give a folder", ("images=no-such-folder",))


def no_pictures_at_all(name: str) -> Bad | None:
    method = METHODS.get(name)()
    if name == "aizheimer":
        return Bad(RecipeError, "needs the concept's images; set images to", ("reconstruction=forget", "images=null"))
    if not has(method, "images"):
        return None
    assert "images" in method.info.needs
    return Bad(RecipeError, "images: got None", ("images=null",))


def no_judge(name: str) -> Bad | None:
    if not has(METHODS.get(name)(), "judge"):
        return None
    return Bad(ModelError, r"judge: the world 'tiny' brings none; give the folder of .* as judge=", ("judge=null",))


def no_cross_attention(name: str) -> Bad | None:
    """What edits or reads cross-attention is not defined where there is none; the others are, and must work there."""
    if name in WITHOUT_ATTENTION:
        return None
    if name == "advunlearn":
        said = "this denoiser has no cross-attention layers, so no word changes what it predicts; wanted one that reads"
        return Bad(SelectorError, said, backbone=without_cross_attention)
    if name == "spm":
        said = "has no linear layer in a Transformer2DModel to put an adapter on; wanted a Stable Diffusion UNet"
        return Bad(SelectorError, said, backbone=without_cross_attention)
    if has(METHODS.get(name)(), "layers") or name == "surgery":  # whose base has them
        return Bad(SelectorError, "this denoiser has no cross-attention layers", backbone=without_cross_attention)
    return Bad(
        SelectorError,
        "'esd-x' selects no parameter of this denoiser; choose another",
        ("group=esd-x",),
        backbone=without_cross_attention,
    )


def half_precision(name: str) -> Bad | None:
    if not has(METHODS.get(name)(), "training"):
        return None
    return Bad(ModelError, "cannot train .* in torch.float16; load the pipeline in float32", backbone=in_half_precision)


def merging(name: str) -> Bad | None:
    if name == "spm":
        said = "the method spm acts on each prompt .* cannot be merged into weights; keep it, or merge as_weights"
        return Bad(EditError, said, early=False, merge=True)
    if name != "receler" and METHODS.get(name).info.kind != "runtime":
        return None
    said = rf"the method {name} acts while pictures are drawn .* cannot be merged into weights; keep the edit"
    return Bad(EditError, said, early=False, merge=True)


WITHOUT_ATTENTION = {"negative-prompt", "sld", "safree", "judge-filter", "hirm"}
"""Methods that do not care what the denoiser looks like inside."""

KINDS = (
    missing_anchor,
    more_than_fits,
    more_reserved_than_fit,
    contradiction,
    not_for_a_style,
    several_text_encoders,
    kept_and_forgotten,
    no_such_folder,
    no_pictures_at_all,
    no_judge,
    no_cross_attention,
    half_precision,
    merging,
)
CASES = [(name, kind.__name__, bad) for kind in KINDS for name in METHODS.names() if (bad := kind(name)) is not None]


@pytest.mark.parametrize(
    ("name", "bad"), [(n, bad) for n, _, bad in CASES], ids=[f"{n}-{kind}" for n, kind, _ in CASES]
)
def test_bad_input_is_one_clear_line(name, bad):
    started = []
    callbacks = Callbacks(
        on_data=started.append, on_step=started.append, on_progress=lambda *event: started.append(event)
    )
    backbone = bad.backbone()
    with pytest.raises(bad.error, match=bad.said) as caught:
        ask(name, bad, backbone, callbacks)
    assert "\n" not in str(caught.value)
    assert not (bad.early and started)


def ask(name: str, bad: Bad, backbone: Backbone, callbacks: Callbacks) -> None:
    edit = quick(name, *bad.overrides).unlearn(backbone, bad.concept, callbacks=callbacks)
    if bad.merge:
        edit.merged_state(backbone.pipe)


def test_every_method_is_asked_for_something_it_cannot_do():
    asked = {name for name, _, _ in CASES}
    assert asked | WITHOUT_ATTENTION == set(METHODS.names())
    assert {kind for _, kind, _ in CASES} == {kind.__name__ for kind in KINDS}


@pytest.mark.parametrize("name", sorted(WITHOUT_ATTENTION))
def test_what_needs_no_cross_attention_works_without(name):
    backbone = without_cross_attention()
    edit = quick(name).unlearn(backbone, SANTA)
    with edit.applied(backbone.pipe):
        backbone.pipe("a cat", num_inference_steps=1, output_type="latent")


@pytest.mark.parametrize("name", METHODS.names())
def test_another_family_of_models_is_refused(name):
    class KolorsPipeline:
        name_or_path = "somebody/kolors"

    with pytest.raises(ModelError, match="got a KolorsPipeline; wanted one of StableDiffusionPipeline"):
        api.forget(KolorsPipeline(), "santa claus", method=quick(name))


@pytest.mark.parametrize("late", [False, True])
def test_no_bad_input_costs_an_old_run(tmp_path, late):
    """Also what can only be found when the run has begun: here, that more prompts are protected than fit."""
    run = tmp_path / "run"
    first = api.forget(tiny(), "santa claus", method=quick("uce"), out=run)
    before = {path.name: path.read_bytes() for path in run.iterdir()}
    bad = more_than_fits("sepme") if late else missing_anchor("concept-ablation")
    name = "sepme" if late else "concept-ablation"
    with pytest.raises(ConceptError, match=bad.said):
        api.forget(tiny(), "santa claus", method=quick(name, *bad.overrides), out=run, overwrite=True)
    assert {path.name: path.read_bytes() for path in run.iterdir() if path.name != "cache"} == before
    assert load_edit(run).provenance == first.provenance
