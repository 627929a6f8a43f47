"""CA4_timeseries: what code.ipynb defines, held against PyTorch, scipy, statsmodels, or a case done by hand.

What a student writes is checked in the notebook itself (`nndl checks`, `nndl mutants`); here is the rest: loaders,
settings, what is given, and a few comparisons that take longer.
"""

import gzip
import math
import re
from copy import deepcopy
from dataclasses import replace
from functools import cache, partial
from hashlib import md5

import numpy as np
import pandas as pd
import pytest
import scipy.stats
import torch
from nasty_files import TIMES, tables
from sklearn.metrics import mean_squared_error, r2_score
from statsmodels.tsa.statespace.sarimax import SARIMAX
from torch import nn
from torch.testing import assert_close

from nndl import rooms
from nndl.notebooks import load_definitions, mutated
from real_data import REAL, needs

ROOM = rooms.ROOT / "CA4_timeseries"


@cache
def definitions():
    return load_definitions(ROOM / "code.ipynb")


@pytest.fixture(scope="module")
def ts():
    return definitions()


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


@pytest.fixture
def start(ts, begin_run):
    return partial(begin_run, ts)


@pytest.fixture(scope="module")
def task(ts):
    """A short synthetic series in windows of 12 steps in, 3 out."""
    return ts.make_task(ts.helper.make_synthetic(600)[0], 12, 3)


def random_part(ts, n=30, length=12, horizons=3, missing=0.0):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(n, length, 1)).cumsum(1)
    x[rng.random(x.shape) < missing] = np.nan
    return ts.Part(x, rng.normal(size=(n, length, 2)), rng.normal(size=(n, horizons)), np.arange(n))


def with_outcomes(task, **changes):
    """The task with other outcomes in some parts: with_outcomes(task, test=lambda y: y + 9)."""
    parts = {name: replace(task.parts[name], y=change(task.parts[name].y.copy())) for name, change in changes.items()}
    return replace(task, parts=task.parts | parts)


# ---------------------------------------------------------------- windows and scaling


def leaks(ts, make_task):
    """Whether something of the training part depends on rows after it."""
    series = ts.helper.make_synthetic(600)[0]
    before = make_task(series, 12, 3)
    series.values[series.borders[0] :] += 50
    after = make_task(series, 12, 3)
    same = [np.array_equal(getattr(before.parts["train"], f), getattr(after.parts["train"], f)) for f in ("x", "y")]
    return not all(same) or (before.mean, before.std) != (after.mean, after.std)


def test_training_part_knows_nothing_of_later_rows(ts):
    assert not leaks(ts, ts.make_task)


@pytest.mark.parametrize(
    "change",
    [
        ("fit_scaler(values[: series.borders[0]])", "fit_scaler(values)"),
        (
            "t = origins(begin, end, length, horizons)",
            "t = origins(begin, min(end + 1, len(scaled)), length, horizons)",
        ),
    ],
)
def test_notices_a_leak(ts, change):
    assert leaks(ts, mutated(ts, ts.make_task, change).make_task)


def test_windows_hold_the_rows_that_they_name(ts, task):
    for part in task.parts.values():
        for k in (0, len(part.y) - 1):
            t = part.origin[k]
            assert_close(part.x[k, :, 0], task.scaled[t - 11 : t + 1, 0])
            assert_close(part.y[k], task.scaled[t + 1 : t + 4, 0])
    assert task.parts["test"].origin[-1] + 3 == len(task.scaled) - 1, "the last row is the last target"


def test_target_comes_first_and_covariates_can_be_left_out(ts):
    series = ts.helper.make_synthetic(600)[0]
    two = replace(series, values=np.column_stack([series.values[:, 0] ** 2, series.values[:, 0]]), columns=["x", "y"])
    both, alone = ts.make_task(two, 12, 3), ts.make_task(two, 12, 3, covariates=False)
    assert both.parts["train"].x.shape[-1] == 2 and alone.parts["train"].x.shape[-1] == 1
    assert_close(both.parts["train"].x[..., 0], alone.parts["train"].x[..., 0])
    assert_close(
        both.mean + both.std * both.parts["test"].y, series.values[:, 0][both.parts["test"].origin[:, None] + [1, 2, 3]]
    )


@pytest.mark.parametrize("constant", [0.1, 40.3, -1e9 / 3, 1e-7, 0.0])
def test_scaler_takes_rounding_noise_for_a_constant(ts, constant):
    values = np.stack([np.full(1001, constant), constant * (1 + 1e-6 * np.arange(1001)), np.arange(1001.0)], axis=1)
    _, std = ts.fit_scaler(values)
    assert std[0] == 1.0 and std[2] > 100
    assert constant == 0 or std[1] == pytest.approx(values[:, 1].std()), "a small deviation is no noise"


# ---------------------------------------------------------------- intervals of scores


def test_a_ratio_in_time_has_the_interval_of_its_linearised_series(ts, task):
    rng = np.random.default_rng(0)
    below = 3 + rng.normal(size=400)
    above = 2 * below + rng.normal(size=400)
    found = ts.over_time(ts.linearised(above, below), task.series)
    plain = ts.lab.mean_of((above - 2 * below) / below.mean(), of="hours", series=True)
    assert found["value"] == pytest.approx(above.mean() / below.mean())
    assert found["high"] - found["low"] == pytest.approx(plain["high"] - plain["low"], rel=0.02)
    assert "coverage of the blocks in simulation" in found["interval"]


def test_r2_and_skill_are_those_of_the_library(ts, task):
    rng = np.random.default_rng(0)
    y = rng.normal(size=300).cumsum()
    guess, steady = y + rng.normal(size=300), y + 2 * rng.normal(size=300)
    y[7] = np.nan
    known = np.isfinite(y)
    r2 = ts.r2_of((guess - y) ** 2, y, task.series)
    assert r2["value"] == pytest.approx(r2_score(y[known], guess[known])) and r2["low"] < r2["value"] < r2["high"]
    skill = ts.skill_of((guess - y) ** 2, (steady - y) ** 2, task.series)
    ours, theirs = (mean_squared_error(y[known], each[known]) for each in (guess, steady))
    assert skill["value"] == pytest.approx(1 - ours / theirs) and skill["low"] < skill["value"] < skill["high"]


def test_no_interval_goes_above_the_most_that_is_possible(ts, task):
    covered = np.where(np.arange(120) % 40 == 0, 0.0, 100.0)
    free, capped = ts.over_time(covered, task.series), ts.over_time(covered, task.series, most=100)
    assert free["high"] > 100, "the case must need a cap"
    assert capped == free | dict(high=100)


def test_a_rise_has_both_ends_at_their_worst(ts, task):
    rng = np.random.default_rng(0)
    inside, before = 1 + rng.normal(size=150), rng.normal(size=200)
    found = ts.rise(inside, before, task.series)
    up, down = ts.over_time(inside, task.series), ts.over_time(before, task.series)
    for side, expected in (
        ("value", inside.mean() - before.mean()),
        ("low", up["low"] - down["high"]),
        ("high", up["high"] - down["low"]),
    ):
        assert found[side] == pytest.approx(math.exp(expected)), side


def test_central_intervals_miss_on_both_sides(ts):
    inside, bins = ts.shape_of(np.array([0.12, 0.62, np.nan]))  # inside from the levels 0.76 and 0.24 on
    assert_close(inside, 0.5 * (ts.NOMINAL > 0.76) + 0.5 * (ts.NOMINAL > 0.24))
    assert bins.tolist() == [0, 0.5, 0, 0, 0, 0, 0.5, 0, 0, 0]


# ---------------------------------------------------------------- ensembles and linear pools


def test_an_ensemble_is_as_wide_as_its_noise_and_its_disagreement(ts, task):
    locations, scales = np.array([[[0.0]], [[2.0]]]), np.array([[[1.0]], [[3.0]]])
    found = ts.combined(task, {"test": (locations, scales)})["test"]
    assert found.location.item() == pytest.approx(task.mean + task.std)
    assert found.scale.item() == pytest.approx(task.std * (5 + 1) ** 0.5), "variances 5 aleatoric, 1 epistemic"


def forecasts(ts, task):
    """A normal, a Student's and a dressed forecast of every part."""
    points = {name: ts.persistence(task.parts[name]) for name in ts.PARTS}
    dressed, found = ts.dress(task, points), {}
    for name, df in (("normal", None), ("student", 5.0)):
        found[name] = {
            part: ts.Forecast(each.location, each.std() * np.ones_like(each.location),
                              df if df is None else np.full_like(each.location, df))
            for part, each in dressed.items()
        }  # fmt: skip
    return found | {"dressed": dressed}


def test_atoms_are_quantiles(ts, task):
    levels = (np.arange(30) + 0.5) / 30
    found = forecasts(ts, task)
    law = found["student"]["test"]
    atoms = ts.atoms(law, 30)
    assert_close(scipy.stats.t(5.0, law.location[4, 1], law.scale[4, 1]).cdf(atoms[4, 1]), levels)
    dressed = found["dressed"]["test"]
    assert_close(ts.atoms(dressed, 30)[4, 1], np.quantile(dressed.members(1)[4], levels, method="hazen"))


def test_a_pool_has_the_crps_that_its_weights_promise(ts, task):
    found, y = forecasts(ts, task), ts.truth(task, "calibration")
    values = {part: np.stack([ts.atoms(each[part], 40) for each in found.values()]) for part in ts.PARTS}
    known = np.arange(len(y))
    terms = [(*ts.pool_terms(values["calibration"][:, :, h], y[:, h]), known) for h in range(3)]
    _, weights = ts.pool(values, terms, np.ones(3, dtype=bool))
    assert weights.shape == (3, 3) and weights.min() >= 0
    assert_close(weights.sum(0), np.ones(3))
    crps = ts.pooled((values["calibration"], weights)).crps(y).mean(0)
    for h, (a, B, _) in enumerate(terms):
        a, B = a.mean(-1), B.mean(-1)
        assert crps[h] == pytest.approx(weights[:, h] @ a - weights[:, h] @ B @ weights[:, h] / 2, rel=0.01)
        singles = [each["calibration"].crps(y)[:, h].mean() for each in found.values()]
        assert crps[h] < 1.005 * min(singles), "worse than one of its members where its weights were fitted"
    even, shares = ts.pool(values, terms, np.array([True, False, True]), fitted=False)
    assert shares.tolist() == [[0.5] * 3, [0] * 3, [0.5] * 3] and even["test"].location.shape == (
        len(task.parts["test"].y),
        3,
    )


def test_windows_without_an_outcome_do_not_fit_weights(ts, task):
    found, y = forecasts(ts, task), ts.truth(task, "calibration").copy()
    values = {part: np.stack([ts.atoms(each[part], 20) for each in found.values()]) for part in ts.PARTS}
    y[5:15] = np.nan
    known = np.flatnonzero(np.isfinite(y[:, 0]))
    terms = [(*ts.pool_terms(values["calibration"][:, known, h], y[known, h]), known) for h in range(3)]
    _, weights = ts.pool(values, terms, np.ones(3, dtype=bool))
    kept = [(*ts.pool_terms(values["calibration"][:, known, h], y[known, h]), np.arange(len(known))) for h in range(3)]
    shorter = values | {"calibration": values["calibration"][:, known]}
    assert_close(weights, ts.pool(shorter, kept, np.ones(3, dtype=bool))[1])


@pytest.mark.parametrize("half", ["first", "second"])
def test_weights_for_calibration_leave_out_the_gap_beside_the_border(ts, half):
    rng = np.random.default_rng(0)
    values = {part: rng.normal(size=(2, 80, 1, 20)) + np.array([0, 1])[:, None, None, None] for part in ts.PARTS}
    a, B = ts.pool_terms(values["calibration"][:, :, 0], rng.normal(0.5, size=80))

    def calibration(*rows):
        """The forecasts of the calibration part (N,) where the first method is worse in these windows."""
        worse = a.copy()
        worse[0, list(rows)] += 3
        both = np.ones(2, dtype=bool)
        return ts.pool(values, [(worse, B, np.arange(80))], both, gap=3)[0]["calibration"].location[:, 0]

    inside, next_to_it = ((37, 38, 39), 36) if half == "first" else ((40, 41, 42), 43)
    other = slice(40, 80) if half == "first" else slice(0, 40)
    assert_close(calibration(*inside), calibration(), msg="windows inside the gap have a say")
    changed = calibration(next_to_it) != calibration()
    assert changed[other].any() and changed.sum() == changed[other].sum(), "each half has the weights of the other"


def test_a_pool_answers_like_the_distribution_of_its_members(ts):
    rng = np.random.default_rng(0)
    members = np.sort(rng.normal(size=(5, 2, 60)), axis=-1)
    location, scale = members.mean(-1), members.std(-1)
    pooled = ts.Pooled(location, scale, (members - location[..., None]) / scale[..., None])
    y = rng.normal(size=(5, 2))
    assert_close(pooled.members(1), members[:, 1])
    assert_close(pooled.std(), scale)
    assert_close(np.stack(pooled.interval(0.8)), np.quantile(members, [0.1, 0.9], axis=-1, method="hazen"))
    assert_close(pooled.pit(y), (members < y[..., None]).mean(-1))
    assert_close(pooled.crps(y), ts.crps_ensemble(members, y))


# ---------------------------------------------------------------- representation


def test_carry_forward_is_pandas_ffill(ts):
    part = random_part(ts, n=200, missing=0.6)
    x = torch.tensor(part.x[..., 0])
    filled, since = ts.carry_forward(x, ~x.isnan())
    assert_close(filled.numpy(), pd.DataFrame(x.numpy()).ffill(axis=1).fillna(0.0).to_numpy())
    by_hand = [[next((k for k in range(t + 1) if not row[t - k].isnan()), t + 1) for t in range(12)] for row in x[:20]]
    assert since[:20].tolist() == by_hand


def test_a_window_without_any_observation_is_no_error(ts):
    features, anchor, scale = ts.represent(torch.full((1, 6, 1), torch.nan), torch.zeros(1, 6, 2))
    assert features.isfinite().all() and anchor.item() == 0 and scale.item() > 0


# ---------------------------------------------------------------- cells, layers, dropout, attention


@pytest.mark.parametrize("kind, reference", [("lstm", nn.LSTM), ("gru", nn.GRU)])
@pytest.mark.parametrize("layers, both", [(1, False), (2, True), (3, False)])
def test_layers_are_those_of_torch(ts, kind, reference, layers, both):
    theirs, ours = reference(4, 6, layers, batch_first=True, bidirectional=both), ts.Recurrent(kind, 4, 6, layers, both)
    ts.copy_from_torch(ours, theirs)
    x = torch.randn(5, 9, 4)
    assert_close(ours(x), theirs(x)[0], atol=1e-6, rtol=1e-5)
    ours(x).square().sum().backward()
    theirs(x)[0].square().sum().backward()
    assert_close(ours.layers[0][0].weight_hh.grad, theirs.weight_hh_l0.grad, atol=1e-4, rtol=1e-4)
    count = [sum(p.numel() for p in module.parameters()) for module in (ours, theirs)]
    assert count[0] == count[1]


def test_nothing_after_the_origin_reaches_a_forecast(ts):
    series = ts.helper.make_synthetic(600)[0]
    model = ts.Forecaster("lstm", 6, 3, hidden=8, layers=2, bidirectional=True).eval()
    before = ts.make_task(series, 12, 3)
    k = 40
    origin = before.parts["train"].origin[k]
    changed = replace(series, values=series.values.copy())
    changed.values[origin + 1 : series.borders[0]] *= -3
    after = ts.make_task(changed, 12, 3)
    undo = before.std, before.mean  # the scaler has seen the change: put both in the same units
    x = (after.mean + after.std * after.parts["train"].x[k] - undo[1]) / undo[0]
    outputs = [
        model(
            ts.represent(torch.tensor(w[None]).float(), torch.tensor(before.parts["train"].phase[k][None]).float())[0]
        )
        for w in (before.parts["train"].x[k], x)
    ]
    assert_close(*outputs, atol=1e-5, rtol=1e-4)


# ---------------------------------------------------------------- likelihoods


def test_networks_side_by_side_are_the_same_as_one_by_one(ts):
    """The experiment on plain NLL trains 3 x 2 networks in batched products: one of them again, as a module."""
    together = ts.failure_experiment((0, 1), 100)
    x, curve, y, parameters = ts.failure_networks((0, 1))
    net = nn.Sequential(nn.Linear(1, 50), nn.Tanh(), nn.Linear(50, 50), nn.Tanh(), nn.Linear(50, 2))
    for layer, weight, bias in zip((net[0], net[2], net[4]), parameters[::2], parameters[1::2], strict=True):
        layer.weight.data, layer.bias.data = weight[3].detach().T.contiguous(), bias[3, 0].detach()
    optimizer = torch.optim.Adam(net.parameters(), 2e-3)
    for _ in range(100):  # network 3: beta 0.5, seed 1
        location, log_scale = net(x[:, None]).unbind(-1)
        optimizer.zero_grad()
        ts.normal_nll(location, log_scale.clamp(-6, 6), y[3], 0.5).mean().backward()
        optimizer.step()
    assert together.shape == (2, 3, 2)
    assert together[-1, 1, 1] == pytest.approx((location.detach() - curve).square().mean().sqrt().item(), rel=1e-2)


# ---------------------------------------------------------------- conformal


def aci_by_hand(calibration, test, level, rate, h):
    """The recursion for one horizon, written with a list of what is known."""
    alpha, found, waiting = 1 - level, [], []
    ordered = sorted(calibration)
    for t, score in enumerate(test):
        while waiting and waiting[0][0] <= t:
            _, missed = waiting.pop(0)
            alpha = np.clip(alpha + rate * ((1 - level) - missed), 0, 1)
        rank = int(np.ceil((len(ordered) + 1) * (1 - alpha)))
        found.append(ordered[min(max(rank, 1), len(ordered)) - 1])
        if np.isfinite(score):
            waiting.append((t + h, score > found[-1]))
    return np.array(found)


def test_adaptive_conformal_by_hand(ts):
    rng = np.random.default_rng(0)
    calibration, test = rng.exponential(size=(200, 4)), rng.exponential(1.5, size=(300, 4))
    test[50:60] = np.nan
    found = ts.adaptive_conformal(calibration, test, 0.9, 0.05)
    for h in range(1, 5):
        assert_close(found[:, h - 1], aci_by_hand(calibration[:, h - 1], test[:, h - 1], 0.9, 0.05, h))


def running_scale_by_hand(calibration, test, half_life):
    """The running mean of squares, one horizon and one window at a time, with outcomes when they are known."""
    rate, found = 1 - 0.5 ** (1 / half_life), np.empty(test.shape)
    for h in range(test.shape[1]):
        mean = np.nanmean(calibration[:, h] ** 2)
        for t in range(len(test)):
            if t - h - 1 >= 0 and np.isfinite(test[t - h - 1, h]):
                mean += rate * (test[t - h - 1, h] ** 2 - mean)
            found[t, h] = np.sqrt(mean)
    return found


def errors_in_units_of_std():
    rng = np.random.default_rng(0)
    calibration, test = 1.5 * rng.normal(size=(200, 3)), rng.normal(size=(150, 3))
    test[rng.random(test.shape) < 0.1] = np.nan
    return calibration, test


def test_rescaling(ts):
    calibration, test = errors_in_units_of_std()
    assert (ts.rescaling(calibration, test, "raw", 20) == 1).all()
    split = ts.rescaling(calibration, test, "split", 20)
    assert_close(split, np.tile(np.sqrt((calibration**2).mean(0)), (150, 1)))
    assert_close(ts.rescaling(calibration, test, "adaptive", 20), running_scale_by_hand(calibration, test, 20))


@pytest.mark.parametrize("dressed", [False, True])
def test_rescaled_forecasts_have_errors_of_their_own_size(ts, task, dressed):
    """Claimed three times too wide, then rescaled on calibration: as wide as it should be."""
    points = {name: ts.persistence(task.parts[name]) for name in ("validation", "calibration", "test")}
    forecast = ts.dress(task, points)
    if not dressed:
        forecast = {
            name: ts.Forecast(f.location, np.broadcast_to(f.std(), f.location.shape)) for name, f in forecast.items()
        }
    wide = {name: replace(f, scale=3 * f.scale) for name, f in forecast.items()}
    for kind in ("split", "adaptive"):
        assert_close(ts.rescaled(task, wide, kind).scale, ts.rescaled(task, forecast, kind).scale, rtol=1e-6, atol=1e-9)
    assert_close(ts.rescaled(task, wide, "raw").scale, wide["test"].scale * np.ones_like(wide["test"].location))


def standard_normal(ts, task):
    """A forecast of every part: the mean and deviation of the training part."""
    shapes = {name: task.parts[name].y.shape for name in ts.PARTS}
    return {name: ts.in_units(task, np.zeros(shape), np.ones(shape)) for name, shape in shapes.items()}


@pytest.mark.parametrize("kind", ["raw", "split", "adaptive"])
def test_calibration_knows_nothing_of_later_outcomes(ts, task, kind):
    forecast = standard_normal(ts, task)
    later = with_outcomes(task, test=lambda y: y + 9 * (np.arange(len(y)) >= 40)[:, None])
    before, after = (np.stack(ts.calibrated_interval(each, forecast, kind, 0.9, 0.05)) for each in (task, later))
    assert_close(before[:, :40], after[:, :40])
    before, after = (ts.rescaled(each, forecast, kind).scale for each in (task, later))
    assert_close(before[:40], after[:40])


@pytest.mark.parametrize("kind", ["split", "adaptive"])
def test_calibration_begins_with_the_scores_of_the_calibration_part(ts, task, kind):
    forecast, y = standard_normal(ts, task), task.parts["calibration"].y
    low, high = ts.calibrated_interval(task, forecast, kind, 0.9, 0.05)
    assert_close((high - low)[0], 2 * task.std * ts.split_conformal(np.abs(y), 0.9))
    assert_close(ts.rescaled(task, forecast, kind).scale[0], task.std * np.sqrt((y**2).mean(0)))


def test_the_rate_is_chosen_on_calibration_after_validation(ts, task, start):
    start("tiny", "aci_rates=(0.001,0.2)")
    forecast = standard_normal(ts, task)

    def chosen(**deviations):
        drawn = {
            name: lambda y, scale=scale, k=k: scale * np.random.default_rng(k).normal(size=y.shape)
            for k, (name, scale) in enumerate(deviations.items())
        }
        return ts.chosen_rate(with_outcomes(task, **drawn), forecast)

    for test in (0.1, 1, 10):
        assert chosen(validation=1, calibration=1, test=test) == 0.001, "the same errors as before: nothing to follow"
    assert chosen(validation=1, calibration=10, test=1) == 0.2, "larger errors in the calibration part"
    assert chosen(validation=10, calibration=1, test=1) == 0.2, "intervals begin with the errors of validation"


# ---------------------------------------------------------------- baselines and rivals


def test_persistence_repeats_and_seasonal_persistence_looks_back_whole_seasons(ts, task):
    part = task.parts["test"]
    assert_close(ts.persistence(part), np.repeat(part.x[:, -1, :1], 3, axis=1), atol=1e-6, rtol=1e-6)
    seasonal = ts.persistence(part, 2, task.scaled)  # a season of 2 steps: the third step ahead looks back 4
    ahead = part.origin[:, None] + np.array([1, 2, 3])
    assert_close(seasonal, task.scaled[ahead - [2, 2, 4], 0])


@pytest.mark.parametrize("order, harmonics", [((1, 0, 0), 1), ((2, 1, 1), 2)])
def test_arima_from_every_origin_is_the_librarys(ts, task, order, harmonics):
    task = replace(task, scaled=task.scaled.copy())
    gap = task.parts["test"].origin[21]
    task.scaled[gap - 3 : gap + 1, 0] = np.nan  # the forecast is less sure after rows that are missing
    found, ran = ts.arima(task, order, harmonics)
    assert found["test"][1][21, 0] > 1.05 * found["test"][1][0, 0]
    series, y = task.series, task.scaled[:, 0]
    fourier = ts.fourier_terms(series, harmonics)
    for k in (0, 21, 37):
        t = task.parts["test"].origin[k]
        past = SARIMAX(y[: t + 1], fourier[: t + 1], order=order).filter(ran.params)
        expected = past.get_forecast(3, exog=fourier[t + 1 : t + 4])
        assert_close(found["test"][0][k], expected.predicted_mean, atol=1e-6, rtol=1e-5)
        assert_close(found["test"][1][k], expected.se_mean, atol=1e-4, rtol=1e-3)


def test_arima_is_fitted_on_the_training_part_alone(ts, task):
    later = replace(task, scaled=task.scaled.copy())
    later.scaled[task.series.borders[0] :] *= -3
    params = [ts.arima(each, (1, 0, 0), 1)[1].params for each in (task, later)]
    assert_close(*params, rtol=0, atol=0)


def test_arima_takes_as_many_harmonics_as_a_season_has(ts):
    drawn = ts.helper.make_synthetic(600)[0]
    assert [ts.fourier_terms(replace(drawn, season=season)).shape[1] for season in (1, 2, 4, 7, 24)] == [0, 0, 2, 6, 6]
    yearly = ts.make_task(replace(drawn, season=1), 12, 3)
    assert np.isfinite(ts.arima(yearly, (1, 0, 0))[0]["test"][0]).all()


def test_ridge_recovers_a_linear_law(ts):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(3000, 6, 1)).cumsum(1)
    y = x[:, -1] + 0.5 * (x[:, -1] - x[:, -2])
    part = ts.Part(x, np.zeros((3000, 6, 2)), y, np.arange(3000))
    assert np.abs(ts.Ridge(part).predict(part) - y).max() < 0.05


def test_ridge_learns_from_damaged_windows_where_told(ts, task):
    part = task.parts["train"]
    torch.manual_seed(0)
    lost = ts.Windows(part, 0.5).__getitems__(range(len(part.y)))[0].numpy()
    by_hand = ts.Ridge(replace(part, x=lost)).predict(task.parts["test"])
    assert_close(ts.Ridge(part, 0.5).predict(task.parts["test"]), by_hand)
    assert not np.allclose(by_hand, ts.Ridge(part).predict(task.parts["test"]))


def test_ridge_forecasts_a_single_step_too(ts):
    one = ts.make_task(ts.helper.make_synthetic(600)[0], 12, 1)
    assert ts.Ridge(one.parts["train"]).predict(one.parts["test"]).shape == one.parts["test"].y.shape


@pytest.mark.parametrize("local", [False, True])
def test_dressing_takes_errors_of_validation_and_calibration_picks_their_unit(ts, task, local):
    """In units of the windows' scales where calibration errors grow with them, plain where they do not."""
    points = {name: ts.persistence(task.parts[name]) for name in ts.PARTS}
    scales = ts.tensors(task.parts["calibration"])[2].numpy()[:, None].astype(float)
    grow = (scales / scales.mean()) ** 3 if local else scales.mean() / scales
    task = with_outcomes(task, calibration=lambda y: points["calibration"] + grow * (y - points["calibration"]))
    dressed = ts.dress(task, points)
    assert (np.ptp(dressed["test"].scale) > 0) == local, "calibration picks plain or scaled errors"
    errors = (ts.truth(task, "validation") - dressed["validation"].location) / dressed["validation"].scale
    expected = np.quantile(errors, (np.arange(199) + 0.5) / 199, axis=0, method="hazen")
    assert_close(dressed["test"].residuals, expected, msg="residuals are quantiles of the errors on validation")
    again = ts.dress(with_outcomes(task, test=lambda y: y + 9), points)
    for field in ("location", "scale", "residuals"):
        assert_close(getattr(again["test"], field), getattr(dressed["test"], field))


def test_a_dressing_with_a_bias_is_the_same_raw_and_calibrated(ts, task):
    """A forecast that is always 2 too low is put right by its errors; calibration has nothing to add."""
    points = {name: ts.persistence(task.parts[name]) for name in ts.PARTS}
    low = {name: values - 2 for name, values in points.items()}
    plain, biased = ts.dress(task, points), ts.dress(task, low)
    y = ts.truth(task, "test")
    assert_close(biased["test"].crps(y), plain["test"].crps(y))
    assert_close(biased["test"].location, plain["test"].location)
    assert_close(biased["test"].residuals.mean(0), np.zeros(3))
    for kind in ("split", "adaptive"):
        assert_close(ts.rescaled(task, biased, kind).crps(y), ts.rescaled(task, plain, kind).crps(y))


# ---------------------------------------------------------------- damage


def test_damage_is_of_the_series_and_in_steps_of_each_column(ts):
    series = ts.helper.make_synthetic(600)[0]
    smooth = np.sin(np.arange(600) / 40)
    two = replace(series, values=np.column_stack([series.values[:, 0], smooth]), columns=["y", "x"])
    task = ts.make_task(two, 12, 3)
    part = task.parts["test"]
    moved = (ts.damage(task, outliers=0.2).x - part.x)[:, -1]  # (N, C)
    steps = np.sqrt((np.diff(task.scaled[:300], axis=0) ** 2).mean(0))
    for column in (0, 1):
        hit = np.abs(moved[:, column]) > 1e-9
        assert 0.1 < hit.mean() < 0.3
        assert_close(np.abs(moved[hit, column]), np.full(hit.sum(), 10 * steps[column]))
    lost = np.isnan(ts.damage(task, missing=0.3).x)
    assert 0.25 < lost.mean() < 0.35
    assert (lost[1:, :-1] == lost[:-1, 1:]).all(), "an hour is missing in all windows or in none"


def test_damage_is_drawn_from_its_seed(ts, task):
    first, again, other = (ts.damage(task, missing=0.3, outliers=0.1, seed=seed).x for seed in (0, 0, 1))
    assert_close(first, again, equal_nan=True)
    assert not np.array_equal(first, other, equal_nan=True)


def test_every_method_reads_the_damaged_windows(ts, task, start, monkeypatch):
    start()
    networks = [ts.build(ts.Recipe(hidden=4, dropout=0.0), 6, 12, 3) for _ in range(2)]
    monkeypatch.setattr(ts, "models", {(task.series.name, "GRU"): networks}, raising=False)
    ridges = {"ridge": ts.Ridge(task.parts["train"])}
    clean, hurt = (ts.under(task, ts.damage(task, outliers=rate), ridges) for rate in (0.0, 0.2))
    assert hurt.keys() == {"persistence", "ridge", ts.ENSEMBLE}
    for name, crps in hurt.items():
        assert crps.mean() > 1.2 * clean[name].mean(), f"{name}: outliers in a fifth of the inputs cost nothing"


# ---------------------------------------------------------------- training


@pytest.mark.parametrize(
    "step, factor", [(0, 0.05), (19, 1), (20, 1), (60, 0.5), (99, 0.5 - 0.5 * math.cos(math.pi / 80))]
)
def test_the_learning_rate_rises_in_a_line_and_falls_in_half_a_cosine(ts, step, factor):
    assert ts.one_cycle(step, 100) == pytest.approx(factor)


def test_training_returns_the_weights_that_were_best_on_validation(ts, start, monkeypatch):
    start()
    parts = ts.make_task(ts.helper.make_synthetic(600)[0], 12, 3).parts
    values, seen = iter([1.0, 0.0, 2.0]), []

    def score(model, part):
        assert part is parts["validation"]
        seen.append(deepcopy(model.state_dict()))
        return next(values)

    monkeypatch.setattr(ts, "validation_score", score)
    best, history = ts.train("best", parts, ts.Recipe(hidden=4, epochs=3, batch_size=64))
    assert [row["val"] for row in history] == [1, 0, 2]
    assert not torch.equal(seen[1]["head.weight"], seen[2]["head.weight"]), "the third epoch must move the weights"
    assert_close(dict(best.state_dict()), dict(seen[1]))


def test_a_training_that_diverges_says_so(ts, start):
    start()
    task = ts.make_task(ts.helper.make_synthetic(600)[0], 12, 3)
    parts = task.parts | {
        "validation": replace(task.parts["validation"], y=np.full_like(task.parts["validation"].y, np.nan))
    }
    with pytest.warns(RuntimeWarning), pytest.raises(ts.lab.LabError, match="lost: the score on validation is nan"):
        ts.train("lost", parts, ts.Recipe(hidden=4, epochs=1, batch_size=64))


def test_a_state_of_another_season_is_not_taken_up(ts, start):
    start()
    drawn, recipe = ts.helper.make_synthetic(600)[0], ts.Recipe(hidden=4, epochs=1, batch_size=64)
    first, _ = ts.train("season", ts.make_task(drawn, 12, 3).parts, recipe)
    other, _ = ts.train("season", ts.make_task(replace(drawn, season=48), 12, 3).parts, recipe)
    assert not torch.equal(first.head.weight, other.head.weight)


def test_training_is_reproducible_and_is_not_done_twice(ts, start):
    run = start()
    parts = ts.make_task(ts.helper.make_synthetic(600)[0], 12, 3).parts
    recipe = ts.Recipe(hidden=8, epochs=2, batch_size=64)
    first, history = ts.train("one", parts, recipe, 3)
    again, history_again = ts.train("one", parts, recipe, 3)
    assert history == history_again, "a finished training must be read, not repeated"
    other, _ = ts.train("two", parts, recipe, 3)
    for key, tensor in first.state_dict().items():
        assert_close(tensor, again.state_dict()[key])
        assert_close(tensor, other.state_dict()[key])
    assert (run.folder / "state").exists()
    assert min(row["val"] for row in history) == pytest.approx(
        ts.validation_score(first, parts["validation"]), rel=1e-5
    )


def test_training_learns_a_noisy_season(ts, start):
    start()
    task = ts.make_task(ts.helper.make_synthetic(2000)[0], 12, 3)
    model, _ = ts.train("season", task.parts, ts.Recipe(hidden=16, epochs=12, batch_size=64, missing=0.0, dropout=0.0))
    part = task.parts["calibration"]
    steady = np.abs(ts.persistence(part) - part.y).mean()
    assert ts.validation_score(model, part) < 0.7 * steady


# ---------------------------------------------------------------- loaders


def write(path, rows, header="date,x,y"):
    path.write_text("\n".join([header, *rows]), encoding="utf-8")
    return path


def hours(n, start="2024-01-01"):
    return [str(time) for time in pd.date_range(start, periods=n, freq="h")]


GOOD = [f"{time},{i},{i % 7}" for i, time in enumerate(hours(60))]


SECONDS = [*pd.date_range("2024-01-01", periods=60, freq="s"), pd.Timestamp("2042-01-01")]  # a mistyped year


def test_a_good_csv(ts, tmp_path):
    series = ts.helper.load_series(write(tmp_path / "a.csv", GOOD), "y")
    assert series.columns == ["x", "y"] and series.counts() == dict(train=36, validation=6, calibration=6, test=12)
    assert series.phase()[:25].tolist() == [*range(24), 0] and series.note == ""
    (tmp_path / "b.csv.gz").write_bytes(gzip.compress((tmp_path / "a.csv").read_bytes()))
    assert_close(ts.helper.load_series(tmp_path / "b.csv.gz", "y").values, series.values)


def test_unsorted_rows_are_sorted_and_gaps_are_filled_with_nan(ts, tmp_path):
    rows = GOOD[30:50] + GOOD[:30] + GOOD[53:]
    values, times, _, note = ts.helper.read_csv(write(tmp_path / "a.csv", rows), "y")
    assert len(values) == 60 and np.isnan(values[50:53]).all() and np.isfinite(values[53:]).all()
    assert values[:50, 0].tolist() == list(range(50)) and times.is_monotonic_increasing
    assert note == "rows sorted by time; 3 left-out times filled with NaN"


@pytest.mark.parametrize(
    "rows, header, words",
    [
        (GOOD, "date,x,z", "no column y; there are: date, x, z"),
        ([*GOOD, GOOD[5]], "date,x,y", "time 2024-01-01 05:00:00 is there twice"),
        (["yesterday,1,2", *GOOD[1:]], "date,x,y", "column 'date', line 2: 'yesterday' is not a time"),
        ([*GOOD[:7], f"{hours(60)[7]},1,?", *GOOD[8:]], "date,x,y", "line 9, column 'y': '?' is not a number"),
        ([f"{time},{i},{0.1 + 0.2 if i % 2 else 0.3}" for i, time in enumerate(hours(60))], "date,x,y", "is constant"),
        (GOOD, "y,x,date", "column 'y' cannot be both time and target"),
        ([f"{time},,{i % 3}" for i, time in enumerate(hours(60))], "date,x,y", "column 'x' holds no number at all"),
        (
            [f"{time},a,{i % 3}" for i, time in enumerate(hours(60))],
            "date,x,y",
            "line 2, column 'x': 'a' is not a number",
        ),
        ([f"{time},{i},5" for i, time in enumerate(hours(60))], "date,x,y", "column 'y' is constant"),
        (
            [*GOOD[:30], "2024-01-02 06:30:00,1,2", *GOOD[31:]],
            "date,x,y",
            "time 2024-01-02 06:30:00 is not on the grid",
        ),
        ([], "", "not a CSV that can be read"),
    ],
)
def test_bad_csvs_get_one_clear_message(ts, tmp_path, rows, header, words):
    path = write(tmp_path / "bad.csv", rows, header)
    with pytest.raises(ts.helper.DataError, match=re.escape(words)) as error:
        ts.helper.load_series(path, "y")
    assert "\n" not in str(error.value).strip() and "bad.csv" in str(error.value)


def test_a_decimal_comma_is_told(ts, tmp_path):
    rows = [f"{time};{1000 + i};{i % 7},5".replace(";10", ";1.0", 1) for i, time in enumerate(hours(60))]
    path = write(tmp_path / "a.csv", rows, "date;x;y")
    with pytest.raises(ts.helper.DataError, match=r"1\.000' may be 1\.000 or 1000, .* pass decimal"):
        ts.helper.load_series(path, "y", separator=";")
    series = ts.helper.load_series(path, "y", separator=";", decimal=",")
    assert series.values[:3].tolist() == [[1000, 0.5], [1001, 1.5], [1002, 2.5]]


def test_missing_and_broken_files(ts, tmp_path):
    with pytest.raises(ts.helper.DataError, match="no such file"):
        ts.helper.load_series(tmp_path / "none.csv", "y")
    (tmp_path / "broken.csv.gz").write_bytes(b"\x1f\x8b\x08 this is no gzip file")
    with pytest.raises(ts.helper.DataError, match="not a CSV that can be read"):
        ts.helper.load_series(tmp_path / "broken.csv.gz", "y")
    with pytest.raises(ts.helper.DataError, match=r"holds neither ETTh1\.csv nor ETTh1\.csv\.gz"):
        ts.helper.load_ett(tmp_path, "ETTh1")


@pytest.mark.parametrize("nasty", tables(["date", "x", "y"], [row.split(",") for row in GOOD]), ids=str)
def test_nasty_tables(ts, tmp_path, nasty):
    path = nasty.write(tmp_path)
    series = nasty.meets(lambda: ts.helper.load_series(path, "y"))
    if series:
        assert series.values.shape == (60, 2) and series.values[:, 1].tolist() == [i % 7 for i in range(60)]


@pytest.mark.parametrize("cells, passed, meant", TIMES.values(), ids=TIMES)
def test_times_are_never_guessed(ts, tmp_path, cells, passed, meant):
    path = write(tmp_path / "a.csv", [f"{cell},{i}" for i, cell in enumerate(cells)], "date,y")
    if isinstance(meant, list) and len(meant) > 1:
        found = ts.helper.read_csv(path, "y", **passed)[1]
        assert found[0] == min(map(pd.Timestamp, meant)) and found[-1] == max(map(pd.Timestamp, meant))
    elif not isinstance(meant, list):
        with pytest.raises(ts.helper.DataError, match=meant):
            ts.helper.read_csv(path, "y", **passed)


def test_marks_for_not_measured_can_be_told(ts, tmp_path):
    rows = [*GOOD[:7], f"{hours(60)[7]},1,?", *GOOD[8:]]
    values = ts.helper.load_series(write(tmp_path / "a.csv", rows), "y", missing=("?",)).values
    assert np.isnan(values[7, 1]) and np.isnan(values).sum() == 1


MONTHS = {
    "first of the month": ("MS", 12, 1),
    "last of the month": ("ME", 12, 1),
    "quarters": ("QS", 4, 3),
    "years": ("YS", 1, 12),
}


@pytest.mark.parametrize("freq, season, count", MONTHS.values(), ids=MONTHS)
def test_months_are_a_regular_grid(ts, tmp_path, freq, season, count):
    times = pd.date_range("2001-01-01", periods=72, freq=freq)
    rows = [f"{time.date()},{i % season + i}" for i, time in enumerate(times)]
    series = ts.helper.load_series(write(tmp_path / "a.csv", rows[:30] + rows[33:], "date,y"), "y", season=season)
    assert series.times.tolist() == times.tolist() and series.note == "3 left-out times filled with NaN"
    assert np.isnan(series.values[:, 0]).nonzero()[0].tolist() == [30, 31, 32]
    assert series.phase().tolist() == [i % season for i in range(72)]


def test_months_as_whole_numbers_can_be_told(ts, tmp_path):
    times = pd.date_range("2001-01-01", periods=60, freq="MS")
    path = write(tmp_path / "a.csv", [f"{time:%Y%m},{i % 12}" for i, time in enumerate(times)], "month,y")
    series = ts.helper.load_series(path, "y", season=12, time_format="%Y%m")
    assert series.times.tolist() == times.tolist() and series.phase().tolist() == 5 * list(range(12))


def test_days_of_the_month_that_change_are_no_months(ts, tmp_path):
    rows = ["2001-01-05,1", "2001-02-06,2", "2001-03-05,3"]
    with pytest.raises(ts.helper.DataError, match="is not on the grid of one row every"):
        ts.helper.read_csv(write(tmp_path / "a.csv", rows, "date,y"), "y")


def test_twelve_steps_a_day_are_no_months(ts):
    times = pd.date_range("2024-01-01 04:00", periods=40, freq="2h")
    assert ts.helper.season_phase(times, 12).tolist() == [(i + 2) % 12 for i in range(40)]


def test_places_in_the_season_are_named_by_the_times(ts, tmp_path):
    def loaded(freq, season, **words):
        rows = [f"{time},{i},{i % 7}" for i, time in enumerate(pd.date_range("2024-01-07", periods=200, freq=freq))]
        return ts.helper.load_series(write(tmp_path / "a.csv", rows), "y", season=season, **words)

    assert loaded("h", 24).season_name() == "hour of day" and loaded("MS", 12).season_name() == "month"
    for freq, season in (("2h", 12), ("h", 52), ("15min", 24)):
        assert loaded(freq, season).season_name() == f"place in a season of {season} steps"
    weeks = loaded("7D", 52)
    assert weeks.season_name() == "month" and np.array_equal(weeks.season_bins(), weeks.times.month - 1)
    assert loaded("h", 24, step="hour").step == "hour" and loaded("15min", 96, step="quarter").step == "quarter"
    with pytest.raises(ts.helper.DataError, match="step='hour', but the rows are 0 days 00:15:00 apart"):
        loaded("15min", 24, step="hour")


def test_parts_that_cannot_be_scored_are_named_before_any_training(ts, start, tmp_path):
    cfg, series = start("demo").cfg, ts.helper.load_co2()
    b1, b2, b3, b4 = series.borders
    for rows, words in ((slice(b3, b4), "constant, or missing, in the test part"),
                        (slice(b2, (b2 + b3) // 2), "a half of the calibration part has 1 values"),
                        (slice(b1, b2), "constant, or missing, in the validation part")):  # fmt: skip
        values = series.values.copy()
        values[rows] = np.nan if "half" in words else 5.0
        with pytest.raises(ts.lab.LabError, match=f"CO2: .*{words}"):
            ts.helper.check_fit(cfg, replace(series, values=values))
    rows = [f"{time},{'' if i >= 16 * 720 else i % 5},{i % 3}" for i, time in enumerate(hours(14400))]
    with pytest.raises(ts.helper.DataError, match=r"ETTh1\.csv: column 'OT' has no number in the test part"):
        ts.helper.load_ett(write(tmp_path / "ETTh1.csv", rows, "date,OT,y").parent, "ETTh1")


def test_a_forecast_may_not_be_nan_where_the_outcome_is_known(ts):
    forecast = ts.Forecast(np.array([[np.nan, 1.0]]), np.ones((1, 2)))
    assert np.isnan(ts.scores(forecast, np.array([[np.nan, 1.5]]), np.zeros((1, 2)))["crps"][0, 0])
    with pytest.raises(ValueError, match="a forecast is NaN where the outcome is known"):
        ts.scores(forecast, np.array([[1.0, np.nan]]), np.zeros((1, 2)))


def test_persistence_keeps_ties(ts):
    rng = np.random.default_rng(0)
    series = ts.helper.make_synthetic(900)[0]
    series.values[:] = np.round(20 + np.cumsum(rng.choice([-0.1, 0, 0.1], 900, p=[0.2, 0.6, 0.2])), 1)[:, None]
    part = ts.make_task(series, 20, 3).parts["test"]
    same = series.values[part.origin + 1, 0] == series.values[part.origin, 0]
    assert same.mean() > 0.5 and np.array_equal(ts.persistence(part)[:, 0] == part.y[:, 0], same)


def test_edges_of_levels_and_bins_belong_to_them(ts):
    inside, bins = ts.shape_of(np.append(np.arange(200) / 200, np.nan))
    assert_close(bins, np.full(10, 0.1))
    places = np.arange(200)
    by_hand = [(np.abs(10 * (places - 100)) <= round(1000 * level)).mean() for level in ts.NOMINAL]
    assert_close(inside, np.array(by_hand))


def test_damage_leaves_alone_what_it_does_not_touch(ts):
    series = ts.helper.make_synthetic(900)[0]
    values = np.repeat(series.values, 2, axis=1)
    values[1::2, 1] = np.nan  # measured every other hour: no two neighbours
    task = ts.make_task(replace(series, values=values, columns=["y", "z"]), 20, 3)
    assert np.array_equal(ts.damage(task).x, task.parts["test"].x, equal_nan=True)
    moved = ts.damage(task, outliers=0.3).x - task.parts["test"].x
    assert np.isfinite(moved[..., 0]).all() and (moved[..., 1][np.isfinite(moved[..., 1])] != 0).any()


def test_ett_of_quarter_hours_is_refused(ts, tmp_path):
    times = pd.date_range("2016-07-01", periods=100, freq="15min")
    write(tmp_path / "ETTm1.csv", [f"{time},{i % 5}" for i, time in enumerate(times)], "date,OT")
    with pytest.raises(ts.helper.DataError, match="one row every 0 days 00:15:00; the published split counts hours"):
        ts.helper.load_ett(tmp_path, "ETTm1")


@pytest.mark.parametrize(
    "season, shares",
    [
        (0, (0.6, 0.1, 0.1)),
        (24, (0.6, 0.4)),
        (24, (0.6, 0.4, 0.1)),
        (24, (0.9, 0, 0)),
        (24, (float("nan"), 0.1, 0.1)),
    ],
)
def test_bad_split_is_named(ts, tmp_path, season, shares):
    with pytest.raises(ts.helper.DataError, match=rf"a\.csv: season={season}, shares="):
        ts.helper.load_series(write(tmp_path / "a.csv", GOOD), "y", season=season, shares=shares)


def test_constant_in_the_training_part_alone(ts, tmp_path):
    rows = [f"{time},{i},{1 if i < 40 else i}" for i, time in enumerate(hours(60))]
    with pytest.raises(ts.helper.DataError, match="constant, or missing, in the training part"):
        ts.helper.load_series(write(tmp_path / "a.csv", rows), "y")


@pytest.mark.parametrize(
    "rows, season, words",
    [
        ([*GOOD[:50], "2024-09-01 00:00:00,1,2"], 24, "the largest gap, .*, ends at 2024-09-01"),
        ([f"{t},{'' if i < 40 else i},{i % 7}" for i, t in enumerate(hours(60))], 24, "'x' has no number in the train"),
        ([f"{t},{i},{i % 7 if i < 48 else ''}" for i, t in enumerate(hours(60))], 24, "no number in the test part"),
        (GOOD, 24.5, "season=24.5"),
        (GOOD, 24.0, "season=24.0"),
        (GOOD, np.inf, "season=inf"),
        ([*GOOD[:9], f"{hours(60)[9]},1,1e20", *GOOD[10:]], 24, r"'y' holds 1e\+20; nothing above 1e\+15"),
        ([f"{t},1,{t.second % 7}" for t in SECONDS], 24, "of 5.* times on the grid only 61 .* ends at 2042-01-01"),
        (GOOD, 40, "season=40: the training part has 36 rows"),
        ([f"{d.date()},1,{i % 5}" for i, d in enumerate(pd.bdate_range("2024-01-01", periods=60))], 5, "pass season=7"),
    ],
)  # fmt: skip
def test_a_series_that_cannot_be_forecast_is_named(ts, tmp_path, rows, season, words):
    with pytest.raises(ts.helper.DataError, match=words):
        ts.helper.load_series(write(tmp_path / "a.csv", rows), "y", season=season)


def test_a_series_has_the_name_of_its_file(ts, tmp_path):
    assert ts.helper.load_series(write(tmp_path / "my.a.csv", GOOD), "y").name == "my.a"
    with pytest.raises(ts.helper.DataError, match="the name 'synthetic' is taken"):
        ts.helper.load_series(write(tmp_path / "synthetic.csv", GOOD), "y")


def test_rows_of_28_days_are_no_months(ts, tmp_path):
    rows = [f"{d.date()},{i % 5},{i}" for i, d in enumerate(pd.date_range("2000-01-03", periods=60, freq="28D"))]
    series = ts.helper.load_series(write(tmp_path / "a.csv", rows), "y", season=13)
    assert (np.diff(series.phase()) % 13 == 1).all()


def test_too_few_rows_for_a_window(ts, tmp_path):
    series = ts.helper.load_series(write(tmp_path / "a.csv", GOOD), "y")
    with pytest.raises(ValueError, match="rows 36 to 42: too few for a window of 20 steps in and 5 out"):
        ts.make_task(series, 20, 5)
    assert len(ts.make_task(series, 3, 1).parts["test"].y) == 12 - 3


def test_short_ett_file(ts, tmp_path):
    rows = [f"{time},{i % 5}" for i, time in enumerate(hours(500))]
    write(tmp_path / "ETTh1.csv", rows, "date,OT")
    with pytest.raises(ts.helper.DataError, match="500 rows, the published split needs 14400"):
        ts.helper.load_ett(tmp_path, "ETTh1")


def test_co2_is_what_it_says(ts):
    series = ts.helper.load_co2()
    assert sum(series.counts().values()) == len(series.values) == 2284 and np.isnan(series.values).sum() == 59
    for date, week in (("1959-01-03", 0), ("1960-07-02", 26), ("1970-12-26", 51)):
        assert series.phase()[series.times == date] == week, date


def test_cut_keeps_the_begin_of_the_test_part(ts):
    series = ts.helper.load_co2()
    short = series.cut(100)
    assert short.counts() == dict(train=300, validation=100, calibration=100, test=100)
    assert short.times[short.borders[2]] == series.times[series.borders[2]]
    assert series.cut(0) is series
    with pytest.raises(ts.lab.LabError, match="rows=366: CO2 has 1827 rows before its test part; 365 at most"):
        series.cut(366)


def test_synthetic_series_has_the_law_that_it_claims(ts):
    series, mean, std, new = ts.helper.make_synthetic(20_000, seed=3)
    z = (series.values[:, 0] - mean) / std
    assert abs(z.mean()) < 0.03 and abs(z.std() - 1) < 0.02 and abs(np.corrcoef(z[1:], z[:-1])[0, 1]) < 0.03
    assert std.min() == pytest.approx(0.08) and std.max() == pytest.approx(0.42)
    assert not new[: series.borders[2]].any(), "the new regime lies in the test part"


@needs("ett")
@pytest.mark.parametrize(
    "name, digest", [("ETTh1", "8381763947c85f4be6ac456c508460d6"), ("ETTh2", "51a229a3fc13579dd939364fefe9c7ab")]
)
def test_real_ett(ts, name, digest):
    series = ts.helper.load_ett(REAL / "ett", name)
    assert series.values.shape == (17420, 7) and not np.isnan(series.values).any() and series.target == "OT"
    assert series.counts() == dict(train=8640, validation=1440, calibration=1440, test=2880)
    assert md5(gzip.decompress((REAL / "ett" / f"{name}.csv.gz").read_bytes())).hexdigest() == digest


# ---------------------------------------------------------------- the whole room


@pytest.mark.parametrize(
    "overrides, words",
    [
        ("horizons=0", "horizons=0: at least 1"),
        ("kind=rnn", "kind='rnn': known are"),
        ("dropout=1.0", "dropout=1.0: a share"),
        ("members=(0,)", r"members=\(0,\): at least two seeds"),
        ("choice_seeds=(5,6)", r"choice_seeds=\(5, 6\): all of them must be among members"),
        ("passes=1", "passes=1: at least 2"),
        ("mc_dropout=0.0", "mc_dropout=0.0: above 0"),
        ("atoms=1", "atoms=1: at least 2"),
        ("aci_rates=()", r"aci_rates=\(\): at least one"),
        ("aci_rates=(0.1,0.0)", r"aci_rates=\(0.1, 0.0\): .* all above 0"),
        ("failure_steps=3", "failure_steps=3: at least 50"),
        ("rows=-1", "rows=-1: at least 0"),
        ("truth_rows=350", "truth_rows=350: at least 360"),
        ("members=(1,1)", r"members=\(1, 1\): .* none twice"),
        ("series=()", r"series=\(\): at least one series"),
        ("beta=1.5", "beta=1.5: from 0 to 1"),
        ("lr=0.0", "lr=0.0: above 0, at most 10"),
        ("lr=1e300", r"lr=1e\+300: above 0, at most 10"),
        ("weight_decay=-1.0", "weight_decay=-1.0: from 0 to 10"),
        ("weight_decay=1e300", r"weight_decay=1e\+300: from 0 to 10"),
        ("members=(0,18446744073709551616)", "seeds lie from 0 to 4294967295"),
    ],
)
def test_bad_settings_are_named(ts, start, overrides, words):
    run = start("tiny", overrides)
    with pytest.raises(ts.lab.LabError, match=words):
        ts.helper.check_settings(run.cfg)


@pytest.mark.parametrize("profile", ["tiny", "demo", "full"])
def test_settings_of_every_profile_pass(ts, start, profile):
    ts.helper.check_settings(start(profile).cfg)


@pytest.mark.parametrize(
    "overrides, words",
    [
        ("", ""),
        (
            "length=220,truth_rows=9000",
            "length=220, horizons=5: 225 rows are needed, the validation part of CO2 has 22",
        ),
        ("horizons=300,truth_rows=9000", "horizons=300: 320 rows are needed"),
        ("rows=40", "horizons=5: 43 rows are needed, the calibration part of CO2 has 40"),
    ],
)
def test_windows_that_do_not_fit_the_series_are_named(ts, start, overrides, words):
    cfg = start("demo", overrides).cfg
    series = ts.helper.load_co2().cut(cfg.rows or (220 if overrides else 0))
    ts.helper.check_settings(cfg)
    if words:
        with pytest.raises(ts.lab.LabError, match=words):
            ts.helper.check_fit(cfg, series)
    else:
        ts.helper.check_fit(cfg, series)
