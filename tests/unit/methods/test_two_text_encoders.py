"""HiRM and AdvUnlearn on Stable Diffusion XL: which layers are moved, by hand, and that both encoders learn."""

import contextlib

import pytest
import torch

from aizheimer._seeding import generator_for
from aizheimer.api import plan
from aizheimer.backbones import backbone_for
from aizheimer.cli import live
from aizheimer.concepts import Concept
from aizheimer.data.prepare import parked
from aizheimer.data.sources import BankSource
from aizheimer.data.words import LiveEmbeddings
from aizheimer.engine.callbacks import Callbacks
from aizheimer.engine.run_folder import RunFolder
from aizheimer.engine.text_terms import AttackedTerm, KeepWordsTerm
from aizheimer.errors import SelectorError
from aizheimer.methods.advunlearn import AdvUnlearn
from aizheimer.methods.hirm import HiRM
from aizheimer.modules.text_encoder import captured, select_read
from aizheimer.objectives.misdirection import random_direction
from aizheimer.objectives.noise_target import target_mse
from aizheimer.objectives.prompt_attack import AttackPlan
from tests.slopes import check_slope
from tests.snapshot import same_snapshot, snapshot
from tests.tiny import DIM, MAX_TOKENS, tiny_world
from tests.tiny_families import tiny_sdxl
from tests.trained import Stopped, same_edit, small

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # Euler and numpy 2
SANTA = Concept("santa claus", anchor="old man")
SECOND = DIM + 8
ENCODERS = ("text_encoder", "text_encoder_2")
QUICK = {"warmup": 1, "attack": {"steps": 2, "lr": 0.01}}


def sdxl(*, double=False):
    """Three blocks in the first encoder, and four and more channels in the second."""
    pipe = tiny_sdxl(second=SECOND, blocks=(3, 4))
    if double:
        for network in (pipe.unet, pipe.text_encoder, pipe.text_encoder_2):
            network.double()
    found = backbone_for(pipe, world=tiny_world())
    found.condition([""])  # transformers puts hooks of its own on a text encoder when hidden states are first wanted
    return found


@pytest.fixture
def backbone():
    return sdxl()


def blocks_of(encoder):
    return getattr(encoder, "text_model", encoder).encoder.layers


def moved_layers(backbone):
    """Return by hand what HiRM is to move: rows of both encoders, and what the pooled vector is made of."""
    first, second = blocks_of(backbone.pipe.text_encoder), blocks_of(backbone.pipe.text_encoder_2)
    return [block.self_attn.out_proj for block in (first[1], second[2], second[3])]


def said(backbone, prompts):
    """Return what each of these layers says of prompts, and what the denoiser is told."""
    heard = [[], [], []]
    with torch.no_grad():
        hooks = [
            layer.register_forward_hook(lambda _m, _i, output, kept=kept: kept.append(output))
            for layer, kept in zip(moved_layers(backbone), heard, strict=True)
        ]
        told = backbone.condition(prompts)
    for hook in hooks:
        hook.remove()
    return [kept[-1] for kept in heard], told


def finished(block, below, attention):
    """Return what a block says whose self-attention has said this."""
    middle = below + attention
    return middle + block.mlp(block.layer_norm2(middle))


def test_the_layers_are_the_last_that_rows_and_pooled_vector_come_through(backbone):
    """Each computed again from the layer's output and its own block's other parts, and nothing after it."""
    encoders = backbone.pipe.text_encoder, backbone.pipe.text_encoder_2
    below = [blocks_of(encoders[0])[0], blocks_of(encoders[1])[1], blocks_of(encoders[1])[2]]
    with captured(below[0]) as one, captured(below[1]) as two, captured(below[2]) as three:
        heard, told = said(backbone, ["santa claus"])
    under = [out[0][0] if isinstance(out[0], tuple) else out[0] for out in (one, two, three)]
    own = [blocks_of(encoders[0])[1], blocks_of(encoders[1])[2], blocks_of(encoders[1])[3]]
    with torch.no_grad():
        rows, rows_2, last = (finished(*parts) for parts in zip(own, under, heard, strict=True))
        inner = getattr(encoders[1], "text_model", encoders[1])
        pooled = encoders[1].text_projection(inner.final_layer_norm(last[:, 4]))  # "santa cla us" ends at 4
    torch.testing.assert_close(told.tokens, torch.cat([rows, rows_2], dim=-1))
    torch.testing.assert_close(told.pooled, pooled)


class TestHiRM:
    def test_the_loss_by_hand_towards_a_random_direction(self, backbone):
        """All rows of two layers, the first end-of-text of the third, one direction after the other; their mean."""
        steps, (heard, _) = [], said(backbone, ["santa claus"])
        method = small(HiRM, coefficient=5.0)
        method.unlearn(backbone, SANTA, callbacks=Callbacks(on_step=steps.append))
        generator = generator_for(0, "direction")
        aims = [5 * random_direction(out.shape[-1], generator=generator) for out in heard]
        parts = [(out - aim).square() for out, aim in zip(heard, aims, strict=True)]
        wanted = torch.stack([parts[0].mean(), parts[1].mean(), parts[2][:, 4].mean()])
        assert steps[0]["losses"]["misdirection"] == pytest.approx(wanted.mean().item(), rel=1e-4)
        names = ("text_encoder", "text_encoder_2", "text_encoder_2, pooled")
        found = [steps[0]["parts"]["misdirection"][name] for name in names]
        assert found == pytest.approx(wanted.tolist(), rel=1e-4)

    def test_the_loss_by_hand_towards_a_super_category(self, backbone):
        """ "santa cla us" ends at position 3 and "old man" at 2; the texts end at 4 and 3."""
        steps, (heard, _), (instead, _) = [], said(backbone, ["santa claus"]), said(backbone, ["old man"])
        method = small(HiRM, direction="anchor", rows="last")
        method.unlearn(backbone, SANTA, callbacks=Callbacks(on_step=steps.append))
        places = ((3, 2), (3, 2), (4, 3))
        parts = [
            (out[0, p] - other[0, q]).square().mean() for out, other, (p, q) in zip(heard, instead, places, strict=True)
        ]
        assert steps[0]["losses"]["misdirection"] == pytest.approx(torch.stack(parts).mean().item(), rel=1e-4)

    def test_the_first_blocks_of_both_change_and_nothing_else(self, backbone):
        data, before = {}, snapshot(backbone.pipe)
        method = small(HiRM, prompts="both", retain_weight=1.0)
        edit = method.unlearn(backbone, SANTA, callbacks=Callbacks(on_data=data.update))
        assert same_snapshot(before, snapshot(backbone.pipe))
        assert data["network"] == "text_encoders"
        assert len(data["parameters"]) == 24
        # A key's bias shifts all of a query's scores alike: softmax cannot see it.
        assert edit.deltas.keys() >= {name for name in data["parameters"] if not name.endswith("k_proj.bias")}
        assert {name.partition(".")[0] for name in edit.deltas} == set(ENCODERS)
        assert all(".layers.0." in name for name in edit.deltas)
        assert edit.provenance.text_fingerprints.keys() == set(ENCODERS)
        assert same_edit(edit, method.unlearn(backbone, SANTA))

    def test_every_layer_says_nearly_what_it_says_of_the_super_category(self, backbone):
        looks, training = [], {"steps": 40, "lr": 5e-3, "batch_size": 1, "monitor_every": 20}
        method = small(HiRM, direction="anchor", training=training)
        edit = method.unlearn(backbone, SANTA, callbacks=Callbacks(on_monitor=looks.append))
        assert looks[0]["erase_error"] == pytest.approx(1.0)
        assert looks[-1]["erase_error"] < 0.5
        (wanted, _), (before, _) = said(backbone, ["old man"]), said(backbone, ["santa claus"])
        with edit.applied(backbone.pipe):
            after, _ = said(backbone, ["santa claus"])
        for i, rows in enumerate((slice(None), slice(None), slice(4, 5))):
            others = slice(3, 4) if i == 2 else rows
            distances = [(one[i][0, rows] - wanted[i][0, others]).norm() for one in (before, after)]
            assert distances[1] < 0.8 * distances[0]

    def test_what_is_kept_is_rows_and_pooled_vector(self, backbone):
        prompts = ["cat", "red apple"]
        words, original = LiveEmbeddings.of(backbone, prompts), backbone.condition(prompts)
        moved = type(original)(original.tokens + 2.0, original.pooled + 3.0)
        losses = [
            KeepWordsTerm(words=words, original=told, batch_size=2, weight=0.5).losses(1, generator_for(0))["words"]
            for told in (original, moved)
        ]
        assert losses[0].value.item() == pytest.approx(0.0, abs=1e-12)
        assert losses[1].value.item() == pytest.approx(4.0 + 9.0, rel=1e-5)

    def test_blocks_that_an_encoder_does_not_have_are_refused(self, backbone):
        with pytest.raises(SelectorError, match="blocks: got 4, this text encoder has 3"):
            small(HiRM, blocks=4).unlearn(backbone, SANTA)


def test_what_nothing_reads_is_not_trained(backbone):
    """The first encoder's last block and norm; of the second the pooled vector comes through all."""
    names = select_read(backbone.text_readers, final_norm=True).names
    blocks = {
        network: sorted({name.partition(".layers.")[2].partition(".")[0] for name in names if name.startswith(network)})
        for network in ("text_encoder.", "text_encoder_2.")
    }
    assert blocks == {"text_encoder.": ["0", "1"], "text_encoder_2.": ["", "0", "1", "2", "3"]}
    assert {name.partition(".")[0] for name in names if "final_layer_norm" in name} == {"text_encoder_2"}
    assert not any("embedding" in name or "projection" in name for name in names)
    assert len(select_read(backbone.text_readers, blocks=3, parts=("mlp",)).names) == (2 + 3) * 4
    assert len(select_read(backbone.text_readers, blocks=1, parts=("mlp",)).names) == (1 + 1) * 4


def bank(backbone, target, count=2):
    dtype = backbone.dtype
    x_t = torch.randn(count, 4, 8, 8, generator=generator_for(3, "x"), dtype=dtype)
    t, index = torch.tensor([700, 100]), torch.tensor([0, 1])
    return BankSource(
        x_t=x_t, t=t, prompt_index=index, target=target.to(dtype), device=torch.device("cpu"), dtype=dtype
    )


def term_of(backbone, **options):
    words = LiveEmbeddings.of(backbone, ["santa claus", "cat in noto style"])
    targets = [torch.randn(2, 4, 8, 8, generator=generator_for(seed, "target")) for seed in (0, 1)]
    defaults = {"plan": AttackPlan(steps=3, lr=0.1), "fidelity": "paper", "warmup": 1, "batch_size": 2}
    sources = [bank(backbone, target) for target in targets]
    return AttackedTerm(backbone=backbone, source=sources[0], attacked=sources[1], words=words, **defaults | options)


class TestAdvUnlearn:
    def test_the_attacked_loss_by_hand(self, backbone):
        """Each encoder reads its own vectors between begin-of-text and the prompt's words."""
        term, generator = term_of(backbone), generator_for(0)
        attack = term.attack(2, generator)
        draw = term.source.draw(2, step=2, generator=generator)
        assert attack.vectors.shape == (1, DIM + SECOND)
        pipe, predictions = backbone.pipe, []
        with torch.no_grad():
            for i, prompt in enumerate(draw.prompt_index.tolist()):
                told, pooled = [], None
                for encoder, tokenizer, own in (
                    (pipe.text_encoder, pipe.tokenizer, attack.vectors[:, :DIM]),
                    (pipe.text_encoder_2, pipe.tokenizer_2, attack.vectors[:, DIM:]),
                ):
                    text = ["santa claus", "cat in noto style"][prompt]
                    # Any word before it moves the end of the text by one; its vector is then the attacker's.
                    ids = tokenizer(
                        f"cat {text}", padding="max_length", max_length=MAX_TOKENS, return_tensors="pt"
                    ).input_ids
                    table = encoder.get_input_embeddings()
                    read = table(ids)
                    read[:, 1] = own
                    hook = table.register_forward_hook(lambda _m, _i, _o, read=read: read)
                    out = encoder(ids, output_hidden_states=True)
                    hook.remove()
                    told.append(out.hidden_states[-2])
                    pooled = out[0]
                added = {"text_embeds": pooled, "time_ids": torch.tensor([[32.0, 32, 0, 0, 32, 32]])}
                predictions.append(
                    pipe.unet(
                        draw.x_t[i : i + 1],
                        draw.t[i : i + 1],
                        encoder_hidden_states=torch.cat(told, dim=-1),
                        added_cond_kwargs=added,
                    ).sample
                )
            attacked = term.losses(2, generator_for(0))["erase"]
        wanted = target_mse(torch.cat(predictions), draw.target).total
        torch.testing.assert_close(attacked.value, wanted, rtol=1e-4, atol=1e-6)

    def test_the_attacker_learns_words_of_both_encoders_and_comes_nearer(self, backbone):
        plan = AttackPlan(steps=12, lr=0.05)
        attack = term_of(backbone, plan=plan).attack(2, generator_for(1))
        assert attack.losses[-1] < attack.losses[0]
        term = term_of(backbone)
        words = torch.randint(len(backbone.pipe.tokenizer), (1,), generator=generator_for(1))
        start = term.words.vectors_of(words)
        assert ((attack.vectors - start).abs() > 1e-3).float().mean() > 0.9

    @pytest.mark.parametrize("network", ENCODERS)
    def test_the_gradient_is_that_of_finite_differences(self, network):
        """In double precision, through denoiser and both encoders, with the vectors held still."""
        double = sdxl(double=True)
        free = torch.randn(1, DIM + SECOND, dtype=torch.float64, generator=generator_for(4, "free"))
        words = LiveEmbeddings.of(double, ["santa claus", "cat"]).behind(free)
        draw = bank(double, torch.zeros(2, 4, 8, 8)).draw(2, step=1, generator=generator_for(0))
        weight = blocks_of(double.networks[network])[1].mlp.fc2.weight
        direction = torch.randn(weight.shape, generator=generator_for(2, "direction"), dtype=torch.float64)

        def loss():
            return target_mse(double.predict(draw.x_t, draw.t, words[torch.tensor([1, 0])]), draw.target).total

        check_slope(loss, [weight], [direction], step=1e-4, rel=1e-4)

    def test_both_encoders_learn_and_retain_prompts_hold(self, backbone):
        data, steps, before = {}, [], snapshot(backbone.pipe)
        callbacks = Callbacks(on_data=data.update, on_step=steps.append)
        edit = small(AdvUnlearn, **QUICK).unlearn(backbone, SANTA, callbacks=callbacks)
        assert same_snapshot(before, snapshot(backbone.pipe))
        assert {name.partition(".")[0] for name in edit.deltas} == set(ENCODERS)
        assert edit.deltas.keys() <= set(data["parameters"])
        # A key's bias shifts all of a query's scores alike: softmax cannot see it.
        assert edit.deltas.keys() >= {name for name in data["parameters"] if not name.endswith("k_proj.bias")}
        assert [row["losses"].keys() for row in steps] == [{"erase", "teacher"}] * 4
        assert steps[0]["losses"]["teacher"] == pytest.approx(0.0, abs=1e-10)
        assert ["attack_start" in row["parts"]["erase"] for row in steps] == [False, True, True, True]


def test_encoders_that_learn_are_not_parked(backbone):
    """On "meta", the one other device every machine has, only the bookkeeping can be seen."""
    for network in ENCODERS:
        backbone.networks[network].to("meta")
    with parked(backbone, part="text_encoders"):
        assert {backbone.networks[network].device.type for network in ENCODERS} == {"meta"}
    with pytest.raises(NotImplementedError, match="meta tensor"), parked(backbone):
        pass


def test_a_run_is_planned_and_resumed_to_the_same_bits(backbone, tmp_path):
    method, steps = small(HiRM, training={"checkpoint_every": 1}), []
    assert plan(backbone, SANTA, method=method).needed > 0

    def stop(row):
        steps.append(row["step"])
        if row["step"] == 3:
            raise Stopped

    whole = method.unlearn(backbone, SANTA)
    with contextlib.suppress(Stopped):
        method.unlearn(backbone, SANTA, run=RunFolder(tmp_path).create(), callbacks=Callbacks(on_step=stop))
    resumed = method.unlearn(backbone, SANTA, run=RunFolder(tmp_path).create(resume=True))
    assert steps == [1, 2, 3]
    assert same_edit(whole, resumed)


def test_it_is_said_of_which_encoders():
    lines = live.describe_data({"network": "text_encoders", "parameters": ["a", "b"], "layers": []})
    assert "2 tensors of the text encoders" in lines[-1]
