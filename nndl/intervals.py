"""Intervals of measured results, and the words that they allow.

Each function returns dict(value, low, high, n, interval): `interval` names the method and the noise that it is over,
`n` counts the sampling units (items, patients, blocks, seeds). All are held against known coverage in
tests/test_intervals.py.
"""

import numpy as np
import scipy.stats
from scipy.signal import lfilter

FEWEST_BLOCKS = 6


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


def never_seen(n, level=0.95):
    """Largest share that can stay unseen in n units: 1 - ((1 - level) / 2)**(1/n) (Clopper and Pearson 1934)."""
    return 1 - ((1 - level) / 2) ** (1 / n)


# ---------------------------------------------------------------- items, drawn by their units


def by_unit(scores, groups):
    """Sum of the scores and number of items of each sampling unit: (U,), (U,)."""
    if groups is None:
        return scores, np.ones(len(scores))
    groups = np.asarray(groups)
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


def over_items(scores, groups=None, of="test items", full=None, level=0.95, seed=0):
    """Mean over test items. scores: (N,).

    groups: (N,) the sampling unit of each item (patient, flight, day); whole units are drawn. None: items are units.
    Right or wrong (every score is 0 or 1, or 0 or 100): Wilson's interval, with the effective number of items where
    units hold several. Else: percentile bootstrap over units. full: 1 or 100 where all are 0, False for the latter.
    """
    scores = checked(scores)
    sums, sizes = by_unit(scores, groups)
    units, mean, full = len(sums), scores.mean(), share_of(scores) if full is None else full
    if full:
        p, spread = mean / full, variance_of_mean(sums, sizes) / full**2
        if groups is None:
            n, few = units, None
        else:  # design effect: so many independent items would have this variance
            n, few = (min(p * (1 - p) / spread, len(scores)) if spread > 0 else units), units
        return result(*wilson(p * n, n, level, full, few), units, f"Wilson, {of}")
    if np.ptp(scores) == 0 or units == 1:
        return result(mean, mean, mean, units, f"no spread, {of}" if units > 1 else f"one of {of}: no interval")
    return over_draws(lambda i: sums[i].sum(-1) / sizes[i].sum(-1), units, of, level, 2000, seed, vectorized=True)


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


def over_seeds_and_items(scores, groups=None, of="test items", full=None, level=0.95):
    """Mean over seeds and items, both of which could have come out otherwise. scores: (S, N), S seeds on N items.

    Variance of the seeds' means plus variance of the items' means (rows and columns of the table). The noise of single
    cells is in both, so the interval is rather too wide; where few seeds differ a lot it is a little too narrow.
    Student's t with Satterthwaite's (1946) degrees of freedom; Wilson with the effective number where every score is 0
    or 1 (or 0 or 100).
    """
    scores = checked(scores, dims=(2,))
    seeds, mean = len(scores), scores.mean()
    if seeds == 1:
        return over_items(scores[0], groups, of + ", one seed", full, level)
    sums, sizes = by_unit(scores.mean(0), groups)
    units, name = len(sums), f"seeds and {of}, {seeds} seeds"
    parts = np.array([scores.mean(1).var(ddof=1) / seeds, variance_of_mean(sums, sizes)])
    free = np.array([seeds - 1, max(units - 1, 1)])
    total = parts.sum()
    df = total**2 / (parts**2 / free).sum() if total > 0 else units - 1
    full = share_of(scores) if full is None else full
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


def block_half_widths(series, size, level):
    """Half widths of Student's t intervals from means of whole blocks. series: (M, T) -> (M,)."""
    blocks = series.shape[1] // size
    means = series[:, series.shape[1] - blocks * size :].reshape(len(series), blocks, size).mean(2)  # (M, blocks)
    return scipy.stats.t.ppf((1 + level) / 2, blocks - 1) * scipy.stats.sem(means, axis=1)


def over_blocks(scores, of="hours", period=1, level=0.95, simulations=1000, seed=0):
    """Mean of scores that follow one another in time. scores: (T,), in the order of time.

    Blocks are as long as the data ask for (eight correlation times, a multiple of `period`, at most T / 6 steps), and
    their means are treated as independent. How often this holds the truth is simulated, for an AR(1) process of this
    length and dependence, and stands in `interval` and as `coverage`.
    """
    scores = checked(scores)
    if len(scores) < 2 * FEWEST_BLOCKS:
        raise ValueError(f"{len(scores)} {of}: at least {2 * FEWEST_BLOCKS} are needed for blocks")
    if np.ptp(scores) == 0:
        return result(scores[0], scores[0], scores[0], len(scores), f"no spread, {of}")
    time = correlation_time(scores)
    size = int(np.ceil(8 * time / period)) * period
    if size > len(scores) // FEWEST_BLOCKS:
        size = max(len(scores) // FEWEST_BLOCKS // period * period, 1)
    half = block_half_widths(scores[None], size, level)[0]

    first = np.corrcoef(scores[1:], scores[:-1])[0, 1]
    first += (1 + 3 * first) / len(scores)  # Kendall (1954): the estimate is too small by so much
    phi = float(np.clip(max(first, (time - 1) / (time + 1)), 0, 0.999))
    noise = np.random.default_rng(seed).standard_normal((simulations, len(scores)))
    noise[:, 0] /= np.sqrt(1 - phi**2)  # begins in its stationary state
    series = lfilter([1.0], [1.0, -phi], noise, axis=1)
    coverage = float((np.abs(series.mean(1)) <= block_half_widths(series, size, level)).mean())
    words = f"Student t, blocks of {size} {of}, {100 * coverage:.0f} % coverage in simulation"
    return result(scores.mean(), scores.mean() - half, scores.mean() + half, len(scores) // size, words) | {
        "coverage": round(coverage, 3)
    }


# ---------------------------------------------------------------- comparisons, words


def mean_of(scores, groups=None, of="test items", full=None, series=False, level=0.95):
    """The interval that fits the scores: (N,) items, (S, N) seeds and items, or (with series) steps in time."""
    scores = checked(scores, dims=(1, 2))
    if series:
        return over_blocks(scores if scores.ndim == 1 else scores.mean(0), of, level=level)
    over = over_items if scores.ndim == 1 else over_seeds_and_items
    return over(scores, groups, of, full, level)


def difference(ours, theirs, groups=None, of="test items", full=None, series=False, level=0.95):
    """Paired difference, ours - theirs, on the same items (and seeds). Both: (N,) or (S, N).

    Right against wrong on independent items: Bonett and Price (2012), which has a width where both always agree.
    """
    ours, theirs = checked(ours, dims=(1, 2)), checked(theirs, dims=(1, 2))
    if ours.shape != theirs.shape:
        raise ValueError(f"scores of shapes {ours.shape} and {theirs.shape} can't be paired")
    scores, full = ours - theirs, full or share_of(np.concatenate([ours.ravel(), theirs.ravel()]))
    if full is None or series:
        return mean_of(scores, groups, of, series=series, level=level)
    if scores.ndim == 1 and groups is None:
        n = len(scores)
        more, less = ((scores == sign * full).sum() for sign in (1, -1))
        up, down = (more + 1) / (n + 2), (less + 1) / (n + 2)
        half = scipy.stats.norm.ppf((1 + level) / 2) * np.sqrt((up + down - (up - down) ** 2) / (n + 2))
        low, high = max(-1.0, up - down - half), min(1.0, up - down + half)
        return result((more - less) / n * full, full * low, full * high, n, f"Bonett and Price, {of}")
    if np.ptp(scores) == 0:
        units = len(by_unit(scores.reshape(-1, scores.shape[-1])[0], groups)[0])
        room = full * never_seen(units, level)
        return result(scores.flat[0], scores.flat[0] - room, scores.flat[0] + room, units, f"Clopper and Pearson, {of}")
    return mean_of(scores, groups, of, full=False, level=level)


def verdict(difference, better="better than", worse="worse than", same="not distinguishable from"):
    """The words that an interval of a difference allows: zero inside means that the two cannot be told apart."""
    if difference["low"] > 0:
        return better
    return worse if difference["high"] < 0 else same


def text(metric, digits=1):
    """A result with its interval, e.g. "94.1 % [93.6, 94.6]"."""
    value, low, high = (f"{metric[key]:.{digits}f}" for key in ("value", "low", "high"))
    return f"{value} {metric['unit']} [{low}, {high}]"
