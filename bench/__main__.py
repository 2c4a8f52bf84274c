"""What a training step costs beside the non-spiking network's: `make bench`, or `python -m bench`.

Interleaved, one thread, medians with quartiles: ANN, our SNN, and the same network as snnTorch is
usually written (`snntorch.Leaky` in a time loop). Ratios of one run on one machine; no promises of
seconds. Writes results/bench/step.csv and step.json (hardware and versions). Exit status 1 where our
step at T=4 on the mini network costs more than LIMIT times the ANN's.
"""

import argparse
import json
import os
import sys
import time

from sltlib.runner import ENVIRONMENT

# What this process computes with must be there when it starts.
if any(name not in os.environ for name in ENVIRONMENT):
    os.environ.update({name: value for name, value in ENVIRONMENT.items() if name not in os.environ})
    os.execv(sys.executable, [sys.executable, "-m", "bench", *sys.argv[1:]])

import numpy as np  # noqa: E402
import pandas as pd  # noqa: E402
import snntorch  # noqa: E402
import torch  # noqa: E402

from sltlib import figures, paths, tune  # noqa: E402
from sltlib.experiment import Experiment  # noqa: E402
from sltlib.models import build_model  # noqa: E402
from sltlib.train import loss_of, make_optimizer, provenance  # noqa: E402


LIMIT = 4.2  # T times the ANN, and a twentieth for the neuron


class Idiom(torch.nn.Module):
    """The same layers, stepped: every layer and a snntorch.Leaky at every time step."""

    def __init__(self, experiment):
        super().__init__()
        net = build_model(experiment)
        self.blocks, self.flat, self.head = [*net.blocks, *net.hidden], len(net.blocks), net.head
        self.net, self.timesteps = net, experiment.timesteps
        self.neurons = torch.nn.ModuleList(
            snntorch.Leaky(experiment.beta, reset_mechanism="zero") for _ in self.blocks
        )

    def forward(self, images):
        membranes, out = [neuron.reset_mem() for neuron in self.neurons], 0
        for _ in range(self.timesteps):
            x = images
            for i, block in enumerate(self.blocks):
                if i == self.flat:
                    x = x.flatten(1)
                x, membranes[i] = self.neurons[i](block.norm(block.pool(block.layer(x))), membranes[i])
            out = out + self.head(x)
        return out / self.timesteps


def stepper(experiment, images, labels, idiom=False):
    """A function that does one training step."""
    model = Idiom(experiment) if idiom else build_model(experiment)
    optimizer = make_optimizer(model, experiment)

    def step():
        optimizer.zero_grad(set_to_none=True)
        loss_of(model, images, labels).backward()
        optimizer.step()

    return step


def networks(settings):
    """(name, Experiment, image size and channels, batch) of what is measured."""
    fields = {k: settings[k] for k in ("model", "width", "image_size", "batch_size")}
    return {
        "mini": (Experiment("fashion", lr=0.01, **fields), (1, fields["image_size"] or 28), fields["batch_size"]),
        "small28": (Experiment("fashion", model="conv4", width=0.25, lr=0.01), (1, 28), 100),
    }


def main():
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=25, help="counted steps of each (default: 25)")
    rounds = parser.parse_args().rounds
    torch.set_num_threads(1)
    rows = []
    for name, (experiment, (channels, size), batch) in networks(tune.settings("mini")[0]).items():
        images, labels = torch.randn(batch, channels, size, size), torch.arange(batch) % 10
        steps = {"ANN": stepper(experiment.replace(neuron="relu"), images, labels)}
        for timesteps in (1, 4):
            at = experiment.replace(timesteps=timesteps)
            steps[f"SNN T={timesteps}"] = stepper(at, images, labels)
            steps[f"snnTorch loop T={timesteps}"] = stepper(at, images, labels, idiom=True)
        times = {what: [] for what in steps}
        for turn in range(rounds + 5):
            for what, step in steps.items():
                begin = time.perf_counter()
                step()
                if turn >= 5:
                    times[what].append(time.perf_counter() - begin)
        for what, taken in times.items():
            low, median, high = np.percentile(np.array(taken) / np.median(times["ANN"]), (25, 50, 75))
            rows.append({"network": name, "step": what, "over ANN": median, "low quartile": low, "high quartile": high, "rounds": rounds})
    table = pd.DataFrame(rows)
    print(table.round(2).to_string(index=False))
    ours = table[(table.network == "mini") & (table.step == "SNN T=4")]["over ANN"].item()
    kept = ours <= LIMIT
    print(f"mini network, T=4: {ours:.2f} times the ANN's step, {'within' if kept else 'ABOVE'} {LIMIT}")
    place = paths.results() / "bench"
    place.mkdir(parents=True, exist_ok=True)
    about = {k: v for k, v in provenance().items() if k not in ("finished", "numerics")}
    figures.write_text(table.round(3).to_csv(index=False, lineterminator="\n"), place / "step.csv")
    about |= {"cores": os.cpu_count(), "limit": LIMIT, "within_limit": bool(kept)}
    figures.write_text(json.dumps(about, indent=1, sort_keys=True) + "\n", place / "step.json")


    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(main())
