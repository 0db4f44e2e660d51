"""What the methods that watch attention, read words or read captions minimise; see `test_assembled_losses`."""

import dataclasses

import pytest
import torch

from aizheimer._seeding import generator_for
from aizheimer.concepts import Concept
from aizheimer.data.captioned import other_prompts
from aizheimer.data.sources import BankSource, NoisedSource
from aizheimer.methods.aizheimer import AIzheimer
from aizheimer.methods.data_censoring import DataCensoring
from aizheimer.methods.forget_me_not import ForgetMeNot
from aizheimer.methods.hirm import HiRM
from aizheimer.modules.text_encoder import captured, last_attention_output
from aizheimer.objectives.misdirection import random_direction
from tests.assembled import check_losses, mse, same
from tests.tiny import MAX_TOKENS
from tests.trained import SMALL, TRAINING, small

CONCEPT = Concept("santa claus", anchor="old man")
ALONE = Concept("santa claus")
WORDS = [1, 2, 3]
"""Where "santa cla us" is in "santa claus in noto style", after begin-of-text; end-of-text is at 7."""


def attention(it, draw, columns):
    """Return each layer's (batch, heads, pixels, columns) attention of the student, by an explicit softmax."""
    backbone, seen, handles = it.material.backbone, [], []

    def record(module, args, kwargs, output):
        rows = module.to_q(args[0]), module.to_k(kwargs["encoder_hidden_states"])
        q, k = (part.unflatten(-1, (module.heads, -1)).transpose(1, 2) for part in rows)
        seen.append(torch.softmax(q @ k.transpose(-1, -2) * module.scale, dim=-1)[..., columns])

    for module in backbone.attention_modules().values():
        handles.append(module.register_forward_hook(record, with_kwargs=True))
    it.student(draw, it.prompts)
    for handle in handles:
        handle.remove()
    return seen


def noised(it):
    """Return the pictures of the concept as training inputs, none of them held out."""
    data = it.material.data
    index, prompts = data.forget_latents_prompt, len(data.forget_prompts)
    return NoisedSource.of(it.frozen, data.forget_latents, prompt_index=index, prompts=prompts)


def rolled_out(it):
    """Return the teacher's rollouts of the concept's prompts."""
    return BankSource.of(it.material.forget_banks()[0], target=None, device=torch.device("cpu"))


def test_forget_me_not():
    """One plain norm of the attention to the concept's words and the end of the text."""

    def check(it):
        draw = it.material.noised_forget()[0].draw(2, step=1, generator=it.generator())
        losses = it.losses()
        maps = [layer.flatten() for layer in attention(it, draw, [*WORDS, 7])]
        same(losses["attention"], torch.cat(maps).norm())
        assert list(losses) == ["attention"]

    check_losses(small(ForgetMeNot, images="generate:4"), ALONE, check)


@pytest.mark.parametrize("images", [None, "generate:4"])
def test_aizheimer(images):
    """Distraction, the teacher on retain prompts, and the teacher under the anchor's words on the concept's."""

    def check(it):
        generator = it.generator()
        source = (
            noised(it)
            if images
            else BankSource.of(it.material.forget_banks()[0], target=None, device=torch.device("cpu"))
        )
        draw = source.draw(2, step=1, generator=generator)
        losses = it.losses()
        even = [(layer - 1 / MAX_TOKENS).square().mean() for layer in attention(it, draw, WORDS)]
        same(losses["attention"], torch.stack(even).mean(), 0.7)
        _, student, teacher = it.retained(generator)
        same(losses["teacher"], mse(student, teacher), 0.5, "retain")
        instead = [prompt.replace("santa claus", "old man") for prompt in it.prompts]
        same(losses["anchor"], mse(it.student(draw, it.prompts), it.teacher(draw, instead)), 0.3)

    method = AIzheimer(
        images=images,
        parts=("q", "k", "v", "out"),
        attention_weight=0.7,
        reconstruction_weight=0.5,
        anchor_weight=0.3,
        retain_neighbours=2,
        retain_others=1,
        retain_general=1,
        retain_batch_size=2,
        monitor_examples=4,
        rollouts=SMALL["rollouts"],
        training=TRAINING,
    )
    check_losses(method, CONCEPT, check)


@pytest.mark.parametrize("direction", ["random", "anchor"])
def test_hirm(direction):
    """All rows of the student's last attention go to the direction, or to what the teacher says of the anchor."""

    def check(it):
        generator, backbone = it.generator(), it.material.backbone
        texts = ["santa claus", *it.prompts]
        chosen = [texts[i] for i in torch.randperm(len(texts), generator=generator)[:2].tolist()]

        def said(model, prompts):
            layer = last_attention_output(model.networks["text_encoder"])
            with captured(layer) as outputs, torch.no_grad():
                model.read_tokens(model.tokenize(prompts))
            return outputs[-1]

        losses = it.losses()
        if direction == "anchor":
            target = said(it.frozen, [text.replace("santa claus", "old man") for text in chosen])
        else:
            target = 5 * random_direction(32, generator=generator_for(0, "direction"))
        same(losses["misdirection"], mse(said(backbone, chosen), target))
        retained = [*it.material.data.retain_prompts, ""]
        kept = [retained[i] for i in torch.randperm(len(retained), generator=generator)[:2].tolist()]
        moved = mse(backbone.encode_prompts(kept), it.frozen.encode_prompts(kept))
        same(losses["words"], moved, 0.25, "retain")

    options = {"prompts": "both", "retain_weight": 0.25, **({} if direction == "anchor" else {"coefficient": 5})}
    check_losses(small(HiRM, direction=direction, **options), CONCEPT, check)


def test_data_censoring():
    """What was added to each picture of everything else, asked for under the words it was drawn by, or under none."""

    def check(it):
        generator, schedule = it.generator(), it.frozen.schedule
        prompts = other_prompts(it.frozen, ALONE, ("santa claus",))
        assert not any("santa claus" in prompt for prompt in prompts)
        order = torch.randperm(len(prompts), generator=generator_for(0, "pictures"))[:4].tolist()
        drawn = [prompts[i] for i in order]
        latents, index = dataclasses.replace(it.material, backbone=it.frozen).pictures(drawn, "generate:4")
        losses = it.losses()
        picture = torch.randint(4, (2,), generator=generator)
        t = torch.randint(1000, (2,), generator=generator)
        noise = torch.randn(2, 4, 8, 8, generator=generator)
        drop = torch.rand(2, 2, generator=generator)[0] < 0.5
        texts = ["" if gone else drawn[index[i]] for gone, i in zip(drop, picture, strict=True)]
        backbone = it.material.backbone
        with torch.no_grad():
            found = backbone.predict(schedule.add_noise(latents[picture], noise, t), t, backbone.condition(texts))
        same(losses["noise"], mse(found, noise))

    check_losses(small(DataCensoring, images="generate:4", caption_dropout=0.5), ALONE, check)
