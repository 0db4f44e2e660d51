"""Forget-Me-Not on a tiny pipeline."""

import pytest
import torch

from aizheimer.concepts import Concept
from aizheimer.errors import SelectorError
from aizheimer.methods import forget_me_not
from aizheimer.methods.forget_me_not import ForgetMeNot
from tests.trained import check_method, check_resume, small, tiny_backbone

CONCEPT = Concept("santa claus")


@pytest.mark.long
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
    from aizheimer.engine.attention_problem import AttentionProblem

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


INVERSION = {"tokens": 2, "steps": 3, "lr": 0.01, "batch_size": 2}


class TestInversion:
    @pytest.mark.long
    def test_the_learned_words_are_what_is_forgotten(self, monkeypatch):
        seen, problem = {}, forget_me_not.AttentionProblem

        def noted(**parts):
            seen.update(parts)
            return problem(**parts)

        monkeypatch.setattr(forget_me_not, "AttentionProblem", noted)
        edit, _, _ = check_method(small(ForgetMeNot, images="generate:4", inversion=INVERSION), CONCEPT)
        assert edit.hook is None
        assert all(name.startswith("unet.") for name in edit.deltas)
        record = edit.provenance.extra["inversion"]
        assert len(record["losses"]) == 3
        assert len(record["words"]) == 2
        assert "inversion" in edit.provenance.extra["data"]
        forget = seen["forget"]
        # Two words in the place of three tokens, first in the prompt, and the end of the text: "w w in noto style".
        assert forget.columns[0].nonzero().flatten().tolist() == [1, 2, 6]
        backbone = tiny_backbone()
        named = backbone.condition(backbone.world.prompts(CONCEPT)).tokens
        assert forget.embeddings.tokens.shape == named.shape
        assert not torch.allclose(forget.embeddings.tokens[:, 1:], named[:, 1:], atol=1e-3)

    @pytest.mark.long
    def test_learned_before_the_interruption_or_after_it_is_the_same(self, tmp_path, monkeypatch):
        """The words are in the run's cache; without one they are learned again, to the same bits."""
        learned, learn_words = [], forget_me_not.learn_words

        def counted(*given, **options):
            learned.append(options["plan"])
            return learn_words(*given, **options)

        monkeypatch.setattr(forget_me_not, "learn_words", counted)
        training = {"steps": 6, "checkpoint_every": 2}
        method = small(ForgetMeNot, images="generate:2", inversion=INVERSION, training=training)
        check_resume(method, CONCEPT, tmp_path, at=4)
        assert len(learned) == 2  # by the run that nobody stopped, and once in the run folder


def test_unknown_layers_are_refused():
    with pytest.raises(SelectorError, match="nowhere"):
        small(ForgetMeNot, layers="nowhere").unlearn(tiny_backbone(), CONCEPT)
