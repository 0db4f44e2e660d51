"""Forget-Me-Not on a tiny pipeline."""

import pytest

from aizheimer.concepts import Concept
from aizheimer.errors import SelectorError
from aizheimer.methods.forget_me_not import ForgetMeNot
from tests.trained import check_method, small, tiny_backbone

CONCEPT = Concept("santa claus")


def test_from_pictures_it_changes_everything_that_attention_depends_on():
    edit, steps, data = check_method(small(ForgetMeNot, images="generate:4"), CONCEPT)
    assert any(".attn2." not in name for name in edit.deltas)
    assert "conv_out.weight" in data["parameters"]
    # What comes after the last attention cannot be reached by its loss.
    assert "unet.conv_out.weight" not in edit.deltas
    assert [row["losses"].keys() for row in steps] == [{"attention"}] * 4
    assert steps[-1]["loss"] < steps[0]["loss"] * 1.5


def test_from_nothing_it_changes_cross_attention_only():
    method = small(ForgetMeNot, images="zeros", weights="cross-attention", token_policy="concept")
    edit, _, data = check_method(method, CONCEPT, pipeline={"prediction_type": "v_prediction", "pad_token": "!"})
    assert all(".attn2." in name for name in edit.deltas)
    assert len(data["layers"]) == 7


def test_the_loss_is_one_plain_norm_of_every_marked_probability():
    """Against the attention matrices written out by an explicit softmax."""
    import torch

    from aizheimer.engine.attention_problem import AttentionProblem
    from aizheimer.methods import forget_me_not

    backbone = tiny_backbone()
    seen = {}
    original = AttentionProblem.losses

    def losses(self, step, generator):
        found = original(self, step, generator)
        if step == 1:
            state = generator.initial_seed()
            redraw = torch.Generator().manual_seed(state)
            draw = self.forget.source.draw(self.forget.batch_size, step=1, generator=redraw)
            maps, handles = [], []
            marked = self.forget.columns[draw.prompt_index]

            def record(module, args, kwargs, output):
                x, words = args[0], kwargs["encoder_hidden_states"]
                q = module.head_to_batch_dim(module.to_q(x))
                k = module.head_to_batch_dim(module.to_k(words))
                p = torch.softmax(q @ k.transpose(1, 2) * module.scale, dim=-1)
                p = p.unflatten(0, (len(words), module.heads))
                maps.extend(p[row][..., marked[row]].flatten() for row in range(len(words)))

            for layer in self.layers:
                module = backbone.denoiser.get_submodule(layer)
                handles.append(module.register_forward_hook(record, with_kwargs=True))
            with torch.no_grad():
                backbone.predict(draw.x_t, draw.t, self.forget.embeddings[draw.prompt_index])
            for handle in handles:
                handle.remove()
            seen["expected"] = float(torch.cat(maps).norm())
            seen["loss"] = float(found["attention"].value.detach())
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(forget_me_not.AttentionProblem, "losses", losses)
        small(ForgetMeNot, images="zeros", training={"steps": 1}).unlearn(backbone, CONCEPT)
    assert seen["loss"] == pytest.approx(seen["expected"], rel=1e-4)


def test_unknown_layers_are_refused():
    with pytest.raises(SelectorError, match="nowhere"):
        small(ForgetMeNot, layers="nowhere").unlearn(tiny_backbone(), CONCEPT)
