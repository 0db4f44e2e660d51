"""An edit as a file of another program: what diffusers draws with it is what the edit draws."""

import copy
import json

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint, convert_ldm_vae_checkpoint
from diffusers.utils import convert_state_dict_to_kohya
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from aizheimer.backbones.base import backbone_for
from aizheimer.concepts import Concept
from aizheimer.edits import Edit
from aizheimer.edits.export import FORMATS, METADATA, export_edit
from aizheimer.edits.imports import import_edit
from aizheimer.edits.low_rank import thin_edit
from aizheimer.edits.original_layout import UNET, VAE, original_state, unet_key, vae_key
from aizheimer.errors import EditError, StorageError
from tests.snapshot import same_snapshot, snapshot
from tests.tiers import all_but
from tests.tiny import DIM
from tests.tiny_families import BUILDERS
from tests.unit.edits.artifacts import (
    BIAS,
    CONVOLUTIONS,
    CROSS,
    NORM,
    OTHERS,
    PROMPTS,
    TEXT,
    edit_of_weights,
    loaded,
)
from tests.unit.edits.running import apart, draw, edit_of
from tests.unit.edits.test_adapter_hooks import erasers, spm

WHOLE = tuple(name for name, format in FORMATS.items() if format.exact)
LORAS = ("lora-peft", "lora-kohya")
KINDS = {
    "cross-attention": CROSS,
    "convolutions and the rest": (*CROSS, *CONVOLUTIONS, *OTHERS),
    "text encoder": TEXT,
    "both networks": (*CROSS, *TEXT),
}


def round_trip(edit, pipe, folder, tmp_path, *, format, **options):
    """Return pictures of the base, of the edit, and of its artifact, and what was said of the export."""
    plain = draw(pipe, PROMPTS)
    with edit.applied(pipe):
        edited = draw(pipe, PROMPTS)
    base = copy.deepcopy(pipe)
    name = "artifact" if FORMATS[format].folder else "artifact.safetensors"
    before = snapshot(pipe)
    exported = edit.export(pipe, tmp_path / "out" / name, format=format, **options)
    assert same_snapshot(before, snapshot(pipe))
    pictures = draw(loaded(exported, base=base, base_folder=folder), PROMPTS)
    assert apart(plain, edited) > 1e-3
    return plain, edited, pictures, exported


class TestRoundTrip:
    @pytest.mark.parametrize("kind", all_but(["convolutions and the rest", "both networks"], KINDS))
    @pytest.mark.parametrize("format", FORMATS)
    def test_diffusers_draws_what_the_edit_draws(self, tiny_pipeline, saved_tiny_pipeline, tmp_path, format, kind):
        edit = edit_of_weights(tiny_pipeline, KINDS[kind], rank=3, strength=0.8)
        if format == "text-encoder" and kind != "text encoder":
            with pytest.raises(EditError, match="changes the denoiser, not the text encoder alone; export as"):
                edit.export(tiny_pipeline, tmp_path / "out", format=format)
            return
        _, edited, pictures, exported = round_trip(edit, tiny_pipeline, saved_tiny_pipeline, tmp_path, format=format)
        if format in WHOLE:
            assert np.array_equal(pictures, edited)
            assert exported.error == 0
        else:
            assert exported.error < 1e-5
            assert {rank for rank, _ in exported.layers.values()} == {3}
            assert apart(pictures, edited) < 1e-3

    @pytest.mark.parametrize("format", LORAS)
    def test_a_low_rank_is_as_far_off_as_it_says(self, tiny_pipeline, saved_tiny_pipeline, tmp_path, format):
        edit = edit_of_weights(tiny_pipeline, (*CROSS, BIAS, NORM), size=0.5)
        plain, edited, pictures, exported = round_trip(
            edit, tiny_pipeline, saved_tiny_pipeline, tmp_path, format=format, rank=16, partial=True
        )
        assert set(exported.left_out) == {BIAS, NORM}
        assert 0.05 < exported.error < 0.9
        assert np.abs(pictures - edited).mean() < 3 * exported.error * np.abs(plain - edited).mean()

    @pytest.mark.parametrize("format", FORMATS)
    def test_adapters_without_a_gate_are_exact(self, tiny_pipeline, saved_tiny_pipeline, tmp_path, format):
        if format == "text-encoder":
            return
        edit = edit_of(tiny_pipeline, spm(gate="none"))
        _, edited, pictures, exported = round_trip(
            edit, tiny_pipeline, saved_tiny_pipeline, tmp_path, format=format, rank=1
        )
        assert exported.error < 1e-5
        assert apart(pictures, edited) < 1e-3


class TestRefusals:
    @pytest.mark.parametrize("format", FORMATS)
    def test_a_behaviour_is_refused_in_every_format(self, tiny_pipeline, tmp_path, format):
        with pytest.raises(EditError, match=r"acts while pictures are drawn \(hook 'erasers'\), .* use the run folder"):
            edit_of(tiny_pipeline, erasers()).export(tiny_pipeline, tmp_path / "x", format=format)
        with pytest.raises(EditError, match=r"as far as it is about the concept, .* write it with --ungated"):
            edit_of(tiny_pipeline, spm()).export(tiny_pipeline, tmp_path / "x", format=format)
        assert list(tmp_path.iterdir()) == []

    def test_a_gate_is_left_out_when_that_is_asked_for(self, tiny_pipeline, tmp_path):
        path = tmp_path / "x.safetensors"
        exported = edit_of(tiny_pipeline, spm()).export(tiny_pipeline, path, format="lora-kohya", ungated=True)
        assert exported.error < 1e-5

    @pytest.mark.parametrize("format", LORAS)
    def test_biases_and_norms_are_refused_in_loras(self, tiny_pipeline, tmp_path, format):
        edit = edit_of_weights(tiny_pipeline, (*CROSS, BIAS))
        with pytest.raises(EditError, match=r"1 of the 4 changes .*attn2.to_out.0.bias.*no LoRA can hold; export as"):
            edit.export(tiny_pipeline, tmp_path / "x", format=format)
        only = edit_of_weights(tiny_pipeline, (BIAS,))
        with pytest.raises(EditError, match="1 of the 1 changes"):
            only.export(tiny_pipeline, tmp_path / "x", format=format, partial=True)

    @pytest.mark.parametrize(
        ("options", "words"),
        [
            ({"format": "lora-koya"}, "unknown format 'lora-koya'. Did you mean 'lora-kohya'"),
            ({"format": "lora-peft", "rank": 0}, "rank: got 0, wanted 1 or more"),
        ],
    )
    def test_what_was_typed_wrong(self, tiny_pipeline, tmp_path, options, words):
        with pytest.raises(EditError, match=words):
            edit_of_weights(tiny_pipeline, CROSS).export(tiny_pipeline, tmp_path / "x", **options)

    def test_what_is_there_stays(self, tiny_pipeline, tmp_path):
        (tmp_path / "x").write_text("mine")
        with pytest.raises(EditError, match="is there already; choose another --out"):
            edit_of_weights(tiny_pipeline, CROSS).export(tiny_pipeline, tmp_path / "x", format="delta")
        assert (tmp_path / "x").read_text() == "mine"

    def test_nothing_to_export(self, tiny_pipeline, tmp_path):
        with pytest.raises(EditError, match="changes nothing"):
            edit_of_weights(tiny_pipeline, CROSS, strength=0.0).export(tiny_pipeline, tmp_path / "x", format="delta")

    def test_another_base(self, tiny_pipeline, tmp_path):
        edit = edit_of_weights(tiny_pipeline, CROSS)
        other = Edit(edit.deltas, edit.provenance.model_copy(update={"base_fingerprint": "0" * 16}))
        with pytest.raises(EditError, match="this edit was made for"):
            other.export(tiny_pipeline, tmp_path / "x", format="lora-kohya")

    @pytest.mark.parametrize("family", ["sd3", "flux"])
    def test_a_transformer_in_the_original_layout(self, family):
        with pytest.raises(
            EditError, match=r"layout of Stable Diffusion 1, 2 and XL, this is \w+; export as diffusers"
        ):
            original_state(BUILDERS[family]())

    def test_kohyas_names_are_those_of_a_unet(self, tiny_pipeline, tmp_path, monkeypatch):
        monkeypatch.setattr("aizheimer.edits.export._denoiser_name", lambda _pipe: "transformer")
        edit = edit_of_weights(tiny_pipeline, CROSS)
        with pytest.raises(EditError, match="this model has a transformer; export as lora-peft"):
            edit.export(tiny_pipeline, tmp_path / "x", format="lora-kohya")
        path = edit.export(tiny_pipeline, tmp_path / "x", format="lora-peft").path
        assert all(name.startswith("transformer.mid_block.") for name in load_file(path))

    def test_a_folder_is_whole_or_not_there(self, tiny_pipeline, tmp_path, monkeypatch):
        def full(folder, **_options):
            (folder / "half").write_text("")
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(tiny_pipeline, "save_pretrained", full)
        with pytest.raises(StorageError, match="no room to write"):
            export_edit(edit_of_weights(tiny_pipeline, CROSS), tiny_pipeline, tmp_path / "x", format="diffusers")
        assert list(tmp_path.iterdir()) == []


class TestFiles:
    def test_kohyas_names_and_header(self, tiny_pipeline, tmp_path):
        edit = edit_of_weights(tiny_pipeline, (*CROSS, *TEXT), rank=2)
        path = edit.export(tiny_pipeline, tmp_path / "x.safetensors", format="lora-kohya").path
        state = load_file(path)
        layer = "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn2_to_k"
        text = "lora_te_text_model_encoder_layers_1_self_attn_v_proj"
        for name in (layer, text):
            assert state[f"{name}.lora_down.weight"].shape[0] == state[f"{name}.lora_up.weight"].shape[1] == 2
            assert float(state[f"{name}.alpha"]) == 2
        with safe_open(path, framework="pt") as file:
            header = file.metadata()
        assert header["ss_network_dim"] == "2"
        assert json.loads(header[METADATA])["concept"] == "santa claus"

    def test_kohyas_names_are_those_that_diffusers_converts_pefts_into(self, tiny_pipeline, tmp_path):
        edit = edit_of_weights(tiny_pipeline, (*CROSS, *CONVOLUTIONS, *OTHERS), rank=2)
        states = [
            load_file(edit.export(tiny_pipeline, tmp_path / format, format=format).path)
            for format in ("lora-peft", "lora-kohya")
        ]
        wanted = convert_state_dict_to_kohya(states[0])
        found = {name: value for name, value in states[1].items() if not name.endswith(".alpha")}
        assert found.keys() == {name for name in wanted if not name.endswith(".alpha")}
        assert all(torch.equal(wanted[name], value) for name, value in found.items())

    def test_where_the_base_was_is_nobody_elses_business(self, tiny_pipeline, saved_tiny_pipeline, tmp_path):
        edit = edit_of_weights(tiny_pipeline, TEXT)
        for format in ("diffusers", "text-encoder"):
            edit.export(tiny_pipeline, tmp_path / format, format=format)
        for file in tmp_path.rglob("*.json"):
            assert str(saved_tiny_pipeline) not in file.read_text(), file

    def test_a_delta_is_what_changed_under_the_networks_own_names(self, tiny_pipeline, tmp_path):
        edit = edit_of_weights(tiny_pipeline, CROSS)
        state = load_file(edit.export(tiny_pipeline, tmp_path / "x.safetensors", format="delta").path)
        assert {f"unet.{name}" for name in state} == set(CROSS)
        both = edit_of_weights(tiny_pipeline, (*CROSS, *TEXT))
        state = load_file(both.export(tiny_pipeline, tmp_path / "y.safetensors", format="delta").path)
        assert set(state) == {*CROSS, *TEXT}

    @pytest.mark.parametrize("names", [CROSS, TEXT, (*CROSS, *TEXT)], ids=["denoiser", "text encoder", "both"])
    def test_a_delta_that_does_not_fit_raises(self, tiny_pipeline, tmp_path, names):
        path = tmp_path / "x.safetensors"
        exported = edit_of_weights(tiny_pipeline, names).export(tiny_pipeline, path, format="delta")
        state = load_file(path)
        save_file({f"{name}_of_another_base": value for name, value in state.items()}, path)
        with pytest.raises(AttributeError, match="of_another_base"):
            loaded(exported, base=tiny_pipeline, base_folder=tmp_path)
        save_file({name: torch.zeros(3, 5) for name in state}, path)
        with pytest.raises(RuntimeError, match="size of tensor"):
            loaded(exported, base=tiny_pipeline, base_folder=tmp_path)

    @pytest.mark.parametrize("family", ["sd3", "flux"])
    def test_a_delta_of_a_transformer_is_loaded_into_it(self, tiny_world, family, tmp_path):
        backbone = backbone_for(BUILDERS[family](seed=0), world=tiny_world)
        names = [f"unet.{next(backbone.denoiser.named_parameters())[0]}"]
        for more in ([], [f"text_encoder.{next(backbone.pipe.text_encoder.named_parameters())[0]}"]):
            edit = edit_of_weights(backbone.pipe, [*names, *more])
            exported = edit.export(backbone.pipe, tmp_path / f"{len(more)}.safetensors", format="delta")
            pipe = loaded(exported, base=backbone.pipe, base_folder=tmp_path)
            with edit.applied(backbone.pipe):
                wanted = {name: value.clone() for name, value in backbone.denoiser.state_dict().items()}
            found = pipe.transformer.state_dict()
            assert all(torch.equal(found[name], value) for name, value in wanted.items())


class TestOriginalLayout:
    """At the size of Stable Diffusion 1, without its weights: every name, and what diffusers makes of it."""

    def test_every_parameter_of_the_unet(self):
        with torch.device("meta"):
            unet = UNet2DConditionModel(cross_attention_dim=768, attention_head_dim=8)
        names = {name: unet_key(name, unet.config) for name in unet.state_dict()}
        assert len(set(names.values())) == len(names) == 686
        assert names["up_blocks.0.upsamplers.0.conv.weight"] == "output_blocks.2.1.conv.weight"
        assert names["up_blocks.1.upsamplers.0.conv.weight"] == "output_blocks.5.2.conv.weight"
        assert names["down_blocks.0.downsamplers.0.conv.weight"] == "input_blocks.3.0.op.weight"
        assert names["mid_block.resnets.1.conv1.weight"] == "middle_block.2.in_layers.2.weight"
        back = convert_ldm_unet_checkpoint({UNET + original: name for name, original in names.items()}, unet.config)
        assert back == {name: name for name in names}

    def test_every_parameter_of_the_unet_of_xl(self):
        with torch.device("meta"):
            unet = UNet2DConditionModel(
                block_out_channels=(320, 640, 1280),
                down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
                up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
                cross_attention_dim=2048,
                attention_head_dim=(5, 10, 20),
                transformer_layers_per_block=(1, 2, 10),
                use_linear_projection=True,
                addition_embed_type="text_time",
                addition_time_embed_dim=256,
                projection_class_embeddings_input_dim=2816,
            )
        names = {name: unet_key(name, unet.config) for name in unet.state_dict()}
        assert len(set(names.values())) == len(names) == 1680
        assert names["add_embedding.linear_2.bias"] == "label_emb.0.2.bias"
        assert names["up_blocks.0.upsamplers.0.conv.weight"] == "output_blocks.2.2.conv.weight"
        last = "transformer_blocks.9.attn2.to_k.weight"
        assert names[f"down_blocks.2.attentions.1.{last}"] == f"input_blocks.8.1.{last}"
        back = convert_ldm_unet_checkpoint({UNET + original: name for name, original in names.items()}, unet.config)
        assert back == {name: name for name in names}

    def test_every_parameter_of_the_autoencoder(self):
        blocks = {"down_block_types": ("DownEncoderBlock2D",) * 4, "up_block_types": ("UpDecoderBlock2D",) * 4}
        with torch.device("meta"):
            vae = AutoencoderKL(**blocks, block_out_channels=(128, 256, 512, 512), layers_per_block=2)
        state = vae.state_dict()
        names = {name: vae_key(name, levels=4) for name in state}
        assert names["decoder.up_blocks.0.upsamplers.0.conv.bias"] == "decoder.up.3.upsample.conv.bias"
        assert names["encoder.mid_block.attentions.0.to_out.0.weight"] == "encoder.mid.attn_1.proj_out.weight"
        back = convert_ldm_vae_checkpoint({VAE + key: state[name] for name, key in names.items()}, vae.config)
        assert back.keys() == state.keys()
        assert all(back[name].shape == value.shape for name, value in state.items())

    @pytest.mark.parametrize("name", ["encoder_hid_proj.weight", "mid_block.resnets.0.odd.weight"])
    def test_what_has_no_place(self, name):
        with pytest.raises(EditError, match=r"has no place for .* export as diffusers"):
            unet_key(name, {"layers_per_block": 2, "up_block_types": []})
        with pytest.raises(EditError, match=r"has no place for .* export as diffusers"):
            vae_key(f"encoder.strange.{name}", levels=4)

    def test_stable_diffusion_2_has_the_names_of_open_clip(self, tmp_path, monkeypatch):
        """Its text encoder is told by its width, which a tiny one has not."""
        pipe = BUILDERS["sd2-v"]()
        monkeypatch.setattr("aizheimer.edits.original_layout._OPEN_CLIP_WIDTH", DIM)
        edit = edit_of_weights(pipe, (*CROSS, *TEXT))
        pipe.save_pretrained(tmp_path / "base")
        exported = edit.export(pipe, tmp_path / "x.safetensors", format="single-file")
        names = set(load_file(exported.path))
        assert "cond_stage_model.model.transformer.resblocks.1.attn.in_proj_weight" in names
        assert "cond_stage_model.model.ln_final.bias" in names
        there = loaded(exported, base=pipe, base_folder=tmp_path / "base")
        with edit.applied(pipe):
            for part in ("unet", "text_encoder", "vae"):
                own, weights = getattr(pipe, part).state_dict(), getattr(there, part).state_dict()
                assert own.keys() == weights.keys()
                assert all(torch.equal(own[name], weights[name]) for name in own)
            wanted = draw(pipe, PROMPTS)
        assert apart(draw(there, PROMPTS), wanted) < 1e-5
        found, report = import_edit(exported.path, backbone_for(pipe), Concept("santa claus"))
        assert report.unmatched == ()
        assert found.deltas.keys() == edit.deltas.keys()


class TestThin:
    def test_the_error_is_that_of_the_product(self, tiny_pipeline):
        edit = edit_of_weights(tiny_pipeline, (*CROSS, *CONVOLUTIONS))
        networks = {"unet": tiny_pipeline.unet}
        thin = thin_edit(edit, networks, rank=5)
        for change in thin.changes:
            delta = edit.deltas[f"{change.module}.weight"].double().flatten(1)
            product = change.up.double().flatten(1) @ change.down.double().flatten(1)
            best = torch.linalg.svdvals(delta)[5:].square().sum().sqrt()
            assert float((delta - product).norm()) == pytest.approx(float(best), rel=1e-3, abs=1e-5)
            assert change.error == pytest.approx(float((delta - product).norm() / delta.norm()), rel=1e-3)

    def test_both_factors_are_of_one_size(self, tiny_pipeline):
        (change, *_) = thin_edit(edit_of_weights(tiny_pipeline, CROSS), {"unet": tiny_pipeline.unet}, rank=4).changes
        assert torch.allclose(change.up.norm(dim=0), change.down.norm(dim=1), rtol=1e-4)
