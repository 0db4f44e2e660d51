from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import diffusers
import pytest
import torch
from diffusers import StableDiffusionPipeline
from diffusers.utils import logging as diffusers_logging
from safetensors.torch import save_file
from transformers.utils import logging as transformers_logging

from aizheimer.backbones import backbone_for, load_pipeline
from aizheimer.backbones.loading import _BUNDLED_FOLDER, quiet_loading
from aizheimer.edits.original_layout import original_state
from aizheimer.errors import ModelError
from tests.tiny import save_tiny

SD_TITLE = "Stable Diffusion 1 and 2"
BUNDLED = _BUNDLED_FOLDER / "emoji" / "pipeline"


def parameters(pipe: StableDiffusionPipeline) -> list[torch.Tensor]:
    return [p for net in (pipe.unet, pipe.vae, pipe.text_encoder) for p in net.parameters()]


@pytest.mark.parametrize("form", [str, Path])
def test_load_a_folder(
    tiny_folder: Path,
    form: Callable[[Path], str | Path],
    pristine_tiny_pipeline: StableDiffusionPipeline,
    capfd: pytest.CaptureFixture[str],
) -> None:
    pipe = load_pipeline(form(tiny_folder))
    assert capfd.readouterr() == ("", "")  # no progress bars, no warnings
    wanted = pristine_tiny_pipeline
    assert type(pipe) is StableDiffusionPipeline
    assert all(torch.equal(a, b) for a, b in zip(parameters(pipe), parameters(wanted), strict=True))
    assert not any(net.training for net in (pipe.unet, pipe.vae, pipe.text_encoder))
    assert pipe.safety_checker is None
    assert backbone_for(pipe).world.name == "tiny"
    assert backbone_for(pipe).fingerprint() == backbone_for(wanted).fingerprint()
    pipe("cat", num_inference_steps=1)
    assert capfd.readouterr() == ("", "")


def test_a_home_folder(tiny_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tiny_folder.parent))
    assert load_pipeline(f"~/{tiny_folder.name}").unet.config.in_channels == 4


def test_half_precision_is_widened(tmp_path: Path, tiny_pipeline: StableDiffusionPipeline) -> None:
    half = tiny_pipeline
    for net in (half.unet, half.vae, half.text_encoder):
        net.half()
    pipe = load_pipeline(save_tiny(tmp_path, pipe=half))
    assert {p.dtype for p in parameters(pipe)} == {torch.float32}
    assert all(torch.equal(a, b.float()) for a, b in zip(parameters(pipe), parameters(half), strict=True))


def test_a_folder_that_has_only_the_fp16_variant(
    tmp_path: Path, pristine_tiny_pipeline: StableDiffusionPipeline
) -> None:
    pristine_tiny_pipeline.save_pretrained(tmp_path, variant="fp16")
    pipe = load_pipeline(tmp_path)
    assert all(torch.equal(a, b) for a, b in zip(parameters(pipe), parameters(pristine_tiny_pipeline), strict=True))


def test_a_safety_checker_is_not_read(tiny_folder: Path) -> None:
    index = tiny_folder / "model_index.json"
    config = json.loads(index.read_text())
    config["safety_checker"] = ["stable_diffusion", "StableDiffusionSafetyChecker"]
    config["requires_safety_checker"] = True
    index.write_text(json.dumps(config))  # and there is no folder of that name
    assert load_pipeline(tiny_folder).safety_checker is None


# ------------------------------------------------------------------------------------------------------ errors


def error_of(model: str | Path, **kwargs: object) -> str:
    with pytest.raises(ModelError) as caught:
        load_pipeline(model, **kwargs)
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize("name", ["nowhere", "/nowhere/at/all", "./nowhere", "a/b/c"])
@pytest.mark.parametrize("form", [str, Path])
def test_a_missing_folder(name: str, form: Callable[[str], str | Path]) -> None:
    assert "no such folder" in error_of(form(name))


def test_a_missing_folder_in_a_real_one_is_not_looked_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    assert "'runs/mine': no such folder" in error_of("runs/mine")


def test_a_misspelt_bundled_model() -> None:
    assert "Did you mean 'emoji'?" in error_of("emojy")


def test_a_bundled_model_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aizheimer.backbones.loading._BUNDLED_FOLDER", tmp_path)
    assert "is not part of this installation" in error_of("emoji")


def test_a_single_file(tmp_path: Path) -> None:
    """What a checkpoint in one file may be, and how it is said: got, wanted, what to do."""
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"")
    assert f"{path}: corrupt safetensors" in error_of(path)
    save_file({"model.weight": torch.zeros(1)}, path)
    assert "got 1 tensors of no known kind of checkpoint; wanted one of Stable Diffusion 1 and 2" in error_of(path)
    (tmp_path / "model.ckpt").write_bytes(b"")
    assert "wanted a .safetensors checkpoint or a pipeline folder" in error_of(tmp_path / "model.ckpt")


@pytest.mark.parametrize(
    ("mark", "pipeline", "title"),
    [
        ("model.diffusion_model.input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight", "StableDiffusion", SD_TITLE),
        (
            "conditioner.embedders.1.model.transformer.resblocks.0.attn.in_proj_weight",
            "StableDiffusionXL",
            "Stable Diffusion XL",
        ),
        (
            "model.diffusion_model.joint_blocks.0.context_block.attn.qkv.weight",
            "StableDiffusion3",
            "Stable Diffusion 3 and 3.5",
        ),
        ("double_blocks.0.img_attn.qkv.weight", "Flux", "Flux.1"),
    ],
)
def test_a_single_file_goes_to_its_family(
    tmp_path: Path, mark: str, pipeline: str, title: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a tensor's name; diffusers does the rest, and what it says becomes one line."""
    path, asked = tmp_path / "model.safetensors", {}
    save_file({mark: torch.zeros(1)}, path)

    def from_single_file(file: str, **options: object) -> None:
        asked.update(options, file=file)
        raise OSError("no config\nand more")

    kind = getattr(diffusers, f"{pipeline}Pipeline")
    monkeypatch.setattr(kind, "from_single_file", from_single_file)
    message = error_of(path, config="folder", local_files_only=True)
    assert f"cannot be loaded as a checkpoint of {title} (no config)" in message
    assert asked["file"] == str(path)
    assert asked["config"] == "folder"
    assert asked["local_files_only"] is True


def test_a_single_file_becomes_a_pipeline(
    tmp_path: Path, tiny_pipeline: StableDiffusionPipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "model.safetensors"
    save_file({"input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight": torch.zeros(1)}, path)
    monkeypatch.setattr(StableDiffusionPipeline, "from_single_file", lambda *_, **__: tiny_pipeline)
    tiny_pipeline.unet.half()
    pipe = load_pipeline(path)
    assert pipe.unet.dtype == torch.float32
    assert pipe.name_or_path == str(path)


@pytest.mark.parametrize("named", [False, True], ids=["config=", "file@config"])
def test_a_checkpoint_in_the_original_layout_is_read_without_network(
    tmp_path: Path, tiny_folder: Path, tiny_pipeline: StableDiffusionPipeline, *, named: bool
) -> None:
    """The tiny pipeline's first block has no attention, as in a model that is built small."""
    path = tmp_path / "model.safetensors"
    save_file({name: tensor.contiguous() for name, tensor in original_state(tiny_pipeline).items()}, path)
    model, config = (f"{path}@{tiny_folder}", None) if named else (path, tiny_folder)
    pipe = load_pipeline(model, config=config, local_files_only=True)
    assert pipe.name_or_path == f"{path}@{tiny_folder}"
    assert pipe.tokenizer.get_vocab() == tiny_pipeline.tokenizer.get_vocab()
    for part in ("unet", "vae", "text_encoder"):
        ours, theirs = (getattr(one, part).state_dict() for one in (pipe, tiny_pipeline))
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[name], theirs[name]) for name in theirs), part


def test_what_does_not_go_together(tiny_folder: Path) -> None:
    assert "revision: got 'main'" in error_of(tiny_folder, revision="main")
    assert "config: got 'x' beside" in error_of(tiny_folder, config="x")
    path = tiny_folder / "model.safetensors"
    path.write_bytes(b"")
    assert "config: got 'x' beside" in error_of(f"{path}@folder", config="x")


def test_a_gated_model_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    def answer(*_: object, **__: object) -> None:
        raise OSError("You are trying to access a gated repo.\n401 Client Error")

    monkeypatch.setattr("transformers.utils.hub.cached_file", answer)
    message = error_of("owner/name@v2")
    assert "model 'owner/name at v2' is gated or private (You are trying to access a gated repo.)" in message
    assert "accept its licence" in message


def test_a_folder_without_an_index(tiny_folder: Path) -> None:
    (tiny_folder / "model_index.json").unlink()
    assert f"{tiny_folder}: no model_index.json" in error_of(tiny_folder)


def test_the_folder_around_a_pipeline(tiny_folder: Path) -> None:
    assert f"Did you mean '{tiny_folder}'?" in error_of(tiny_folder.parent)


@pytest.mark.parametrize("content", ["{", ""])
def test_an_index_that_is_not_json(tiny_folder: Path, content: str) -> None:
    (tiny_folder / "model_index.json").write_text(content)
    assert "model_index.json: not readable as JSON" in error_of(tiny_folder)


@pytest.mark.parametrize(
    ("content", "name"),
    [
        ({"_class_name": "KolorsPipeline"}, "a KolorsPipeline"),
        ({}, "without a class name"),
        ([], "without a class name"),
    ],
)
def test_another_pipeline_is_named(tiny_folder: Path, content: object, name: str) -> None:
    (tiny_folder / "model_index.json").write_text(json.dumps(content))
    message = error_of(tiny_folder)
    assert name in message
    assert "wanted one of StableDiffusionPipeline (Stable Diffusion 1 and 2), StableDiffusionXLPipeline" in message


@pytest.mark.parametrize("component", ["unet", "vae", "text_encoder", "tokenizer", "scheduler"])
def test_a_missing_component_is_named(tiny_folder: Path, component: str) -> None:
    shutil.rmtree(tiny_folder / component)
    assert f"lacks {component};" in error_of(tiny_folder)


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def _spoil_header(path: Path) -> None:
    path.write_bytes(b"\xff" * 64 + path.read_bytes()[64:])


def _empty(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize("damage", [_truncate, _spoil_header, _empty])
@pytest.mark.parametrize(
    "file",
    [
        "unet/diffusion_pytorch_model.safetensors",
        "vae/diffusion_pytorch_model.safetensors",
        "text_encoder/model.safetensors",
    ],
)
def test_corrupt_weights_are_named(tiny_folder: Path, file: str, damage: Callable[[Path], None]) -> None:
    damage(tiny_folder / file)
    assert f"{tiny_folder / file}: corrupt safetensors" in error_of(tiny_folder)


@pytest.mark.parametrize(
    "file", ["unet/config.json", "scheduler/scheduler_config.json", "unet/diffusion_pytorch_model.safetensors"]
)
def test_a_component_without_its_file(tiny_folder: Path, file: str) -> None:
    (tiny_folder / file).unlink()
    assert "cannot be loaded" in error_of(tiny_folder)


def test_weights_of_another_shape(tiny_folder: Path) -> None:
    path = tiny_folder / "unet" / "config.json"
    path.write_text(path.read_text().replace('"cross_attention_dim": 32', '"cross_attention_dim": 64'))
    assert "cannot be loaded" in error_of(tiny_folder)


def test_pickles_are_never_read(tiny_folder: Path) -> None:
    path = tiny_folder / "unet" / "diffusion_pytorch_model.safetensors"
    path.unlink()
    torch.save({}, path.with_suffix(".bin"))
    assert "cannot be loaded" in error_of(tiny_folder)


def test_a_hub_model_that_cannot_be_had() -> None:
    message = error_of("nobody/nothing", local_files_only=True)
    assert "'nobody/nothing' is neither a folder here nor could be had from the hub" in message


@pytest.fixture
def hub_cache(tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of the hub that holds one model, ``tiny/pipeline``; returns the model's snapshot."""
    cache, revision = tmp_path / "hub" / "models--tiny--pipeline", "0" * 40
    shutil.copytree(tiny_folder, cache / "snapshots" / revision)
    (cache / "refs").mkdir()
    (cache / "refs" / "main").write_text(revision)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    return cache / "snapshots" / revision


def test_a_hub_model_from_the_local_cache(hub_cache: Path, pristine_tiny_pipeline: StableDiffusionPipeline) -> None:
    pipe = load_pipeline("tiny/pipeline", local_files_only=True)
    assert Path(pipe.name_or_path) == hub_cache
    assert backbone_for(pipe).fingerprint() == backbone_for(pristine_tiny_pipeline).fingerprint()


def test_a_hub_model_of_another_family(hub_cache: Path) -> None:
    (hub_cache / "model_index.json").write_text('{"_class_name": "KolorsPipeline"}')
    assert "tiny/pipeline: got a KolorsPipeline" in error_of("tiny/pipeline", local_files_only=True)


def test_progress_bars_are_as_before() -> None:
    logs = (diffusers_logging, transformers_logging)
    before = [log.is_progress_bar_enabled() for log in logs]
    diffusers_logging.enable_progress_bar()
    transformers_logging.disable_progress_bar()

    def fail() -> None:
        assert not any(log.is_progress_bar_enabled() for log in logs)
        raise RuntimeError("inside")

    try:
        with pytest.raises(RuntimeError, match="inside"), quiet_loading():
            fail()
        assert [log.is_progress_bar_enabled() for log in logs] == [True, False]
    finally:
        for log, on in zip(logs, before, strict=True):
            (log.enable_progress_bar if on else log.disable_progress_bar)()


@pytest.mark.skipif(not BUNDLED.is_dir(), reason="the bundled model is not built yet")
def test_the_bundled_model() -> None:
    backbone = backbone_for(load_pipeline("emoji"))
    assert backbone.world.name == "emoji"
    assert len(backbone.attention_modules()) >= 7
    assert backbone.token_columns(["Santa Claus in noto style"], "Santa Claus", policy="concept").any()


@pytest.mark.skipif(not BUNDLED.is_dir(), reason="the bundled model is not built yet")
def test_plain_diffusers_draws_with_the_bundled_model_whatever_it_is_not_told() -> None:
    """The weights are float16, which transformers would load as they are, and diffusers in float32."""
    pipe = StableDiffusionPipeline.from_pretrained(BUNDLED, local_files_only=True)
    pipe.set_progress_bar_config(disable=True)
    assert {part.dtype for part in (pipe.unet, pipe.text_encoder, pipe.vae)} == {torch.float32}
    assert pipe("cat", num_inference_steps=1, output_type="np").images.shape == (1, 64, 64, 3)
