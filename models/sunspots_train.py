"""Train `sunspots`: a bare nn.LSTM whose projected output is its forecast of the next eleven years.

    python models/sunspots_train.py               # sunspots.safetensors, and the held-out errors: about a minute
    python models/sunspots_train.py --validate    # what the settings were chosen by; writes nothing

The LSTM reads yearly sunspot numbers and answers, each year, with those of the next `proj_size=11` years: no head
and no scaling around it, and the forecast itself is the state `h` that it carries on. It learns in units of SCALE and
is folded into raw units afterwards. Years up to 1960 train it; 1961-2008 are held out, for the printed table alone.
"""

import argparse
import copy
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save

HERE = Path(__file__).parent
HORIZONS = 11
TRAINED_TO, HELD_OUT = 1960, (1961, 2008)
CHOSEN_TO, VALIDATION = 1930, (1931, 1960)  # the settings below were chosen here
SCALE = 128.0  # a power of two: folding it rounds nothing

HIDDEN, EPOCHS, BATCH, WINDOW, WARM_UP = 32, 1200, 16, 100, 5  # an epoch: one update on BATCH windows of WINDOW years
LEARNING_RATE, WEIGHT_DECAY, AVERAGING = 5e-3, 0.1, 0.99
AMPLITUDE, NOISE = 0.3, 1.5  # windows are rescaled by exp(AMPLITUDE * normal); noise is NOISE * sqrt(20 + number)


def targets_of(series: torch.Tensor) -> torch.Tensor:
    """The next HORIZONS values at every step: (years,) -> (years, HORIZONS), NaN beyond the series' end."""
    return torch.cat([series[1:], series.new_full((HORIZONS,), torch.nan)]).unfold(0, HORIZONS, 1)


def train(series: torch.Tensor, epochs: int, seed: int) -> torch.nn.LSTM:
    """Fit an LSTM, in units of SCALE, to `series` (years,); no value after its end is an input or a target."""
    torch.manual_seed(seed)
    model = torch.nn.LSTM(input_size=1, hidden_size=HIDDEN, batch_first=True, proj_size=HORIZONS)
    with torch.no_grad():
        model.bias_hh_l0[HIDDEN : 2 * HIDDEN] += 1  # start out remembering
    average = copy.deepcopy(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    warm_up = torch.optim.lr_scheduler.LinearLR(optimizer, start_factor=0.02, total_iters=50)
    targets = targets_of(series)
    for _ in range(epochs):
        window = torch.randint(len(series) - WINDOW + 1, (BATCH, 1)) + torch.arange(WINDOW)
        gain = torch.exp(AMPLITUDE * torch.randn(BATCH, 1))
        x, y = series[window] * gain, targets[window] * gain[..., None]
        x = x + NOISE * torch.sqrt(20 + x) * torch.randn_like(x)
        known = ~y.isnan()
        known[:, :WARM_UP] = False  # from zero states, the first years say too little
        predicted = model(x[..., None] / SCALE)[0]
        loss = torch.nn.functional.mse_loss(predicted[known], y[known] / SCALE)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        warm_up.step()
        with torch.no_grad():
            for mean, parameter in zip(average.parameters(), model.parameters(), strict=True):
                mean.lerp_(parameter, 1 - AVERAGING)
    return average


@torch.no_grad()
def fold(scaled: torch.nn.LSTM) -> torch.nn.LSTM:
    """The same forecaster in raw units: folded(x) == SCALE * scaled(x / SCALE)."""
    folded = copy.deepcopy(scaled)
    folded.weight_ih_l0 /= SCALE  # it takes raw numbers
    folded.weight_hr_l0 *= SCALE  # it gives raw numbers
    folded.weight_hh_l0 /= SCALE  # and what it gives, it takes back as its state
    return folded


@torch.no_grad()
def forecast(model: torch.nn.LSTM, series: torch.Tensor) -> np.ndarray:
    """At every year the forecast of the next HORIZONS years, from zero states: (years,) -> (years, HORIZONS)."""
    return model(series[None, :, None])[0][0].numpy()


def baselines(series: np.ndarray, known: int) -> dict[str, np.ndarray]:
    """Rival forecasts, each (years, HORIZONS); where they are fitted, it is on the first `known` years."""
    ahead = np.arange(HORIZONS)
    origin = np.arange(len(series))[:, None]
    cycle_ago = np.where(origin + ahead >= 10, series[np.maximum(origin + ahead - 10, 0)], np.nan)
    lags = 9
    past = np.stack([np.ones(len(series)), *(np.roll(series, lag) for lag in range(lags))], axis=1)
    linear = np.empty((len(series), HORIZONS))
    for k in range(1, HORIZONS + 1):
        fit = np.linalg.lstsq(past[lags - 1 : known - k], series[lags - 1 + k : known], rcond=None)[0]
        linear[:, k - 1] = past @ fit
    return {
        "same as now": np.repeat(series[:, None], HORIZONS, axis=1),
        "11 years before": cycle_ago,
        "mean": np.full((len(series), HORIZONS), series[:known].mean()),
        f"linear AR({lags})": linear,
    }


def rmse(predicted: np.ndarray, series: np.ndarray, first: int, last: int) -> np.ndarray:
    """Root mean square error at each horizon, over the target positions first..last: (HORIZONS,)."""
    target = np.arange(first, last + 1)[:, None]
    ahead = np.arange(1, HORIZONS + 1)
    return np.sqrt(np.mean((predicted[target - ahead, ahead - 1] - series[target]) ** 2, axis=0))


def write(model: torch.nn.LSTM, path: Path) -> None:
    """Write the state dict whole or not at all."""
    partial = path.with_name(path.name + ".partial")
    try:
        partial.write_bytes(save(model.state_dict()))
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def main() -> None:
    parser = argparse.ArgumentParser(description="Train the sunspots forecaster.")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    parser.add_argument("--out", type=Path, default=HERE / "sunspots.safetensors")
    parser.add_argument("--validate", action="store_true", help="train to 1930, judge on 1931-1960, write nothing")
    args = parser.parse_args()

    torch.set_num_threads(1)
    torch.backends.mkldnn.set_flags(_enabled=False)  # it has no LSTM with projections, and would warn of it
    table = np.loadtxt(HERE / "sunspots.csv", delimiter=",", skiprows=1)
    years, numbers = table[:, 0].astype(int), table[:, 1]
    series = torch.tensor(numbers, dtype=torch.float32)

    last, (first_judged, last_judged) = (CHOSEN_TO, VALIDATION) if args.validate else (TRAINED_TO, HELD_OUT)
    known = last - years[0] + 1
    scaled = train(series[:known], args.epochs, args.seed)
    model = fold(scaled)
    predicted = forecast(model, series)
    np.testing.assert_array_equal(predicted, SCALE * forecast(scaled, series / SCALE))

    columns = {"LSTM": predicted, **baselines(numbers, known)}
    errors = [rmse(each, numbers, first_judged - years[0], last_judged - years[0]) for each in columns.values()]
    print(f"RMSE of forecasts for {first_judged}-{last_judged}, trained to {last}\n")
    print("| years ahead |", *(f"{name} |" for name in columns))
    print("| ---: |" + " ---: |" * len(columns))
    for k, row in enumerate(np.array(errors).T, start=1):
        print(f"| {k} |", *(f"{error:.1f} |" for error in row))
    print("| all |", *(f"{np.sqrt(np.mean(error**2)):.1f} |" for error in errors))
    if not args.validate:
        write(model, args.out)


if __name__ == "__main__":
    main()
