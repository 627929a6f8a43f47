"""Intervals of measured results, and the words that they allow.

Each function returns dict(value, low, high, n, interval): `interval` names the method and the noise that it is over,
`n` counts the sampling units (items, patients, blocks, seeds). All are held against known coverage in
tests/test_intervals.py.
"""

import math

import numpy as np
import pandas as pd
import scipy.stats
from scipy.signal import lfilter

FEWEST_BLOCKS = 6
FEW = 20  # sampling units, below which Student's t stands in for the bootstrap of a mean


def result(value, low, high, n, interval):
    """The estimate as a dict of plain numbers; rounding never puts the value outside its own interval."""
    value = float(value)
    return dict(value=value, low=min(float(low), value), high=max(float(high), value), n=int(n), interval=interval)


def checked(scores, dims=(1,)):
    """Scores as floats; ValueError when there are none, one is not finite, or the shape is wrong."""
    scores = np.asarray(scores, dtype=float)
    if scores.ndim not in dims or not scores.size:
        raise ValueError(
            f"scores of shape {scores.shape}: {' or '.join(f'{d}-dimensional' for d in dims)} and not empty"
        )
    if not np.isfinite(scores).all():
        raise ValueError(f"{(~np.isfinite(scores)).sum()} of {scores.size} scores are not finite")
    return scores


def share_of(scores):
    """What a right answer counts (1 or 100) where every score is 0 or that much, else None. All 0: None, not known."""
    found = set(np.unique(scores))
    return next((full for full in (1.0, 100.0) if found <= {0.0, full} and found != {0.0}), None)


def scale_of(scores, full):
    """`full` as it was given, held against the scores, or as they show it; None: they are no right and wrong."""
    if full is None:
        return share_of(scores)
    if full and not set(np.unique(scores)) <= {0.0, full}:
        raise ValueError(f"scores from {scores.min():g} to {scores.max():g} are not all 0 or {full:g}")
    return full or None


# ---------------------------------------------------------------- proportions


def wilson(right, n, level=0.95, full=1.0, t_units=None):
    """Wilson's score interval of `right` of `n` (Wilson 1927), times `full`; n may be an effective number.

    t_units: with so few sampling units the normal quantile gives way to Student's t with t_units - 1 degrees.
    """
    tail = (1 + level) / 2
    z = scipy.stats.norm.ppf(tail) if t_units is None else scipy.stats.t.ppf(tail, max(t_units - 1, 1))
    p = right / n
    middle, half = p + z**2 / (2 * n), z * np.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    low, high = (max(0.0, (middle - half) / (1 + z**2 / n)), min(1.0, (middle + half) / (1 + z**2 / n)))
    return full * p, full * low, full * high


def bonett_price(more, less, n, level=0.95):
    """Ends of the interval of a paired difference of shares: ours alone right in `more` of n, theirs alone in `less`.

    Bonett and Price (2012): one more of each, and two more items, so that it has a width where both always agree.
    """
    up, down = (more + 1) / (n + 2), (less + 1) / (n + 2)
    half = scipy.stats.norm.ppf((1 + level) / 2) * np.sqrt((up + down - (up - down) ** 2) / (n + 2))
    return up - down - half, up - down + half


# ---------------------------------------------------------------- items, drawn by their units


def by_unit(scores, groups):
    """Sum of the scores and number of items of each sampling unit: (U,), (U,)."""
    if groups is None:
        return scores, np.ones(len(scores))
    groups = np.asarray(groups)
    if pd.isna(groups).any():
        raise ValueError(f"{pd.isna(groups).sum()} items have no group")
    if groups.shape != scores.shape[-1:]:
        raise ValueError(f"groups of shape {groups.shape} for {scores.shape[-1]} items")
    _, code = np.unique(groups, return_inverse=True)
    return np.bincount(code, scores), np.bincount(code).astype(float)


def variance_of_mean(sums, sizes):
    """Variance of sum(sums) / sum(sizes) when whole units are drawn (linearised ratio)."""
    units = len(sums)
    if units < 2:
        return 0.0
    left = sums - sums.sum() / sizes.sum() * sizes
    return units / (units - 1) * (left**2).sum() / sizes.sum() ** 2


def by_class(scores, groups, classes):
    """Mean over classes of each class's mean: (mean, variance, its degrees of freedom, units, worth in items and units)

    scores (N,), classes (N,); class sizes hold still, whole units are drawn inside them (linearised; Satterthwaite's
    degrees of freedom). Worth: so many equally weighted items (units) would have its variance if all classes had the
    same, K^2 / sum(1 / n_c); in items only where each class shows its spread between units. ValueError for a class with
    one unit, whose variance nobody knows.
    """
    classes = np.asarray(classes)
    if classes.shape != scores.shape or pd.isna(classes).any():
        raise ValueError(f"classes of shape {classes.shape}, {pd.isna(classes).sum()} missing, for {len(scores)} items")
    names, place, counts = np.unique(classes, return_inverse=True, return_counts=True)
    by_unit(scores, groups)  # refuses groups that do not fit
    unit = np.unique(np.arange(len(scores)) if groups is None else np.asarray(groups), return_inverse=True)[1]
    own = np.array([len(np.unique(unit[place == k])) for k in range(len(names))])  # units of each class
    if own.min() < 2:
        raise ValueError(f"class {names[own.argmin()]} has a single unit: no interval of a mean over classes")
    weight = 1 / (len(names) * counts[place])  # (N,), sum 1
    means = np.bincount(place, scores) / counts
    away = weight * (scores - means[place]) * np.sqrt(own / (own - 1))[place]
    parts = np.array([(np.bincount(unit, away * (place == k)) ** 2).sum() for k in range(len(names))])
    free = parts.sum() ** 2 / (parts**2 / (own - 1)).sum() if parts.any() else (own - 1).min()
    worth = [len(names) ** 2 / (1 / number).sum() for number in (counts if parts.all() else own, own)]
    return means.mean(), (np.bincount(unit, away) ** 2).sum(), free, int(unit.max() + 1), *worth


def over_items(scores, groups=None, of="test items", full=None, level=0.95, seed=0, classes=None):
    """Mean over test items. scores: (N,).

    groups: (N,) the sampling unit of each item (patient, flight, day); whole units are drawn. None: items are units.
    Right or wrong (every score is 0 or 1, or 0 or 100): Wilson's interval, with the effective number of items where
    units hold several. Else: percentile bootstrap over units. full: 1 or 100 where all are 0, False for the latter.

    classes: (N,) the class of each item. The mean is then that of the classes' means (macro recall, where scores are
    right and wrong) with class sizes held fixed; Wilson with the effective number, else Student's t.
    """
    scores = checked(scores)
    if classes is not None:
        return over_classes(scores, groups, of, scale_of(scores, full), level, classes)
    sums, sizes = by_unit(scores, groups)
    units, mean, full = len(sums), scores.mean(), scale_of(scores, full)
    if full:
        p, spread = mean / full, variance_of_mean(sums, sizes) / full**2
        if groups is None:
            n, few = units, None
        else:  # design effect: so many independent items would have this variance
            n, few = (min(p * (1 - p) / spread, len(scores)) if spread > 0 else units), units
        return result(*wilson(p * n, n, level, full, few), units, f"Wilson, {of}")
    if np.ptp(scores) == 0 or units == 1:
        return result(mean, mean, mean, units, f"no spread, {of}" if units > 1 else f"one of {of}: no interval")
    if units < FEW:  # there the bootstrap holds too little: 51 % of two units, 90 % of ten
        half = scipy.stats.t.ppf((1 + level) / 2, units - 1) * np.sqrt(variance_of_mean(sums, sizes))
        return result(mean, mean - half, mean + half, units, f"Student t, {of}")
    return over_draws(lambda i: sums[i].sum(-1) / sizes[i].sum(-1), units, of, level, 2000, seed, vectorized=True)


def over_classes(scores, groups, of, full, level, classes, seeds=0.0, seeds_free=1):
    """Mean of the classes' means with its interval; `seeds`: variance of the seeds' mean, to be added."""
    mean, spread, free, units, items, worth = by_class(scores, groups, classes)
    total, free = summed(seeds, seeds_free, spread, free) if seeds else (spread, free)
    if full:
        p = mean / full
        n = min(p * (1 - p) / (total / full**2), items) if total > 0 else worth
        few = None if groups is None and not seeds else free + 1
        return result(*wilson(p * n, n, level, full, few), units, f"Wilson, {of}, classes weighted equally")
    if total == 0:
        return result(mean, mean, mean, units, f"no spread, {of}")
    half = scipy.stats.t.ppf((1 + level) / 2, free) * np.sqrt(total)
    return result(mean, mean - half, mean + half, units, f"Student t, {of}, classes weighted equally")


def over_draws(statistic, units, of, level=0.95, draws=2000, seed=0, vectorized=False):
    """Percentile bootstrap of any statistic of sampling units (AUC, macro recall, AP).

    statistic(index): the figure of the units at `index`, an array of numbers from 0 to units - 1, some several times;
    vectorized: it takes (D, units) and gives (D,). A draw without a figure (NaN: a class is missing) is left out.
    """
    rng, every = np.random.default_rng(seed), np.arange(units)
    value = statistic(every)
    if vectorized:
        parts = [statistic(rng.integers(0, units, (min(100, draws - done), units))) for done in range(0, draws, 100)]
        found = np.concatenate(parts)
    else:
        found = np.array([statistic(rng.integers(0, units, units)) for _ in range(draws)])
    found = found[np.isfinite(found)]
    if not np.isfinite(value) or len(found) < draws / 2:
        raise ValueError(f"the statistic has no value in {draws - len(found)} of {draws} draws of {of}")
    low, high = np.quantile(found, [(1 - level) / 2, (1 + level) / 2])
    return result(value, low, high, units, f"bootstrap, {of}")


# ---------------------------------------------------------------- seeds, and seeds with items


def over_seeds(values, level=0.95):
    """Mean over seeds with Student's t interval; infinite for one seed, or when the seeds do not differ at all."""
    values = checked(values)
    half = np.inf
    if np.ptp(values) > 0:
        half = scipy.stats.t.ppf((1 + level) / 2, len(values) - 1) * scipy.stats.sem(values)
    return result(values.mean(), values.mean() - half, values.mean() + half, len(values), "Student t, seeds")


def summed(first, first_free, second, second_free):
    """Sum of two variances, and its degrees of freedom (Satterthwaite 1946)."""
    total = first + second
    if total == 0:
        return 0.0, second_free
    return total, total**2 / (first**2 / first_free + second**2 / second_free)


def over_seeds_and_items(scores, groups=None, of="test items", full=None, level=0.95, classes=None):
    """Mean over seeds and items, both of which could have come out otherwise. scores: (S, N), S seeds on N items.

    Variance of the seeds' means plus variance of the items' means (rows and columns of the table). The noise of single
    cells is in both, so the interval is rather too wide; where few seeds differ a lot it is a little too narrow.
    Student's t with Satterthwaite's (1946) degrees of freedom; Wilson with the effective number where every score is 0
    or 1 (or 0 or 100). classes: as in over_items.
    """
    scores = checked(scores, dims=(2,))
    seeds, mean = len(scores), scores.mean()
    if seeds == 1:
        return over_items(scores[0], groups, of + ", one seed", full, level, classes=classes)
    name = f"seeds and {of}, {seeds} seeds"
    if classes is not None:
        each = [by_class(row, groups, classes)[0] for row in scores]
        of_seeds, full = np.var(each, ddof=1) / seeds, scale_of(scores, full)
        return over_classes(scores.mean(0), groups, name, full, level, classes, of_seeds, seeds - 1)
    sums, sizes = by_unit(scores.mean(0), groups)
    units = len(sums)
    if units == 1:
        raise ValueError(f"one of {of}: no interval over {of}; over_seeds takes the seeds' means")
    total, df = summed(scores.mean(1).var(ddof=1) / seeds, seeds - 1, variance_of_mean(sums, sizes), units - 1)
    full = scale_of(scores, full)
    if full:
        p = mean / full
        n = min(p * (1 - p) / (total / full**2), scores.size) if total > 0 else units
        return result(*wilson(p * n, n, level, full, df + 1), units, f"Wilson, {name}")
    half = scipy.stats.t.ppf((1 + level) / 2, df) * np.sqrt(total)
    return result(mean, mean - half, mean + half, units, f"Student t, {name}")


# ---------------------------------------------------------------- series


def correlation_time(series):
    """Integrated autocorrelation time of a series (T,), in steps: T / it is the number of independent values.

    Sokal's (1997) window: the sum of the autocorrelations stops at five times what it has reached.
    """
    series = series - series.mean()
    power = np.abs(np.fft.rfft(series, 2 * len(series))) ** 2
    acf = np.fft.irfft(power)[: len(series)]
    if acf[0] <= 0:
        return 1.0
    times = 2 * np.cumsum(acf / acf[0]) - 1
    wide = np.arange(len(series)) >= 5 * times
    return max(1.0, times[wide.argmax() if wide.any() else -1])


def block_errors(series, size):
    """Standard errors of the mean, from the means of whole blocks. series: (M, T) -> (M,)."""
    blocks = series.shape[1] // size
    means = series[:, series.shape[1] - blocks * size :].reshape(len(series), blocks, size).mean(2)  # (M, blocks)
    return scipy.stats.sem(means, axis=1)


def over_blocks(scores, of="hours", period=1, level=0.95, simulations=1000, seed=0):
    """Mean of scores that follow one another in time. scores: (T,), in the order of time, or (S, T) of S seeds.

    Blocks are as long as the data ask for (eight correlation times, a multiple of `period`, at most T / 6 steps), and
    their means are treated as independent. How often this holds the truth is simulated, for an AR(1) process of this
    length and dependence, and stands in `interval` and as `coverage`. The variance of several seeds' means is added.
    """
    scores = checked(scores, dims=(1, 2))
    series = scores if scores.ndim == 1 else scores.mean(0)
    steps = len(series)
    if steps < 2 * FEWEST_BLOCKS:
        raise ValueError(f"{steps} {of}: at least {2 * FEWEST_BLOCKS} are needed for blocks")
    if np.ptp(scores) == 0:
        return result(series[0], series[0], series[0], steps, f"no spread, {of}")
    time = correlation_time(series)
    size = int(np.ceil(8 * time / period)) * period
    if size > steps // FEWEST_BLOCKS:
        size = max(steps // FEWEST_BLOCKS // period * period, 1)
    blocks, words = steps // size, f"blocks of {size} {of}"
    error = block_errors(series[None], size)[0]
    half = scipy.stats.t.ppf((1 + level) / 2, blocks - 1) * error
    if scores.ndim == 2 and len(scores) > 1:
        total, df = summed(scores.mean(1).var(ddof=1) / len(scores), len(scores) - 1, error**2, blocks - 1)
        half, words = scipy.stats.t.ppf((1 + level) / 2, df) * np.sqrt(total), f"{len(scores)} seeds and {words}"

    first = np.corrcoef(series[1:], series[:-1])[0, 1] if np.ptp(series) > 0 else 0.0
    first += (1 + 3 * first) / steps  # Kendall (1954): the estimate is too small by so much
    phi = float(np.clip(max(first, (time - 1) / (time + 1)), 0, 0.999))
    noise = np.random.default_rng(seed).standard_normal((simulations, steps))
    noise[:, 0] /= np.sqrt(1 - phi**2)  # begins in its stationary state
    drawn = lfilter([1.0], [1.0, -phi], noise, axis=1)
    held = np.abs(drawn.mean(1)) <= scipy.stats.t.ppf((1 + level) / 2, blocks - 1) * block_errors(drawn, size)
    coverage = float(held.mean())
    words = f"Student t, {words}, {100 * coverage:.0f} % coverage of the blocks in simulation"
    mean = scores.mean()
    return result(mean, mean - half, mean + half, blocks, words) | {"coverage": round(coverage, 3)}


# ---------------------------------------------------------------- comparisons, words


def mean_of(scores, groups=None, of="test items", full=None, series=False, level=0.95, classes=None):
    """The interval that fits the scores: (N,) items, (S, N) seeds and items; with series, steps in time."""
    scores = checked(scores, dims=(1, 2))
    if series:
        if groups is not None or classes is not None:
            raise ValueError("a series has blocks of its steps, no groups and no classes")
        return over_blocks(scores, of, level=level)
    over = over_items if scores.ndim == 1 else over_seeds_and_items
    return over(scores, groups, of, full, level, classes=classes)


def difference(ours, theirs, groups=None, of="test items", full=None, series=False, level=0.95, classes=None):
    """Paired difference, ours - theirs, on the same items (and seeds). Both: (N,) or (S, N); classes: as in over_items.

    Right against wrong: on independent items Bonett and Price (2012), with groups, seeds or classes never narrower than
    theirs over the units (so it holds the truth in 98 to 100 % of cases there), and within what is possible.
    """
    ours, theirs = checked(ours, dims=(1, 2)), checked(theirs, dims=(1, 2))
    if ours.shape != theirs.shape:
        raise ValueError(f"scores of shapes {ours.shape} and {theirs.shape} can't be paired")
    if {share_of(ours), share_of(theirs)} >= {1.0, 100.0}:
        raise ValueError("a right answer counts 1 on one side and 100 on the other")
    scores, full = ours - theirs, scale_of(np.concatenate([ours.ravel(), theirs.ravel()]), full)
    if full is None or series:
        return mean_of(scores, groups, of, False, series, level, classes)
    by_item = scores if scores.ndim == 1 else scores.mean(0)
    if classes is None:
        sums, sizes = by_unit(by_item, groups)
        apart = sums / sizes / full  # of each unit, from -1 to 1
        units, more, less = len(apart), apart[apart > 0].sum(), -apart[apart < 0].sum()
    else:
        more, less = (by_class(part, groups, classes)[0] / full for part in (by_item.clip(min=0), -by_item.clip(max=0)))
        units = by_class(by_item, groups, classes)[-1]
        more, less = units * more, units * less
    low, high = bonett_price(more, less, units, level)
    if scores.ndim == 1 and groups is None and classes is None:
        return result(scores.mean(), full * low, full * high, len(scores), f"Bonett and Price, {of}")
    found = mean_of(scores, groups, of, False, level=level, classes=classes)
    value, room = found["value"], full * (high - low) / 2
    if value - room < found["low"] and value + room > found["high"]:
        found["interval"] = f"Bonett and Price over units, {of}"
    low, high = min(found["low"], value - room), max(found["high"], value + room)
    return found | dict(low=float(max(low, -full)), high=float(min(high, full)))


def verdict(difference, better="better than", worse="worse than", same="not distinguishable from"):
    """The words that an interval of a difference allows: zero inside means that the two cannot be told apart."""
    if difference["low"] > 0:
        return better
    return worse if difference["high"] < 0 else same


def digits_of(metric):
    """Decimals such that the interval's width has two digits."""
    width = metric["high"] - metric["low"] or abs(metric["value"]) / 10
    return min(6, max(0, 1 - math.floor(math.log10(width)))) if width else 1


def number(value, digits):
    """A figure with so many decimals, without a minus before zero."""
    written = f"{value:.{digits}f}"
    return written.lstrip("-") if float(written) == 0 else written


def text(metric, digits=1):
    """A result with its interval, e.g. "94.1 % [93.6, 94.6]". digits: decimals; None: as the interval's width asks."""
    digits = digits_of(metric) if digits is None else digits
    value, low, high = (number(metric[key], digits) for key in ("value", "low", "high"))
    unit = f" {metric['unit']}" if metric["unit"] else ""
    return f"{value}{unit} [{low}, {high}]"
