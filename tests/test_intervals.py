"""Each interval against known coverage: of many simulated data sets, so many must hold the truth; and the words.

A test with R simulations lets the coverage be off by three standard errors of R draws at 95 %, 2.9 points for 500.
Intervals that hold too much are as wrong: twice the width would hold 99.99 %.
"""

import numpy as np
import pytest
import scipy.stats
from scipy.signal import lfilter
from statsmodels.stats.proportion import proportion_confint

from nndl import intervals

R = 500


def coverage(draw, truth, repeats=R):
    """Percent of the intervals draw(rng) that hold the truth."""
    rng = np.random.default_rng(0)
    found = [draw(rng) for _ in range(repeats)]
    return 100 * np.mean([result["low"] <= truth <= result["high"] for result in found])


# ---------------------------------------------------------------- proportions


@pytest.mark.parametrize("right, n", [(50, 50), (0, 50), (3, 40), (999, 1000), (20, 40)])
def test_wilson_is_the_librarys(right, n):
    scores = np.zeros(n)
    scores[:right] = 100
    got = intervals.over_items(scores, full=100)
    low, high = proportion_confint(right, n, method="wilson")
    assert (got["low"], got["high"]) == pytest.approx((100 * low, 100 * high), abs=1e-9)
    assert got["interval"] == "Wilson, test items" and got["n"] == n


def test_all_right_is_not_certain():
    got = intervals.over_items([1.0] * 50)
    assert got["value"] == 1 and got["low"] == pytest.approx(0.929, abs=5e-4) and got["high"] == 1


def test_all_wrong_needs_to_be_told_its_scale():
    assert intervals.over_items(np.zeros(50))["high"] == 0  # could as well be fifty losses of 0
    assert intervals.over_items(np.zeros(50), full=100)["high"] == pytest.approx(7.13, abs=0.01)


@pytest.mark.parametrize("p, n", [(0.5, 60), (0.95, 50), (0.99, 300)])
def test_coverage_of_proportions(p, n):
    assert 92 <= coverage(lambda rng: intervals.over_items((rng.random(n) < p).astype(float)), p) <= 99


@pytest.mark.parametrize("p, units, alike", [(0.9, 40, 0.3), (0.97, 100, 0.3), (0.5, 15, 0.2)])
def test_coverage_of_grouped_proportions(p, units, alike):
    """Several films a patient, alike inside a patient: the naive interval over films holds far less."""

    def draw(rng):
        patients = np.repeat(np.arange(units), rng.integers(1, 12, units))
        own = rng.beta(p * (1 - alike) / alike, (1 - p) * (1 - alike) / alike, units)
        return (rng.random(len(patients)) < own[patients]).astype(float), patients

    assert 90 < coverage(lambda rng: intervals.over_items(*draw(rng), of="patients"), p) < 99
    assert coverage(lambda rng: intervals.over_items(draw(rng)[0]), p) < 88


# ---------------------------------------------------------------- means over classes


RECALLS, SIZES = np.array([0.95, 0.7, 0.5]), np.array([150, 40, 20])


def answers(rng, seeds=None, alike=1):
    """Right and wrong of three classes of unequal size; `alike`: so many items in a row share their fate."""
    classes = np.repeat(np.arange(3), SIZES)
    shape = (len(classes) // alike,) if seeds is None else (seeds, len(classes) // alike)
    right = 100.0 * (rng.random(shape) < RECALLS[classes[::alike]])
    return np.repeat(right, alike, axis=-1), classes


def test_a_mean_over_classes_is_macro_recall():
    right, classes = answers(np.random.default_rng(1))
    got = intervals.over_items(right, classes=classes)
    assert got["value"] == pytest.approx(np.mean([right[classes == k].mean() for k in range(3)]))
    assert got["n"] == SIZES.sum() and "classes weighted equally" in got["interval"]
    even = np.arange(60) % 3  # classes of equal size, equally good: little else than Wilson's own interval
    same = np.tile([100.0] * 12 + [0.0] * 3, 4)
    plain, mean = intervals.over_items(same), intervals.over_items(same, classes=even)
    assert mean["value"] == plain["value"] == 80 and abs(mean["low"] - plain["low"]) < 0.6


def test_the_variance_of_a_mean_over_classes():
    """Classes of two and three: (s1^2 / 2 + s2^2 / 3) / 4 with s1^2 = 2, s2^2 = 9; Welch's degrees of freedom."""
    mean, variance, free, units, items, worth = intervals.by_class(np.array([1.0, 3, 2, 5, 8]), None, [0, 0, 1, 1, 1])
    assert (mean, variance, units) == (pytest.approx(3.5), pytest.approx(1.0), 5)
    assert free == pytest.approx((1 + 3) ** 2 / (1**2 / 1 + 3**2 / 2)) and items == worth == pytest.approx(
        4 / (1 / 2 + 1 / 3)
    )


def test_coverage_of_a_mean_over_classes():
    truth = 100 * RECALLS.mean()

    def draw(rng, **options):
        right, classes = answers(rng, **options)
        return dict(scores=right, classes=classes)

    assert 92 <= coverage(lambda rng: intervals.over_items(**draw(rng)), truth) <= 98
    groups = np.arange(210) // 5  # four of them in the small class
    assert 90 < coverage(lambda rng: intervals.over_items(**draw(rng, alike=5), groups=groups), truth) < 99
    assert coverage(lambda rng: intervals.over_items(**draw(rng, alike=5)), truth) < 80
    assert 93 <= coverage(lambda rng: intervals.over_seeds_and_items(**draw(rng, seeds=3)), truth) <= 100


@pytest.mark.parametrize("large", [2, 3, 5])
def test_coverage_where_a_class_has_few_large_units(large):
    """Forty units of two items, and a few of thirty whose items share their fate: these may all agree by chance."""
    groups = np.concatenate([np.repeat(np.arange(40), 2), 40 + np.repeat(np.arange(large), 30)])
    classes = (groups >= 40).astype(int)

    def draw(rng):
        right = (rng.random(40 + large) < 0.8)[groups]
        return intervals.over_items(right.astype(float), groups, classes=classes)

    assert 92 <= coverage(draw, 0.8) <= 100


def test_coverage_of_a_difference_of_means_over_classes():
    """The other classifier turns a fifth of the answers of the small class around, and no other."""
    change = 100 / 3 * 0.2 * (1 - 2 * RECALLS[2])

    def draw(rng):
        right, classes = answers(rng)
        turned = (classes == 2) & (rng.random(len(classes)) < 0.2)
        other = np.where(turned, 100 - right, right)
        return intervals.difference(other, right, classes=classes)

    assert 93 <= coverage(draw, change) <= 100


def test_all_right_in_a_class_of_two_is_not_certain():
    classes = np.repeat([0, 1, 2], [40, 8, 2])
    got = intervals.over_items(np.full(50, 100.0), classes=classes)
    same = intervals.difference(np.full(50, 100.0), np.full(50, 100.0), classes=classes)
    assert got["high"] == 100 and 70 < got["low"] < 82, "worth 9 / (1/40 + 1/8 + 1/2) = 13.8 items"
    assert -25 < same["low"] < -10 and 10 < same["high"] < 25
    with pytest.raises(ValueError, match="class 2 has a single unit"):
        intervals.over_items(np.full(49, 100.0), classes=classes[:49])
    with pytest.raises(ValueError, match=r"classes of shape \(3,\), 0 missing, for 50 items"):
        intervals.over_items(np.full(50, 100.0), classes=classes[:3])
    with pytest.raises(ValueError, match="1 missing"):
        intervals.over_items(np.full(50, 100.0), classes=np.where(np.arange(50) == 3, np.nan, classes))
    assert intervals.over_items(np.zeros(50), classes=classes)["interval"] == "no spread, test items"
    assert intervals.over_items(np.zeros(50), classes=classes, full=100)["high"] > 15


# ---------------------------------------------------------------- means of items


def test_bootstrap_has_the_width_of_the_normal_interval():
    values = np.random.default_rng(0).normal(5, 2, 2000)
    got = intervals.over_items(values)
    half = 1.96 * values.std() / np.sqrt(len(values))
    assert got["value"] == pytest.approx(values.mean()) and got["n"] == 2000
    assert got["low"] == pytest.approx(values.mean() - half, abs=0.15 * half)
    assert got["high"] == pytest.approx(values.mean() + half, abs=0.15 * half)
    narrow = intervals.over_items(values, level=0.5)
    assert got["low"] < narrow["low"] < narrow["high"] < got["high"]
    assert intervals.over_items(values) == got


def test_coverage_of_grouped_means():
    def draw(rng):
        groups = np.repeat(np.arange(50), 4)
        return rng.normal(0, 1, 50)[groups] + rng.normal(0, 0.5, 200) + 3, groups

    assert 91 <= coverage(lambda rng: intervals.over_items(*draw(rng)), 3) <= 98
    assert coverage(lambda rng: intervals.over_items(draw(rng)[0]), 3) < 80


@pytest.mark.parametrize("n", [3, 5, 10, 19])
def test_coverage_of_few_units(n):
    """Where a percentile bootstrap would hold 73 % (of three) to 93 % (of nineteen)."""
    assert 92 <= coverage(lambda rng: intervals.over_items(rng.normal(1, 2, n)), 1) <= 98
    assert intervals.over_items(np.arange(n))["interval"] == "Student t, test items"


@pytest.mark.parametrize("values", [[0.5, 0.5, 0.5], [7.0, 7.0]])
def test_losses_without_spread(values):
    got = intervals.over_items(values)
    assert got["low"] == got["value"] == got["high"] and got["interval"] == "no spread, test items"


@pytest.mark.parametrize("values", [[], [1.0, np.nan], [[1.0]], [np.inf, 1.0]])
def test_what_is_no_scores(values):
    with pytest.raises(ValueError, match=r"scores"):
        intervals.over_items(values)


@pytest.mark.parametrize("full, scores", [(1, [0, 100, 100]), (100, [0, 1, 1]), (100, [50, 20, 80])])
def test_scores_of_another_scale_are_refused(full, scores):
    with pytest.raises(ValueError, match=r"scores from \d+ to \d+ are not all 0 or"):
        intervals.over_items(scores, full=full)


def test_items_without_a_group_are_refused():
    with pytest.raises(ValueError, match="2 items have no group"):
        intervals.over_items([1.0, 2.0, 4.0], groups=np.array([np.nan, 0, np.nan]))


def test_groups_must_fit():
    with pytest.raises(ValueError, match=r"groups of shape \(2,\) for 3 items"):
        intervals.over_items([1.0, 2.0, 4.0], groups=[0, 1])


def test_coverage_of_any_statistic():
    """AUC of 40 ill and 60 healthy patients, whose truth is known: Phi(d / sqrt 2)."""
    ill = np.arange(100) < 40

    def draw(rng):
        score = rng.normal(ill.astype(float), 1)

        def auc(i):
            return (score[i][ill[i]][:, None] > score[i][~ill[i]]).mean()

        return intervals.over_draws(auc, 100, "patients", draws=200)

    assert 89 <= coverage(draw, scipy.stats.norm.cdf(1 / np.sqrt(2)), repeats=150) <= 99


def test_statistic_without_a_value_is_refused():
    with pytest.raises(ValueError, match="no value in 100 of 100 draws of patients"):
        intervals.over_draws(lambda i: np.nan, 10, "patients", draws=100)


# ---------------------------------------------------------------- seeds


def test_over_seeds_is_the_t_interval():
    values = [0.90, 0.93, 0.95, 0.91]
    got = intervals.over_seeds(values)
    low, high = scipy.stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert (got["value"], got["low"], got["high"]) == pytest.approx((np.mean(values), low, high))
    # by hand: t(0.975, 1) = 12.7062, standard error of 0 and 2 is 1
    assert intervals.over_seeds([0.0, 2.0])["high"] == pytest.approx(1 + 12.7062, abs=1e-4)


@pytest.mark.parametrize("values", [[1.0], [100.0, 100.0, 100.0]])
def test_seeds_without_spread_know_no_interval(values):
    got = intervals.over_seeds(values)
    assert np.isinf(got["low"]) and np.isinf(got["high"])


@pytest.mark.parametrize(
    "seeds, items, by_seed, by_item, by_cell",
    [(3, 400, 0.05, 1, 1), (3, 400, 0.5, 1, 1), (5, 100, 0.1, 1, 0.3), (3, 600, 0, 1, 0.1)],
)
def test_coverage_of_seeds_and_items(seeds, items, by_seed, by_item, by_cell):
    def draw(rng):
        scores = rng.normal(0, by_seed, (seeds, 1)) + rng.normal(0, by_item, items)
        return intervals.over_seeds_and_items(scores + rng.normal(0, by_cell, (seeds, items)))

    # three seeds that differ a lot hold 91 to 94: their variance is known by two degrees of freedom
    assert 90 < coverage(draw, 0) < 99


def test_items_alone_miss_the_noise_of_seeds():
    """What a bootstrap over test items says of a method from one seed, when seeds differ."""

    def draw(rng):
        return intervals.over_items(rng.normal(0, 0.3) + rng.normal(0, 1, 400), level=0.95)

    assert coverage(draw, 0, repeats=100) < 60


def test_three_seeds_that_are_always_right():
    got = intervals.over_seeds_and_items(np.full((3, 1000), 100.0))
    assert got["value"] == 100 and got["low"] == pytest.approx(99.62, abs=0.01) and "3 seeds" in got["interval"]


def test_coverage_of_seeds_and_items_that_are_right_or_wrong():
    rng = np.random.default_rng(1)
    truth = 100 / (1 + np.exp(-(2 + rng.normal(0, 0.2, 10**6) + rng.normal(0, 1.5, 10**6))))

    def draw(rng):
        chance = 1 / (1 + np.exp(-(2 + rng.normal(0, 0.2, (3, 1)) + rng.normal(0, 1.5, 300))))
        return intervals.over_seeds_and_items(100.0 * (rng.random((3, 300)) < chance))

    assert 92 <= coverage(draw, truth.mean()) <= 99


@pytest.mark.parametrize(
    "scores, groups", [(np.ones((3, 1)), None), (np.random.default_rng(0).random((3, 8)), [7] * 8)]
)
def test_one_unit_has_no_interval_over_units(scores, groups):
    with pytest.raises(ValueError, match="one of patients: no interval over patients"):
        intervals.over_seeds_and_items(scores, groups, "patients")


# ---------------------------------------------------------------- series


@pytest.mark.parametrize("phi, least", [(0.0, 92), (0.9, 91), (0.95, 91)])
def test_coverage_of_blocks(phi, least):
    """An AR(1) process; the coverage that is said must be near the one that is found."""
    said = []

    def draw(rng):
        series = lfilter([1.0], [1.0, -phi], rng.standard_normal(3356))[500:]  # 2856 windows
        result = intervals.over_blocks(series, simulations=100)
        said.append(100 * result["coverage"])
        return result

    found = coverage(draw, 0, repeats=200)
    assert least <= found < 99 and abs(found - np.mean(said)) < 5


def test_short_and_dependent_series_says_that_it_holds_less():
    series = lfilter([1.0], [1.0, -0.99], np.random.default_rng(0).standard_normal(900))[500:]
    got = intervals.over_blocks(series)
    assert (
        got["coverage"] < 0.9
        and f"{100 * got['coverage']:.0f} % coverage of the blocks in simulation" in got["interval"]
    )


def test_items_of_a_series_are_not_independent():
    series = lfilter([1.0], [1.0, -0.9], np.random.default_rng(0).standard_normal(3356))[500:]
    block, item = intervals.over_blocks(series), intervals.over_items(series)
    assert block["high"] - block["low"] > 3 * (item["high"] - item["low"])


def test_series_of_several_seeds_has_their_noise_too():
    base = np.random.default_rng(0).normal(0, 1, 400)
    alone, three = intervals.over_blocks(base), intervals.over_blocks(base + np.array([[-5], [0], [5]]))
    assert three["value"] == pytest.approx(alone["value"]) and "3 seeds and blocks of" in three["interval"]
    low, high = intervals.over_seeds(base.mean() + np.array([-5.0, 0, 5]))["low"], three["low"]
    assert high == pytest.approx(low, rel=0.02), "seeds that differ by 5 decide, blocks hardly add"
    assert intervals.mean_of(base + np.array([[-5], [0], [5]]), of="hours", series=True) == three


def test_coverage_of_seeds_and_blocks():
    def draw(rng):
        shared = lfilter([1.0], [1.0, -0.8], rng.standard_normal(900))[500:]
        return intervals.over_blocks(shared + rng.normal(0, 0.2, (4, 1)), simulations=2)

    assert 90 < coverage(draw, 0, repeats=300) < 99


def test_series_has_no_groups():
    with pytest.raises(ValueError, match="a series has blocks of its steps, no groups"):
        intervals.mean_of(np.arange(100.0), groups=np.zeros(3), series=True)


def test_blocks_are_whole_periods():
    got = intervals.over_blocks(np.random.default_rng(0).normal(size=1000), period=24)
    assert "blocks of 24 hours" in got["interval"] and got["n"] == 41


def test_correlation_time_of_an_ar1():
    series = lfilter([1.0], [1.0, -0.8], np.random.default_rng(0).standard_normal(200_000))
    assert intervals.correlation_time(series) == pytest.approx((1 + 0.8) / (1 - 0.8), rel=0.05)
    assert intervals.correlation_time(np.ones(100)) == 1


# ---------------------------------------------------------------- paired differences, words


@pytest.mark.parametrize("n, only_ours, only_theirs", [(50, 0.1, 0.05), (1000, 0.03, 0.02)])
def test_coverage_of_paired_proportions(n, only_ours, only_theirs):
    def draw(rng):
        u = rng.random(n)
        ours = (u < only_ours) | (u > 0.5)
        theirs = ((u >= only_ours) & (u < only_ours + only_theirs)) | (u > 0.5)
        return intervals.difference(100.0 * ours, 100.0 * theirs)

    assert 92 <= coverage(draw, 100 * (only_ours - only_theirs)) <= 99


def test_always_agreeing_is_not_certain():
    right = np.full(50, 100.0)
    got = intervals.difference(right, right)
    assert got["value"] == 0 and got["high"] == pytest.approx(5.33, abs=0.01) and got["low"] == -got["high"]
    got = intervals.difference(right, right, groups=np.arange(50) // 5, of="patients")
    assert got["n"] == 10 and got["high"] == pytest.approx(100 * 1.96 * np.sqrt(2 / 12 / 12), rel=1e-3)


def test_one_sided_differences_of_patients_are_no_proportion():
    """Two patients of fifty where ours alone is right show nothing; Wilson on the differences would exclude zero."""
    groups = np.repeat(np.arange(50), 2)
    ours, theirs = np.full(100, 100.0), np.full(100, 100.0)
    theirs[:4] = 0
    assert intervals.difference(ours, theirs, groups, "patients")["low"] <= 0


@pytest.mark.parametrize("seeds", [1, 3])
def test_a_difference_stays_within_what_is_possible(seeds):
    ours, theirs, groups = np.full((seeds, 100), 100.0), np.zeros((seeds, 100)), np.repeat(np.arange(20), 5)
    got = intervals.difference(ours.squeeze(), theirs.squeeze(), groups, "patients")
    assert got["value"] == got["high"] == 100 and got["low"] < 100


def test_less_agreement_is_no_narrower():
    same, other = np.full((3, 1000), 100.0), np.full((3, 1000), 100.0)
    widths = []
    for differing in (0, 1, 10):
        other[0, :differing] = 0
        got = intervals.difference(same, other)
        widths.append(got["high"] - got["low"])
    assert widths[0] <= widths[1] * 1.001 and widths[1] <= widths[2]


def test_two_scales_are_refused():
    with pytest.raises(ValueError, match="counts 1 on one side and 100 on the other"):
        intervals.difference([0.0, 1.0, 1.0], [0.0, 100.0, 100.0])


def test_pairing_is_used():
    """A difference of 1 under a noise of 10 that both methods share."""
    rng = np.random.default_rng(0)
    shared = rng.normal(0, 10, 200)
    got = intervals.difference(shared + rng.normal(1, 0.5, 200), shared)
    assert 0.8 < got["low"] < got["high"] < 1.2
    with pytest.raises(ValueError, match="can't be paired"):
        intervals.difference(shared, shared[:5])


@pytest.mark.parametrize(
    "low, high, words",
    [
        (0.1, 0.3, "better than"),
        (-0.3, -0.1, "worse than"),
        (-0.1, 0.3, "not distinguishable from"),
        (0.0, 0.3, "not distinguishable from"),
        (-0.3, 0.0, "not distinguishable from"),
    ],
)
def test_verdict(low, high, words):
    assert intervals.verdict(dict(low=low, high=high)) == words
    own = {"better than": "up", "worse than": "down", "not distinguishable from": "even"}
    assert intervals.verdict(dict(low=low, high=high), "up", "down", "even") == own[words]


def test_text():
    assert intervals.text(dict(value=94.12, low=93.6, high=94.64, unit="%")) == "94.1 % [93.6, 94.6]"
    assert intervals.text(dict(value=0.0041, low=0.0012, high=0.0071, unit=""), None) == "0.0041 [0.0012, 0.0071]"
    assert intervals.text(dict(value=0.5, low=0.25, high=0.75, unit="nats"), 2) == "0.50 nats [0.25, 0.75]"
