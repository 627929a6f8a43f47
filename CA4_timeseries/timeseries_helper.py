"""Data and drawing for the forecasting assignment: no model, no loss, no method.

A series is a table of float64 values, shape (T, C), NaN where nothing was measured, on a regular grid of times.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from statsmodels.datasets import co2

from nndl import files
from nndl.figures import BLUE, COLOURS, GREEN, GREY, ORANGE, PINK, finish, style  # noqa: F401 (notebooks take them from here)
from nndl.files import DataError
from nndl.lab import LabError

LEVELS = (0.5, 0.8, 0.9, 0.95)
DAY = 24 * 60 * 60  # seconds
KINDS = ("raw", "split", "adaptive")  # forms of an interval, and of a whole distribution
BASELINES = ("persistence", "seasonal persistence", "ridge on lags", "ARIMA", "MLP, point forecast",
             "DLinear, point forecast", "GRU, point forecast")  # fmt: skip
ENSEMBLE, POOL, EVEN = "GRU, deep ensemble", "linear pool", "linear pool, even weights"
WITHOUT, ONLY = "linear pool without GRU and LSTM", "linear pool of GRU and LSTM"


@dataclass
class Series:
    """A time series, its target and its split.

    values: (T, C), NaN where missing; columns: C names; target: the column to forecast.
    borders: rows (b1, b2, b3, b4); training is [0, b1), validation [b1, b2), calibration [b2, b3), test [b3, b4).
    season: steps in a season; memory: steps after which what adapts has forgotten half.
    unit: of the target; step: name of one step.
    """

    name: str
    source: str  # "real" or "embedded"
    values: np.ndarray
    times: pd.DatetimeIndex
    columns: list
    target: str
    borders: tuple
    season: int
    memory: int
    unit: str
    step: str
    note: str = ""

    def counts(self):
        """Rows of each part."""
        edges = (0, *self.borders)
        names = ("train", "validation", "calibration", "test")
        return {name: int(after - before) for name, before, after in zip(names, edges, edges[1:], strict=False)}

    def missing(self):
        """Share of values that are missing."""
        return float(np.isnan(self.values).mean())

    def phase(self):
        """Place of each row in its season, 0 to season - 1, shape (T,)."""
        return season_phase(self.times, self.season)

    def is_year(self):
        """Whether the season is a year of 52 weeks or of 12 months."""
        step = (self.times[1] - self.times[0]).total_seconds() / DAY
        return (self.season == 52 and step == 7) or (self.season == 12 and 28 <= step <= 31)

    def season_name(self):
        """What the bins of `season_bins` are."""
        if self.season == 24 and self.times[1] - self.times[0] == pd.Timedelta(hours=1):
            return "hour of day"
        return "month" if self.is_year() else f"place in a season of {self.season} {self.step}s"

    def season_bins(self):
        """For each row its bin: the hour of a day, the month of a year of weeks or months, else the phase: (T,)."""
        return self.times.month.to_numpy() - 1 if self.is_year() else self.phase()

    def cut(self, rows):
        """A shorter series around the begin of its test part; 0: as it is.

        Validation, calibration and test get at most `rows` rows, training three times as many.
        """
        if not rows:
            return self
        b3, b4 = self.borders[2:]
        if 5 * rows > b3:
            raise LabError(f"setting rows={rows}: {self.name} has {b3} rows before its test part; {b3 // 5} at most")
        keep = np.arange(b3 - 5 * rows, min(b4, b3 + rows))
        borders = tuple(int(b) for b in (3 * rows, 4 * rows, 5 * rows, len(keep)))
        note = "; ".join(filter(None, (self.note, f"{len(keep)} rows of it")))
        return replace(self, values=self.values[keep], times=self.times[keep], borders=borders, note=note)


def season_phase(times, season):
    """Number of the step within a season that begins at midnight (24 or fewer steps a day) or with the year.

    Years are those of 52 weeks, of 12 months, or of 4 quarters.
    """
    step = (times[1] - times[0]).total_seconds()
    if step >= 28 * DAY and (times.day.nunique() == 1 or times.is_month_end.all()):  # rows of months, not of days
        months = 12 * times.year.to_numpy() + times.month.to_numpy() - 1
        return months // (months[1] - months[0]) % season
    if season == 52 and step == 7 * DAY:
        return ((times.day_of_year.to_numpy() - 1) // 7) % 52
    since_monday = (times - times[0].normalize() + pd.Timedelta(days=times[0].day_of_week)).total_seconds().to_numpy()
    return np.round(since_monday / step).astype(int) % season


# ---------------------------------------------------------------- any CSV


def time_grid(times, where):
    """All times from the first to the last (sorted) in steps of the commonest length, in months where that fits.

    Monthly and yearly rows are not evenly spaced in days: they stand on the same day of the month, or on its last.
    """
    months = 12 * times.year + times.month
    steps = pd.Series(times).diff().dropna()
    if len(times) > 1 and steps.min() >= pd.Timedelta(days=28):
        ends = times.is_month_end.all()
        if ends or times.day.nunique() == 1:
            count = int(pd.Series(months).diff().dropna().mode().iloc[0])
            first, every = times[0].replace(day=1), range(0, months[-1] - months[0] + 1, count)
            grid = pd.DatetimeIndex([first + pd.DateOffset(months=k) for k in every])
            grid = grid + (pd.offsets.MonthEnd(0) if ends else pd.Timedelta(days=times[0].day - 1))
            if times.isin(grid).all():
                refuse_gaps(times, len(grid), where)
                return grid
    step = steps.mode().iloc[0] if len(steps) else pd.Timedelta(hours=1)
    refuse_gaps(times, (times[-1] - times[0]) // step + 1, where)  # before the grid: it could fill the memory
    grid = pd.date_range(times[0], times[-1], freq=step)
    off = times.difference(grid)
    if len(off):
        raise DataError(f"{where}: time {off[0]} is not on the grid of one row every {step}; resample first")
    return grid


def refuse_gaps(times, count, where):
    """DataError where less than half of the `count` times of a grid are there: one mistyped year is enough for that."""
    if count > 2 * len(times):
        gaps = times.to_series().diff()
        raise DataError(
            f"{where}: of {count} times on the grid only {len(times)} are there; the largest gap, {gaps.max()}, "
            f"ends at {gaps.idxmax()}: mend that time, or cut the file there"
        )


LARGEST = 1e15  # of a value: squares of larger ones are not safe in 32 bits
STEPS = {"second": 1, "minute": 60, "hour": 60 * 60, "day": DAY, "week": 7 * DAY}


def read_csv(path, target, time=None, separator=",", missing=(), decimal=None, **reading):
    """A CSV (.csv or .csv.gz) with a time column and a target, on a regular grid.

    time: name of the time column; by default the first. missing: marks that stand for "not measured", as ("?",).
    decimal: "." or ",", needed where both could be meant (see nndl.files.numbers). reading: what settles how times are
    read, where two readings are possible: day_first, time_format, time_unit, utc (see nndl.files.times).
    Rows are sorted by time; times that are left out become rows of NaN.
    Returns values (T, C) float64, times, columns, and what was done to the file, in words.
    Raises DataError, before anything is computed, for: a file that cannot be read, a missing column, times that are no
    times, duplicated times, a column without any number, text in a column, a constant target.
    """
    table = files.read_table(path, (target,) if time is None else (time, target), separator, decimal)
    time = table.columns[0] if time is None else time
    if time == target:
        raise DataError(f"{path}: column {target!r} cannot be both time and target; name the other with time=")
    stamps = files.times(table, time, **reading)
    if stamps.has_duplicates:
        twice = f"{path}: time {stamps[stamps.duplicated()][0]} is there twice; keep one row for each time"
        raise DataError(f"{twice} (hours repeated at the end of summer time: export with UTC offsets, pass utc=True)")
    columns = [column for column in table.columns if column != time]
    values = np.stack([files.numbers(table, column, missing) for column in columns], axis=1)
    for column, numbers in zip(columns, values.T, strict=True):
        if np.isnan(numbers).all():
            raise DataError(f"{path}: column {column!r} holds no number at all; drop it")
        if np.nanmax(np.abs(numbers)) > LARGEST:
            value = numbers[np.nanargmax(np.abs(numbers))]
            raise DataError(
                f"{path}: column {column!r} holds {value:g}; nothing above {LARGEST:g} can be computed with"
            )
    if constant(values[:, columns.index(target)]):
        raise DataError(f"{path}: column {target!r} is constant: there is nothing to forecast")
    done = [] if stamps.is_monotonic_increasing else ["rows sorted by time"]
    table = pd.DataFrame(values, index=stamps).sort_index()
    grid = time_grid(table.index, path)
    if len(grid) > len(table):
        done.append(f"{len(grid) - len(table)} left-out times filled with NaN")
    return table.reindex(grid).to_numpy(), grid, columns, "; ".join(done)


def constant(values):
    """Whether values (n,) are the same up to rounding, NaN left out; also where none or one is left."""
    seen = values[np.isfinite(values)]
    return seen.size < 2 or np.ptp(seen) <= 1e-12 * np.abs(seen).max()


def load_series(path, target, time=None, season=24, shares=(0.6, 0.1, 0.1), unit="", step="step", **reading):
    """Any CSV as a Series; shares: of training, validation and calibration rows, the rest is the test part.

    reading: as in `read_csv`.
    """
    good = len(shares) == 3 and all(0 < share < 1 for share in shares) and sum(shares) < 1
    if not isinstance(season, int) or season < 1 or not good:
        raise DataError(f"{path}: season={season}, shares={shares}: a season of 1 step or more, three shares below 1")
    values, times, columns, note = read_csv(path, target, time, **reading)
    if step in STEPS and (times[1] - times[0]).total_seconds() != STEPS[step]:
        raise DataError(f"{path}: step={step!r}, but the rows are {times[1] - times[0]} apart; name that step")
    borders = (*(round(len(values) * share) for share in np.cumsum(shares)), len(values))
    name = Path(path).name.removesuffix(".gz").removesuffix(".csv")
    if name in RESERVED:
        raise DataError(f"{path}: the name {name!r} is taken by a series that is drawn; rename the file")
    check_parts(path, values, times, columns, target, borders, season)
    return Series(name, "real", values, times, columns, target, borders, season, 7 * season, unit, step, note)


RESERVED = ("synthetic", "curve")


def check_parts(path, values, times, columns, target, borders, season):
    """DataError for a part that holds nothing to learn from or to score, and for a season that cannot be one."""
    if constant(values[: borders[0], columns.index(target)]):
        raise DataError(f"{path}: column {target!r} is constant, or missing, in the training part (the first rows)")
    for column, numbers in zip(columns, values[: borders[0]].T, strict=True):
        if np.isnan(numbers).all():
            raise DataError(f"{path}: column {column!r} has no number in the training part (the first rows); drop it")
    for part, begin, end in zip(("validation", "calibration", "test"), borders, borders[1:], strict=False):
        if np.isnan(values[begin:end, columns.index(target)]).all():
            raise DataError(f"{path}: column {target!r} has no number in the {part} part, rows {begin} to {end}")
    if season > borders[0]:
        raise DataError(f"{path}: season={season}: the training part has {borders[0]} rows, less than one season")
    weekend = times.day_of_week >= 5
    if times[1] - times[0] == pd.Timedelta(days=1) and np.isnan(values[weekend]).all() and season % 7:
        raise DataError(f"{path}: season={season}: rows of weekdays alone stand on a grid of all days; pass season=7")


BY_HAND = "git clone https://github.com/zhouhaoyi/ETDataset brings both (ETT-small/); nothing is fetched here"


def load_ett(folder, name):
    """ETTh1 or ETTh2 (Zhou et al. 2021) with the published split of 12, 4 and 4 months of 30 days.

    The four months of validation are halved: the first two choose, the last two calibrate.
    """
    paths = [Path(folder) / f"{name}{ending}" for ending in (".csv", ".csv.gz")]
    path = next((path for path in paths if path.exists()), None)
    if path is None:
        raise DataError(f"{folder}: holds neither {name}.csv nor {name}.csv.gz; {BY_HAND}")
    values, times, columns, note = read_csv(path, "OT", "date")
    if times[1] - times[0] != pd.Timedelta(hours=1):
        raise DataError(f"{path}: one row every {times[1] - times[0]}; the published split counts hours")
    month = 30 * 24
    if len(values) < 20 * month:
        raise DataError(f"{path}: {len(values)} rows, the published split needs {20 * month}")
    borders = (12 * month, 14 * month, 16 * month, 20 * month)
    check_parts(path, values, times, columns, "OT", borders, 24)
    note = "; ".join(filter(None, ("published borders, validation halved into validation and calibration", note)))
    return Series(name, "real", values, times, columns, "OT", borders, 24, 7 * 24, "°C", "hour", note)


# ---------------------------------------------------------------- embedded


def load_co2():
    """Weekly CO2 at Mauna Loa, 1958 to 2001, with its 59 missing weeks: real measurements, part of statsmodels."""
    table = co2.load_pandas().data["co2"]
    T = len(table)
    borders = (int(0.6 * T), int(0.7 * T), int(0.8 * T), T)
    note = "measured at Mauna Loa, 1958 to 2001; comes with statsmodels"
    values, times = table.to_numpy()[:, None], pd.DatetimeIndex(table.index)
    return Series("CO2", "embedded", values, times, ["co2"], "co2", borders, 52, 26, "ppm", "week", note)


def make_synthetic(rows=5000, seed=0):
    """An hourly series whose distribution is known, and a regime in its test part that training never saw.

    y = mean + std * noise, noise standard normal and independent: a daily and a weekly season on a slow trend, and a
    standard deviation that is largest at noon. In the last third of the test part (the new regime) the swing is
    half as strong again, lasts 7 hours instead of 24, and stands on a ramp.
    Returns the Series, the true mean (rows,), the true standard deviation (rows,), and where the new regime is (rows,).
    """
    rng = np.random.default_rng(seed)
    t = np.arange(rows)
    borders = (int(0.5 * rows), int(0.6 * rows), int(0.7 * rows), rows)
    new = t >= int(0.9 * rows)
    daily, weekly = np.sin(2 * np.pi * t / 24), 0.5 * np.sin(2 * np.pi * t / 168)
    ramp = 0.02 * np.clip(t - np.argmax(new), 0, None)
    mean = np.where(new, 1.5 * np.sin(2 * np.pi * t / 7) + ramp, daily) + weekly + 1e-4 * t
    std = 0.08 + 0.17 * (1 - np.cos(2 * np.pi * t / 24))  # 0.08 at midnight, 0.42 at noon
    values = (mean + std * rng.standard_normal(rows))[:, None]
    times = pd.date_range("2024-01-01", periods=rows, freq="h")
    note = "drawn by make_synthetic"
    series = Series("synthetic", "embedded", values, times, ["y"], "y", borders, 24, 168, "", "hour", note)
    return series, mean, std, new


# ---------------------------------------------------------------- settings


BLOCKED, SCORED = 11, 18  # windows besides the first that an interval over time, and a 95 % quantile, need


def check_settings(cfg):
    """LabError naming a setting that cannot work, whatever the data."""
    counts = ("length", "horizons", "epochs", "batch_size", "layers", "hidden", "truth_epochs")
    least = dict.fromkeys(counts, 1) | {"rows": 0, "seed": 0, "failure_steps": 50, "passes": 2, "atoms": 2}
    least["truth_rows"] = 10 * (cfg.length + cfg.horizons + BLOCKED)  # its smallest part is a tenth
    for name, lowest in least.items():
        if getattr(cfg, name) < lowest:
            raise LabError(f"setting {name}={getattr(cfg, name)}: at least {lowest} is needed")
    if cfg.kind not in ("lstm", "gru"):
        raise LabError(f"setting kind={cfg.kind!r}: known are 'lstm' and 'gru'")
    for name in ("dropout", "mc_dropout", "missing_train"):
        if not 0 <= getattr(cfg, name) < 1:
            raise LabError(f"setting {name}={getattr(cfg, name)}: a share from 0 to below 1 is needed")
    if not cfg.mc_dropout > 0:
        raise LabError(f"setting mc_dropout={cfg.mc_dropout}: above 0, for its passes must differ")
    if not 0 <= cfg.beta <= 1:
        raise LabError(f"setting beta={cfg.beta}: from 0 to 1")
    if not 0 < cfg.lr <= 10:
        raise LabError(f"setting lr={cfg.lr}: above 0, at most 10")
    if not cfg.aci_rates or min(cfg.aci_rates) <= 0:
        raise LabError(f"setting aci_rates={cfg.aci_rates}: at least one rate is needed, all above 0")
    if not 0 <= cfg.weight_decay <= 10:
        raise LabError(f"setting weight_decay={cfg.weight_decay}: from 0 to 10")
    for name in ("members", "choice_seeds"):
        seeds = getattr(cfg, name)
        if (len(seeds) < 2 and (seeds or name == "members")) or len(set(seeds)) < len(seeds):
            raise LabError(f"setting {name}={seeds}: at least two seeds are needed, and none twice")
        if not all(0 <= seed < 2**32 for seed in seeds):
            raise LabError(f"setting {name}={seeds}: seeds lie from 0 to {2**32 - 1}")
    if not set(cfg.choice_seeds) <= set(cfg.members):
        raise LabError(f"setting choice_seeds={cfg.choice_seeds}: all of them must be among members={cfg.members}")
    if not cfg.series or len(set(cfg.series)) < len(cfg.series):
        raise LabError(f"setting series={cfg.series}: at least one series is needed, and none twice")


def check_fit(cfg, series):
    """LabError naming a setting for which a series has too few rows in one of its parts."""
    for part, rows in series.counts().items():
        need = cfg.length + cfg.horizons + (SCORED if part in ("calibration", "test") else 0)
        if rows < need:
            window = f"setting length={cfg.length}, horizons={cfg.horizons}"
            raise LabError(f"{window}: {need} rows are needed, the {part} part of {series.name} has {rows}")
    values, edges = series.values[:, series.columns.index(series.target)], (0, *series.borders)
    for part, begin, end in zip(series.counts(), edges, edges[1:], strict=False):
        if constant(values[begin:end]):
            raise LabError(f"{series.name}: {series.target!r} is constant, or missing, in the {part} part")
    for half in np.array_split(values[edges[2] : edges[3]], 2):  # pools are fitted on one, scored on the other
        if np.isfinite(half).sum() <= SCORED:
            raise LabError(f"{series.name}: a half of the calibration part has {np.isfinite(half).sum()} values of "
                           f"{series.target!r}; at least {SCORED + 1} are needed")  # fmt: skip


# ---------------------------------------------------------------- names and drawing


def ahead(h, step):
    """`1 hour ahead`, `5 hours ahead`."""
    return f"{h} {step}{'s' if h > 1 else ''} ahead"


def over_horizons(values):
    """Mean over the last axis, horizons, of what is not NaN; NaN where all is."""
    known = ~np.isnan(values)
    return np.where(known.any(-1), np.where(known, values, 0).sum(-1) / np.maximum(known.sum(-1), 1), np.nan)


def show_series(series, title):
    """The target over time, its parts shaded."""
    figure, axis = plt.subplots(figsize=(9, 2.6))
    axis.plot(series.times, series.values[:, series.columns.index(series.target)], color=BLUE, linewidth=0.7)
    edges = (0, *series.borders)
    shades = (("training", "#FFFFFF"), ("validation", ORANGE), ("calibration", GREEN), ("test", PINK))
    for (name, colour), begin, end in zip(shades, edges, edges[1:], strict=False):
        axis.axvspan(series.times[begin], series.times[end - 1], color=colour, alpha=0.18, linewidth=0)
        middle = series.times[(begin + end) // 2]
        axis.text(middle, 1.0, name, transform=axis.get_xaxis_transform(), ha="center", va="top", fontsize=8)
    axis.set(title=title, ylabel=f"{series.target} {f'({series.unit})' if series.unit else ''}")
    finish(figure)


def show_lines(x, lines, title, xlabel, ylabel, level=None, level_label="", bands=None):
    """Lines {name: (n,)} over x; a grey dotted level; bands {name: (low, high)} shaded in the line's colour."""
    figure, axis = plt.subplots(figsize=(6.5, 3.2))
    for (name, values), colour in zip(lines.items(), COLOURS, strict=False):
        axis.plot(x, values, color=colour, label=name, marker="o" if len(x) < 15 else None, markersize=4)
        if bands and name in bands:
            axis.fill_between(x, *bands[name], color=colour, alpha=0.15, linewidth=0)
    if level is not None:
        axis.axhline(level, color=GREY, linestyle=":", label=level_label or None)
    axis.set(title=title, xlabel=xlabel, ylabel=ylabel)
    if len(lines) > 1 or level_label:
        axis.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    finish(figure)


def show_gaps(gaps, title, xlabel):
    """Differences to one method with their intervals, a panel each: {panel: {name: metric}}; the first panel sorts."""
    first = next(iter(gaps.values()))
    names = sorted(first, key=lambda name: first[name]["value"], reverse=True)
    figure, axes = plt.subplots(
        1, len(gaps), figsize=(4.6 + 2.6 * len(gaps), 0.9 + 0.26 * len(names)), sharey=True, squeeze=False
    )
    for axis, (panel, found) in zip(axes[0], gaps.items(), strict=True):
        values = np.array([[found[name][key] for key in ("value", "low", "high")] for name in names])
        errors = np.abs(values[:, 1:] - values[:, :1]).T
        axis.errorbar(values[:, 0], range(len(names)), xerr=errors, fmt="o", color=BLUE, capsize=3, markersize=4)
        # a few that are far behind must not hide who is close: they stand at the edge, with their number
        edge = 1.5 * np.quantile(np.abs(values), 0.75)
        for place in np.flatnonzero(values[:, 1] > edge):
            axis.annotate(f"{values[place, 0]:.2f} >", (edge, place), fontsize=8, ha="right", va="center")
        axis.set_xlim(max(values[:, 1].min(), -edge) - 0.05 * edge, min(values[:, 2].max(), edge) + 0.05 * edge)
        axis.axvline(0, color=GREY, linestyle=":")
        axis.set(yticks=range(len(names)), yticklabels=names, xlabel=xlabel, title=panel)
        axis.grid(axis="y", alpha=0.4)
    figure.suptitle(title)
    finish(figure)


def show_forecasts(axis_titles, past, future, location, bands, title, ylabel):
    """Some windows, a panel each: past (n, L); future, location and bands {level: (low, high)}, each (n, H)."""
    n, L = past.shape
    H = future.shape[1]
    figure, axes = plt.subplots(1, n, figsize=(2.6 * n, 2.6), sharey=False)
    for k, axis in enumerate(np.atleast_1d(axes)):
        axis.plot(np.arange(-L + 1, 1), past[k], color=GREY, marker=".", markersize=3, linewidth=1)
        ahead = np.arange(1, H + 1)
        for level, (low, high) in bands.items():
            axis.fill_between(ahead, low[k], high[k], color=BLUE, alpha=0.18, linewidth=0, label=f"{level:.0%}")
        axis.plot(ahead, location[k], color=BLUE, label="forecast")
        axis.plot(ahead, future[k], "o", color=ORANGE, markersize=4, label="observed")
        axis.set_title(axis_titles[k], fontsize=9)
        axis.set_xlabel("steps from now")
    np.atleast_1d(axes)[0].set_ylabel(ylabel)
    np.atleast_1d(axes)[-1].legend(frameon=False, fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5))
    figure.suptitle(title)
    finish(figure)


def show_reliability(nominal, covered, title):
    """Share of outcomes inside central intervals against their nominal level: covered {name: (n,)}."""
    figure, axis = plt.subplots(figsize=(5.6, 3.6))
    axis.plot([0, 1], [0, 1], color=GREY, linestyle=":", label="perfect")
    for (name, values), colour in zip(covered.items(), COLOURS, strict=False):
        axis.plot(nominal, values, color=colour, label=name)
    axis.set(title=title, xlabel="nominal level", ylabel="share inside", xlim=(0, 1), ylim=(0, 1))
    axis.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    finish(figure)


def show_pit(histograms, title):
    """PIT histograms (share in each of n equal bins), a panel each: {name: (n,)}; flat is calibrated."""
    figure, axes = plt.subplots(1, len(histograms), figsize=(2.7 * len(histograms), 2.4), sharey=True, squeeze=False)
    for axis, (name, shares) in zip(axes[0], histograms.items(), strict=True):
        n = len(shares)
        axis.bar((np.arange(n) + 0.5) / n, np.asarray(shares) * n, width=0.9 / n, color=BLUE)
        axis.axhline(1, color=GREY, linestyle=":")
        axis.set_title(name, fontsize=9)
        axis.set_xlabel("PIT")
    axes[0, 0].set_ylabel("density")
    figure.suptitle(title)
    finish(figure)
