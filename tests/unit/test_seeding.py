"""Streams depend on their names only."""

import torch

from aizheimer._seeding import generator_for


def draw(*keys):
    return torch.rand(4, generator=generator_for(*keys))


def test_the_same_keys_give_the_same_stream():
    assert torch.equal(draw(1, "step", 3), draw(1, "step", 3))


def test_every_part_of_the_key_matters():
    streams = [draw(1, "step", 3), draw(2, "step", 3), draw(1, "step", 4), draw(1, "other", 3), draw(1, "step", 3, 0)]
    assert all(not torch.equal(a, b) for i, a in enumerate(streams) for b in streams[:i])


def test_the_global_stream_is_left_alone():
    state = torch.get_rng_state()
    draw(0)
    assert torch.equal(torch.get_rng_state(), state)
