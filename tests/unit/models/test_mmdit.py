"""The builder of the second embedded model, in small: what it trains is what plain diffusers draws with."""

import argparse
import json
import sys
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusion3Pipeline

from aizheimer.backbones.base import backbone_for, load_pipeline
from aizheimer.backbones.loading import _BUNDLED_FOLDER
from aizheimer.detectors.classifier import ImageJudge

EMOJI = Path(__file__).parents[3] / "models" / "emoji"
MODULES = ("train_mmdit", "export", "sitting", "training", "emoji_data", "train_unet", "evaluate")
PROMPTS = ["santa claus in noto style", "cat", ""]
SIZE = {"width": 32, "layers": 2, "head": 16}


@pytest.fixture(scope="module")
def scripts():
    """The scripts as modules; they find each other as they do when they are run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(EMOJI))
        import evaluate
        import export
        import train_mmdit

        yield argparse.Namespace(mmdit=train_mmdit, export=export, evaluate=evaluate)
    for name in MODULES:
        sys.modules.pop(name, None)


@pytest.fixture
def build(pristine_tiny_pipeline, tmp_path) -> Path:
    """A build folder with the parts that training starts from, and latents of two concepts in two versions."""
    for part in ("vae", "text_encoder", "tokenizer"):
        getattr(pristine_tiny_pipeline, part).save_pretrained(tmp_path / "build" / part)
    return tmp_path / "build"


@pytest.fixture
def trainer(scripts, build, monkeypatch):
    """Return a trainer of a tiny transformer on ten drawings of noise."""
    drawings = torch.randn(1, 10, 4, 16, 16, generator=torch.Generator().manual_seed(3))
    rows = [row for row in sys.modules["emoji_data"].read_concepts() if row.label in ("cat", "Santa Claus")]
    source = sys.modules["sitting"].Drawings(drawings, rows, {}, torch.ones(10), 0.25)
    monkeypatch.setattr(scripts.mmdit.Drawings, "of", lambda args: source)
    defaults = {"out": build, "name": "mmdit", "seed": 0, "batch": 8, "ema": 0.9, "fast": False, "lr": 3e-3}

    def make(**options):
        return scripts.mmdit.Trainer(argparse.Namespace(**defaults, **SIZE, decay=0.01, shift=2.0, **options))

    return make


def seeds():
    return [torch.Generator().manual_seed(number) for number in range(len(PROMPTS))]


def awake(transformer):
    """Give a fresh network, whose blocks start as the identity, something to compute."""
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        for parameter in transformer.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))


def test_one_counted_row_of_zeros_is_what_the_pipeline_makes_of_256(scripts, trainer, build):
    training = trainer()
    awake(training.transformer)
    plain = scripts.mmdit.build_transformer(**training.shape)
    plain.load_state_dict(training.transformer.state_dict())
    pipe = scripts.mmdit.pipeline(plain, training.words, out=build, shift=2.0)
    told, _, pooled, _ = pipe.encode_prompt(PROMPTS, None, None, do_classifier_free_guidance=False)
    rows, own_pooled = scripts.mmdit.encode(training.words, PROMPTS)
    clip = pipe.tokenizer.model_max_length
    assert told.shape == (3, clip + 256, 64)
    assert rows.shape == (3, clip + 1, 64)
    assert torch.equal(told[:, : clip + 1], rows)
    assert torch.equal(pooled, own_pooled)
    inputs = {"hidden_states": torch.randn(3, 4, 16, 16), "timestep": torch.tensor([50.0, 500.0, 950.0])}
    with torch.no_grad():
        wanted = plain(**inputs, encoder_hidden_states=told, pooled_projections=pooled).sample
        found = training.transformer(**inputs, encoder_hidden_states=rows, pooled_projections=own_pooled).sample
    assert wanted.std() > 0.1
    assert torch.allclose(found, wanted, atol=1e-4)


def test_a_caption_is_encoded_once(scripts, trainer, monkeypatch):
    words, asked = trainer().words, []
    encode = scripts.mmdit.encode
    monkeypatch.setattr(scripts.mmdit, "encode", lambda parts, texts: asked.append(texts) or encode(parts, texts))
    encoded = scripts.mmdit.Encoded(words, most=3)
    for texts in (["cat", "", "cat"], ["rocket", "cat"], ["dog", "", "rocket"]):
        for found, wanted in zip(encoded(texts), encode(words, texts), strict=True):
            assert found.dtype == torch.float32
            assert torch.allclose(found, wanted, atol=4e-3)
    assert asked == [["", "cat"], ["rocket"], ["", "dog", "rocket"]]  # three are kept: the last began anew


def test_the_first_encoder_says_what_the_first_models_says(scripts, tiny_pipeline):
    text, tokenizer = tiny_pipeline.text_encoder, tiny_pipeline.tokenizer
    first, second = scripts.mmdit.text_encoders(text)
    ids = tokenizer(PROMPTS, padding="max_length", return_tensors="pt").input_ids
    with torch.no_grad():
        own = text(ids, output_hidden_states=True)
        whole, layer = first(ids, output_hidden_states=True), second(ids, output_hidden_states=True)
    assert torch.equal(whole.hidden_states[-2], own.hidden_states[-1])
    assert torch.equal(layer.hidden_states[-2], own.hidden_states[0])
    assert torch.allclose(whole.text_embeds, own.pooler_output, atol=1e-6)


@pytest.mark.long
def test_training_learns_and_goes_on_to_the_same_bits(trainer):
    whole = trainer()
    losses = [whole.update(1.0)[1] for _ in range(30)]
    assert losses[0] == pytest.approx(1.0)  # the start predicts nothing
    assert sum(losses[-5:]) / 5 < 0.97
    half = trainer()
    for _ in range(12):
        half.update(1.0)
    half.save(3.0)
    resumed = trainer()
    resumed.resume()
    assert (resumed.step, resumed.elapsed) == (12, 3.0)
    for _ in range(18):
        resumed.update(1.0)
    for name, tensor in whole.transformer.state_dict().items():
        assert torch.equal(resumed.transformer.state_dict()[name], tensor), name


def test_another_shape_does_not_go_on(trainer):
    trainer().save(1.0)
    other = trainer()
    other.shape = {**other.shape, "layers": 3}
    with pytest.raises(SystemExit, match="another --name"):
        other.resume()


def test_the_exported_folder_is_read_by_plain_diffusers_and_by_us(scripts, trainer, build, tmp_path, capsys):
    training = trainer()
    awake(training.transformer)
    training.ema.load_state_dict(
        {"updates": 1, "shadow": {k: v.detach() for k, v in training.transformer.named_parameters()}}
    )
    training.save(1.0)
    scripts.export.export_mmdit(build, "mmdit", tmp_path / "emoji-mmdit")
    assert "MB" in capsys.readouterr().out
    folder = tmp_path / "emoji-mmdit" / "pipeline"
    without = {"text_encoder_3": None, "tokenizer_3": None}  # diffusers' own way to say that there is no T5
    pipe = StableDiffusion3Pipeline.from_pretrained(folder, local_files_only=True, **without)
    pipe.set_progress_bar_config(disable=True)
    assert pipe.text_encoder_3 is None
    picture = pipe(PROMPTS[0], num_inference_steps=2, guidance_scale=2.0, output_type="np").images
    assert picture.shape == (1, 64, 64, 3)
    wanted = pipe(PROMPTS, generator=seeds(), num_inference_steps=2, guidance_scale=2.0, output_type="pt").images
    scripts.evaluate.count_rows(pipe)
    asked = argparse.Namespace(model="emoji-mmdit", steps=2, guidance=2.0)
    found = (scripts.evaluate.sample(pipe, PROMPTS, [0, 1, 2], asked) + 1) / 2
    assert torch.allclose(found, wanted, atol=1e-4)
    assert not any(b"_name_or_path" in file.read_bytes() for file in folder.rglob("*.json"))

    backbone = backbone_for(load_pipeline(folder))
    assert (backbone.family, backbone.world.name, backbone.latent_shape) == ("sd3", "emoji-mmdit", (4, 16, 16))
    judges = json.loads((tmp_path / "emoji-mmdit" / "world.json").read_text())["judges"]
    assert {(_BUNDLED_FOLDER / "emoji-mmdit" / place).resolve().is_dir() for place in judges.values()} == {True}
    told = backbone.condition(PROMPTS)
    x, t = torch.randn(3, 4, 16, 16), torch.tensor([100, 500, 900])
    with torch.no_grad():
        found = backbone.predict(x, t, told)
        rows, pooled = scripts.mmdit.encode(training.words, PROMPTS)
        levels = backbone.schedule.at(t)
        wanted = training.transformer(
            hidden_states=x, timestep=1000 * levels, encoder_hidden_states=rows, pooled_projections=pooled
        ).sample
    assert torch.nn.functional.mse_loss(found, wanted) < 1e-3 * wanted.square().mean()  # half-precision weights


def test_it_is_shipped_and_draws_what_is_asked(scripts):
    pipe = load_pipeline("emoji-mmdit")
    assert backbone_for(pipe).world.name == "emoji-mmdit"
    pipe.set_progress_bar_config(disable=True)
    scripts.evaluate.count_rows(pipe)
    asked = argparse.Namespace(model="emoji-mmdit", steps=6, guidance=2.0)
    prompts = [f"{label} in noto style" for label in ("red apple", "pizza", "soccer ball", "rocket")]
    judge = ImageJudge.load(_BUNDLED_FOLDER / "emoji" / "judges" / "object")
    named = judge.judge(scripts.evaluate.sample(pipe, prompts, [0, 1, 2, 3], asked)).labels
    assert sum(name == prompt.removesuffix(" in noto style") for name, prompt in zip(named, prompts, strict=True)) >= 3
