"""Leaner training is the same training: the options change memory and time, and put everything back."""

import sys

import pytest
import torch
from PIL import Image
from pydantic import ValidationError
from safetensors.torch import load_file
from torch import nn

from aizheimer.backbones.base import backbone_for
from aizheimer.concepts import Concept
from aizheimer.engine.callbacks import Callbacks
from aizheimer.engine.lean import lean
from aizheimer.engine.loop import train
from aizheimer.engine.run_folder import RunFolder
from aizheimer.engine.settings import TrainSettings
from aizheimer.errors import MissingDependencyError, ModelError
from aizheimer.methods.aizheimer import AIzheimer
from aizheimer.methods.esd import ESD
from aizheimer.methods.forget_me_not import ForgetMeNot
from aizheimer.modules.attention import attention_probe
from aizheimer.modules.parameters import select_parameters, trainable
from aizheimer.objectives.distraction import distraction
from tests.snapshot import same_snapshot, snapshot
from tests.trained import TRAINING, check_method, check_resume, small, tensors, tiny_backbone
from tests.unit.engine.problems import Chase

CONCEPT = Concept("santa claus")
COMPILING = (pytest.mark.long, pytest.mark.filterwarnings("ignore"))
"""torch's compiler warns of itself while it traces a module."""
ATTENTION = {
    "start": None,
    "enough": None,
    "retain_neighbours": 2,
    "retain_others": 1,
    "retain_general": 1,
    "retain_batch_size": 2,
}


def gradients(backbone, settings):
    """Return the loss on attention and predictions, its gradients, and how often each layer was read."""
    layers = list(backbone.attention_modules())
    prompts = ["santa claus in noto style", "cat in flat style"]
    columns = backbone.token_columns(prompts[:1], "santa claus", policy="concept")
    columns = torch.cat([columns, torch.zeros_like(columns)])
    selection = select_parameters(backbone.denoiser, layers, ("q", "k", "v", "out"))
    x_t = torch.randn(2, *backbone.latent_shape, generator=torch.Generator().manual_seed(0))
    conditions = backbone.condition(prompts)
    with trainable(backbone.denoiser, selection) as parameters, lean(backbone.denoiser, settings):
        with attention_probe(backbone.denoiser, layers, columns) as probe:
            prediction = backbone.predict(x_t, torch.tensor([500, 20]), conditions)
            maps = dict(probe.maps)
        # The probe is gone before the backward pass, as in a training step.
        loss = distraction(maps, variant="paper", tokens=backbone.max_tokens).total + prediction.square().mean()
        loss.backward()
        found = {name: parameter.grad.clone() for name, parameter in parameters.items()}
    return loss.detach(), found, maps


def shallow_backbone():
    """Return a tiny model whose UNet has one level: few kinds of block, each of which takes a compiler seconds."""
    backbone = tiny_backbone()
    width = backbone.denoiser.config.block_out_channels[:1]
    blocks = {"down_block_types": ("CrossAttnDownBlock2D",), "up_block_types": ("CrossAttnUpBlock2D",)}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        unet = type(backbone.denoiser).from_config(
            {**backbone.denoiser.config, **blocks, "block_out_channels": width, "layers_per_block": 1}
        )
    backbone.pipe.register_modules(unet=unet.eval())
    return backbone_for(backbone.pipe, world=backbone.world)


@pytest.mark.parametrize(
    "options",
    [{"checkpointing": True}, {"channels_last": True}, pytest.param({"compile": True}, marks=COMPILING)],
    ids=str,
)
def test_losses_and_gradients_are_the_same(options):
    backbone = shallow_backbone() if "compile" in options else tiny_backbone()
    before = snapshot(backbone.pipe)
    plain, lean_one = (gradients(backbone, TrainSettings(**chosen)) for chosen in ({}, options))
    torch.testing.assert_close(lean_one[0], plain[0])
    assert lean_one[2].keys() == plain[2].keys()
    near = 1e-6 if "checkpointing" in options else 1e-5  # other kernels round elsewhere
    for name, gradient in plain[1].items():
        torch.testing.assert_close(lean_one[1][name], gradient, rtol=1e-4, atol=near)
    assert same_snapshot(before, snapshot(backbone.pipe))


def test_recomputed_blocks_keep_their_inputs_only():
    """Between the passes the graph of a recomputed network holds less, though the probe's maps are all there."""

    def held(settings):
        backbone, kept = tiny_backbone(), []

        def pack(tensor):
            kept.append(tensor.numel())
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            gradients(backbone, settings)
        return sum(kept)

    assert held(TrainSettings(checkpointing=True)) < held(TrainSettings()) / 2


@pytest.mark.long
@pytest.mark.parametrize(
    "method",
    [
        small(ESD, rollout="teacher", training={"checkpointing": True, "channels_last": True}),
        AIzheimer(
            **ATTENTION,
            rollouts={"forget": 2, "retain": 3, "holdout": 1, "steps": 2},
            training=TRAINING | {"checkpointing": True},
        ),
    ],
    ids=lambda method: method.name,
)
def test_a_whole_run_is_the_plain_run(method):
    plain = method.model_copy(
        update={"training": method.training.model_copy(update={"checkpointing": False, "channels_last": False})}
    )
    edits = [check_method(chosen, CONCEPT)[0] for chosen in (plain, method)]
    assert edits[0].deltas.keys() == edits[1].deltas.keys()
    # Adam's first steps are the signs of gradients, and rounding turns those of gradients that are nothing.
    for name, delta in edits[0].deltas.items():
        assert ((delta - edits[1].deltas[name]).abs() > 1e-4).float().mean() < 0.02


def test_a_network_without_blocks_is_refused():
    refused = pytest.raises(ModelError, match=r"training.checkpointing: Linear has no blocks")
    with refused, lean(nn.Linear(2, 2), TrainSettings(checkpointing=True)):
        pass


BF16 = {"precision": "bf16", "weights": "bf16"}


class TestBf16:
    def test_only_what_does_not_learn_is_halved_and_all_bits_come_back(self):
        backbone = tiny_backbone()
        before = snapshot(backbone.pipe)
        layers = list(backbone.attention_modules())
        selection = select_parameters(backbone.denoiser, layers, ("k",))
        with trainable(backbone.denoiser, selection) as parameters:
            full = sum(p.nbytes for p in backbone.denoiser.parameters())
            with lean(backbone.denoiser, TrainSettings(**BF16)):
                assert all(parameter.dtype == torch.float32 for parameter in parameters.values())
                assert backbone.dtype == torch.float32
                assert sum(p.nbytes for p in backbone.denoiser.parameters()) < 0.6 * full
        assert same_snapshot(before, snapshot(backbone.pipe))

    def test_a_failure_puts_the_bits_back_too(self):
        backbone = tiny_backbone()
        before = snapshot(backbone.pipe)
        with pytest.raises(KeyboardInterrupt), lean(backbone.denoiser, TrainSettings(**BF16)):
            raise KeyboardInterrupt
        assert same_snapshot(before, snapshot(backbone.pipe))

    @pytest.mark.long
    def test_it_learns_as_in_float32_but_for_rounding(self, tmp_path):
        # Plain Adam turns rounding of small gradients into whole steps; what is compared is where the loss goes.
        losses = {}
        for name, options in (("plain", {}), ("bf16", BF16)):
            method = small(ESD, rollout="teacher", training={**options, "steps": 12, "lr": 3e-3, "batch_size": 4})
            rows = []
            edit = method.unlearn(tiny_backbone(), CONCEPT, callbacks=Callbacks(on_step=rows.append))
            losses[name] = [row["loss"] for row in rows]
            assert all(tensor.dtype == torch.float32 for tensor in tensors(edit).values())
        assert losses["bf16"] != losses["plain"]
        assert losses["bf16"] == pytest.approx(losses["plain"], rel=0.1)

    @pytest.mark.long
    def test_it_resumes_to_the_same_bits(self, tmp_path):
        method = small(ESD, rollout="teacher", training={**BF16, "checkpointing": True, "checkpoint_every": 1})
        check_resume(method, CONCEPT, tmp_path / "run", at=3)

    def test_bf16_weights_without_bf16_arithmetic_are_refused(self):
        with pytest.raises(ValidationError, match="set precision=bf16"):
            TrainSettings(weights="bf16")


class TestEightBits:
    def test_it_learns_and_resumes_to_the_same_bits(self, tmp_path):
        pytest.importorskip("bitsandbytes", reason="bitsandbytes is not installed: pip install 'aizheimer[8bit]'")
        method = small(ESD, rollout="teacher", training={"optimizer": "adam8bit", "checkpoint_every": 1})
        check_method(method, CONCEPT)
        check_resume(method, CONCEPT, tmp_path / "run", at=3)

    def test_averages_take_a_byte(self, tmp_path):
        pytest.importorskip("bitsandbytes", reason="bitsandbytes is not installed: pip install 'aizheimer[8bit]'")
        run = RunFolder(tmp_path / "run").create()
        small(ESD, rollout="teacher", training={"optimizer": "adamw8bit"}).unlearn(tiny_backbone(), CONCEPT, run=run)
        found = load_file(next((tmp_path / "run").glob("checkpoint*.safetensors")))
        states = [tensor for name, tensor in found.items() if "state1/" in name]
        assert states
        assert all(tensor.dtype == torch.uint8 for tensor in states if tensor.numel() >= 4096)

    def test_without_the_package_the_line_that_installs_it_is_said(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "bitsandbytes", None)  # what Python itself takes for "not there"
        with pytest.raises(MissingDependencyError, match=r"pip install 'aizheimer\[8bit\]'"):
            train(Chase(), TrainSettings(optimizer="adam8bit"))


def test_pictures_are_encoded_in_tiles_and_the_autoencoder_is_as_before(monkeypatch, tmp_path):
    backbone, seen = tiny_backbone(), []
    vae = backbone.components["vae"]
    encode = vae.encode

    def watched(*args, **keywords):
        seen.append(vae.use_tiling)
        return encode(*args, **keywords)

    monkeypatch.setattr(vae, "encode", watched)
    for number in range(2):
        Image.new("RGB", (16, 16), (255, 0, 100 * number)).save(tmp_path / f"{number}.png")
    small(ForgetMeNot, images=str(tmp_path), training={"vae_tiling": True, "steps": 1}).unlearn(backbone, CONCEPT)
    assert seen
    assert all(seen)
    assert not vae.use_tiling
