"""A part of an edit: its ranks, its layers, and what they take, by hand."""

import pytest
import torch

from aizheimer.backbones.base import backbone_for
from aizheimer.edits.low_rank import thin_edit
from aizheimer.edits.shrunk import layers_of, shrunk, size_in_numbers
from aizheimer.errors import EditError
from tests.unit.edits.artifacts import BIAS, edit_of_weights
from tests.unit.edits.running import edit_of
from tests.unit.edits.test_adapter_hooks import spm
from tests.unit.edits.test_edit import K, provenance

V = K.replace("to_k", "to_v")
CONV = "conv_in.weight"


@pytest.fixture
def networks(tiny_pipeline):
    return backbone_for(tiny_pipeline).networks


def with_values(pipe, name, values):
    """Return an edit whose one matrix has these singular values."""
    shape = pipe.unet.get_parameter(name).shape
    rows, columns = shape[0], pipe.unet.get_parameter(name)[0].numel()
    generator = torch.Generator().manual_seed(0)
    left, right = (torch.linalg.qr(torch.randn(n, n, generator=generator))[0] for n in (rows, columns))
    count = len(values)
    matrix = (left[:, :count] * torch.tensor(values)) @ right[:count]
    from aizheimer.edits.edit import Edit

    return Edit({f"unet.{name}": matrix.reshape(shape)}, provenance(pipe, strength=0.5))


@pytest.mark.parametrize("name", [K, CONV])
def test_a_rank_keeps_the_largest_singular_values(tiny_pipeline, networks, name):
    edit = with_values(tiny_pipeline, name, [3.0, 2.0, 1.0])
    for rank, lost in ((1, 5.0), (2, 1.0), (3, 0.0), (30, 0.0)):
        part = shrunk(edit, networks, rank=rank)
        (delta,) = part.deltas.values()
        assert float((delta - edit.deltas[f"unet.{name}"]).square().sum()) == pytest.approx(lost, abs=1e-5)
        assert int(torch.linalg.matrix_rank(delta.flatten(1), rtol=1e-4)) == min(rank, 3)
        assert part.provenance == edit.provenance, "its strength is not taken into the matrices"
        assert thin_edit(part, networks, rank=rank).exact


def test_biases_stay_whole_and_layers_are_left_out(tiny_pipeline, networks):
    edit = edit_of_weights(tiny_pipeline, (f"unet.{K}", f"unet.{V}", BIAS))
    layers = layers_of(edit)
    assert len(layers) == 3
    part = shrunk(edit, networks, rank=1, without=(f"unet.{V}".removesuffix(".weight"),))
    assert list(part.deltas) == [f"unet.{K}", BIAS]
    assert torch.equal(part.deltas[BIAS], edit.deltas[BIAS])
    assert not torch.equal(part.deltas[f"unet.{K}"], edit.deltas[f"unet.{K}"])
    whole = shrunk(edit, networks, rank=None)
    assert all(torch.equal(whole.deltas[name], delta) for name, delta in edit.deltas.items())
    only = shrunk(edit, networks, rank=1, without=[layer for layer in layers if BIAS not in layers[layer]])
    assert list(only.deltas) == [BIAS]


def test_what_it_takes_is_counted(tiny_pipeline, networks):
    """Of two 32 x 32 matrices and a bias: 64 numbers for each dimension, and never more than the matrix has."""
    edit = edit_of_weights(tiny_pipeline, (f"unet.{K}", f"unet.{V}", BIAS))
    assert edit.deltas[f"unet.{K}"].shape == (32, 32)
    bias = edit.deltas[BIAS].numel()
    found = [size_in_numbers(edit, networks, rank=rank) for rank in (1, 3, 16, 64, None)]
    assert found == [128 + bias, 384 + bias, 2048 + bias, 2048 + bias, 2048 + bias]
    assert size_in_numbers(edit, networks, rank=1, without=[f"unet.{K}".removesuffix(".weight")]) == 64 + bias


def test_what_cannot_be_is_refused(tiny_pipeline, networks):
    edit = edit_of_weights(tiny_pipeline, (f"unet.{K}",))
    with pytest.raises(EditError, match=r"changes no layer 'unet\.nowhere'; it changes unet\.mid_block"):
        shrunk(edit, networks, rank=1, without=["unet.nowhere"])
    with pytest.raises(EditError, match="nothing of the edit would be left"):
        shrunk(edit, networks, rank=1, without=layers_of(edit))
    with pytest.raises(EditError, match="rank: got 0, wanted 1 or more"):
        shrunk(edit, networks, rank=0)
    with pytest.raises(EditError, match="only changes of weights can be made smaller"):
        shrunk(edit_of(tiny_pipeline, spm()), networks, rank=1)
