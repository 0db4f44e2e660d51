"""Closed-form distraction against its own objective, minimised by gradient descent."""

import pytest
import torch

from aizheimer.errors import SelectorError
from aizheimer.modules.query_metric import (
    QueryMoments,
    TextPencil,
    query_moments,
    solve_keys,
)
from aizheimer.modules.ridge import RidgeSums

HEADS, SIZE, DIM = 2, 3, 5


def rows(count, seed):
    return torch.randn(count, DIM, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.fixture
def problem():
    """Weights, query metric, target, anchor and retained rows, and the ridge."""
    generator = torch.Generator().manual_seed(7)
    weight = torch.randn(HEADS * SIZE, DIM, generator=generator, dtype=torch.float64)
    queries = torch.randn(40, HEADS, SIZE, generator=generator, dtype=torch.float64) * torch.tensor([2.0, 1.0, 0.2])
    metric = torch.einsum("nhi,nhj->hij", queries, queries) / len(queries)
    return weight, metric, rows(2, 1), rows(2, 2), rows(4, 3), 0.3


def objective(change, weight, metric, target, anchor, retained, ridge):
    """J, written as the docstring writes it, for heads one by one."""
    total = 0.0
    for head in range(HEADS):
        part = slice(head * SIZE, (head + 1) * SIZE)
        new, old, c = (weight + change)[part], weight[part], metric[head]
        scale = torch.trace(c) / SIZE
        for e_t, e_a in zip(target, anchor, strict=True):
            gap = new @ e_t - old @ e_a
            total = total + gap @ c @ gap
        for e_r in retained:
            total = total + scale * ((new - old) @ e_r).square().sum()
        total = total + scale * ridge * (new - old).square().sum()
    return total


def solve(weight, metric, target, anchor, retained, ridge):
    pencil = TextPencil.of(RidgeSums.of(target, anchor), RidgeSums.keep(retained).gram, ridge=ridge)
    return solve_keys(weight, metric, pencil)


def test_it_is_the_optimum(problem):
    change = solve(*problem).requires_grad_(True)
    (gradient,) = torch.autograd.grad(objective(change, *problem), change)
    assert gradient.abs().max() < 1e-9
    best = objective(change, *problem)
    for seed in range(5):
        other = change + 0.01 * torch.randn(change.shape, generator=torch.Generator().manual_seed(seed)).double()
        assert objective(other, *problem) > best


def test_gradient_descent_ends_there(problem):
    change = torch.zeros_like(problem[0], requires_grad=True)
    optimiser = torch.optim.LBFGS([change], lr=1, max_iter=500, tolerance_grad=1e-12, tolerance_change=1e-16)

    def closure():
        optimiser.zero_grad()
        loss = objective(change, *problem)
        loss.backward()
        return loss

    optimiser.step(closure)
    torch.testing.assert_close(change.detach(), solve(*problem), rtol=1e-6, atol=1e-6)


def test_with_queries_in_all_directions_alike_it_is_ridge_regression(problem):
    weight, _, target, anchor, retained, ridge = problem
    change = solve(weight, torch.eye(SIZE, dtype=torch.float64).repeat(HEADS, 1, 1), target, anchor, retained, ridge)
    gram = target.T @ target + retained.T @ retained + ridge * torch.eye(DIM, dtype=torch.float64)
    aim = weight @ (anchor.T @ target + retained.T @ retained) + ridge * weight
    torch.testing.assert_close(weight + change, aim @ torch.linalg.inv(gram), rtol=1e-9, atol=1e-9)


def test_directions_that_no_query_sees_do_not_move(problem):
    weight, metric, *rest = problem
    metric = metric.clone()
    metric[0, 2, :] = metric[0, :, 2] = 0
    metric[1] = 0
    change = solve(weight, metric, *rest)
    assert change[2].abs().max() < 1e-12
    assert torch.equal(change[SIZE:], torch.zeros_like(change[SIZE:]))
    assert change[0].abs().max() > 1e-3


def test_targets_that_are_their_own_anchors_change_nothing(problem):
    weight, metric, target, _, retained, ridge = problem
    assert solve(weight, metric, target, target, retained, ridge).abs().max() < 1e-12


def test_more_retention_moves_retained_rows_less(problem):
    weight, metric, target, anchor, retained, ridge = problem
    drifts = []
    for factor in (1, 10, 1000):
        pencil = TextPencil.of(
            RidgeSums.of(target, anchor),
            RidgeSums.keep(retained, weight=factor).gram,
            ridge=ridge,
        )
        drifts.append(float((solve_keys(weight, metric, pencil) @ retained.T).norm()))
    assert drifts[0] > drifts[1] > drifts[2]


@pytest.mark.parametrize("firmness", [0.1, 30.0])
def test_a_firmer_hold_is_the_same_problem_with_heavier_rows(problem, firmness):
    weight, metric, target, anchor, retained, ridge = problem
    erase, gram = RidgeSums.of(target, anchor), RidgeSums.keep(retained).gram
    held = TextPencil.of(erase, gram, ridge=ridge).held(firmness)
    anew = TextPencil.of(erase, firmness * gram, ridge=firmness * ridge)
    torch.testing.assert_close(solve_keys(weight, metric, held), solve_keys(weight, metric, anew))


def test_heads_of_one_row_are_the_identity(problem):
    weight, _, target, anchor, retained, ridge = problem
    whole, rows_alone = torch.eye(len(weight))[None], torch.ones(len(weight), 1, 1)
    torch.testing.assert_close(
        solve(weight, rows_alone, target, anchor, retained, ridge),
        solve(weight, whole, target, anchor, retained, ridge),
    )


def test_moments_of_real_queries(tiny_backbone):
    modules = tiny_backbone.attention_modules()
    seen = {}
    handles = [
        module.to_q.register_forward_hook(lambda m, i, o, name=name: seen.setdefault(name, o))
        for name, module in modules.items()
    ]
    x_t = torch.randn(2, *tiny_backbone.latent_shape)
    with torch.no_grad(), query_moments(modules) as moments:
        tiny_backbone.predict(x_t, torch.tensor([10, 700]), tiny_backbone.encode_prompts(["cat", "pizza"]))
    for handle in handles:
        handle.remove()
    for name, module in modules.items():
        heads = module.heads
        queries = seen[name].double()
        by_hand = torch.zeros(heads, queries.shape[-1] // heads, queries.shape[-1] // heads, dtype=torch.float64)
        for q in queries.flatten(0, 1):
            for head, part in enumerate(q.chunk(heads)):
                by_hand[head] += torch.outer(part, part)
        torch.testing.assert_close(moments.metric(name), by_hand / queries[..., 0].numel())
    assert not any(module.to_q._forward_hooks for module in modules.values())


def test_bad_input_is_told(problem):
    weight, metric, target, anchor, retained, _ = problem
    with pytest.raises(SelectorError, match="ridge: got 0"):
        solve(weight, metric, target, anchor, retained, 0)
    pencil = TextPencil.of(RidgeSums.of(target, anchor), RidgeSums.keep(retained).gram, ridge=1)
    with pytest.raises(SelectorError, match="does not fit"):
        solve_keys(weight, metric[:1], pencil)
    with pytest.raises(SelectorError, match="No query"):
        QueryMoments().metric("mid")
