"""Null spaces, rotations and constrained solves, each against its definition."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from aizheimer.errors import ConceptError, RecipeError, SelectorError
from aizheimer.modules.subspace import (
    centroids,
    constrained_ridge,
    double_projection,
    null_space,
    orthonormal_basis,
    procrustes,
)

DIM = 8


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@given(count=st.integers(1, DIM - 1), seed=st.integers(0, 500))
def test_a_null_space_is_free_of_the_rows(count, seed):
    rows = random(count, DIM, seed=seed)
    free = null_space(torch.cat([rows, rows.sum(0, keepdim=True)]), tolerance=1e-10)
    assert free.rank == count
    torch.testing.assert_close(free.basis.T @ free.basis, torch.eye(DIM - count, dtype=torch.float64))
    assert (rows @ free.projector).abs().max() < 1e-12
    torch.testing.assert_close(free.projector @ free.projector, free.projector)


def test_the_leakage_bounds_what_is_dropped():
    rows = random(3, DIM) @ torch.diag(torch.tensor([1.0, 1, 1, 1, 1e-3, 1e-3, 1e-3, 1e-3]).double())
    rows = torch.cat([rows, 1e-3 * random(3, DIM, seed=1)])
    free = null_space(rows, tolerance=0.01)
    assert free.rank == 3
    leaks = (rows @ free.basis).norm(dim=1)
    assert 0 < leaks.max() <= free.leakage * (1 + 1e-9)
    assert null_space(rows, tolerance=1e-12).leakage < 1e-12
    assert null_space(rows, tolerance=1e-12, max_rank=2).rank == 2


def test_a_full_space_says_how_many_fit():
    with pytest.raises(RecipeError, match=r"retaining 9 rows leaves none of the text's 8 directions free; at most 7"):
        null_space(random(9, DIM), tolerance=1e-10)
    assert null_space(random(0, DIM), tolerance=0.0).rank == 0


def test_a_basis_counts_the_same_row_once():
    rows = random(2, DIM)
    basis = orthonormal_basis(torch.cat([rows, rows * (1 + 1e-7), 3 * rows]))
    assert basis.shape == (DIM, 2)
    torch.testing.assert_close(rows @ basis @ basis.T, rows)


@given(seed=st.integers(0, 500), determinant=st.sampled_from(["free", "smallest"]))
def test_procrustes_is_orthogonal_and_the_best(seed, determinant):
    matrix = random(5, 5, seed=seed)
    rotation = procrustes(matrix, determinant=determinant)
    torch.testing.assert_close(rotation @ rotation.T, torch.eye(5, dtype=torch.float64))
    sign = torch.linalg.det(rotation)
    assert determinant == "free" or sign > 0
    for other in range(20):
        rival, _ = torch.linalg.qr(random(5, 5, seed=1000 + other))
        if determinant == "smallest" and torch.linalg.det(rival) < 0:
            rival[:, 0] *= -1
        assert (rotation * matrix).sum() >= (rival * matrix).sum() - 1e-9


def test_no_single_unit_is_turned_around():
    """A matrix that is almost the identity but for one weak reflected direction, spread over all units."""
    n = 12
    direction = torch.ones(n, dtype=torch.float64) / n**0.5
    matrix = torch.eye(n, dtype=torch.float64) - 1.01 * torch.outer(direction, direction)
    free, smallest, column = (procrustes(matrix, determinant=how) for how in ("free", "smallest", "column"))
    assert torch.linalg.det(free) < 0 < torch.linalg.det(smallest)
    torch.testing.assert_close(smallest, torch.eye(n, dtype=torch.float64))
    assert smallest.diagonal().min() > 0.9
    assert column[-1, -1] < -0.5  # what the published code does: the last unit is inverted
    torch.testing.assert_close(column[:, :-1], free[:, :-1])


def test_double_projection_is_exact_on_both_sides():
    targets, safe, kept = random(2, DIM), random(3, DIM, seed=1), random(4, DIM, seed=2)
    change = double_projection(targets, safe, free=null_space(kept, tolerance=1e-12))
    proxies = torch.linalg.lstsq(safe.T, targets.T).solution.T @ safe
    torch.testing.assert_close(targets + targets @ change.T, proxies, rtol=0, atol=1e-10)
    assert (kept @ change.T).abs().max() < 1e-10


def test_double_projection_of_one_target_is_the_papers_formula():
    target, safe, kept = random(1, DIM), random(2, DIM, seed=1), random(3, DIM, seed=2)
    free = null_space(kept, tolerance=1e-12)
    c = target[0]
    proxy = safe.T @ torch.linalg.pinv(safe @ safe.T) @ (safe @ c)
    x = free.basis.T @ c
    wanted = torch.outer(proxy - c, x) / (x @ x) @ free.basis.T
    torch.testing.assert_close(double_projection(target, safe, free=free), wanted)


def test_the_same_target_twice_is_one():
    target, safe, kept = random(1, DIM), random(2, DIM, seed=1), random(3, DIM, seed=2)
    free = null_space(kept, tolerance=1e-12)
    twice = double_projection(torch.cat([target, target * (1 + 1e-9)]), safe, free=free)
    torch.testing.assert_close(twice, double_projection(target, safe, free=free), rtol=1e-5, atol=1e-6)


def test_a_target_among_the_retained_is_refused():
    kept = random(3, DIM)
    with pytest.raises(ConceptError, match="3 retained directions leave no direction"):
        double_projection(kept.sum(0, keepdim=True), random(2, DIM, seed=1), free=null_space(kept, tolerance=1e-12))


def solve_speed(invariant_ridge=0.0, ridge=0.3):
    targets, sources = random(2, DIM), random(2, DIM, seed=1)
    kept, invariant = random(3, DIM, seed=2), random(2, DIM, seed=3)
    free = null_space(kept, tolerance=1e-12)
    change = constrained_ridge(
        targets, sources, free=free, invariant=invariant, ridge=ridge, invariant_ridge=invariant_ridge
    )
    return change, targets, sources, kept, invariant, free


@pytest.mark.parametrize("invariant_ridge", [0.0, 0.5])
def test_constrained_ridge_is_the_papers_formula(invariant_ridge):
    change, targets, sources, _, invariant, free = solve_speed(invariant_ridge)
    eye, p = torch.eye(DIM, dtype=torch.float64), free.projector
    t, a, c = targets.T @ targets / 2, sources.T @ targets / 2, invariant.T
    m = torch.linalg.inv(t @ p + 0.3 * eye)
    inner = torch.linalg.inv(c.T @ p @ m @ c + invariant_ridge * torch.eye(2, dtype=torch.float64))
    q = eye - m @ c @ inner @ c.T @ p
    torch.testing.assert_close(change, (a - t) @ p @ q @ m, rtol=1e-9, atol=1e-10)


def test_constrained_ridge_is_the_best_of_what_is_allowed():
    """Among maps that move neither retained nor invariant rows: the objective by least squares in coordinates."""
    change, targets, sources, kept, invariant, _ = solve_speed()
    assert (kept @ change.T).abs().max() < 1e-10
    assert (invariant @ change.T).abs().max() < 1e-10
    allowed = null_space(torch.cat([kept, invariant]), tolerance=1e-12).basis
    left = torch.cat([targets @ allowed / 2**0.5, 0.3**0.5 * torch.eye(allowed.shape[1], dtype=torch.float64)])
    right = torch.cat([(sources - targets) / 2**0.5, torch.zeros(allowed.shape[1], DIM, dtype=torch.float64)])
    wanted = torch.linalg.lstsq(left, right).solution.T @ allowed.T
    torch.testing.assert_close(change, wanted, rtol=1e-6, atol=1e-8)


def test_invariant_rows_that_are_retained_do_no_harm():
    targets, sources, kept = random(2, DIM), random(2, DIM, seed=1), random(3, DIM, seed=2)
    free = null_space(kept, tolerance=1e-12)
    none = constrained_ridge(targets, sources, free=free, invariant=kept[:0], ridge=0.3)
    same = constrained_ridge(targets, sources, free=free, invariant=kept[:2], ridge=0.3)
    torch.testing.assert_close(same, none, rtol=1e-8, atol=1e-8)
    with pytest.raises(RecipeError, match="ridge: got 0"):
        constrained_ridge(targets, sources, free=free, invariant=kept[:0], ridge=0.0)


def test_centroids_find_clusters():
    centres = torch.tensor([[0.0, 0], [10, 0], [0, 10]]).double()
    rows = torch.cat([centre + 0.1 * random(20, 2, seed=i) for i, centre in enumerate(centres)])
    found = [centroids(rows, 3, generator=torch.Generator().manual_seed(seed)) for seed in range(5)]
    best = min(found, key=lambda c: float(torch.cdist(rows, c).min(dim=1).values.square().sum()))
    assert torch.cdist(centres, best).min(dim=1).values.max() < 0.1
    again = centroids(rows, 3, generator=torch.Generator().manual_seed(0))
    assert torch.equal(found[0], again)
    with pytest.raises(SelectorError, match="got 3 for 2 rows"):
        centroids(rows[:2], 3, generator=torch.Generator())
