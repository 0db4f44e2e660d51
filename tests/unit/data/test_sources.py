"""Batches come from where they should, with the targets that belong to them."""

import pytest
import torch

from aizheimer.data.latents import LatentBank
from aizheimer.data.sources import BankSource, NoisedSource, RefreshingSource, teacher_source
from aizheimer.diffusion.noise import NoiseSchedule
from aizheimer.diffusion.prediction import to_epsilon, to_x0
from aizheimer.errors import DataError

CPU = torch.device("cpu")
SCHEDULE = NoiseSchedule(torch.linspace(0.999, 0.01, 100))


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def bank(entries=8):
    """Entry i holds i everywhere; its prediction is 100 + i, its unconditional prediction 200 + i."""
    number = torch.arange(float(entries)).reshape(-1, 1, 1, 1).expand(-1, 1, 2, 2)
    return LatentBank(
        x_t=number,
        t=torch.arange(entries),
        prompt_index=torch.arange(entries) // 2,
        trajectory=torch.arange(entries),
        prediction=100 + number,
        null_prediction=200 + number,
        x_0=number,
    )


def noised(**options):
    latents = torch.randn((3, 4, 2, 2), generator=seeded(5))
    options = {"prompt_index": torch.tensor([2, 1, 0]), "prompts": 3, "prediction_type": "epsilon"} | options
    return NoisedSource(latents=latents, schedule=SCHEDULE, device=CPU, **options)


def test_a_bank_gives_entries_whole_and_without_repetition():
    source = BankSource.of(bank(), target=bank().prediction, device=CPU)
    draw = source.draw(8, step=1, generator=seeded())
    assert sorted(draw.t.tolist()) == list(range(8))
    assert torch.equal(draw.x_t[:, 0, 0, 0].long(), draw.t)
    assert torch.equal(draw.prompt_index, draw.t // 2)
    assert torch.equal(draw.target[:, 0, 0, 0].long(), 100 + draw.t)


def test_a_batch_larger_than_the_bank_goes_round_again():
    draw = BankSource.of(bank(2), target=None, device=CPU).draw(5, step=1, generator=seeded())
    assert len(draw) == 5
    assert set(draw.t.tolist()) == {0, 1}
    assert draw.target is None


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction", "sample"])
def test_noised_targets_are_what_the_denoiser_should_predict(kind):
    source = noised(prediction_type=kind)
    draw = source.draw(6, step=1, generator=seeded())
    x_0 = to_x0(draw.target, draw.x_t, draw.t, SCHEDULE, kind)
    index = torch.cdist(x_0.flatten(1), source.latents.flatten(1)).argmin(1)
    torch.testing.assert_close(x_0, source.latents[index], atol=1e-4, rtol=1e-4)
    assert torch.equal(draw.prompt_index, source.prompt_index[index])
    again = SCHEDULE.add_noise(x_0, to_epsilon(draw.target, draw.x_t, draw.t, SCHEDULE, kind), draw.t)
    torch.testing.assert_close(again, draw.x_t, atol=1e-4, rtol=1e-4)


def test_timesteps_are_uniform():
    t = noised().draw(4000, step=1, generator=seeded()).t
    assert (t.min(), t.max()) == (0, 99)
    counts = torch.histc(t.float(), bins=10, min=0, max=100)
    assert (counts - 400).abs().max() < 100  # five standard deviations


def test_images_without_prompts_meet_every_prompt():
    draw = noised(prompt_index=None).draw(60, step=1, generator=seeded())
    assert set(draw.prompt_index.tolist()) == {0, 1, 2}


def test_without_noise_the_latents_come_as_they_are():
    source = noised(noise=False)
    draw = source.draw(5, step=1, generator=seeded())
    assert draw.target is None
    assert torch.cdist(draw.x_t.flatten(1), source.latents.flatten(1)).min(1).values.max() == 0


def test_draws_depend_on_the_generator_only():
    for source in (noised(), BankSource.of(bank(), target=None, device=CPU)):
        first, second = (source.draw(4, step=step, generator=seeded(3)) for step in (1, 9))
        other = source.draw(4, step=1, generator=seeded(4))
        assert torch.equal(first.x_t, second.x_t)
        assert not torch.equal(first.x_t, other.x_t)


def test_refreshing_asks_for_an_epoch_once():
    asked = []

    def make(epoch):
        asked.append(epoch)
        return BankSource.of(bank(2 + epoch), target=None, device=CPU)

    source = RefreshingSource(make, 3)
    for step in (1, 2, 3, 4, 6, 7):
        source.draw(1, step=step, generator=seeded())
    assert asked == [0, 1, 2]


def test_the_teachers_targets_are_its_predictions_and_some_are_of_the_empty_prompt():
    source = teacher_source(bank(), null_index=9, device=CPU)
    own, null = torch.arange(8), torch.tensor([8, 9])
    assert source.target[own][:, 0, 0, 0].tolist() == [100, 101, 102, 103, 104, 105, 106, 107]
    assert source.prompt_index[8:].tolist() == [9, 9]
    assert source.x_t[null][:, 0, 0, 0].tolist() == [0, 4]
    assert source.target[null][:, 0, 0, 0].tolist() == [200, 204]


def test_the_teachers_source_reads_the_bank_where_it_is_and_draws_what_copies_gave():
    whole = bank()
    source = teacher_source(whole, null_index=9, device=CPU)
    for rows, own, null in (
        (source.x_t, whole.x_t, whole.x_t),
        (source.target, whole.prediction, whole.null_prediction),
    ):
        assert [part.data_ptr() for part in rows.parts] == [own.data_ptr(), null.data_ptr()]
        copied = torch.cat([own, null[::4]])
        index = torch.tensor([9, 0, 3, 8, 8])
        assert torch.equal(rows[index], copied[index])
        assert len(rows) == len(copied) == 10


def test_an_empty_bank_is_refused():
    with pytest.raises(DataError, match="empty"):
        teacher_source(bank(0), null_index=0, device=CPU)
