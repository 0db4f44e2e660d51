"""Data censoring on a tiny pipeline: which data, which start, and what is refused."""

import json

import pytest
import torch
from PIL import Image
from pydantic import ValidationError

from aizheimer._registry import METHODS
from aizheimer._seeding import generator_for
from aizheimer.concepts import Concept
from aizheimer.data.captioned import read_captioned
from aizheimer.data.sources import NoisedSource
from aizheimer.engine.callbacks import Callbacks
from aizheimer.engine.caption_term import CaptionTerm
from aizheimer.engine.run_folder import RunFolder
from aizheimer.errors import DataError, RunFolderError
from aizheimer.methods.data_censoring import DataCensoring
from tests.trained import check_method, check_resume, same_edit, small, tiny_backbone

CONCEPT = Concept("santa claus")


@pytest.fixture
def drawings(tmp_path):
    """Four pictures, one of which is of the concept."""
    folder = tmp_path / "drawings"
    folder.mkdir()
    rows = []
    for i, label in enumerate(("cat", "santa claus", "dog", "old man")):
        Image.new("RGB", (40, 40), (60 * i, 255 - 60 * i, 90)).save(folder / f"{i}.png")
        text = [f"{label} in noto style", f"a picture of {label}"]
        rows.append({"file_name": f"{i}.png", "text": text, "label": label, "style": "noto"})
    (folder / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def test_oracle_is_its_other_name():
    assert METHODS.get("oracle") is DataCensoring
    assert "oracle" not in METHODS.names()


@pytest.mark.long
def test_on_a_folder_all_weights_learn_from_what_is_left(drawings):
    edit, steps, data = check_method(small(DataCensoring, images=str(drawings)), CONCEPT)
    assert steps[0]["losses"].keys() == {"noise"}
    assert len(data["parameters"]) == len(list(tiny_backbone().denoiser.parameters()))
    assert len(edit.deltas) > 100
    record = edit.provenance.extra["censored"]
    assert record == {"words": ["santa claus", "santa"], "pictures": 3, "left_out": 1}
    assert edit.provenance.extra["forget_drift"] > 0


@pytest.mark.long
def test_it_learns_to_denoise_what_is_left(drawings):
    """The loss of the very same pictures, captions, timesteps and noise, before and after."""
    backbone = tiny_backbone()
    training = {"steps": 30, "lr": 3e-3, "batch_size": 8, "monitor_every": 30}
    edit = small(DataCensoring, images=str(drawings), training=training).unlearn(backbone, CONCEPT)
    data = read_captioned(drawings, 32, words=("santa claus",), kind="object")
    latents = backbone.encode_images(data.pixels)
    source = NoisedSource.of(backbone, latents, prompt_index=torch.arange(3), prompts=3)
    term = CaptionTerm(backbone=backbone, source=source, captions=data.captions, dropout=0.1, batch_size=32)

    def loss() -> float:
        with torch.no_grad():
            return term.losses(1, generator_for(0, "fixed"))["noise"].value.item()

    before = loss()
    with edit.applied(backbone.pipe):
        assert loss() < 0.9 * before


@pytest.mark.long
def test_what_is_left_out_has_no_part_in_the_edit(drawings):
    """Whatever the concept's own picture looks like, the edit is the same; another's picture matters."""
    method = small(DataCensoring, images=str(drawings), training={"steps": 2})
    first = method.unlearn(tiny_backbone(), CONCEPT)
    Image.new("RGB", (40, 40), (255, 0, 0)).save(drawings / "1.png")
    assert same_edit(method.unlearn(tiny_backbone(), CONCEPT), first)
    Image.new("RGB", (40, 40), (255, 0, 0)).save(drawings / "2.png")
    assert not same_edit(method.unlearn(tiny_backbone(), CONCEPT), first)


@pytest.mark.long
def test_on_pictures_of_its_own_on_velocity_predictions():
    rollouts = {"forget": 1, "retain": 1, "holdout": 1, "steps": 2, "picture_steps": 2}
    method = small(DataCensoring, images="generate:5", group="esd-x", rollouts=rollouts)
    edit, _, _ = check_method(method, CONCEPT, pipeline={"prediction_type": "v_prediction", "pad_token": "!"})
    assert all(".attn2." in name for name in edit.deltas)
    assert edit.provenance.extra["censored"]["pictures"] == 5
    assert edit.provenance.extra["censored"]["left_out"] is None


def test_from_scratch_nothing_of_the_old_weights_is_left(drawings):
    """What is trained begins as its class makes it, from a seed of its own, and the pipeline gets its weights back."""
    backbone, looks = tiny_backbone(), []
    before = {name: p.clone() for name, p in backbone.denoiser.named_parameters()}
    state = torch.get_rng_state()
    options = {"images": str(drawings), "start": "scratch", "training": {"steps": 1, "lr": 1e-9}}
    edit = small(DataCensoring, **options).unlearn(backbone, CONCEPT, callbacks=Callbacks(on_monitor=looks.append))
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(p, before[name]) for name, p in backbone.denoiser.named_parameters())
    name = "conv_in.weight"
    fresh = before[name] + edit.deltas[f"unet.{name}"]
    correlation = torch.corrcoef(torch.stack([fresh.flatten(), before[name].flatten()]))[0, 1]
    assert abs(correlation) < 0.15
    bound = (4 * 9) ** -0.5  # of a new convolution of 4 channels and 3 x 3
    assert 0.9 * bound < fresh.abs().max() < 1.01 * bound
    assert looks[0]["retention_drift"] > 0.1
    other = small(DataCensoring, **options | {"training": {"steps": 1, "lr": 1e-9, "seed": 1}})
    assert not torch.allclose(other.unlearn(backbone, CONCEPT).deltas[f"unet.{name}"], edit.deltas[f"unet.{name}"])


@pytest.mark.long
@pytest.mark.parametrize("start", ["model", "scratch"])
def test_it_resumes_to_the_same_bits(drawings, tmp_path, start):
    method = small(DataCensoring, images=str(drawings), start=start, training={"checkpoint_every": 2})
    check_resume(method, CONCEPT, tmp_path / "run", at=3)


def test_it_is_not_resumed_on_other_data(drawings, tmp_path):
    method = small(DataCensoring, images=str(drawings), training={"steps": 2})
    method.unlearn(tiny_backbone(), CONCEPT, run=RunFolder(tmp_path / "run").create())
    Image.new("RGB", (40, 40), (255, 0, 0)).save(drawings / "2.png")
    run = RunFolder(tmp_path / "run").create(resume=True)
    with pytest.raises(RunFolderError, match="pictures"):
        method.unlearn(tiny_backbone(), CONCEPT, run=run)


def test_what_cannot_be_is_refused_before_any_work(drawings, tmp_path):
    seen = []
    callbacks = Callbacks(on_progress=lambda *event: seen.append(event))
    bare = tmp_path / "bare"
    bare.mkdir()
    Image.new("RGB", (8, 8)).save(bare / "cat.png")
    with pytest.raises(DataError, match=r"has no metadata\.jsonl"):
        small(DataCensoring, images=str(bare)).unlearn(tiny_backbone(), CONCEPT, callbacks=callbacks)
    everything = ("cat", "dog", "old man")
    with pytest.raises(DataError, match="every record"):
        small(DataCensoring, images=str(drawings), synonyms=everything).unlearn(
            tiny_backbone(), CONCEPT, callbacks=callbacks
        )
    with pytest.raises(ValidationError, match="start=scratch makes all weights anew; set group to full"):
        DataCensoring(start="scratch", group="esd-x")
    with pytest.raises(ValidationError, match=r"set training\.drift_limit to null"):
        DataCensoring(start="scratch", training={"drift_limit": 0.1})
    with pytest.raises(ValidationError, match="stop_mass_ratio"):
        DataCensoring(training={"stop_mass_ratio": 0.5})
    assert seen == []
