"""On a layer's own queries, loss, gradient and answers of the bank are those of the whole pass."""

import dataclasses
import functools

import pytest
import torch

from aizheimer.backbones.counting import counted
from aizheimer.data.cache import TensorCache
from aizheimer.data.query_bank import PART, BankPlan, kept_queries
from aizheimer.data.sources import Draw
from aizheimer.engine.query_problem import KeptExamples, QueryProblem, query_recorder
from aizheimer.modules.attention import attention_probe
from aizheimer.modules.parameters import select_parameters, trainable
from aizheimer.objectives import ATTENTION_TERMS

PROMPTS = ["santa claus in noto style", "a photo of santa claus"]
OTHERS = ["cat in flat style", "old man", ""]
ANCHORS = ["old man in noto style", "a photo of old man"]
WHOLE = BankPlan(keep="float32")


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def inputs(count, prompts, *, seed):
    generator = seeded(seed)
    x_t, t = torch.randn((count, 4, 8, 8), generator=generator), torch.randint(1000, (count,), generator=generator)
    return Draw(x_t=x_t, t=t, prompt_index=torch.arange(count) % prompts)


def kept(backbone, draw, embeddings, columns, *, plan=WHOLE, folder=None, batch=None):
    layers = list(backbone.attention_modules())
    queries = kept_queries(
        backbone,
        draw,
        conditions=embeddings,
        layers=layers,
        record=query_recorder(backbone, layers),
        plan=plan,
        cache=TensorCache(folder),
    )
    return KeptExamples(queries=queries, embeddings=embeddings, columns=columns, batch_size=batch or len(draw))


def problem_of(backbone, parameters, *, loss="distraction", variant="mean", plan=WHOLE, **options):
    forget_text, retain_text = backbone.encode_prompts(PROMPTS), backbone.encode_prompts(OTHERS)
    columns = backbone.token_columns(PROMPTS, "santa claus", policy="concept")
    none = torch.zeros(len(OTHERS), backbone.max_tokens, dtype=torch.bool)
    forget = kept(backbone, inputs(3, 2, seed=1), forget_text, columns, plan=plan)
    retain = kept(backbone, inputs(4, 3, seed=2), retain_text, none, plan=plan)
    term = functools.partial(ATTENTION_TERMS[loss], variant=variant, tokens=backbone.max_tokens)
    return QueryProblem(
        backbone=backbone,
        parameters=parameters,
        originals={name: value.detach().clone() for name, value in parameters.items()},
        layers=list(backbone.attention_modules()),
        term=term,
        forget=forget,
        retain=retain,
        held_out=(forget, retain),
        **options,
    )


@pytest.fixture
def trained(tiny_backbone):
    """The model with keys and values of every layer asking for gradients."""
    selection = select_parameters(tiny_backbone.denoiser, list(tiny_backbone.attention_modules()), ("k", "v"))
    with trainable(tiny_backbone.denoiser, selection) as parameters:
        yield tiny_backbone, parameters


def through_the_network(backbone, problem, layer, chosen):
    """Return the loss of one layer's attention in a pass through the whole network."""
    draw = inputs(3, 2, seed=1)
    prompts = draw.prompt_index[chosen]
    with attention_probe(backbone.denoiser, [layer], problem.forget.columns[prompts]) as probe:
        backbone.predict(draw.x_t[chosen], draw.t[chosen], problem.forget.embeddings[prompts])
    return problem.term(probe.maps, generator=seeded(5)).total


@pytest.mark.parametrize("variant", ["paper", "notebook", "mean"])
@pytest.mark.parametrize("loss", list(ATTENTION_TERMS))
def test_loss_and_gradient_are_those_of_the_whole_pass(trained, loss, variant):
    """Of every layer whose forerunners are unedited, the first in order among them."""
    backbone, parameters = trained
    problem = problem_of(backbone, parameters, loss=loss, variant=variant)
    chosen = torch.tensor([2, 0, 1])
    for layer in problem.layers:
        key = parameters[f"{layer}.to_k.weight"]
        alone = dataclasses.replace(problem, layers=[layer])
        bank = problem.term(alone._answers(problem.forget, chosen)[1], generator=seeded(5)).total
        whole = through_the_network(backbone, problem, layer, chosen)
        torch.testing.assert_close(bank, whole, rtol=1e-5, atol=1e-7)
        gradients = [torch.autograd.grad(value, key)[0] for value in (bank, whole)]
        assert gradients[1].abs().max() > 0
        torch.testing.assert_close(*gradients, rtol=1e-5, atol=1e-5 * float(gradients[1].abs().max()))


def test_half_precision_rounds_the_queries_alone(trained):
    backbone, parameters = trained
    whole, half = (problem_of(backbone, parameters, plan=plan) for plan in (WHOLE, BankPlan()))
    for layer in whole.layers:
        index = torch.arange(3)
        assert half.forget.queries.rows(layer, index).dtype == torch.float16
        assert torch.equal(half.forget.queries.rows(layer, index), whole.forget.queries.rows(layer, index).half())
    losses = [problem.losses(1, seeded())["attention"].value.item() for problem in (whole, half)]
    assert losses[0] != losses[1]
    assert losses[1] == pytest.approx(losses[0], rel=1e-3)


@torch.no_grad()
def test_answers_are_what_layers_hand_to_their_output_projections(trained):
    backbone, parameters = trained
    problem, seen = problem_of(backbone, parameters), {}
    handles = [
        module.to_out[0].register_forward_hook(lambda _, given, __, name=name: seen.update({name: given[0]}))
        for name, module in backbone.attention_modules().items()
    ]
    draw = inputs(4, 3, seed=2)
    backbone.predict(draw.x_t, draw.t, problem.retain.embeddings[draw.prompt_index])
    for handle in handles:
        handle.remove()
    for layer, answers in problem._answers(problem.retain, torch.arange(4))[0].items():
        # What is read goes through another kernel than what is not: the last bits differ.
        torch.testing.assert_close(answers.transpose(1, 2).flatten(2), seen[layer], rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_retained_answers_are_held_to_the_originals_and_the_concepts_to_the_anchors(trained):
    backbone, parameters = trained
    problem = problem_of(
        backbone,
        parameters,
        anchor=backbone.encode_prompts(ANCHORS),
        anchor_weight=2.0,
        retain_weight=3.0,
    )
    assert float(problem.losses(1, seeded())["teacher"].value) == 0
    assert problem.monitor()["retention_drift"] == 0
    index = torch.arange(3)
    towards = dataclasses.replace(problem.forget, embeddings=problem.anchor)
    wanted = problem._answers(towards, index)[0]
    layer = problem.layers[2]
    parameters[f"{layer}.to_v.weight"].mul_(1.1)
    losses = problem.losses(1, seeded())
    assert {name: loss.weight for name, loss in losses.items()} == {"attention": 1, "teacher": 3, "anchor": 2}
    assert {name for name, value in losses["teacher"].parts.items() if value > 0} == {layer}
    assert losses["teacher"].parts[layer] == pytest.approx(0.01, rel=1e-3)
    assert float(losses["teacher"].value) == pytest.approx(0.01 / len(problem.layers), rel=1e-3)
    assert problem.monitor()["retention_drift"] == pytest.approx(0.01 / len(problem.layers), rel=1e-3)
    answers = problem._answers(problem.forget, index)[0]
    by_hand = [(answers[name] - wanted[name]).square().sum() / wanted[name].square().sum() for name in problem.layers]
    assert float(losses["anchor"].value) == pytest.approx(float(sum(by_hand)) / len(by_hand), rel=1e-4)


def test_the_monitor_reads_the_mass_of_the_whole_pass(trained):
    from aizheimer.modules.maps import mass

    backbone, parameters = trained
    problem, draw = problem_of(backbone, parameters), inputs(3, 2, seed=1)
    with (
        torch.no_grad(),
        attention_probe(backbone.denoiser, problem.layers, problem.forget.columns[draw.prompt_index]) as probe,
    ):
        backbone.predict(draw.x_t, draw.t, problem.forget.embeddings[draw.prompt_index])
    values = problem.monitor()
    by_layer = {layer: float(value) for layer, value in mass(probe.maps).items()}
    assert {layer: values[f"layers/{layer}"] for layer in problem.layers} == pytest.approx(by_layer, rel=1e-5)
    assert values["attention_mass"] == pytest.approx(sum(by_layer.values()) / len(by_layer), rel=1e-5)


def test_a_step_does_not_ask_the_network(trained):
    backbone, parameters = trained
    problem = problem_of(backbone, parameters)
    with counted(backbone) as count:
        problem.losses(1, seeded())
        problem.monitor()
    assert count.latents == 0


def test_queries_are_recorded_once_and_by_what_they_depend_on(tiny_backbone, tmp_path):
    text = tiny_backbone.encode_prompts(PROMPTS)
    columns = tiny_backbone.token_columns(PROMPTS, "santa claus", policy="concept")
    draw, counts = inputs(PART + 3, 2, seed=1), []

    def ask(plan=WHOLE, text=text):
        with counted(tiny_backbone) as count:
            found = kept(tiny_backbone, draw, text, columns, plan=plan, folder=tmp_path)
        counts.append(count.latents)
        return found.queries

    made, read = ask(), ask()
    assert counts == [PART + 3, 0]
    index = torch.tensor([PART + 2, 0, PART - 1])
    for layer in tiny_backbone.attention_modules():
        assert torch.equal(made.rows(layer, index), read.rows(layer, index))
    ask(BankPlan())
    ask(text=text.flip(0))
    layer = next(iter(tiny_backbone.attention_modules()))
    with torch.no_grad():
        tiny_backbone.denoiser.get_submodule(layer).to_q.weight.mul_(2)
    ask()
    assert counts[2:] == [PART + 3] * 3


def test_a_killed_recording_loses_its_unfinished_part_alone(tiny_backbone, tmp_path):
    text = tiny_backbone.encode_prompts(PROMPTS)
    draw, layers = inputs(PART + 3, 2, seed=1), list(tiny_backbone.attention_modules())
    asked, record = [], query_recorder(tiny_backbone, layers)

    def dying(x_t, t, conditions):
        asked.append(len(x_t))
        if len(asked) == 2:
            raise KeyboardInterrupt
        return record(x_t, t, conditions)

    options = {"conditions": text, "layers": layers, "plan": WHOLE, "cache": TensorCache(tmp_path), "record": dying}
    with pytest.raises(KeyboardInterrupt):
        kept_queries(tiny_backbone, draw, **options)
    again = kept_queries(tiny_backbone, draw, **options)
    assert asked == [PART, 3, 3]
    fresh = kept_queries(tiny_backbone, draw, **options | {"cache": TensorCache(None)})
    for layer in layers:
        assert torch.equal(again.rows(layer, torch.arange(PART + 3)), fresh.rows(layer, torch.arange(PART + 3)))
