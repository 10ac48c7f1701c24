import math

import numpy as np
import pytest
from scipy.optimize import brentq

from suite.curvature.quadrature import atoms
from suite.limits.gaussian_width import gaussian_width_fraction
from suite.limits.statistical_dimension import statistical_dimension_fraction

# Values computed once from exact projections and exact spectra at dim = 1500, printed to three decimals.
DIM = 1500
ONES, POWER = np.ones(DIM), 50.0 * np.arange(1, DIM + 1) ** -1.5


def _half_exponential(rng):
    return np.concatenate([np.zeros(DIM // 2), rng.exponential(size=DIM // 2)])


def _log_uniform(rng):
    return 10.0 ** rng.uniform(-6, 1, DIM)


@pytest.mark.parametrize(
    ("spectrum", "radius", "tolerance", "published"),
    [(ONES, 1.0, 0.3, 0.375), (POWER, 5.0, 0.02, 0.364)],
    ids=["ones", "power law"],
)
def test_published_values_of_fixed_spectra(spectrum, radius, tolerance, published):
    assert gaussian_width_fraction(atoms(spectrum), radius, tolerance) == pytest.approx(published, abs=5e-4)


def test_sharp_value_where_nothing_is_random():
    assert statistical_dimension_fraction(atoms(ONES), atoms([1.0]).pooled(), 1.0, 0.3) == pytest.approx(0.6, abs=1e-10)


@pytest.mark.parametrize(
    ("draw", "radius", "tolerance", "published", "sharp"),
    [
        (lambda _: POWER, 5.0, 0.02, 0.364, 0.506),
        (_half_exponential, 5.0, 0.3, 0.537, 0.562),
        (_log_uniform, 5.0, 0.3, 0.648, 0.722),
    ],
    ids=["power law", "half exponential", "log-uniform"],
)
def test_values_of_random_draws(draw, radius, tolerance, published, sharp):
    values = []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        spectrum, direction = draw(rng), rng.standard_normal(DIM)
        mu, nu = atoms(spectrum), atoms(spectrum, direction**2 / np.dot(direction, direction)).pooled()
        values.append(
            (
                gaussian_width_fraction(mu, radius, tolerance),
                statistical_dimension_fraction(mu, nu, radius, tolerance),
            )
        )
    mean, spread = np.mean(values, axis=0), np.std(values, axis=0, ddof=1)
    assert (spread < 0.015).all()
    assert (np.abs(mean - [published, sharp]) <= 4 * spread + 5e-4).all()


def _projected_length_squared(gaussian, direction, spectrum, tolerance):
    """Length squared of the exact projection on the cone {t direction + y: y'Hy <= 2 eps t^2, t >= 0}.

    For fixed t the nearest y is (I + mu H)^-1 (g - t direction) with mu >= 0 on the boundary; the squared distance is
    convex in t with derivative -2 direction'(g - t direction - y) - 4 mu eps t.
    """

    def nearest(t):
        rest = gaussian - t * direction
        level = 2 * tolerance * t * t

        def excess(mu):
            return np.dot(spectrum, (rest / (1 + mu * spectrum)) ** 2) - level

        if excess(0.0) <= 0:
            return rest, 0.0
        high = 1.0
        while excess(high) > 0:
            high *= 4
        multiplier = brentq(excess, 0.0, high, xtol=1e-14, rtol=1e-13)
        return rest / (1 + multiplier * spectrum), multiplier

    def slope(t):
        y, multiplier = nearest(t)
        return -2 * np.dot(direction, gaussian - t * direction - y) - 4 * multiplier * tolerance * t

    high = 1.0
    while slope(high) < 0:
        high *= 2
    low = 1e-9 * high
    best = low if slope(low) >= 0 else brentq(slope, low, high, rtol=1e-10)
    y, _ = nearest(best)
    distance_squared = np.sum((gaussian - best * direction - y) ** 2)
    return np.dot(gaussian, gaussian) - distance_squared


@pytest.mark.parametrize("lean", [0.0, 1.0], ids=["any direction", "flat directions"])
@pytest.mark.parametrize("spectrum_name", ["ones", "power law", "log-uniform"])
def test_formula_against_projections_of_gaussian_vectors(spectrum_name, lean):
    dim, num_draws, radius, tolerance = 300, 40, 3.0, 0.3
    rng = np.random.default_rng(11)
    spectrum = {
        "ones": np.ones(dim),
        "power law": 50.0 * np.arange(1, dim + 1) ** -1.5,
        "log-uniform": np.logspace(-5, 1, dim),
    }[spectrum_name]
    direction = rng.standard_normal(dim) / (0.1 + spectrum) ** (lean / 2)
    direction *= radius / np.linalg.norm(direction)
    draws = [
        _projected_length_squared(rng.standard_normal(dim), direction, spectrum, tolerance) / dim
        for _ in range(num_draws)
    ]
    nu = atoms(spectrum, (direction / radius) ** 2).pooled()
    formula = statistical_dimension_fraction(atoms(spectrum), nu, radius, tolerance)
    error = np.std(draws, ddof=1) / math.sqrt(num_draws)
    assert error < 0.02
    assert abs(np.mean(draws) - formula) < 4 * error + 0.5 / math.sqrt(dim)
    assert np.mean(draws) > gaussian_width_fraction(atoms(spectrum), radius, tolerance)
