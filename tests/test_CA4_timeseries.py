"""CA4_timeseries: what code.ipynb defines, held against PyTorch, scipy, statsmodels, or a case done by hand.

`test_notices_...`: a copy of the notebook's cell with one usual mistake must fail the same comparison.
"""

import gzip
import re
from dataclasses import replace
from functools import cache, partial
from hashlib import md5

import numpy as np
import pandas as pd
import pytest
import scipy.integrate
import scipy.stats
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from nasty_files import TIMES, tables
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


# ---------------------------------------------------------------- windows and scaling


@given(st.integers(0, 40), st.integers(0, 60), st.integers(1, 9), st.integers(1, 6), st.booleans())
@settings(deadline=None, max_examples=200)
def test_origins_are_all_that_fit(begin, rows, length, horizons, reach_back):
    origins, end = definitions().origins, begin + rows
    first = 0 if reach_back else begin
    fit = [
        t
        for t in range(end)
        if t - length + 1 >= first and t + 1 >= begin and t + horizons <= end - 1
    ]  # fmt: skip
    if fit:
        assert origins(begin, end, length, horizons, reach_back).tolist() == fit
    else:
        with pytest.raises(ValueError, match="too few for a window"):
            origins(begin, end, length, horizons, reach_back)


@pytest.mark.parametrize("length, horizons", [(0, 1), (5, 0), (-1, 2)])
def test_a_window_needs_steps(ts, length, horizons):
    with pytest.raises(ValueError, match="both must be 1 at least"):
        ts.origins(0, 50, length, horizons)


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


def test_scaler_leaves_missing_values_out_and_survives_a_constant_column(ts):
    values = np.array([[1.0, 5.0], [np.nan, 5.0], [3.0, 5.0]])
    mean, std = ts.fit_scaler(values)
    assert_close(mean, np.array([2.0, 5.0]))
    assert_close(std, np.array([1.0, 1.0]))


@pytest.mark.parametrize("constant", [0.1, 40.3, -1e9 / 3, 1e-7, 0.0])
def test_scaler_takes_rounding_noise_for_a_constant(ts, constant):
    values = np.stack([np.full(1001, constant), constant * (1 + 1e-6 * np.arange(1001)), np.arange(1001.0)], axis=1)
    _, std = ts.fit_scaler(values)
    assert std[0] == 1.0 and std[2] > 100
    assert constant == 0 or std[1] == pytest.approx(values[:, 1].std()), "a small deviation is no noise"


# ---------------------------------------------------------------- scores


@pytest.mark.parametrize("location, scale, y", [(0.0, 1.0, 0.0), (3.0, 0.2, 2.0), (-5.0, 4.0, 9.0)])
@pytest.mark.parametrize("df", [None, 1.5, 3.0, 30.0])
def test_crps_is_the_integral(ts, location, scale, y, df):
    law = scipy.stats.norm(location, scale) if df is None else scipy.stats.t(df, location, scale)
    found = ts.crps_gaussian(location, scale, y) if df is None else ts.crps_student(location, scale, df, y)
    below = scipy.integrate.quad(lambda u: law.cdf(u) ** 2, -np.inf, y, limit=200)[0]
    above = scipy.integrate.quad(lambda u: law.sf(u) ** 2, y, np.inf, limit=200)[0]
    assert found == pytest.approx(below + above, abs=1e-5)


def test_crps_ensemble_is_the_mean_over_pairs(ts):
    rng = np.random.default_rng(0)
    members, y = rng.normal(size=(4, 5, 7)), rng.normal(size=(4, 5))
    members[0, 0] = 1.0  # ties
    pairs = np.abs(members[..., :, None] - members[..., None, :]).mean((-1, -2))
    expected = np.abs(members - y[..., None]).mean(-1) - pairs / 2
    assert_close(ts.crps_ensemble(members, y), expected)
    one = ts.crps_ensemble(members[..., :1], y)
    assert_close(one, np.abs(members[..., 0] - y))  # one member: the absolute error


def test_notices_a_crps_without_its_second_half(ts):
    wrong = mutated(ts, ts.crps_ensemble, (" - members @ weights", " - 2 * members @ weights")).crps_ensemble
    drawn = np.random.default_rng(0).normal(size=(1, 50_000))
    assert abs(wrong(drawn, np.zeros(1))[0] - ts.crps_gaussian(0, 1, 0)) > 0.1


@pytest.mark.parametrize("df", [None, 4.0])
def test_forecast_agrees_with_scipy(ts, df):
    location, scale, y = np.array([[1.0, 2.0]]), np.array([[0.5, 2.0]]), np.array([[1.2, np.nan]])
    forecast = ts.Forecast(location, scale, None if df is None else np.full((1, 2), df))
    law = scipy.stats.norm(1.0, 0.5) if df is None else scipy.stats.t(df, 1.0, 0.5)
    assert forecast.nll(y)[0, 0] == pytest.approx(-law.logpdf(1.2))
    assert forecast.pit(y)[0, 0] == pytest.approx(law.cdf(1.2))
    assert [edge[0, 0] for edge in forecast.interval(0.9)] == pytest.approx(law.interval(0.9))
    assert all(np.isnan(values[0, 1]) for values in (forecast.nll(y), forecast.crps(y), forecast.pit(y)))


def test_dressed_is_its_residuals(ts):
    residuals = np.array([[-1.0, 0.0], [0.0, 0.0], [2.0, 0.0]])
    dressed = ts.Dressed(np.array([[10.0, 20.0]]), np.array([[2.0]]), residuals)
    assert dressed.members(0).tolist() == [[8.0, 10.0, 14.0]]
    y = np.array([[10.5, 21.0]])
    assert_close(dressed.pit(y), np.array([[2 / 3, 1.0]]))
    assert_close(dressed.crps(y)[:, 1], np.array([1.0]))  # no spread: the absolute error
    low, high = dressed.interval(0.5)
    assert_close(np.stack([low, high])[:, 0, 0], 10 + 2 * np.quantile(residuals[:, 0], [0.25, 0.75]))


@given(st.floats(-3, 3), st.floats(0.1, 3), st.floats(-5, 5))
@settings(deadline=None)
def test_winkler_is_what_its_quantiles_cost(low, width, y):
    """The interval score is 2 / (1 - level) times the sum of both quantiles' pinball losses."""
    ts, level, high = definitions(), 0.8, low + width
    pinball = sum((tau - (y < q)) * (y - q) for tau, q in ((0.1, low), (0.9, high)))
    assert ts.winkler(np.array(low), np.array(high), np.array(y), level) == pytest.approx(2 / (1 - level) * pinball)


# ---------------------------------------------------------------- block bootstrap


def test_blocks_of_one_are_the_ordinary_bootstrap(ts):
    values = np.random.default_rng(0).normal(size=400)
    ours = ts.block_bootstrap(values, 1, resamples=4000)
    theirs = scipy.stats.bootstrap((values,), np.mean, n_resamples=4000, method="percentile", rng=0).confidence_interval
    assert ours["value"] == pytest.approx(values.mean()) and ours["n"] == 400
    assert [ours["low"], ours["high"]] == pytest.approx(list(theirs), abs=0.01)


def test_block_bootstrap_of_a_ratio_and_with_missing_rows(ts):
    rng = np.random.default_rng(0)
    pairs = rng.uniform(1, 2, (300, 2))
    pairs[::10, 0] = np.nan
    kept = pairs[np.isfinite(pairs).all(1)]
    estimate = ts.block_bootstrap(pairs, 20, statistic=lambda m: m[..., 0] / m[..., 1])
    assert estimate["n"] == len(kept) and estimate["value"] == pytest.approx(kept[:, 0].mean() / kept[:, 1].mean())
    assert estimate["low"] < estimate["value"] < estimate["high"]
    constant = ts.block_bootstrap(np.ones(50), 200)
    assert (constant["low"], constant["value"], constant["high"]) == (1, 1, 1)
    with pytest.raises(ValueError, match="no finite value"):
        ts.block_bootstrap(np.full(5, np.nan), 2)


def test_notices_blocks_that_are_drawn_one_by_one(ts):
    noise = np.random.default_rng(0).normal(size=3000).cumsum() / 50
    width = [e["high"] - e["low"] for e in (ts.block_bootstrap(noise, block) for block in (1, 300))]
    assert width[1] > 4 * width[0], "neighbours are alike, and the interval must know it"


# ---------------------------------------------------------------- representation


def test_carry_forward_is_pandas_ffill(ts):
    part = random_part(ts, n=200, missing=0.6)
    x = torch.tensor(part.x[..., 0])
    filled, since = ts.carry_forward(x, ~x.isnan())
    assert_close(filled.numpy(), pd.DataFrame(x.numpy()).ffill(axis=1).fillna(0.0).to_numpy())
    by_hand = [[next((k for k in range(t + 1) if not row[t - k].isnan()), t + 1) for t in range(12)] for row in x[:20]]
    assert since[:20].tolist() == by_hand


def test_representation_moves_and_stretches_with_the_window(ts):
    x = torch.randn(50, 12, 1, dtype=torch.float64).cumsum(1)
    x[torch.rand(x.shape) < 0.3] = torch.nan
    phase = torch.zeros(50, 12, 2, dtype=torch.float64)
    features, anchor, scale = ts.represent(x, phase)
    seen = ~x.isnan().all(1)[:, 0]
    moved, anchor_moved, scale_moved = ts.represent(5 * x + 3, phase)
    free = (~x.isnan()).sum(1)[:, 0] > 1  # one observation has no step
    assert_close(features[free][..., :3], moved[free][..., :3])
    assert_close(anchor_moved[seen], 5 * anchor[seen] + 3)
    assert_close(scale_moved[free], 5 * scale[free])


def test_a_window_without_any_observation_is_no_error(ts):
    features, anchor, scale = ts.represent(torch.full((1, 6, 1), torch.nan), torch.zeros(1, 6, 2))
    assert features.isfinite().all() and anchor.item() == 0 and scale.item() > 0


def test_a_constant_window_is_no_error(ts):
    features, _, scale = ts.represent(torch.full((1, 6, 1), 2.0), torch.zeros(1, 6, 2))
    assert features.isfinite().all() and scale.item() == pytest.approx(0.02)


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


@pytest.mark.parametrize(
    "kind, change",
    [
        ("lstm", ("f.sigmoid() * c + i.sigmoid() * g.tanh()", "i.sigmoid() * c + f.sigmoid() * g.tanh()")),
        ("lstm", ("o.sigmoid() * c.tanh(), c", "o.sigmoid() * c, c")),
        ("gru", ("(1 - z) * n + z * h", "z * n + (1 - z) * h")),
        ("gru", ("+ r * from_state[..., -h.shape[-1] :]", "+ from_state[..., -h.shape[-1] :]")),
    ],
)
def test_notices_a_wrong_cell(ts, kind, change):
    wrong = mutated(ts, ts.LSTMCell.step, change).CELLS[kind](3, 5)
    theirs = {"lstm": nn.LSTMCell, "gru": nn.GRUCell}[kind](3, 5)
    wrong.load_state_dict(theirs.state_dict())
    x, h = torch.randn(4, 3), torch.randn(4, 5)
    state = (h, torch.randn(4, 5))[: wrong.states]
    expected = theirs(x, state if len(state) == 2 else h)
    found = wrong.step(wrong.project(x), state, mask=1.0)
    assert not torch.allclose(found[0], expected[0] if len(state) == 2 else expected, atol=1e-4)


def test_state_dropout_uses_one_mask_for_all_steps(ts):
    """With weights of zero but for the state's own, a dropped unit hears nothing of its past at any step."""
    torch.manual_seed(1)
    recurrent = ts.Recurrent("gru", 2, 8, dropout=0.5)
    masks = []
    recurrent.dropout.mask = lambda x: masks.append(ts.VariationalDropout.mask(recurrent.dropout, x)) or masks[-1]
    recurrent(torch.randn(3, 7, 2))
    assert [tuple(m.shape) for m in masks] == [(3, 2), (3, 8)], "one mask for the inputs and one for the state, no more"


def test_notices_a_mask_that_changes_from_step_to_step(ts):
    change = ("mask = self.mask(x)\n        return x * (mask[:, None] if x.ndim == 3 else mask)",
              "return x * (torch.rand_like(x) >= self.p) / (1 - self.p)")  # fmt: skip
    wrong = mutated(ts, ts.VariationalDropout.forward, change).VariationalDropout(0.4)
    out = wrong(torch.ones(50, 6, 4))
    assert not (out == out[:, :1]).all()


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


@pytest.mark.parametrize("head, parameters", [("point", 1), ("normal", 2), ("student", 3)])
def test_forecaster_shapes(ts, head, parameters):
    model = ts.Forecaster("gru", 6, 4, hidden=8, head=head)
    assert model(torch.randn(3, 10, 6)).shape == (3, 4, parameters)
    assert_close(model.weights.sum(1), torch.ones(3))
    assert (
        ts.Forecaster("gru", 6, 4, hidden=8, attention=False, head=head)(torch.randn(3, 10, 6)).shape[-1] == parameters
    )


def test_unknown_head(ts):
    with pytest.raises(ValueError, match="head 'laplace': known are point, normal, student"):
        ts.Forecaster("gru", 6, 4, hidden=8, head="laplace")


# ---------------------------------------------------------------- likelihoods


def test_likelihoods_are_those_of_scipy(ts):
    location, log_scale, y = torch.randn(3, 40, dtype=torch.float64)
    normal, student = scipy.stats.norm(location, log_scale.exp()), scipy.stats.t(3.5, location, log_scale.exp())
    assert_close(ts.normal_nll(location, log_scale, y).numpy(), -normal.logpdf(y))
    found = ts.student_nll(location, log_scale, torch.tensor(3.5, dtype=torch.float64), y)
    assert_close(found.numpy(), -student.logpdf(y))


@pytest.mark.parametrize("beta", [0.0, 0.3, 1.0])
def test_beta_nll_scales_the_gradient_of_the_mean(ts, beta):
    location, log_scale, y = torch.randn(3, 20, dtype=torch.float64)
    location.requires_grad_()
    (gradient,) = torch.autograd.grad(ts.normal_nll(location, log_scale, y, beta).sum(), location)
    assert_close(gradient, (2 * (beta - 1) * log_scale).exp() * (location - y).detach())


def test_notices_a_weight_that_gets_a_gradient(ts):
    wrong = mutated(ts, ts.normal_nll, ("log_scale.detach()", "log_scale")).normal_nll
    gradients = []
    for function in (ts.normal_nll, wrong):
        log_scale = torch.zeros(1, requires_grad=True)
        gradients += torch.autograd.grad(
            function(torch.zeros(1), log_scale, torch.full((1,), 2.0), 0.5).sum(), log_scale
        )
    assert not torch.allclose(*gradients)


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


def test_missing_targets_do_not_count(ts):
    raw, anchor, scale = torch.randn(6, 3, 2), torch.randn(6), torch.rand(6) + 0.5
    y = torch.randn(6, 3)
    holes = y.clone()
    holes[2:] = torch.nan
    whole = ts.forecast_loss(raw[:2], anchor[:2], scale[:2], y[:2], 0.5)
    assert_close(ts.forecast_loss(raw, anchor, scale, holes, 0.5), whole)
    assert ts.forecast_loss(raw, anchor, scale, torch.full_like(y, torch.nan), 0.5) == 0


# ---------------------------------------------------------------- uncertainty


def test_mc_dropout_varies_only_with_dropout(ts, start):
    start()
    part = random_part(ts)
    spread = {p: ts.mc_dropout(ts.Forecaster("gru", 6, 3, 8, dropout=p), part, 8)[0].var(0).max() for p in (0.0, 0.3)}
    assert spread[0.0] < 1e-12 and spread[0.3] > 1e-4


def test_notices_dropout_that_is_left_off(ts, start):
    start()
    wrong = mutated(ts, ts.mc_dropout, ("            module.train()", "            module.eval()")).mc_dropout
    model = ts.Forecaster("gru", 6, 3, 8, dropout=0.3)
    assert wrong(model, random_part(ts), 4)[0].var(0).max() < 1e-12


def test_mc_dropout_leaves_order_and_mode_alone(ts, start):
    start()
    model, part = ts.Forecaster("gru", 6, 3, 8, dropout=0.0).eval(), random_part(ts, n=23)
    locations, scales = ts.mc_dropout(model, part, 3, batch_size=5)
    location, log_scale, _ = ts.raw_outputs(model, part, batch_size=7)
    for k in range(3):
        assert_close(locations[k], location, atol=1e-5, rtol=1e-4)
        assert_close(scales[k], np.exp(log_scale), atol=1e-5, rtol=1e-4)
    assert not any(module.training for module in model.modules())


def test_total_variance_by_hand(ts):
    mean, aleatoric, epistemic = ts.total_variance(np.array([[[0.0]], [[2.0]]]), np.array([[[1.0]], [[3.0]]]))
    assert (mean.item(), aleatoric.item(), epistemic.item()) == (1.0, 5.0, 1.0)


# ---------------------------------------------------------------- conformal


def test_conformal_quantile_by_counting(ts):
    scores = np.random.default_rng(0).exponential(size=57)
    for level in (0.5, 0.8, 0.9, 0.95):
        expected = np.quantile(scores, min(1, np.ceil(58 * level) / 57), method="inverted_cdf")
        assert ts.conformal_quantile(scores, level) == pytest.approx(expected)
    assert ts.conformal_quantile(np.append(scores, np.nan), 0.9) == ts.conformal_quantile(scores, 0.9)
    assert ts.conformal_quantile(scores[:10], 0.95) == np.inf


def test_split_conformal_covers_within_binomial_error(ts):
    rng, hits, trials = np.random.default_rng(0), 0, 4000
    for _ in range(trials):
        scores = rng.exponential(size=41)
        hits += scores[-1] <= ts.conformal_quantile(scores[:-1], 0.8)
    low, high = scipy.stats.binom.interval(0.999, trials, np.ceil(41 * 0.8) / 41)
    assert low <= hits <= high


def aci_by_hand(calibration, test, level, rate, h):
    """The recursion for one horizon, written with a list of what is known."""
    alpha, found, waiting = 1 - level, [], []
    ordered = sorted(calibration)
    for t, score in enumerate(test):
        while waiting and waiting[0][0] <= t:
            _, missed = waiting.pop(0)
            alpha += rate * ((1 - level) - missed)
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


@pytest.mark.parametrize("change", [("due = t - h", "due = t - 1"), ("(1 - level) - missed", "missed - (1 - level)")])
def test_notices_a_wrong_adaptive_interval(ts, change):
    wrong = mutated(ts, ts.adaptive_conformal, change).adaptive_conformal
    rng = np.random.default_rng(0)
    calibration, test = rng.exponential(size=(200, 4)), rng.exponential(1.5, size=(300, 4))
    assert not np.allclose(wrong(calibration, test, 0.9, 0.05), ts.adaptive_conformal(calibration, test, 0.9, 0.05))


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


@pytest.mark.parametrize(
    "change",
    [("due = t - columns - 1", "due = t - columns"), ("test[np.maximum(due, 0), columns] ** 2", "test[t] ** 2")],
)
def test_notices_a_scale_that_sees_the_future(ts, change):
    calibration, test = errors_in_units_of_std()
    wrong = mutated(ts, ts.rescaling, change).rescaling(calibration, test, "adaptive", 20)
    assert not np.allclose(wrong, running_scale_by_hand(calibration, test, 20), atol=1e-3)


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


# ---------------------------------------------------------------- baselines and rivals


def test_persistence_repeats_and_seasonal_persistence_looks_back_whole_seasons(ts, task):
    part = task.parts["test"]
    assert_close(ts.persistence(part), np.repeat(part.x[:, -1, :1], 3, axis=1), atol=1e-6, rtol=1e-6)
    seasonal = ts.persistence(part, 2, task.scaled)  # a season of 2 steps: the third step ahead looks back 4
    ahead = part.origin[:, None] + np.array([1, 2, 3])
    assert_close(seasonal, task.scaled[ahead - [2, 2, 4], 0])


@pytest.mark.parametrize("order, harmonics", [((1, 0, 0), 1), ((2, 1, 1), 2)])
def test_arima_from_every_origin_is_the_librarys(ts, task, order, harmonics):
    found, ran = ts.arima(task, order, harmonics)
    series, y = task.series, task.scaled[:, 0]
    angle = 2 * np.pi * series.phase()[:, None] * np.arange(1, harmonics + 1) / series.season
    fourier = np.concatenate([np.sin(angle), np.cos(angle)], axis=1)
    for k in (0, 37):
        t = task.parts["test"].origin[k]
        past = SARIMAX(y[: t + 1], fourier[: t + 1], order=order).filter(ran.params)
        expected = past.get_forecast(3, exog=fourier[t + 1 : t + 4])
        assert_close(found["test"][0][k], expected.predicted_mean, atol=1e-6, rtol=1e-5)
        assert_close(found["test"][1][k], expected.se_mean, atol=1e-4, rtol=1e-3)


def test_dlinear_can_be_a_plain_linear_map(ts):
    """With equal weights for trend and rest the split has no effect."""
    model, x = ts.DLinear(30, 4), torch.randn(5, 30)
    model.rest.load_state_dict(model.trend.state_dict())
    expected = x @ model.trend.weight.T + 2 * model.trend.bias
    assert_close(model(x), expected, atol=1e-5, rtol=1e-4)


def test_ridge_recovers_a_linear_law(ts):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(3000, 6, 1)).cumsum(1)
    y = x[:, -1] + 0.5 * (x[:, -1] - x[:, -2])
    part = ts.Part(x, np.zeros((3000, 6, 2)), y, np.arange(3000))
    assert np.abs(ts.Ridge(part).predict(part) - y).max() < 0.05


def test_ridge_forecasts_a_single_step_too(ts):
    one = ts.make_task(ts.helper.make_synthetic(600)[0], 12, 1)
    assert ts.Ridge(one.parts["train"]).predict(one.parts["test"]).shape == one.parts["test"].y.shape


def test_dressing_takes_validation_errors_only(ts, task):
    points = {name: ts.persistence(task.parts[name]) for name in ("validation", "calibration", "test")}
    dressed = ts.dress(task, points)
    changed = replace(task, parts={**task.parts, "test": replace(task.parts["test"], y=task.parts["test"].y + 9)})
    again = ts.dress(changed, points)
    assert_close(dressed["test"].residuals, again["test"].residuals)
    y = ts.truth(task, "validation")
    assert np.abs(dressed["validation"].pit(y).mean() - 0.5) < 0.05


# ---------------------------------------------------------------- training


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


# ---------------------------------------------------------------- long horizons


def test_every_window_of_the_benchmark_counts(ts, start):
    start()
    scaled = torch.randn(700, 2)
    t = torch.as_tensor(ts.origins(300, 700, 48, 24, reach_back=True))
    scores = ts.long_scores(ts.SegmentForecaster(48, 24, 24, 8).eval(), scaled, t, 48, 24)
    assert len(scores) == 400 - 24 + 1 and np.isfinite(scores).all()


def test_segments_are_read_in_order(ts):
    model, x = ts.SegmentForecaster(12, 2, 4, hidden=5).eval(), torch.randn(3, 12)
    segments = torch.stack([x[:, k : k + 4] - x[:, -1:] for k in (0, 4, 8)], dim=1)
    states = model.recurrent(model.embed(segments).relu())
    assert_close(model(x), model.head(states[:, -1]).reshape(3, 2, 2))


# ---------------------------------------------------------------- loaders


def write(path, rows, header="date,x,y"):
    path.write_text("\n".join([header, *rows]), encoding="utf-8")
    return path


def hours(n, start="2024-01-01"):
    return [str(time) for time in pd.date_range(start, periods=n, freq="h")]


GOOD = [f"{time},{i},{i % 7}" for i, time in enumerate(hours(60))]


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


def test_ett_of_quarter_hours_is_refused(ts, tmp_path):
    times = pd.date_range("2016-07-01", periods=100, freq="15min")
    write(tmp_path / "ETTm1.csv", [f"{time},{i % 5}" for i, time in enumerate(times)], "date,OT")
    with pytest.raises(ts.helper.DataError, match="one row every 0 days 00:15:00; the published split counts hours"):
        ts.helper.load_ett(tmp_path, "ETTm1")


@pytest.mark.parametrize(
    "season, shares", [(0, (0.6, 0.1, 0.1)), (24, (0.6, 0.4)), (24, (0.6, 0.4, 0.1)), (24, (0.9, 0, 0))]
)
def test_bad_split_is_named(ts, tmp_path, season, shares):
    with pytest.raises(ts.helper.DataError, match=rf"a\.csv: season={season}, shares="):
        ts.helper.load_series(write(tmp_path / "a.csv", GOOD), "y", season=season, shares=shares)


def test_constant_in_the_training_part_alone(ts, tmp_path):
    rows = [f"{time},{i},{1 if i < 40 else i}" for i, time in enumerate(hours(60))]
    with pytest.raises(ts.helper.DataError, match="constant, or missing, in the training part"):
        ts.helper.load_series(write(tmp_path / "a.csv", rows), "y")


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
    assert series.phase().min() >= 0 and series.phase().max() < 52


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
    assert len(ts.origins(11520, 14400, 96, 96, reach_back=True)) == 2785


# ---------------------------------------------------------------- the whole room


@pytest.mark.parametrize(
    "overrides, words",
    [
        ("horizons=0", "horizons=0: at least 1"),
        ("kind=rnn", "kind='rnn': known are"),
        ("dropout=1.0", "dropout=1.0: a share"),
        ("members=()", "members=\\(\\): at least one seed"),
        ("segment=7", "segment=7 does not divide"),
        ("failure_steps=3", "failure_steps=3: at least 50"),
        ("rows=-1", "rows=-1: at least 0"),
        ("segment=0", "segment=0: at least 1"),
        ("truth_rows=200", "truth_rows=200: at least 250"),
        ("members=(1,1)", r"members=\(1, 1\): .* none twice"),
        ("benchmark_seeds=()", r"benchmark_seeds=\(\): at least one"),
        ("series=()", r"series=\(\): at least one series"),
        ("beta=1.5", "beta=1.5: from 0 to 1"),
        ("lr=0.0", "lr=0.0: it must be above 0"),
        ("weight_decay=-1.0", "weight_decay=-1.0"),
        ("benchmark=((48,0),)", r"benchmark=\(\(48, 0\),\): pairs of look-back and horizon"),
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
            "length=220, horizons=5: a window takes 225 rows, the validation part of CO2 has 22",
        ),
        ("horizons=300,truth_rows=9000", "horizons=300: a window takes 320 rows"),
    ],
)
def test_windows_that_do_not_fit_the_series_are_named(ts, start, overrides, words):
    cfg, series = start("demo", overrides).cfg, ts.helper.load_co2().cut(0 if not overrides else 220)
    ts.helper.check_settings(cfg)
    if words:
        with pytest.raises(ts.lab.LabError, match=words):
            ts.helper.check_fit(cfg, series)
    else:
        ts.helper.check_fit(cfg, series)


def test_benchmark_that_does_not_fit_the_series_is_named(ts, start):
    cfg = start("demo").cfg
    cfg.benchmark = ((96, 700),)
    with pytest.raises(ts.lab.LabError, match=r"setting benchmark: \(96, 700\) is too long for the parts of CO2"):
        ts.helper.check_fit(cfg, ts.helper.load_co2())
