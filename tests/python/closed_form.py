"""PER's closed form in float64 without special functions: the integral over the angle between h and a slice, and what a row is."""

from __future__ import annotations

import functools
import math

import numpy as np

RHO_ZERO = math.sqrt(2 / math.pi)

# ρ(p) = |p| to within 1e-32 from here on.
FAR = 12.0


def rows(h: np.ndarray, view: str, batch_axis: int = 0) -> np.ndarray:
    """The samples of an activation, one a row."""
    if h.ndim == 0 or (h.ndim == 1 and view != "last"):
        return h.reshape(-1, 1)
    if h.ndim == 1:
        return h.reshape(1, -1)
    if view == "flatten":
        return np.moveaxis(h, batch_axis, 0).reshape(h.shape[batch_axis], -1)
    axis = {"channel": 1, "last": -1}[view]
    return np.moveaxis(h, axis, -1).reshape(-1, h.shape[axis])


def slices(normal: np.ndarray) -> np.ndarray:
    """The directions [d, s] that a graph makes of its draws [s, d]."""
    normal = normal.astype(np.float64)
    return (normal / np.linalg.norm(normal, axis=1, keepdims=True)).T


def per(samples: np.ndarray) -> np.ndarray:
    """E_θ[ρ(⟨h, θ⟩)] of every row h."""
    samples = np.asarray(samples, np.float64)
    return np.array([_loss(samples.shape[1], float(r)) for r in np.sqrt((samples * samples).sum(axis=1))])


def slope(h: np.ndarray) -> np.ndarray:
    """The gradient of [`per`] at one row h, by a central difference in ‖h‖ (1e-8 of it: step² and 1e-16/step)."""
    r = float(np.linalg.norm(h))
    if r == 0:
        return np.zeros_like(h)
    step = 1e-4 * max(r, 1)
    return (_loss(h.size, r + step) - _loss(h.size, abs(r - step))) / (2 * step) / r * h


def _loss(d: int, r: float) -> float:
    """E[ρ(r·t)] = r·E|t| + E[ρ(r·t) − r·|t|] for t = sin φ, whose density is that of cos φ to the power d − 2."""
    if d == 1:
        return r + _excess(r)
    mean = 1 / (_gamma_step(d / 2) * math.sqrt(math.pi))
    constant = 2 * _gamma_step((d - 1) / 2) / math.sqrt(math.pi)
    end = min(math.pi / 2, 40 / math.sqrt(d), math.asin(min(1.0, FAR / r)) if r else math.pi)
    nodes, weights = _nodes()
    angles = end * (nodes + 1) / 2
    density = np.exp((d - 2) * np.log(np.cos(angles)))
    excess = np.array([_excess(r * math.sin(angle)) for angle in angles])
    return r * mean + constant * float((weights * density * excess).sum()) * end / 2


def _gamma_step(x: float) -> float:
    """Γ(x + ½)/Γ(x); by Stirling's series where logarithms would cancel."""
    if x < 50:
        return math.gamma(x + 0.5) / math.gamma(x)
    return math.sqrt(x) * (1 - 1 / (8 * x) + 1 / (128 * x**2) + 5 / (1024 * x**3) - 21 / (32768 * x**4) - 399 / (262144 * x**5))


def _excess(p: float) -> float:
    """ρ(p) − p for p ≥ 0."""
    return RHO_ZERO * math.exp(-p * p / 2) - p * math.erfc(p / math.sqrt(2))


@functools.cache
def _nodes():
    return np.polynomial.legendre.leggauss(120)
