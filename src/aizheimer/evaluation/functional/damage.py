"""How damage falls with the distance to what was forgotten: a curve by least squares and its half-damage distance."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

import numpy as np

Form: TypeAlias = Literal["exponential", "logistic"]

GRID = 25
"""Points of a search for one number; the search is repeated ``ROUNDS`` times, ever closer."""

ROUNDS = 4
LEAST_CONCEPTS = 6
"""With fewer points a curve of two or three numbers says nothing."""

LEAST_SHARE = 0.1
"""A curve must explain this share of the variance, or there is no distance to speak of."""

MOST_DEGENERATE = 0.25
"""With more resamples than this without any damage there is no interval. k damaged concepts of many are all missed by a
share of about exp(-k): 37 % of one, 14 % of two. One concept says nothing of how far others would move the curve."""


@dataclass(frozen=True, kw_only=True)
class DamageFit:
    """Damage as a function of distance.

    Args:
        form: ``"exponential"``: a exp(-x / s); ``"logistic"``: a / (1 + exp((x - m) / s)).
        amplitude: a, damage next to the target in [0, 1].
        half_distance: Where damage is half of a: s ln 2, or m. None if the curve explains no more than chance, or
            damage is not halved within the distances that were measured; ``reason`` says which.
        middle: m; 0 for the exponential. Where a logistic has no half distance, it is outside of what was measured.
        width: s.
        explained: Share of the variance of the damage that the curve explains, 1 - SSE / SST.
        interval: Bootstrap interval of ``half_distance`` over the concepts, of the resamples that hold damage; None
            with it, or if too many hold none.
        degenerate: Share of the resamples without damage, which have no half distance; 0 where none were drawn.
        n: Concepts.
        reason: Why there is no half distance, or no interval of it.
    """

    form: Form
    amplitude: float
    half_distance: float | None
    middle: float
    width: float
    explained: float
    interval: tuple[float, float] | None
    degenerate: float
    n: int
    reason: str = ""

    def at(self, distance: np.ndarray) -> np.ndarray:
        """Return the curve's damage (n,) at distances (n,)."""
        return self.amplitude * _shape(self.form, np.asarray(distance, dtype=float), self.middle, self.width)


def fit_damage(
    distance: np.ndarray,
    damage: np.ndarray,
    *,
    form: Form = "exponential",
    seed: int = 0,
    samples: int = 200,
    level: float = 0.95,
) -> DamageFit:
    """Fit a falling curve to damage by distance, by least squares.

    For given shape parameters the best amplitude is <d, f> / <f, f>, cut to [0, 1]; the shape parameters are searched
    on a grid that is made finer around its best point. The distances within reach of the curve are those
    that were measured.

    Args:
        distance: (n,) of each concept to the target, 1 - cosine of text embeddings.
        damage: (n,) accuracy lost, unedited minus edited; negative where a concept got better.
        form: The curve.
        seed: Of the bootstrap.
        samples: Its draws, each of which is fitted again.
        level: Of the interval.

    Returns:
        The curve; its half distance is None when no distance explains the damage.

    Raises:
        ValueError: If the shapes differ, or there are fewer than ``LEAST_CONCEPTS`` concepts.

    Example:
        >>> x = np.linspace(0.05, 1, 40)
        >>> round(fit_damage(x, 0.8 * np.exp(-x / 0.2), samples=20).half_distance, 3)
        0.139
    """
    x, y = np.asarray(distance, dtype=np.float64), np.asarray(damage, dtype=np.float64)
    if x.ndim != 1 or x.shape != y.shape:
        raise ValueError(f"damage curve: got shapes {x.shape} and {y.shape}, wanted two vectors of equal length")
    if len(x) < LEAST_CONCEPTS:
        raise ValueError(f"damage curve: got {len(x)} concepts, wanted {LEAST_CONCEPTS} or more")
    amplitude, middle, width = _search(form, x, y)
    explained = _explained(y, amplitude * _shape(form, x, middle, width))
    half = middle if form == "logistic" else width * float(np.log(2))
    fit = DamageFit(
        form=form, amplitude=amplitude, half_distance=half, middle=middle, width=width, explained=explained,
        interval=None, degenerate=0.0, n=len(x), reason=_no_distance(amplitude, explained, half, x),
    )  # fmt: skip
    if fit.reason:
        return replace(fit, half_distance=None)
    return _with_interval(fit, _half_distances(form, x, y, seed=seed, samples=samples), level=level)


def _no_distance(amplitude: float, explained: float, half: float, x: np.ndarray) -> str:
    if amplitude <= 0:
        return "no damage"
    if explained < LEAST_SHARE:
        return f"distance explains {max(explained, 0.0):.0%} of the damage"
    if half > x.max():
        return "damage is not halved within the distances measured"
    return ""


def _shape(form: Form, x: np.ndarray, middle: float | np.ndarray, width: float | np.ndarray) -> np.ndarray:
    """Return the curve of amplitude 1; distances (n,) against parameters of any shape (..., 1)."""
    if form == "exponential":
        return np.exp(-x / width)
    return 1.0 / (1.0 + np.exp(np.clip((x - middle) / width, -60, 60)))


def _search(form: Form, x: np.ndarray, y: np.ndarray, *, rounds: int = ROUNDS) -> tuple[float, float, float]:
    """Return amplitude, middle and width of the best curve; the middle is 0 for the exponential."""
    reach = float(x.max()) or 1.0
    widths = np.geomspace(reach / 300, reach * 3, GRID)
    # The last middle is beyond all that was measured: there a narrow logistic is flat, as damage may be.
    middles = np.append(np.linspace(0.0, reach, GRID), 2 * reach) if form == "logistic" else np.zeros(1)
    best = (0.0, 0.0, float(widths[0]))
    for _ in range(rounds):
        best = _best(form, x, y, middles, widths)
        step = widths[1] / widths[0]
        widths = np.geomspace(best[2] / step, best[2] * step, GRID)
        if form == "logistic":
            gap = middles[1] - middles[0]
            middles = np.linspace(max(best[1] - gap, 0.0), best[1] + gap, GRID)
    return best


def _best(
    form: Form, x: np.ndarray, y: np.ndarray, middles: np.ndarray, widths: np.ndarray
) -> tuple[float, float, float]:
    """Return (amplitude, middle, width) with the least squares among all pairs of the grids."""
    grid_middle, grid_width = (grid.ravel() for grid in np.meshgrid(middles, widths, indexing="ij"))
    curves = _shape(form, x, grid_middle[:, None], grid_width[:, None])
    norms = np.maximum((curves**2).sum(axis=1), 1e-300)
    amplitudes = np.clip(curves @ y / norms, 0.0, 1.0)
    errors = ((y - amplitudes[:, None] * curves) ** 2).sum(axis=1)
    i = int(errors.argmin())
    return float(amplitudes[i]), float(grid_middle[i]), float(grid_width[i])


def _explained(y: np.ndarray, curve: np.ndarray) -> float:
    if np.ptp(y) == 0:  # not the sum of squares: the mean of equal values may be off by their last bit
        return 0.0
    return 1.0 - float(((y - curve) ** 2).sum()) / float(((y - y.mean()) ** 2).sum())


def _half_distances(form: Form, x: np.ndarray, y: np.ndarray, *, seed: int, samples: int) -> np.ndarray:
    """Return the half distances (samples,) of resampled concepts, cut to the measured range; NaN without damage.

    Trap: with amplitude 0 every curve fits alike, and the search returns the first one, the narrowest of its grid. Its
    half distance is that of the grid, not of any damage.
    """
    rng = np.random.default_rng(seed)
    found = np.full(samples, np.nan)
    for i, row in enumerate(rng.integers(0, len(x), size=(samples, len(x)))):
        amplitude, middle, width = _search(form, x[row], y[row], rounds=2)
        if amplitude > 0:
            found[i] = min(middle if form == "logistic" else width * np.log(2), x.max())
    return found


def _with_interval(fit: DamageFit, found: np.ndarray, *, level: float) -> DamageFit:
    """Put the percentile interval of resampled half distances around a fit, unless too many of them are NaN."""
    degenerate = float(np.isnan(found).mean())
    if degenerate > MOST_DEGENERATE:
        reason = f"no interval: {degenerate:.0%} of the resamples hold no damage, for it is of too few concepts"
        return replace(fit, degenerate=degenerate, reason=reason)
    tail = (1.0 - level) / 2.0
    low, high = np.nanquantile(found, [tail, 1.0 - tail])
    return replace(fit, degenerate=degenerate, interval=(float(low), float(high)))
