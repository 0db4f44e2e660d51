"""Targets of negative guidance are made of a bank's entries as they are drawn."""

import pytest
import torch

from aizheimer.data.latents import LatentBank
from aizheimer.data.sources import BankSource
from aizheimer.engine.noise_targets import guided_away
from aizheimer.objectives.noise_target import negative_guidance


@pytest.mark.parametrize("from_prompt", [False, True])
def test_a_draw_has_the_bits_of_targets_that_are_made_at_once(tiny_backbone, from_prompt):
    generator = torch.Generator().manual_seed(0)
    x_t, prediction, null = torch.randn((3, 7, 4, 3, 5), generator=generator).half()
    number = torch.arange(7)
    bank = LatentBank(
        x_t=x_t,
        t=number,
        prompt_index=number,
        trajectory=number,
        prediction=prediction,
        null_prediction=null,
        x_0=x_t,
    )
    targets = guided_away(tiny_backbone, bank, eta=1.3, concept=None, from_prompt=from_prompt)
    assert (targets.prediction.data_ptr(), targets.neutral.data_ptr()) == (prediction.data_ptr(), null.data_ptr())
    start = prediction.float() if from_prompt else None
    whole = negative_guidance(prediction.float(), null.float(), eta=1.3, start=start)
    source = BankSource.of(bank, target=targets, device=torch.device("cpu"))
    draw = source.draw(5, step=1, generator=generator)
    assert torch.equal(draw.target, whole[draw.t])
    assert len(targets) == 7
