"""CA4_timeseries: our recurrent layers beside torch.nn's, and ARIMA from every origin beside the library's own way."""

import pytest
import torch
from statsmodels.tsa.statespace.sarimax import SARIMAX
from torch import nn

from nndl import rooms
from nndl.notebooks import load_definitions

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
BATCH, STEPS, FEATURES, HIDDEN = 128, 20, 24, 64
LIBRARY = {"lstm": nn.LSTM, "gru": nn.GRU}


@pytest.fixture(scope="module")
def ts():
    return load_definitions(rooms.ROOT / "CA4_timeseries" / "code.ipynb")


@pytest.mark.parametrize("who", ["ours", "torch.nn"])
@pytest.mark.parametrize("mode", ["forward", "training"])
@pytest.mark.parametrize("kind", LIBRARY)
def test_recurrent(benchmark, ts, kind, mode, who):
    """The same weights, the same batch; a training step is forward and backward."""
    torch.manual_seed(0)
    library = LIBRARY[kind](FEATURES, HIDDEN, batch_first=True)
    ours = ts.Recurrent(kind, FEATURES, HIDDEN)
    ts.copy_from_torch(ours, library)
    model = (ours if who == "ours" else library).to(DEVICE)
    x = torch.randn(BATCH, STEPS, FEATURES, device=DEVICE)

    def step():
        with torch.set_grad_enabled(mode == "training"):
            states = model(x)
            total = (states if who == "ours" else states[0]).square().mean()
        if mode == "training":
            total.backward()
        return total.item()

    benchmark.group = f"{kind}, {mode}, batch {BATCH}, {STEPS} steps, {HIDDEN} wide, {DEVICE}"
    benchmark.name = who
    benchmark.pedantic(step, rounds=15, warmup_rounds=2)


@pytest.mark.parametrize("who", ["ours", "statsmodels"])
def test_arima_from_every_origin(benchmark, ts, who):
    """Five steps ahead from 200 origins: from one filter run, or by filtering the past of each origin."""
    task = ts.make_task(ts.helper.make_synthetic(800)[0], 20, 5)
    y, origins = task.scaled[:, 0], task.parts["test"].origin[:200]
    _, ran = ts.arima(task, (1, 0, 1), 1)

    def theirs():
        model = SARIMAX(y, order=(1, 0, 1))
        fitted = model.filter(ran.params[2:])
        return [fitted.get_prediction(int(t), int(t) + 5, dynamic=1).predicted_mean[1:] for t in origins]

    benchmark.group = "ARIMA from 200 origins, 5 steps ahead (ours fits too, 2 harmonics more)"
    benchmark.name = who
    benchmark.pedantic((lambda: ts.arima(task, (1, 0, 1), 1)) if who == "ours" else theirs, rounds=2)
