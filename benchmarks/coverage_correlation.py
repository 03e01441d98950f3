"""Measure how often the intervals of correlations over few models contain the correlation of the population.

    uv run python benchmarks/coverage_correlation.py > benchmarks/coverage_correlation.md

Models are drawn from a bivariate normal distribution, whose rank correlations are known too. "percentile" is the
bootstrap over models, 95 % between the percentiles of the resampled coefficients; "interval" is what is reported
(`analysis.correlation.correlation_interval`); "without step" is the same without the step that allows for the few
values of a rank coefficient.
"""

import numpy as np
from scipy.special import ndtri

from ssltransfer.analysis.correlation import COEFFICIENTS, correlation_interval

SAMPLES, BOOTSTRAPPED, RESAMPLES = 20_000, 1_500, 999
MODELS, RHOS = (5, 8, 11, 14), (0.0, 0.6, 0.9)


def population(name: str, rho: float) -> float:
    """Coefficient of a bivariate normal distribution with correlation rho."""
    return {
        "pearson": rho,
        "spearman": 6 / np.pi * np.arcsin(rho / 2),
        "kendall": 2 / np.pi * np.arcsin(rho),
    }[name]


def plain_interval(name: str, r: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Interval by Fisher's z around the coefficient itself; of a perfect one it is the point."""
    error = {
        "pearson": np.sqrt(1 / (n - 3)),
        "spearman": np.sqrt((1 + r**2 / 2) / (n - 3)),
        "kendall": np.sqrt(0.437 / (n - 4)),
    }[name]
    with np.errstate(divide="ignore"):
        z = np.arctanh(r)
    return np.tanh(z - ndtri(0.975) * error), np.tanh(z + ndtri(0.975) * error)


def percentile_interval(name: str, x: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Ends of the percentile interval over resampled models for every sample, shape (2, samples)."""
    ends = []
    for own_x, own_y in zip(x, y, strict=True):
        drawn = rng.integers(0, x.shape[1], (RESAMPLES, x.shape[1]))
        ends.append(np.nanpercentile(COEFFICIENTS[name](own_x[drawn], own_y[drawn]), [2.5, 97.5]))
    return np.array(ends).T


def main() -> None:
    """Print the table."""
    rng = np.random.default_rng(0)
    print("# Coverage of the intervals of correlations\n")
    print(" ".join(__doc__.split("\n\n")[2].split()))
    print(
        f"\n{SAMPLES:,} samples for each row ({BOOTSTRAPPED:,} of {RESAMPLES} resamples for the percentile form); the"
    )
    print("standard error is 0.002 (0.006). Perfect: part of the samples whose coefficient is -1 or 1.\n")
    print("| Coefficient | n | rho | percentile | without step | interval | mean width | perfect |")
    print("|---|---|---|---|---|---|---|---|")
    for name, function in COEFFICIENTS.items():
        for n in MODELS:
            for rho in RHOS:
                x, noise = rng.normal(size=(2, SAMPLES, n))
                y = rho * x + np.sqrt(1 - rho**2) * noise
                r, truth = function(x, y), population(name, rho)
                ends = {
                    "percentile": percentile_interval(name, x[:BOOTSTRAPPED], y[:BOOTSTRAPPED], rng),
                    "without step": plain_interval(name, r, n),
                    "interval": correlation_interval(name, r, n),
                }
                covered = " | ".join(f"{np.mean((low <= truth) & (truth <= high)):.3f}" for low, high in ends.values())
                width = np.mean(ends["interval"][1] - ends["interval"][0])
                perfect = np.mean(np.abs(r) > 1 - 1e-12)
                print(f"| {name} | {n} | {rho} | {covered} | {width:.2f} | {perfect:.3f} |", flush=True)


if __name__ == "__main__":
    main()
