"""What fuzzing found: inputs that ended in a traceback, in several lines of error or in no end at all.

Each test is named for its finding, and fails on the code as it was.
"""

import json
import warnings
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import save_file

from aizheimer.backbones.base import backbone_for
from aizheimer.concepts import Concept
from aizheimer.data.captioned import check_captioned, read_captioned
from aizheimer.data.images import read_square
from aizheimer.edits import Edit, load_edit
from aizheimer.edits.hook import hook_named
from aizheimer.edits.imports import import_edit
from aizheimer.edits.lora_names import kohya_name
from aizheimer.edits.provenance import ConceptRecord, Provenance
from aizheimer.engine.run_folder import RunFolder
from aizheimer.errors import DataError, EditError, RecipeError, RunFolderError
from aizheimer.recipes import load_recipe
from tests.snapshot import same_snapshot, snapshot
from tests.tiny import tiny_pipeline, tiny_world

CAT = Concept("cat")
DEEP = "[" * 100_000 + "]" * 100_000


@pytest.fixture(scope="module")
def backbone():
    return backbone_for(tiny_pipeline(), world=tiny_world())


def recipe_file(folder: Path, text: str) -> Path:
    file = folder / "recipe.yaml"
    file.write_text(text, encoding="utf-8")
    return file


class TestRecipes:
    @pytest.mark.parametrize("value", ["0x_", "0b_", "2020-99-99", "!!int ''", "!!timestamp x", "!!bool x", "9" * 5000])
    def test_a_value_that_pyyaml_trips_over(self, tmp_path, value):
        """It looks like a number or a date to PyYAML, which then raises ValueError, KeyError or AttributeError."""
        with pytest.raises(RecipeError, match="is not a readable YAML file"):
            load_recipe(recipe_file(tmp_path, f"method: uce\nparameters:\n  ridge: {value}\n"))
        with pytest.raises(RecipeError, match="has a value that is not YAML"):
            load_recipe("uce", [f"ridge={value}"])

    def test_aliases_of_aliases_that_stand_for_more_than_a_memory_holds(self, tmp_path):
        """The error message alone, which shows the value, would never have ended."""
        lines = ["method: uce", "parameters:", "  a: &a0 [x, x, x, x, x, x, x, x, x]"]
        lines += [f"  b{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 12)]
        with pytest.raises(RecipeError, match="aliases stand for more than 100000 values"):
            load_recipe(recipe_file(tmp_path, "\n".join([*lines, "  layers: *a11"])))

    def test_brackets_without_end(self, tmp_path):
        with pytest.raises(RecipeError, match="it is nested too deeply"):
            load_recipe(recipe_file(tmp_path, "method: uce\nparameters: {layers: " + "[" * 1500 + "]" * 1500 + "}\n"))

    def test_a_name_longer_than_any_file(self):
        with pytest.raises(RecipeError, match="unknown recipe or method"):
            load_recipe("a" * 5000)

    def test_a_name_with_line_ends_is_one_line_of_error(self):
        with pytest.raises(RecipeError) as caught:
            load_recipe("uce\n\nesd")
        assert "\n" not in str(caught.value)

    def test_a_long_value_is_not_repeated_whole(self, tmp_path):
        content = yaml.safe_dump({"method": "uce", "parameters": {"rows": "a" * 5000, "b" * 5000: 1}})
        with pytest.raises(RecipeError, match=r"2 problems: rows: got 'aaa.*\.\.\..*unknown key 'bbb") as caught:
            load_recipe(recipe_file(tmp_path, content))
        assert len(str(caught.value)) < 600


class TestRunFolders:
    def test_a_folder_whose_name_is_longer_than_a_file_system_allows(self, tmp_path):
        with pytest.raises(RunFolderError, match="File name too long; choose another folder"):
            RunFolder(tmp_path / ("a" * 300)).create()

    def test_a_folder_with_a_null_byte_in_its_name(self, tmp_path):
        with pytest.raises(RunFolderError, match=r"null byte.*; choose another folder"):
            RunFolder(tmp_path / "a\0b").create()


class TestEdits:
    def provenance(self, backbone):
        return Provenance(method="x", concept=ConceptRecord(target="cat"), base_fingerprint=backbone.fingerprint())

    def test_a_record_nested_more_deeply_than_python_follows(self, backbone, tmp_path):
        Edit({}, self.provenance(backbone)).save(tmp_path)
        (tmp_path / "edit.json").write_text(DEEP)
        with pytest.raises(EditError, match=r"is damaged \(nested too deeply\)"):
            load_edit(tmp_path)

    def test_a_hook_with_something_else_in_its_record(self, backbone):
        """It is told when the hook is read or put on, and the pipeline is as it was."""
        before, settings = snapshot(backbone.pipe), {"layers": [["a"]], "slope": "x", "centre": 0, "height": 0}
        with pytest.raises(EditError, match="hook 'adavd'"):
            Edit({}, self.provenance(backbone), hook_named("adavd", {"rows": torch.ones(())}, settings)).apply_to(
                backbone.pipe
            )
        assert same_snapshot(before, snapshot(backbone.pipe))


class TestLoras:
    LAYER = "unet.down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k"

    def read(self, backbone, path, tensors):
        save_file(tensors, str(path / "a.safetensors"))
        return import_edit(path / "a.safetensors", backbone, CAT)

    def names(self, backbone):
        stem = kohya_name(self.LAYER, parts=backbone.networks)
        return f"{stem}.lora_down.weight", f"{stem}.lora_up.weight", f"{stem}.alpha"

    @pytest.mark.parametrize("shapes", [((), ()), ((0, 32), (32, 0)), ((4,), (4,)), ((2, 32), (32,))])
    def test_factors_that_are_no_matrices(self, backbone, tmp_path, shapes):
        """A number, no rank at all, or one dimension: an IndexError or a division by zero."""
        down, up, _ = self.names(backbone)
        with pytest.raises(EditError, match="none of its 2 tensors has a place"):
            self.read(backbone, tmp_path, {down: torch.ones(shapes[0]), up: torch.ones(shapes[1])})

    def test_an_alpha_of_several_numbers(self, backbone, tmp_path):
        down, up, alpha = self.names(backbone)
        rows, columns = backbone.denoiser.get_parameter(f"{self.LAYER.split('.', 1)[1]}.weight").shape
        tensors = {down: torch.ones(2, columns), up: torch.ones(rows, 2), alpha: torch.ones(3)}
        with pytest.raises(EditError, match="its alpha has the shape 3, wanted one number"):
            self.read(backbone, tmp_path, tensors)

    @pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.int64])
    def test_weights_of_a_kind_that_nobody_trains(self, backbone, tmp_path, dtype):
        name = f"{self.LAYER}.weight"
        shape = backbone.denoiser.get_parameter(name.split(".", 1)[1]).shape
        with pytest.raises(EditError, match=f"of {dtype}"):
            self.read(backbone, tmp_path, {name: torch.ones(shape).to(dtype)})

    def test_a_pickled_dictionary_that_holds_itself(self, backbone, tmp_path):
        endless = {"x": torch.ones(1)}
        endless["again"] = endless
        torch.save(endless, tmp_path / "a.pt")
        with pytest.raises(EditError, match=r"none of its .* tensors has a place"):
            import_edit(tmp_path / "a.pt", backbone, CAT)

    @pytest.mark.parametrize("architectures", [5, [["UNet2DConditionModel"]]])
    def test_a_config_whose_architectures_are_no_list_of_names(self, backbone, tmp_path, architectures):
        (tmp_path / "config.json").write_text(json.dumps({"architectures": architectures}))
        with pytest.raises(EditError, match="is neither a pipeline's folder"):
            import_edit(tmp_path, backbone, CAT)


class TestPictures:
    def test_a_picture_that_claims_more_pixels_than_a_memory_holds(self, tmp_path):
        """A few bytes say 11,000 x 11,000; PIL only warns, and then makes room for it three times over."""
        (tmp_path / "a.ppm").write_bytes(b"P5 11000 11000 255 ....")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with pytest.raises(ValueError, match="11000 x 11000 pixels are more than 110 million"):
                read_square(tmp_path / "a.ppm", 8)

    @pytest.mark.parametrize("content", [b"\xff\xfe\x00", b'{"file_name": "a.png", "text": "' + b"\x80" + b'"}'])
    def test_metadata_that_are_no_text(self, tmp_path, content):
        (tmp_path / "metadata.jsonl").write_bytes(content)
        with pytest.raises(DataError, match="is not readable as UTF-8 text"):
            check_captioned(tmp_path, words=("cat",), kind="object")

    def test_a_line_of_metadata_nested_more_deeply_than_python_follows(self, tmp_path):
        (tmp_path / "metadata.jsonl").write_text(DEEP)
        with pytest.raises(DataError, match="line 1: wanted a JSON object"):
            check_captioned(tmp_path, words=("cat",), kind="object")

    @pytest.mark.parametrize("name", ["/etc/hostname", "../secret.png", "a/../../b.png"])
    def test_a_file_name_that_leads_out_of_the_folder(self, tmp_path, name):
        (tmp_path / "metadata.jsonl").write_text(json.dumps({"file_name": name, "text": "a dog"}))
        with pytest.raises(DataError, match="line 1: its file_name leads out of the folder"):
            read_captioned(tmp_path, 8, words=("cat",), kind="object")
