"""Transferability estimators: equal to direct computations and to right public code, invariances, closed forms."""

import warnings

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist
from scipy.special import logsumexp
from sklearn.covariance import LedoitWolf
from sklearn.decomposition import PCA

from ssltransfer.array_backend import Arrays
from ssltransfer.datasets.index import Index
from ssltransfer.errors import InputError
from ssltransfer.models.feature_file import Features
from ssltransfer.protocols.estimators import feature_moments as moments_module
from ssltransfer.protocols.estimators import geometry
from ssltransfer.protocols.estimators.class_separation import (
    bhattacharyya_separation,
    class_distance_variance,
    class_mean_scores,
)
from ssltransfer.protocols.estimators.coding_rate import trans_rate
from ssltransfer.protocols.estimators.evaluation import measure_estimators
from ssltransfer.protocols.estimators.feature_moments import feature_moments, reduced
from ssltransfer.protocols.estimators.h_score import (
    h_score,
    h_score_above_chance,
    ledoit_wolf_shrinkage,
    shrunk_h_score,
)
from ssltransfer.protocols.estimators.log_me import log_me
from ssltransfer.protocols.estimators.settings import EstimatorSettings
from ssltransfer.protocols.estimators.spectrum import effective_rank, power_law, rank_me, stable_rank

CASES = range(100)
SETTINGS = EstimatorSettings("resize16", 5, 10_000, 1000, 3, 0)


def case(number):
    """Features (n, d) with n below and above d, correlated, some of low rank, and labels of unequal classes."""
    rng = np.random.default_rng(number)
    n, d, classes = int(rng.integers(20, 120)), int(rng.integers(2, 90)), int(rng.integers(2, 7))
    labels = rng.integers(0, classes, n)
    labels[: 2 * classes] = np.repeat(np.arange(classes), 2)
    means = rng.normal(size=(classes, d)) * rng.uniform(0, 2)
    features = (means[labels] + rng.normal(size=(n, d))) @ rng.normal(size=(d, d)) + rng.normal(size=d) * 3
    if number % 6 == 0:
        features[:, 0] = 1.5  # a constant feature
    if number % 7 == 0:
        features[n // 2 :] = features[: n - n // 2]  # repeated rows
    return features.astype(np.float32), labels


def of(features, labels):
    """Rows and moments as jobs compute them."""
    values = reduced(features, np.arange(len(features)))
    return values, feature_moments(values, labels, int(labels.max()) + 1, features.shape[1])


def scatter(values):
    centred = values - values.mean(axis=0)
    return centred.T @ centred / len(values)


def class_means(x, y):
    return np.stack([x[y == k].mean(axis=0) for k in range(y.max() + 1)])[y]


def direct_evidence(x, t, alpha, beta):
    """Log evidence of a linear model by its definition, a Gaussian with covariance I / beta + X X^T / alpha."""
    covariance = np.eye(len(x)) / beta + x @ x.T / alpha
    _, log_determinant = np.linalg.slogdet(covariance)
    return -0.5 * (t @ np.linalg.solve(covariance, t) + log_determinant + len(x) * np.log(2 * np.pi))


def best_evidence(x, t):
    """Maximum over alpha and beta by the fixed point of the authors, iterated until it stands still."""
    sigma, vectors = np.linalg.eigh(x @ x.T)
    sigma, z2 = np.maximum(sigma, 0), (vectors.T @ t) ** 2
    a, alpha, beta = 1.0, 1.0, 1.0
    for _ in range(3000):
        gamma, m2 = (sigma / (sigma + a)).sum(), (sigma * z2 / (a + sigma) ** 2).sum()
        res2 = (z2 / (1 + sigma / a) ** 2).sum()
        before, a = a, gamma / m2 * res2 / (len(t) - gamma)
        if not 1e-6 * sigma[sigma > 1e-9].min() < a < 1e9 * sigma.max():
            break  # it runs to an end
        alpha, beta = gamma / m2, (len(t) - gamma) / res2
        if abs(a - before) < 1e-12 * a:
            break
    return direct_evidence(x, t, alpha, beta)


def test_h_scores_are_those_of_the_definition_and_of_tllib():
    for number in CASES:
        features, labels = case(number)
        x = features.astype(np.float64)
        _, moments = of(features, labels)
        between = scatter(class_means(x, labels))
        inverse = np.linalg.pinv(scatter(x), rcond=1e-11, hermitian=True)
        assert h_score(moments) == pytest.approx(np.trace(inverse @ between), rel=1e-6), number
        fitted = LedoitWolf().fit(x)
        assert ledoit_wolf_shrinkage(moments) == pytest.approx(fitted.shrinkage_, rel=1e-9, abs=1e-12)
        direct = np.trace(np.linalg.solve(fitted.covariance_, (1 - fitted.shrinkage_) * between))
        assert shrunk_h_score(moments) == pytest.approx(direct, rel=1e-6)
        # tllib divides the covariance between classes by n - 1, and the one of the features by n.
        tllib = np.trace(
            np.linalg.pinv(fitted.covariance_, rcond=1e-15)
            @ ((1 - fitted.shrinkage_) * np.cov(class_means(x, labels), rowvar=False))
        )
        assert shrunk_h_score(moments) * len(x) / (len(x) - 1) == pytest.approx(tllib, rel=1e-6)


def test_the_element_wise_product_of_public_code_is_no_h_score():
    rng = np.random.default_rng(0)
    labels = np.arange(400) % 5
    x = (rng.normal(size=(5, 12))[labels] + rng.normal(size=(400, 12))) @ rng.normal(size=(12, 12))
    _, moments = of(x.astype(np.float32), labels)
    element_wise = np.trace(np.linalg.pinv(scatter(x)) * scatter(class_means(x, labels)))
    assert h_score(moments) <= 4 < element_wise


def test_log_me_is_the_maximum_of_the_evidence():
    found, perfects = [], []
    for number in CASES:
        features, labels = case(number)
        x = features.astype(np.float64)
        value, perfect = log_me(of(features, labels)[1])
        each = [best_evidence(x, (labels == k).astype(float)) / len(x) for k in range(labels.max() + 1)]
        # The fixed point is exact unless it runs to an end, where the evidence still rises by less than it says.
        assert value >= np.mean(each) - 1e-9, number
        found.append(abs(value - np.mean(each)) < 1e-6)
        perfects.append(perfect > 0)
    assert np.mean(found) > 0.9 and np.mean(perfects) < 0.05


@pytest.mark.parametrize("d", [20, 80])
def test_log_me_is_the_largest_direct_evidence_of_a_grid(d):
    rng = np.random.default_rng(d)
    labels = rng.integers(0, 3, 50)
    x = rng.normal(size=(50, d)) + rng.normal(size=(3, d))[labels]
    value, _ = log_me(of(x.astype(np.float32), labels)[1])
    x = x.astype(np.float32).astype(np.float64)
    precisions = np.exp(np.linspace(-6, 9, 46))
    grid = [
        max(direct_evidence(x, (labels == k).astype(float), a, b) for a in precisions for b in precisions) / 50
        for k in range(3)
    ]
    assert np.mean(grid) <= value + 1e-9
    assert value == pytest.approx(np.mean(grid), abs=5e-3)


def published_log_me(f, y, lost_term, tolerance):
    """LogME as public code computes it: at most 11 steps; `lost_term`: without the directions of no features."""
    n, d = f.shape
    u, s, _ = np.linalg.svd(f, full_matrices=False)
    sigma, evidences = s**2, []
    for k in range(y.max() + 1):
        t = (y == k).astype(float)
        x2 = (u.T @ t) ** 2
        rest, alpha, beta = (t**2).sum() - x2.sum(), 1.0, 1.0
        for _ in range(11):
            a = alpha / beta
            gamma = (sigma / (sigma + a)).sum()
            m2 = (sigma * x2 / (a + sigma) ** 2).sum()
            res2 = (x2 / (1 + sigma / a) ** 2).sum() + rest
            alpha, beta = gamma / (m2 + 1e-5), (n - gamma) / (res2 + 1e-5)
            if abs(alpha / beta - a) / a <= tolerance:
                break
        log_determinant = np.log(alpha + beta * sigma).sum()
        if not lost_term:
            log_determinant += (d - len(sigma)) * np.log(alpha)
        terms = d * np.log(alpha) + n * np.log(beta) - log_determinant - beta * res2 - alpha * m2
        evidences.append((terms - n * np.log(2 * np.pi)) / 2 / n)
    return np.mean(evidences)


def test_log_me_equals_public_code_for_n_above_d_and_not_below():
    rng = np.random.default_rng(0)
    for number in CASES:
        n, d = (150, 20) if number % 2 else (40, 90)
        labels = rng.integers(0, 4, n)
        labels[:4] = range(4)
        x = (rng.normal(size=(4, d))[labels] + 2 * rng.normal(size=(n, d))).astype(np.float32).astype(np.float64)
        value, _ = log_me(of(x.astype(np.float32), labels)[1])
        public = published_log_me(x, labels, lost_term=True, tolerance=1e-3)
        if n > d:
            assert value == pytest.approx(public, abs=1e-4)  # their steps stop at 0.1 % of the ratio
        else:
            assert public > value + 1  # the lost term is of the size of d / n
            assert value >= published_log_me(x, labels, lost_term=False, tolerance=0) - 1e-9


def test_log_me_says_which_classes_have_no_maximum():
    rng = np.random.default_rng(0)
    labels = np.arange(60) % 3
    x = np.concatenate([np.eye(3)[labels], rng.normal(size=(60, 4))], axis=1).astype(np.float32)
    value, perfect = log_me(of(x, labels)[1])
    assert perfect == 3 and np.isfinite(value)


def test_class_separation_is_that_of_the_definition():
    for number in CASES:
        features, labels = case(number)
        x = features.astype(np.float64)
        values, moments = of(features, labels)
        counts = np.bincount(labels)
        means = np.stack([x[labels == k].mean(axis=0) for k in range(len(counts))])
        scores = class_mean_scores(values, labels, moments)
        for i in range(0, len(x), 7):
            others = (labels == labels[i]) & (np.arange(len(x)) != i)
            own = means.copy()
            own[labels[i]] = x[others].mean(axis=0)
            assert scores[i] == pytest.approx(-((x[i] - own) ** 2).sum(axis=1), rel=1e-6)
        variances = [((x[labels == k] - means[k]) ** 2).sum() / (counts[k] - 1) for k in range(len(counts))]
        ratios = []
        for a in range(len(counts)):
            for b in range(a):
                distance = ((means[a] - means[b]) ** 2).sum() - variances[a] / counts[a] - variances[b] / counts[b]
                ratios.append((variances[a] + variances[b]) / (2 * distance) if distance > 0 else np.inf)
        found = class_distance_variance(moments)
        assert found.median == pytest.approx(np.median(ratios), rel=1e-6)
        assert found.mean == pytest.approx(np.mean(ratios), rel=1e-6)
        assert found.close_pairs == np.isinf(ratios).sum()


def direct_gbc(x, labels, dimensions):
    """GBC of google-research with the logarithmic term of all dimensions."""
    z = PCA(min(64, dimensions), svd_solver="full").fit_transform(x)
    means = np.stack([z[labels == k].mean(axis=0) for k in range(labels.max() + 1)])
    spread = np.array([z[labels == k].var(axis=0).mean() for k in range(labels.max() + 1)])
    terms = []
    for a in range(len(means)):
        for b in range(len(means)):
            if a != b:
                pooled = (spread[a] + spread[b]) / 2
                distance = ((means[a] - means[b]) ** 2).sum() / (8 * pooled)
                terms.append(-distance - z.shape[1] / 2 * np.log(pooled / np.sqrt(spread[a] * spread[b])))
    return -logsumexp(terms)


def test_gaussian_overlap_and_coding_rate_are_those_of_the_definition():
    for number in CASES:
        features, labels = case(number)
        x = features.astype(np.float64)
        values, moments = of(features, labels)
        rank = len(moments.centred.values)
        assert bhattacharyya_separation(values, labels, moments) == pytest.approx(direct_gbc(x, labels, rank), rel=1e-6)
        z = x - x.mean(axis=0)
        z /= np.sqrt((z**2).sum() / len(z))

        def rate(rows):
            return 0.5 * np.linalg.slogdet(np.eye(rows.shape[1]) + rows.T @ rows / (len(rows) * 1e-4))[1]

        classes = [z[labels == k] for k in range(labels.max() + 1)]
        direct = rate(z) - sum(len(rows) / len(z) * rate(rows) for rows in classes)
        assert trans_rate(values, labels, moments) == pytest.approx(direct, rel=1e-6)


def test_spectral_estimators_are_those_of_the_singular_values():
    for number in CASES:
        features, labels = case(number)
        x = features.astype(np.float64)
        _, moments = of(features, labels)
        s = np.linalg.svd(x, compute_uv=False)
        p = s / s.sum() + 1e-7
        assert rank_me(moments) == pytest.approx(np.exp(-(p * np.log(p)).sum()), rel=1e-5)
        s = np.linalg.svd(x - x.mean(axis=0), compute_uv=False)
        p = s[s > 1e-6 * s[0]] / s[s > 1e-6 * s[0]].sum()
        assert effective_rank(moments) == pytest.approx(np.exp(-(p * np.log(p)).sum()), rel=1e-6)
        assert stable_rank(moments) == pytest.approx((s**2).sum() / s[0] ** 2, rel=1e-6)


def test_the_exponent_of_a_power_law_is_found():
    rng = np.random.default_rng(0)
    basis = np.linalg.qr(rng.normal(size=(400, 200)))[0]
    basis -= basis.mean(axis=0)
    basis = np.linalg.qr(basis)[0]
    x = basis * np.arange(1, 201) ** -0.7  # eigenvalues decay with 1.4
    assert power_law(of(x.astype(np.float32), np.arange(400) % 2)[1]) == pytest.approx(1.4, abs=1e-4)
    assert power_law(of(x[:, :60].astype(np.float32), np.arange(400) % 2)[1]) is None


def test_dimensions_are_those_of_all_distances_and_of_the_data():
    for number in CASES:
        features = case(number)[0]
        distinct = np.unique(features, axis=0).astype(np.float64)
        found = geometry.neighbour_distances(features)
        if len(distinct) <= geometry.NEIGHBOURS:
            assert found is None
            continue
        distances = np.sort(cdist(distinct, distinct), axis=1)[:, 1 : geometry.NEIGHBOURS + 1]
        ratios = np.sort(distances[:, 1] / distances[:, 0])
        kept = int(0.9 * len(ratios))
        x, y = np.log(ratios[:kept]), -np.log(1 - np.arange(kept) / len(ratios))
        assert geometry.two_nn_dimension(found) == pytest.approx((x @ y) / (x @ x), rel=1e-6)  # as scikit-dimension
        hill = np.log(distances[:, -1:] / distances[:, :-1]).mean(axis=1)
        assert geometry.likelihood_dimension(found) == pytest.approx(1 / hill.mean(), rel=1e-6)
    rng = np.random.default_rng(0)
    plane = rng.uniform(size=(1000, 5)) @ rng.normal(size=(5, 60))
    found = geometry.neighbour_distances(plane.astype(np.float32))
    assert geometry.two_nn_dimension(found) == pytest.approx(5, abs=0.6)
    assert geometry.likelihood_dimension(found) == pytest.approx(4.5, abs=0.4)  # biased at the edges


def test_uniformity_is_the_mean_over_pairs():
    for number in CASES:
        features = case(number)[0]
        x = features / np.linalg.norm(features.astype(np.float64), axis=1, keepdims=True)
        pairs = cdist(x, x, "sqeuclidean")[np.triu_indices(len(x), 1)]
        assert geometry.uniformity(features) == pytest.approx(np.log(np.exp(-2 * pairs).mean()), rel=1e-6)
    assert geometry.uniformity(np.zeros((5, 3), np.float32)) is None


def test_closed_forms():
    labels = np.repeat(np.arange(6), 20)
    rng = np.random.default_rng(0)
    one_hot = np.eye(6)[labels] @ rng.normal(size=(6, 6))
    assert h_score(of(one_hot.astype(np.float32), labels)[1]) == pytest.approx(5)
    wide = rng.normal(size=(120, 300)).astype(np.float32)
    assert h_score(of(wide, labels)[1]) == pytest.approx(5)  # n <= d + 1, whatever the features are
    chance = [h_score_above_chance(of(rng.normal(size=(120, 30)).astype(np.float32), labels)[1]) for _ in range(200)]
    assert abs(np.mean(chance)) < 4 * np.std(chance) / np.sqrt(200)
    sphere = np.concatenate([np.eye(8), -np.eye(8)]).astype(np.float32)
    assert rank_me(of(sphere, np.arange(16) % 2)[1]) == pytest.approx(8, rel=1e-5)
    assert effective_rank(of(sphere, np.arange(16) % 2)[1]) == pytest.approx(8)
    assert stable_rank(of(sphere, np.arange(16) % 2)[1]) == pytest.approx(8)


def supervised(features, labels):
    values, moments = of(features, labels)
    return {
        "h": h_score(moments),
        "shrunk": shrunk_h_score(moments),
        "log_me": log_me(moments)[0],
        "cdnv": class_distance_variance(moments).median,
        "gbc": bhattacharyya_separation(values, labels, moments),
        "rate": trans_rate(values, labels, moments),
        "ncm": (class_mean_scores(values, labels, moments).argmax(axis=1) == labels).mean(),
    }


def test_invariances():
    rng = np.random.default_rng(3)
    labels = np.arange(300) % 4
    x = rng.normal(size=(4, 24))[labels] + rng.normal(size=(300, 24))
    before = supervised(x.astype(np.float32), labels)
    rotation = np.linalg.qr(rng.normal(size=(24, 24)))[0]

    def after(values, names):
        found = supervised(values.astype(np.float32), labels)
        assert {name: found[name] for name in names} == pytest.approx({n: before[n] for n in names}, rel=1e-4)

    after(x @ rotation, before)  # all to rotations
    after(x + 5, set(before) - {"log_me"})  # all but LogME, which has no bias, to shifts
    after(7 * x, before)  # all to scaling
    after(x @ rng.normal(size=(24, 24)), ["h"])  # the H-score to any invertible map
    order = rng.permutation(300)
    found = supervised(x[order].astype(np.float32), labels[order])
    assert found == pytest.approx(before, rel=1e-5)


def test_permuted_labels_lower_all_supervised_estimators():
    rng = np.random.default_rng(4)
    labels = np.arange(300) % 4
    x = (rng.normal(size=(4, 24))[labels] + rng.normal(size=(300, 24))).astype(np.float32)
    true, permuted = supervised(x, labels), supervised(x, rng.permutation(labels))
    assert permuted.pop("cdnv") > 3 * true.pop("cdnv")
    for name, value in permuted.items():
        assert value < true[name] - 0.05 * abs(true[name]), name


def test_block_size_and_device_do_not_matter(monkeypatch):
    features, labels = case(3)
    expected = supervised(features, labels)
    monkeypatch.setattr(moments_module, "BLOCK", 7)
    assert supervised(features, labels) == pytest.approx(expected, rel=1e-9)
    the_device_does_not_matter(torch.device("cpu"))


def test_a_gpu_measures_the_same(any_gpu):
    the_device_does_not_matter(any_gpu)


def the_device_does_not_matter(device):
    features, labels = case(3)
    moments = feature_moments(features, labels, 9, features.shape[1], Arrays(torch, device))
    plain = feature_moments(features, labels, 9, features.shape[1])
    assert h_score(moments) == pytest.approx(h_score(plain), rel=1e-9)
    assert log_me(moments)[0] == pytest.approx(log_me(plain)[0], rel=1e-9)


def index_of(labels, parts=None):
    names = [f"class {k}" for k in range(5)]
    parts = ["train"] * len(labels) if parts is None else parts
    return Index([f"{i}.png" for i in range(len(labels))], list(parts), list(labels), names)


def measure(features, labels, parts=None, settings=SETTINGS):
    given = Features(np.asarray(features, np.float32), {"source": "x"})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return measure_estimators(given, "imagenet", index_of(labels, parts), "toy", "top1", settings)


def test_a_measurement_has_every_estimator_of_the_training_images_alone():
    rng = np.random.default_rng(0)
    labels = [int(k) for k in rng.integers(0, 5, 200)]
    parts = ["train"] * 100 + ["val"] * 50 + ["test"] * 50
    x = rng.normal(size=(200, 90)) + np.eye(5, 90)[labels] * 4
    found = measure(x, labels, parts)
    other = x.copy()
    other[150:] = 0
    assert measure(other, labels, parts).values == found.values
    values = {value["metric"]: value["value"] for value in found.values}
    assert set(values) == {
        *("h-score", "h-score-shrunk", "log-me", "knn-loo", "ncm", "cdnv", "cdnv-median", "gbc", "trans-rate"),
        *("rank-me", "effective-rank", "stable-rank", "alpha-req", "two-nn", "mle-dimension", "uniformity"),
    } - ({"cdnv"} if "cdnv" not in values else set())
    assert found.details["images"] == 150 == found.coverage["images"]["used"]
    assert values["knn-loo"] > 60 and values["ncm"] > 60
    assert all(outcome.note.startswith("no interval") for outcome in found.outcomes)


def test_samples_are_drawn_equally_for_all_models():
    rng = np.random.default_rng(0)
    labels = [k % 5 for k in range(300)]
    x = rng.normal(size=(300, 8))
    settings = EstimatorSettings("resize16", 5, 60, 100, 3, 0)
    found = measure(x, labels, settings=settings)
    assert found.details["neighbour_images"] == 60
    assert [len(each) for each in found.details["draws"].values()] == [3, 3, 3]
    assert found.warnings[-1:] == measure(x, labels, settings=settings).warnings[-1:]
    assert np.array_equal(geometry.sample_rows(300, 60, 0), geometry.sample_rows(300, 60, 0))
    assert geometry.sample_rows(5, 60, 0).tolist() == [0, 1, 2, 3, 4]


def test_few_images_are_measured_and_said():
    rng = np.random.default_rng(0)
    labels = [0] * 15 + [1] * 15 + [2]
    x = rng.normal(size=(31, 50))
    found = measure(x, labels)
    text = "; ".join(found.warnings)
    assert "number of classes less one" in text and "one training image" in text
    values = {value["metric"]: value["value"] for value in found.values}
    assert "h-score" not in values and "it is 2, the number of classes less one" in text
    assert "h-score-shrunk" in values
    assert np.isfinite(list(values.values())).all()
    repeated = measure(np.repeat(x[:10], 3, axis=0), [k % 2 for k in range(30)])
    assert "no TwoNN dimension" in "; ".join(repeated.warnings)


def test_several_labels_per_image_have_the_estimators_that_allow_them():
    rng = np.random.default_rng(0)
    targets = rng.random((120, 5)) < 0.3
    targets[0] = [True] * 4 + [False]
    x = (rng.normal(size=(120, 12)) + 3 * targets @ rng.normal(size=(5, 12))).astype(np.float32)
    index = index_of([np.flatnonzero(row).tolist() for row in targets])
    found = measure_estimators(Features(x, {"source": "x"}), "imagenet", index, "toy", "map11", SETTINGS)
    values = {value["metric"]: value["value"] for value in found.values}
    free = {"rank-me", "effective-rank", "stable-rank", "two-nn", "mle-dimension", "uniformity"}
    assert set(values) - {"alpha-req"} == {"log-me", "knn-loo"} | free
    expected = [best_evidence(x.astype(float), column.astype(float)) for column in targets.T]
    assert values["log-me"] == pytest.approx(np.mean(expected) / 120, rel=1e-6)
    rows = rng.permutation(120)
    mixed = index_of([np.flatnonzero(targets[row]).tolist() for row in rows])
    other = measure_estimators(Features(x, {"source": "x"}), "imagenet", mixed, "toy", "map11", SETTINGS)
    lower = {value["metric"]: value["value"] for value in other.values}
    assert lower["log-me"] < values["log-me"] and lower["knn-loo"] < values["knn-loo"] - 5
    assert all(lower[name] == values[name] for name in free)


def test_constant_features_change_nothing_but_what_counts_them():
    rng = np.random.default_rng(0)
    labels = [k % 5 for k in range(200)]
    x = rng.normal(size=(200, 8)) + np.eye(5, 8)[labels]
    plain = {v["metric"]: v["value"] for v in measure(x, labels).values}
    more = {v["metric"]: v["value"] for v in measure(np.hstack([x, np.zeros((200, 2))]), labels).values}
    assert set(plain) <= set(more)
    widths = {
        "h-score-shrunk",
        "rank-me",
        "alpha-req",
    }  # the shrinkage, the epsilon and the fitted range know the width
    assert {m: more[m] for m in plain if m not in widths} == pytest.approx(
        {m: plain[m] for m in plain if m not in widths}, rel=1e-6
    )
    assert more["rank-me"] == pytest.approx(plain["rank-me"], rel=1e-4)


@pytest.mark.parametrize(
    ("features", "labels", "message"),
    [
        (np.ones((20, 4)), [k % 2 for k in range(20)], "features of all 20 training images are equal"),
        (np.arange(80).reshape(20, 4), [1] * 20, "all training images are of class class 1"),
        (np.ones((1, 4)), [1], "1 training images found"),
        (np.ones((20, 4)), [[1]] * 20, "all training images are of class class 1"),
    ],
)
def test_wrong_input_is_refused_in_one_line(features, labels, message):
    with pytest.raises(InputError, match=message):
        measure(features, labels)
