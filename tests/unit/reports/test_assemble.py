import pytest
import torch

from aizheimer.concepts.concept import Concept
from aizheimer.edits.compose import stack
from aizheimer.edits.edit import Edit
from aizheimer.edits.provenance import ConceptRecord, Provenance
from aizheimer.evaluation.evaluate import evaluate
from aizheimer.evaluation.judges import Judges
from aizheimer.reports.assemble import assemble
from aizheimer.reports.html import render
from tests.contracts.quick import quick_recipe
from tests.unit.evaluation.builders import SMALL


def test_a_real_edit_from_evaluation_to_page(tiny_backbone, tmp_path):
    name = "up_blocks.0.attentions.0.transformer_blocks.0.attn2.to_v.weight"
    shape = tiny_backbone.denoiser.get_parameter(name).shape
    delta = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    record = Provenance(
        method="by hand", concept=ConceptRecord(target="santa claus"), base_fingerprint=tiny_backbone.fingerprint(),
        recipe={"strength": "half"},
    )  # fmt: skip
    edit = Edit({f"unet.{name}": delta}, record)
    result = evaluate(
        tiny_backbone.pipe, edit, concept=Concept("santa claus"), world=tiny_backbone.world, judges=Judges(),
        settings=SMALL, cache_dir=tmp_path,
    )  # fmt: skip
    assert result.unchanged_share < 1
    files = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.safetensors")}
    calls = []
    content = assemble(
        tiny_backbone, edit, result, cache_dir=tmp_path, heatmaps=1, progress=lambda *call: calls.append(call)
    )
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.safetensors")} == files
    assert content.columns[0].group == "target"
    assert len(content.heatmaps) == 1
    assert content.recipe == {"strength": "half"}
    assert content.environment["versions"] == record.versions
    assert calls[0][0] == "pictures"
    assert calls[-1] == ("attention", 1, 1)
    both = stack(edit, edit.scale(0.5))
    summed = assemble(tiny_backbone, both, result, cache_dir=tmp_path, heatmaps=0, columns=1)
    assert summed.parts == [f"forgets santa claus (by hand, strength {strength})" for strength in (1, 0.5)]
    assert content.parts == []
    text = render(content)
    assert "by hand" in text
    assert "santa claus in noto style" in text


@pytest.mark.parametrize("method", ["negative-prompt", "sld", "safree", "adavd", "judge-filter"])
def test_an_edit_that_acts_while_drawing_has_a_page_as_well(tiny_backbone, tmp_path, method):
    """Heat-maps included: safe latent diffusion asks the denoiser for more than the pipeline does."""
    concept = Concept("santa claus")
    edit = quick_recipe(method).method.unlearn(tiny_backbone, concept)
    result = evaluate(
        tiny_backbone.pipe, edit, concept=concept, world=tiny_backbone.world, judges=Judges(), settings=SMALL,
        cache_dir=tmp_path,
    )  # fmt: skip
    assert result.unchanged_share < 1
    content = assemble(tiny_backbone, edit, result, cache_dir=tmp_path, heatmaps=1)
    (pair,) = content.heatmaps
    assert 0 < pair.peak <= 1
    assert content.provenance["hook"]["name"] == edit.hook.name
    page = render(content)
    assert f"&#34;method&#34;: &#34;{method}&#34;" in page
    assert "Total loss" not in page
