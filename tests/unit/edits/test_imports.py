"""What other programs save, read as an edit: fixtures in each format, and what must be refused."""

import json
import zipfile

import pytest
import torch
from safetensors.torch import save_file

from aizheimer.backbones.base import backbone_for
from aizheimer.concepts import Concept
from aizheimer.edits.foreign import read_foreign
from aizheimer.edits.hooks.spm import SPMHook
from aizheimer.edits.imports import import_edit
from aizheimer.edits.low_rank import thin_edit
from aizheimer.edits.original_layout import UNET, original_state, unet_key
from aizheimer.errors import EditError
from tests.unit.edits.artifacts import CONVOLUTIONS, CROSS, OTHERS, PROMPTS, TEXT, edit_of_weights
from tests.unit.edits.running import apart, draw

CAT = Concept("cat")
MANY = (*CROSS, *CONVOLUTIONS, *OTHERS)


@pytest.fixture
def backbone(tiny_pipeline):
    return backbone_for(tiny_pipeline)


def edited(backbone, names, part="unet"):
    """Return a network's whole state with an edit in it, and the edit."""
    edit = edit_of_weights(backbone.pipe, names, rank=2)
    with edit.applied(backbone.pipe):
        state = {name: value.clone() for name, value in backbone.networks[part].state_dict().items()}
    return state, edit


def same(found, wanted):
    """Whether two edits draw the same weights, but for what a difference of float32 rounds away."""
    assert found.deltas.keys() == wanted.deltas.keys()
    return all(torch.allclose(found.deltas[name], delta, atol=2e-6) for name, delta in wanted.deltas.items())


def changed_only(state, edit, part="unet"):
    return {name: value for name, value in state.items() if f"{part}.{name}" in edit.deltas}


class TestFormats:
    def test_esd_and_uce_safetensors(self, backbone, tmp_path):
        state, edit = edited(backbone, CROSS)
        save_file(changed_only(state, edit), tmp_path / "esd.safetensors")
        found, report = import_edit(tmp_path / "esd.safetensors", backbone, CAT, method="esd")
        assert same(found, edit)
        assert (report.matched, report.unmatched, report.changed, report.unchanged) == (3, (), 3, 0)
        assert found.provenance.method == "esd"
        assert found.provenance.concept.to_concept() == CAT
        assert found.provenance.extra["imported"]["file"] == "esd.safetensors"
        with found.applied(backbone.pipe):
            assert apart(draw(backbone.pipe, PROMPTS), draw(backbone.pipe, PROMPTS)) == 0

    def test_esds_first_code_nests_a_dictionary_for_each_layer(self, backbone, tmp_path):
        state, edit = edited(backbone, CROSS)
        nested = {
            f"unet.{name.removesuffix('.weight')}": {"weight": v} for name, v in changed_only(state, edit).items()
        }
        torch.save(nested, tmp_path / "esd.pt")
        found, report = import_edit(tmp_path / "esd.pt", backbone, CAT)
        assert same(found, edit)
        assert report.matched == 3

    def test_a_whole_unet_is_what_changed_of_it(self, backbone, tmp_path):
        state, edit = edited(backbone, MANY)
        torch.save(
            {"state_dict": {f"module.{name}": value for name, value in state.items()}, "epoch": 3}, tmp_path / "x.pth"
        )
        found, report = import_edit(tmp_path / "x.pth", backbone, CAT)
        assert same(found, edit)
        assert report.changed == len(MANY)
        assert report.unchanged == len(state) - len(MANY)

    def test_concept_ablations_delta(self, backbone, tmp_path):
        state, edit = edited(backbone, CROSS)
        text = backbone.pipe.text_encoder.state_dict()
        old = {f"text_model.{name.removeprefix('text_model.')}": value for name, value in text.items()}
        torch.save(
            {"unet": changed_only(state, edit), "text_encoder": old, "modifier_token": {}}, tmp_path / "delta.bin"
        )
        found, report = import_edit(tmp_path / "delta.bin", backbone, CAT)
        assert same(found, edit)
        assert report.unchanged == len(text)
        assert report.unmatched == ()

    def test_concept_ablations_delta_of_the_original_code(self, backbone, tmp_path):
        """Of attention alone: diffusers' conversion counts blocks, and would find too few."""
        state, edit = edited(backbone, CROSS)
        config = backbone.pipe.unet.config
        delta = {UNET + unet_key(name, config): value for name, value in changed_only(state, edit).items()}
        torch.save({"state_dict": {**delta, "embed": torch.zeros(1, 32)}}, tmp_path / "delta.ckpt")
        found, report = import_edit(tmp_path / "delta.ckpt", backbone, CAT)
        assert same(found, edit)
        assert report.unmatched == ("state_dict.embed",)
        assert report.kind == "checkpoint in the original layout"

    @pytest.mark.parametrize("suffix", ["ckpt", "safetensors"])
    def test_a_whole_checkpoint_in_the_original_layout(self, backbone, tmp_path, suffix):
        edit = edit_of_weights(backbone.pipe, (*MANY, *TEXT), rank=2)
        with edit.applied(backbone.pipe):
            state = {name: value.clone() for name, value in original_state(backbone.pipe).items()}
        vae = sum(name.startswith("first_stage_model.") for name in state)
        state["betas"] = torch.ones(3)
        path = tmp_path / f"model.{suffix}"
        save_file(state, path) if suffix == "safetensors" else torch.save({"state_dict": state}, path)
        found, report = import_edit(path, backbone, CAT)
        assert same(found, edit)
        assert report.unmatched == ()
        assert report.elsewhere == vae + 1

    def test_half_precision_rounds_and_does_not_change(self, backbone, tmp_path):
        state, edit = edited(backbone, CROSS)
        save_file({name: value.half() for name, value in state.items()}, tmp_path / "half.safetensors")
        found, report = import_edit(tmp_path / "half.safetensors", backbone, CAT)
        assert found.deltas.keys() == edit.deltas.keys()
        assert report.unchanged == len(state) - len(CROSS)

    @pytest.mark.parametrize("style", ["kohya", "peft"])
    def test_a_leco_lora(self, backbone, tmp_path, style):
        edit = edit_of_weights(backbone.pipe, (*CROSS, *CONVOLUTIONS, *TEXT), rank=2)
        if style == "kohya":
            tensors = {}
            for change in thin_edit(edit, backbone.networks, rank=2).changes:
                part, _, name = change.module.partition(".")
                prefix = "lora_unet_" if part == "unet" else "lora_te_text_model_"
                stem = prefix + name.replace(".", "_")
                tensors[f"{stem}.lora_down.weight"] = change.down
                tensors[f"{stem}.lora_up.weight"] = change.up * 2
                tensors[f"{stem}.alpha"] = torch.tensor(1.0)  # alpha over rank is one half
            save_file(tensors, tmp_path / "leco.safetensors", metadata={"prompts": '{"target": "cat"}', "config": "{}"})
        else:
            edit.export(backbone.pipe, tmp_path / "leco.safetensors", format="lora-peft", rank=2)
        found, report = import_edit(tmp_path / "leco.safetensors", backbone, CAT)
        assert same(found, edit)
        assert report.kind == "LoRA"
        assert report.unmatched == ()

    def test_an_spm_keeps_its_gate(self, backbone, tmp_path):
        name = "mid_block.attentions.0.transformer_blocks.0.attn2.to_v"
        stem = "lora_unet_" + name.replace(".", "_")
        down, up = torch.randn(1, 32), torch.randn(32, 1)
        tensors = {f"{stem}.lora_down.weight": down, f"{stem}.lora_up.weight": up, f"{stem}.alpha": torch.tensor(1.0)}
        header = {"prompts": "santa claus,cat", "rank": "1", "alpha": "1.0"}
        save_file(tensors, tmp_path / "spm.safetensors", metadata=header)
        found, report = import_edit(tmp_path / "spm.safetensors", backbone, CAT)
        assert isinstance(found.hook, SPMHook)
        assert found.hook.words == ("santa claus", "cat")
        assert found.hook.gate == "both"
        assert torch.allclose(found.hook.adapters[f"{name}.up"], up)
        assert report.kind == "SPM"
        plain, _ = import_edit(tmp_path / "spm.safetensors", backbone, CAT, gate="none")
        assert plain.hook is None
        weight = found.as_weights(backbone.pipe).deltas
        assert torch.allclose(weight[f"unet.{name}.weight"], plain.deltas[f"unet.{name}.weight"], atol=1e-6)

    def test_forget_me_nots_pipeline(self, backbone, tmp_path):
        edit = edit_of_weights(backbone.pipe, (*CROSS, *TEXT), rank=2)
        edit.export(backbone.pipe, tmp_path / "pipeline", format="diffusers")
        found, report = import_edit(tmp_path / "pipeline", backbone, CAT)
        assert same(found, edit)
        assert report.kind == "pipeline folder"
        assert found.provenance.text_fingerprint

    @pytest.mark.parametrize("kind", ["folder", "old names", "wrapped"])
    def test_advunlearns_text_encoder(self, backbone, tmp_path, kind):
        state, edit = edited(backbone, TEXT, part="text_encoder")
        path = tmp_path / "encoder"
        if kind == "folder":
            edit.export(backbone.pipe, path, format="text-encoder")
        else:
            path = path.with_suffix(".pt")
            prefix = "text_encoder.text_model." if kind == "wrapped" else "text_model."
            names = {prefix + name.removeprefix("text_model."): value for name, value in state.items()}
            torch.save(names | {"text_model.embeddings.position_ids": torch.arange(32)}, path)
        found, report = import_edit(path, backbone, CAT)
        assert same(found, edit)
        assert report.kind == "text encoder"
        assert report.unmatched == ()


class Payload:
    """What a pickle can do to whoever opens it."""

    def __reduce__(self):
        return (eval, ("1/0",))


class TestRefusals:
    def refused(self, path, backbone, **options):
        with pytest.raises(EditError) as caught:
            import_edit(path, backbone, CAT, **options)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    def test_a_pickle_is_not_run(self, backbone, tmp_path):
        torch.save({"weight": torch.ones(1), "callback": Payload()}, tmp_path / "x.pt")
        words = self.refused(tmp_path / "x.pt", backbone)
        assert "holds more than tensors, and reading that would run code" in words
        assert ".safetensors" in words

    def test_nothing_fits(self, backbone, tmp_path):
        save_file({"transformer.blocks.0.weight": torch.ones(2)}, tmp_path / "x.safetensors")
        words = self.refused(tmp_path / "x.safetensors", backbone)
        assert "none of its 1 tensors has a place" in words
        assert "transformer.blocks.0.weight" in words

    def test_another_size_is_said_with_the_name(self, backbone, tmp_path):
        save_file({"conv_in.weight": torch.ones(2, 2, 3, 3)}, tmp_path / "x.safetensors")
        assert "conv_in.weight (shape 2 x 2 x 3 x 3, here 16 x 4 x 3 x 3)" in self.refused(
            tmp_path / "x.safetensors", backbone
        )

    def test_nothing_changed(self, backbone, tmp_path):
        save_file({n: v.half() for n, v in backbone.pipe.unet.state_dict().items()}, tmp_path / "x.safetensors")
        assert "none is another than there" in self.refused(tmp_path / "x.safetensors", backbone)

    def test_nan(self, backbone, tmp_path):
        save_file({"conv_in.bias": torch.full((16,), float("nan"))}, tmp_path / "x.safetensors")
        assert "holds NaN" in self.refused(tmp_path / "x.safetensors", backbone)

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float8_e4m3fn], ids=str)
    def test_nan_in_a_lora(self, backbone, tmp_path, dtype):
        layer = "unet.down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_k"
        up = torch.full((32, 1), float("nan")).to(dtype)
        save_file(
            {f"{layer}.lora_A.weight": torch.ones(1, 32), f"{layer}.lora_B.weight": up}, tmp_path / "x.safetensors"
        )
        assert "holds NaN" in self.refused(tmp_path / "x.safetensors", backbone)

    def test_a_gate_is_for_adapters(self, backbone, tmp_path):
        state, edit = edited(backbone, CROSS)
        save_file(changed_only(state, edit), tmp_path / "x.safetensors")
        assert "a gate is for a LoRA" in self.refused(tmp_path / "x.safetensors", backbone, gate="both")
        conv = edit_of_weights(backbone.pipe, ("unet.conv_out.weight",), rank=1)
        conv.export(backbone.pipe, tmp_path / "y.safetensors", format="lora-kohya")
        words = self.refused(tmp_path / "y.safetensors", backbone, gate="both")
        assert "linear layers and 1 x 1 convolutions" in words

    def test_what_is_no_file_of_tensors(self, backbone, tmp_path):
        cases = {
            "gone.pt": "is not there",
            "text.txt": "is no file of tensors",
            "empty.pt": "holds no tensors",
            "torn.safetensors": "is not a safetensors file",
            "torn.pt": "cannot be read",
            "folder": "is neither a pipeline's folder",
            "hollow": "holds no weights",
            "run": "holds an edit already",
        }
        (tmp_path / "text.txt").write_text("hello")
        torch.save({"epoch": 1}, tmp_path / "empty.pt")
        (tmp_path / "torn.safetensors").write_bytes(b"\x10\x00")
        with zipfile.ZipFile(tmp_path / "torn.pt", "w") as file:
            file.writestr("nothing", "")
        for name in ("folder", "hollow", "run"):
            (tmp_path / name).mkdir()
        (tmp_path / "hollow" / "config.json").write_text(json.dumps({"_class_name": "UNet2DConditionModel"}))
        (tmp_path / "run" / "edit.json").write_text("{}")
        for name, words in cases.items():
            assert words in self.refused(tmp_path / name, backbone), name

    def test_half_precision_copies_are_not_read_twice(self, tmp_path):
        (tmp_path / "config.json").write_text(json.dumps({"architectures": ["CLIPTextModel"]}))
        save_file({"a": torch.ones(1)}, tmp_path / "model.safetensors")
        save_file({"a": torch.zeros(1)}, tmp_path / "model.fp16.safetensors")
        foreign = read_foreign(tmp_path)
        assert dict(foreign.tensors) == {"text_encoder.a": torch.ones(1)}
