"""Coverage of confidence intervals by simulation, and their cost at the largest cell; prints a Markdown page.

    uv run python benchmarks/coverage.py > benchmarks/coverage.md

"Before" are the usual plug-in normal and bootstrap percentile intervals. Coverages have a standard error of 0.005 to
0.015, according to the number of simulations.
"""

import time
from collections.abc import Callable, Iterator

import numpy as np
from scipy.special import ndtri

from ssltransfer.analysis import uncertainty as un
from ssltransfer.protocols import calibration
from ssltransfer.protocols.dense.normals.angles import COARSE_BINS
from ssltransfer.protocols.dense.normals.outcomes import normals_outcomes
from ssltransfer.protocols.dense.segmentation.metrics import mean_iou
from ssltransfer.protocols.detection.average_precision import THRESHOLDS, Matches
from ssltransfer.protocols.detection.boxes import GroundTruth
from ssltransfer.protocols.detection.outcomes import average_precisions, detection_outcomes
from ssltransfer.protocols.linear.outcomes import classification_outcomes, mean_average_precisions
from ssltransfer.protocols.similarity import cka
from ssltransfer.results.outcome_file import Interval
from ssltransfer.results.prediction_file import Predictions

Z = float(ndtri(0.975))
FEWER = 200
"""Number of resamples in simulations; results use more."""


def inside(interval: Interval | None, truth: float) -> bool:
    return interval is not None and interval.low - 1e-9 <= truth <= interval.high + 1e-9


def normal(value: float, variance: float) -> Interval:
    half = Z * np.sqrt(variance)
    return Interval(value - half, value + half, "")


def percentile(replicates: np.ndarray) -> Interval:
    return Interval(*np.quantile(replicates, [0.025, 0.975]), "")


def row(what: str, truth: str, before: float, after: float, width: float) -> None:
    print(f"| {what} | {truth} | {before:.3f} | {after:.3f} | {width:.2f} |", flush=True)


def binomial_coverage(n: int, p: float, interval: Callable[[int], Interval]) -> float:
    """Exact coverage of an interval of p, summed over all numbers of right answers."""
    from scipy.stats import binom

    counts = np.arange(n + 1)
    likely = counts[binom.pmf(counts, n, p) > 1e-9]
    return float(sum(binom.pmf(k, n, p) for k in likely if inside(interval(int(k)), p)))


def top1() -> None:
    shares = np.linspace(0.5, 0.99, 50)
    for n in (100, 800, 2000, 8000):

        def wilson(k: int, n: int = n) -> Interval:
            low, high = un._wilson(k / n, k * (n - k) / n**3, n)
            return Interval(low, high, "")

        after = [binomial_coverage(n, p, wilson) for p in shares]
        before = [binomial_coverage(n, p, lambda k, n=n: normal(k / n, k * (n - k) / n**3)) for p in shares]
        width = np.mean([100 * Z * np.sqrt(p * (1 - p) / n) for p in shares])
        row(f"top-1, n = {n}, p = 0.5 to 0.99, mean", "exact", np.mean(before), np.mean(after), width)
        row(f"top-1, n = {n}, p = 0.5 to 0.99, minimum", "exact", min(before), min(after), width)


def mean_per_class(rng: np.random.Generator, runs: int = 2000) -> None:
    cases = {
        "20 classes of 50, p = 0.7 to 1": ([50] * 20, np.linspace(0.7, 1, 20)),
        "20 classes of 5, p = 0.7 to 1": ([5] * 20, np.linspace(0.7, 1, 20)),
        "5 classes of 40, p = 0.99": ([40] * 5, [0.99] * 5),
        "100 classes of 10": ([10] * 100, rng.beta(9, 1, 100)),
        "102 classes of 20 to 240": (rng.integers(20, 240, 102), rng.beta(18, 1, 102)),
        "102 classes, 30 of them of 1 to 15": (
            np.r_[rng.integers(1, 15, 30), rng.integers(15, 800, 72)],
            rng.beta(8, 1, 102),
        ),
        "10 classes of one image": ([1] * 10, np.linspace(0.5, 0.95, 10)),
        "10 hard classes of one image, 20 of 30": ([1] * 10 + [30] * 20, np.linspace(0.5, 0.95, 30)),
        "10 easy classes of one image, 20 of 30": ([1] * 10 + [30] * 20, np.linspace(0.95, 0.5, 30)),
    }
    for name, (sizes, shares) in cases.items():
        strata, truth, found = np.repeat(np.arange(len(sizes)), sizes), float(np.mean(shares)), []
        for _ in range(runs):
            right = rng.random(len(strata)) < np.asarray(shares)[strata]
            rates = np.bincount(strata, right) / sizes
            plug_in = np.sum(rates * (1 - rates) / sizes) / len(sizes) ** 2
            after = un.stratified_interval(right, strata, 1.0)
            found.append((inside(normal(rates.mean(), plug_in), truth), inside(after, truth), after.high - after.low))
        before, after, width = np.mean(found, axis=0)
        row(f"mean per class: {name}", "population", before, after, 50 * width)


def counts_of(n: int, rng: np.random.Generator) -> np.ndarray:
    return np.stack([np.bincount(rng.integers(n, size=n), minlength=n) for _ in range(FEWER)]).astype(np.uint8)


def resampled(
    what: str,
    metric: str,
    cases: Iterator[tuple[float, np.ndarray, int]],
    population: float | None = None,
    units: str = "",
) -> None:
    """Rows of a metric with a bootstrap: of its expected value on test sets of this size, and of its population value.

    `cases` yields value, replicates and number of units.
    """
    found = [
        (value, replicates, un.bootstrap_interval(value, replicates, metric, n, units))
        for value, replicates, n in cases
    ]
    expected = float(np.mean([value for value, *_ in found]))
    width = np.mean([(i.high - i.low) / 2 for *_, i in found if i])
    for truth, name in ((expected, "expected value"), (population, "population")):
        if truth is not None:
            before = np.mean([inside(percentile(replicates), truth) for _, replicates, *_ in found])
            row(what, name, before, np.mean([inside(i, truth) for *_, i in found]), width)


def binormal_map(share: np.ndarray, distance: np.ndarray) -> float:
    """11-point mAP in percent of an endless test set: scores of negatives N(0, 1), of positives N(distance, 1)."""
    from scipy.special import ndtr

    t, total = np.linspace(8, -8, 50_001), 0.0
    for f, mu in zip(share, distance, strict=True):
        recall = ndtr(mu - t)
        precision = f * recall / (f * recall + (1 - f) * ndtr(-t))
        best = np.maximum.accumulate(precision[::-1])[::-1]
        total += best[np.minimum(np.searchsorted(recall, np.arange(11) / 10 - 1e-9), len(t) - 1)].mean()
    return 100 * total / len(share)


def map11(rng: np.random.Generator) -> None:
    for n, classes, low, high, runs in (
        (100, 4, 0.2, 0.5, 1000),
        (300, 4, 0.1, 0.4, 600),
        (1000, 20, 0.04, 0.4, 300),
        (4952, 20, 0.02, 0.1, 100),
    ):
        share, distance = np.linspace(low, high, classes), np.linspace(1.0, 3.0, classes)

        def cases(n=n, classes=classes, runs=runs, share=share, distance=distance):
            for _ in range(runs):
                labels = rng.random((n, classes)) < share
                labels[0] |= ~labels.any(axis=0)
                scores = rng.normal(size=(n, classes)) + distance * labels
                whole = mean_average_precisions(labels, scores, np.ones((1, n), np.uint8))[0]
                yield float(whole), mean_average_precisions(labels, scores, counts_of(n, rng)), n

        name = f"11-point mAP, {n} images, {classes} classes, {100 * low:g} to {100 * high:g} % positive"
        resampled(name, "map11", cases(), binormal_map(share, distance), "test images")


def random_matches(images: int, classes: int, objects: float, detections: float, rng) -> tuple[Matches, GroundTruth]:
    """Detections that are right more often where their score is high; images differ in how hard they are."""
    number = rng.poisson(objects, images)
    image = np.repeat(np.arange(images), number)
    label = rng.integers(0, classes, len(image))
    truth = GroundTruth(image, label, np.zeros((len(image), 4)), np.zeros(len(image), bool))
    hardness = rng.normal(0, 0.7, images)
    quality = rng.normal(0.8, 1, len(image)) - hardness[image]  # of the detection of each object
    overlap = 1 / (1 + np.exp(-quality)) * 0.6 + 0.35
    strays = rng.poisson(detections, images)
    stray_image = np.repeat(np.arange(images), strays)
    found_image = np.concatenate([image, stray_image])
    found_label = np.concatenate([label, rng.integers(0, classes, len(stray_image))])
    score = np.concatenate([quality + rng.normal(0, 0.5, len(image)), rng.normal(-1, 1, len(stray_image))])
    reach = np.concatenate([overlap, np.zeros(len(stray_image))])
    order = np.lexsort((-score, found_label))
    correct = reach[order] > np.array(THRESHOLDS)[:, None]
    edges = np.searchsorted(found_label[order], np.arange(classes + 1))
    to_find = np.bincount(label, minlength=classes)
    return Matches(found_image[order], edges, correct, ~correct, to_find, THRESHOLDS), truth


def ap(rng: np.random.Generator) -> None:
    for images, classes, runs in ((100, 3, 400), (500, 3, 200)):
        tables = []
        for _ in range(runs):
            matches, truth = random_matches(images, classes, 2, 3, rng)
            counts = np.concatenate([np.ones((1, images), np.uint8), counts_of(images, rng)])
            tables.append(average_precisions(matches, truth, np.arange(images), "11-point", counts))
        for metric, of in (("ap", lambda t: t.mean(axis=0)), ("ap50", lambda t: t[0]), ("ap75", lambda t: t[5])):
            values = [of(table) for table in tables]
            name = f"{metric.upper()}, {images} images, {classes} classes, 2 objects each"
            resampled(name, metric, ((float(v[0]), v[1:], images) for v in values), units="test images")


def pooled(rng: np.random.Generator) -> None:
    for n, runs in ((15, 1000), (50, 500), (654, 200)):

        def draws(n=n, runs=runs):
            for _ in range(runs):
                pixels = rng.integers(2000, 4096, n)
                mean = rng.gamma(6, 4, n)
                counts = counts_of(n, rng)
                totals = counts @ np.column_stack([pixels, pixels * mean])
                yield float(np.sum(pixels * mean) / pixels.sum()), totals[:, 1] / totals[:, 0], n

        resampled(f"mean angle of pooled pixels, {n} images", "mean-angle", draws(), 24.0, "test images")


def mean_ious(rng: np.random.Generator) -> None:
    """Images of a few classes each; how well a class is found differs from image to image."""
    for n, classes, rare, runs in (
        (50, 8, 0, 400),
        (300, 20, 0, 200),
        (300, 20, 6, 1000),
        (1000, 20, 6, 300),
        (2000, 150, 50, 40),
    ):
        shares = np.r_[5.0, np.ones(classes - 1 - rare), np.full(rare, 0.05)]
        shares /= shares.sum()

        def tables(count: int, classes=classes, shares=shares) -> np.ndarray:
            truth = rng.multinomial(4096, rng.dirichlet(4 * shares, count))
            right = rng.binomial(truth, rng.beta(2.1, 0.9, (count, classes)))
            wrong = rng.multinomial((truth - right).sum(axis=1), shares)
            return np.stack([right, right + wrong, truth], axis=1)

        def cases(n=n, classes=classes, runs=runs, tables=tables):
            for _ in range(runs):
                table = tables(n)
                totals = counts_of(n, rng).astype(float) @ table.reshape(n, -1)
                value = float(mean_iou(table.sum(axis=0), "left-out"))
                yield value, mean_iou(totals.reshape(-1, 3, classes), "left-out"), n

        population = float(mean_iou(sum(tables(20_000).sum(axis=0) for _ in range(5)), "left-out"))
        name = f"mean IoU, {n} images, {classes} classes, {rare} of them in few images"
        resampled(name, "mean-iou", cases(), population, "test images")


def similarities(rng: np.random.Generator) -> None:
    """Debiased CKA of Gaussian features of 32 dimensions that share a part."""

    def compare(first: np.ndarray, second: np.ndarray) -> cka.Alignment:
        order = cka.image_order(len(first))
        one, other = cka.represent(first, order), cka.represent(second, order)
        return cka.align(one, other, cka.dependence(one, one), cka.dependence(other, other))

    spread = np.arange(1, 33.0) ** -0.7
    turn = rng.normal(size=(32, 32))
    for n, runs in ((100, 400), (400, 300), (1500, 150)):
        for shared in (0.0, 0.5, 0.9):

            def features(count: int, shared=shared) -> tuple[np.ndarray, np.ndarray]:
                first, other = rng.normal(size=(2, count, 32)) * spread
                return first, (shared * first + np.sqrt(1 - shared**2) * other) @ turn

            first, second = features(500_000)
            one, other, both = (np.sum((a.T @ b) ** 2) for a, b in ((first, first), (second, second), (first, second)))
            truth = both / np.sqrt(one * other)
            found = [compare(*features(n)) for _ in range(runs)]
            after = np.mean([alignment.low <= truth <= alignment.high for alignment in found])
            width = np.mean([alignment.high - alignment.low for alignment in found]) / 2
            print(f"| CKA of {truth:.2f}, {n} images | population | | {after:.3f} | {width:.3f} |", flush=True)


def calibration_error(rng: np.random.Generator) -> None:
    gaps = {
        "calibrated": lambda c: 0 * c,
        "5 points too sure": lambda c: 0 * c + 0.05,
        "too sure of the sure": lambda c: 0.1 * (c - 0.7),
    }
    for n, runs in ((500, 300), (2000, 150), (8000, 60)):
        for name, gap in gaps.items():
            c = np.clip(1 - 0.9 * rng.beta(1, 3, 2_000_000), 0.1, 1)
            bins = calibration.bin_numbers(c)
            truth = 100 * np.abs(np.bincount(bins, c - np.clip(c - gap(c), 0, 1))).sum() / len(c)
            found, floors = [], 0
            for _ in range(runs):
                c = np.clip(1 - 0.9 * rng.beta(1, 3, n), 0.1, 1)
                part = calibration.Confidences(np.arange(n), c, rng.random(n) < np.clip(c - gap(c), 0, 1))
                value = calibration._ece(part, part.right - part.confidence)
                replicates = calibration.ece_replicates([part], counts_of(n, rng))
                floor = calibration.noise_floor([part], n, FEWER)
                floors += value <= floor
                after = un.calibration_interval(value, calibration.debiased_ece(part), replicates, floor)
                found.append((inside(percentile(replicates), truth), inside(after, truth), after.high - after.low))
            before, after, width = np.mean(found, axis=0)
            row(
                f"ECE, n = {n}, {name} ({truth:.1f} %); inside the noise floor in {floors / runs:.2f}",
                "population",
                before,
                after,
                width / 2,
            )


def few_images(rng: np.random.Generator, runs: int = 4000) -> None:
    shapes = {
        "normal": (lambda n: rng.normal(0.3, 0.1, n), 0.3),
        "skewed (gamma, shape 2)": (lambda n: rng.gamma(2, 0.1, n), 0.2),
    }
    for n in (6, 15):
        for name, (draw, truth) in shapes.items():
            found = []
            for _ in range(runs):
                values = draw(n)
                after = un.t_interval(values, "lpips-alexnet", "images")
                found.append(
                    (
                        inside(normal(values.mean(), values.var() / n), truth),
                        inside(after, truth),
                        after.high - after.low,
                    )
                )
            before, after, width = np.mean(found, axis=0)
            row(f"mean over {n} images, {name}", "population", before, after, width / 2)


def cost() -> None:
    print("\n## Cost at the largest cells\n\n| Metric | Units | Seconds |\n| --- | --- | --- |")
    rng = np.random.default_rng(0)

    def timed(what: str, units: str, run: Callable[[], object]) -> None:
        un.resample_counts.cache_clear()
        start = time.perf_counter()
        run()
        print(f"| {what} | {units} | {time.perf_counter() - start:.2f} |", flush=True)

    labels = rng.integers(0, 101, 25_250)
    scores = rng.normal(size=(25_250, 101)).astype(np.float32)
    scores[np.arange(25_250), labels] += 3
    predictions = Predictions(scores, labels, scores[:3000], labels[:3000])
    timed("top-1", "Food-101, 25,250 images", lambda: classification_outcomes("top1", predictions))
    timed(
        "mean per class", "25,250 images, 101 classes", lambda: classification_outcomes("mean-per-class", predictions)
    )
    timed(
        "three calibration errors, with temperatures",
        "25,250 images, 101 classes",
        lambda: calibration.calibration_outcomes(predictions, 0),
    )
    positive = rng.random((4952, 20)) < np.linspace(0.02, 0.4, 20)
    shown = Predictions((rng.normal(size=(4952, 20)) + 2 * positive).astype(np.float32), positive, scores, labels)
    timed("11-point mAP", "VOC2007, 4,952 images, 20 classes", lambda: classification_outcomes("map11", shown))
    matches, truth = random_matches(4952, 20, 2.43, 60, rng)
    timed(
        f"AP, AP50, AP75 ({len(matches.image):,} detections)",
        "VOC2007, 4,952 images, 20 classes, 10 overlaps",
        lambda: detection_outcomes(matches, truth, np.arange(4952), "11-point"),
    )
    images = [{"pixels": 200_000, "mean": m, "within": [30.0, 60.0, 70.0]} for m in rng.gamma(6, 4, 654)]
    tables = rng.poisson(150, (654, COARSE_BINS)).astype(np.uint32)
    names = [f"{k:06}" for k in range(654)]
    timed(
        "mean, median and shares of normals",
        "NYUv2, 654 images",
        lambda: normals_outcomes(names, None, images, 20.0, tables),
    )


def main() -> None:
    rng = np.random.default_rng(0)
    print("# Coverage of confidence intervals\n")
    print(
        'Written by `benchmarks/coverage.py`; see there. Nominal 0.95. "Expected value": of the metric on test sets of'
    )
    print("this size. Before: plug-in normal or bootstrap percentile. Half widths in points, or the metric's unit.\n")
    print("| Score | Truth | Before | Now | Half width |\n| --- | --- | --- | --- | --- |")
    top1()
    mean_per_class(rng)
    map11(rng)
    ap(rng)
    pooled(rng)
    calibration_error(rng)
    few_images(rng)
    mean_ious(rng)
    similarities(rng)
    cost()


if __name__ == "__main__":
    main()
