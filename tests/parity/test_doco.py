"""DoCo's discriminator and its losses by hand."""

import math

import pytest
import torch

from aizheimer._seeding import generator_for
from aizheimer.concepts import Concept
from aizheimer.engine.adversary import Adversary
from aizheimer.errors import InputError
from aizheimer.methods.doco import DoCo
from aizheimer.objectives.adversarial import PatchDiscriminator, deception_loss, discriminator_loss


def network(size=8, seed=0):
    return PatchDiscriminator(4, size, generator=generator_for(seed, "discriminator"))


def latents(count=3, size=8, key=0):
    return torch.randn(count, 4, size, size, generator=generator_for(key, "latents"))


def test_the_losses_by_hand():
    """BCE of a logit z is log(1 + e^z) for label 0 and log(1 + e^-z) for label 1."""
    anchor, target = torch.tensor([2.0]), torch.tensor([-1.0])
    expected = math.log(1 + math.e**2) + math.log(1 + math.e)
    assert discriminator_loss(anchor, target).item() == pytest.approx(expected)
    assert deception_loss(target).item() == pytest.approx(math.log(1 + math.exp(-1)))


@pytest.mark.parametrize(("size", "convolutions"), [(4, 2), (8, 3), (16, 4), (64, 5)])
def test_it_fits_the_latents_at_hand(size, convolutions):
    net = network(size)
    assert net(latents(2, size)).shape == (2, 1, 3, 3)
    assert sum(isinstance(layer, torch.nn.Conv2d) for layer in net.layers) == convolutions


def test_latents_that_are_too_small_are_refused():
    with pytest.raises(InputError, match="2 pixels"):
        network(2)


def test_its_weights_are_the_generators_and_the_global_stream_is_left_alone():
    before = torch.get_rng_state()
    first, second, other = network(), network(), network(seed=1)
    assert torch.equal(torch.get_rng_state(), before)
    weights = [net.layers[0].weight for net in (first, second, other)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])
    assert weights[0].std().item() == pytest.approx(0.02, rel=0.1)


def test_it_learns_to_tell_and_goes_on_from_its_state_with_the_same_bits():
    adversary = Adversary(network(), lr=1e-3, device=torch.device("cpu"))
    losses = []
    for step in range(20):
        losses.append(float(adversary.remember(latents(key=step) + 1, latents(key=100 + step) - 1)))
        adversary.advance(step)
    assert losses[-1] < 0.95 * losses[0]
    copy = Adversary(network(seed=7), lr=1e-3, device=torch.device("cpu"))
    copy.load({name: tensor.clone() for name, tensor in adversary.tensors().items()})
    for both in (adversary, copy):
        both.remember(latents(key=1) + 1, latents(key=2) - 1)
        both.advance(21)
    after, copied = adversary.tensors(), copy.tensors()
    assert after.keys() == copied.keys()
    assert all(torch.equal(after[name], copied[name]) for name in after)


def test_what_deceives_it_does_not_train_it():
    """The published code lets the edited model's gradient into the discriminator; by the paper none arrives."""
    adversary = Adversary(network(), lr=1e-3, device=torch.device("cpu"))
    fake = latents().requires_grad_()
    deception_loss(adversary.judge(fake)).backward()
    assert fake.grad.abs().sum() > 0
    assert all(parameter.grad is None for parameter in adversary.network.parameters())


class Mean(torch.nn.Module):
    """The simplest discriminator: a weight times the mean of a latent."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.tensor(0.5))

    def forward(self, x_0):
        return self.weight * x_0.mean(dim=(1, 2, 3))


@pytest.mark.parametrize(
    ("leaky", "deceiving", "leaks"), [(False, True, False), (True, False, False), (True, True, True)]
)
def test_in_the_published_code_what_deceives_it_trains_it(leaky, deceiving, leaks):
    """The slope of BCE in a logit z is sigmoid(z) less the label, and that of z = w x in w is x.

    With w = 1/2 and means of 2 for the anchor and -4 for the target, z is 1 and -2.
    """
    adversary = Adversary(Mean(), lr=1e-3, device=torch.device("cpu"), leaky=leaky)
    adversary.remember(torch.full((1, 4, 2, 2), 2.0), torch.full((1, 4, 2, 2), -4.0), deceiving=deceiving)
    adversary.advance(1)
    share = 1 / (1 + math.exp(2))
    own = 2 / (1 + math.exp(-1)) - 4 * (share - 1)
    wanted = own - 4 * share if leaks else own
    assert adversary.network.weight.grad.item() == pytest.approx(wanted)


def test_the_fidelity_reaches_the_discriminator(tiny_backbone, monkeypatch):
    made = []

    class Noted(Adversary):
        def __init__(self, network, **options):
            made.append(options["leaky"])
            super().__init__(network, **options)

    monkeypatch.setattr("aizheimer.methods.doco.Adversary", Noted)
    for fidelity in ("paper", "repository"):
        quick = {"images": "generate:1", "warmup": 0, "training": {"steps": 1, "batch_size": 1}}
        method = DoCo.model_validate({"fidelity": fidelity, "surgery": False, **quick})
        method.unlearn(tiny_backbone, Concept("santa claus", anchor="old man"))
    assert made == [False, True]
