"""Packed tickets beside the dense network in the engines that are installed: `python -m bench.packed`.

One conv6 (the paper's VGG-9) at the size of CIFAR-10. Ours: spiking tickets (T=4) and sign tickets (one step) at four
sparsities, random ones whose norms were set on noise; and the trained tickets of notebook 10, with their accuracy, at their
own size. Theirs: the dense relu network in float32 and int8, and the dense spiking network in torch. Interleaved
rounds, medians and quartiles, all cores for everybody. Writes results/bench/packed*.csv, a figure and the part of
docs/speed.md on packed tickets; exit status 1 where a goal is missed. On a machine that computes other things beside, only the ratios say something, and those not much.
"""

import argparse
import functools
import os
import sys
import tempfile
from pathlib import Path

# What this process computes with must be there when it starts: all cores, for torch too.
if __name__ == "__main__" and os.environ.get("OMP_NUM_THREADS"):
    os.environ.pop("OMP_NUM_THREADS")
    os.execv(sys.executable, [sys.executable, "-m", "bench.packed", *sys.argv[1:]])

import numpy as np  # noqa: E402
import pandas as pd  # noqa: E402
import torch  # noqa: E402

from sltlib import packed_kernel  # noqa: E402
from sltlib.base import files, machine, paths  # noqa: E402
from sltlib.engine.store import Store  # noqa: E402
from sltlib.experiment import Experiment  # noqa: E402
from sltlib.models import build_model  # noqa: E402
from sltlib.notebook import plan  # noqa: E402
from sltlib.pruning import prepare  # noqa: E402
from sltlib.ticket import Ticket  # noqa: E402
from sltlib.train import data_of  # noqa: E402

from . import engines, packed_report  # noqa: E402
from .measure import interleaved, quartiles  # noqa: E402

SPARSITIES, BATCHES, AT = (0.5, 0.8, 0.9, 0.95), (1, 32, 128), packed_report.AT
TRAINED = ("dataset", "model", "width", "size", "neuron", "T", "sparsity", "accuracy", "ms", "torch_ms", "over_torch", "bytes", "over_float32")
SETTLE = 0.03  # seconds
CONV6 = Experiment("cifar10", model="conv6", lr=0.01)
MOMENTS = dict(mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))


def images(count, shape=(3, 32, 32)):
    """Smooth random pictures, uint8: noise at a quarter of the size, enlarged."""
    rng = np.random.default_rng(0)
    small = rng.integers(0, 256, (count, shape[0], -(-shape[1] // 4), -(-shape[2] // 4)), dtype=np.uint8)
    return np.ascontiguousarray(small.repeat(4, 2).repeat(4, 3)[:, :, : shape[1], : shape[2]])


def normal(pictures):
    """The pictures as the networks of torch take them, float32."""
    mean, std = (np.array(MOMENTS[k], np.float32)[:, None, None] for k in ("mean", "std"))
    return ((pictures / np.float32(255) - mean) / std).astype(np.float32)


def network(experiment):
    """A network as it stands before training, its norms' statistics from random pictures; in evaluation mode."""
    model = build_model(experiment)
    if experiment.search != "none":
        prepare(model, experiment)
    model.train()
    with torch.no_grad():
        for start in range(4):
            model(torch.from_numpy(normal(images(32 * (start + 1))[-32:])))
            for module in model.modules():
                if hasattr(module, "momentum") and start == 0:
                    module.momentum = None  # the mean of all batches
    return model.eval()


def ours(threads):
    """{name: Packed} of random tickets: spiking at T=4, the same at T=1, and sign."""
    found = {}
    for neuron, steps, words in (("lif", 4, "spiking, T=4"), ("lif", 1, "spiking, T=1"), ("sign", 1, "sign, T=1")):
        for sparsity in SPARSITIES if (neuron, steps) != ("lif", 1) else (0.5,):
            fields = dict(neuron=neuron, weights="binary", search="edge-popup", sparsity=sparsity)
            experiment = CONV6.replace(**fields, **(dict(timesteps=steps) if neuron == "lif" else {}))
            ticket = Ticket.from_model(network(experiment), experiment)
            found[f"packed {words}, {sparsity:.0%}"] = ticket.pack(**MOMENTS)
    return found


def stored():
    """{experiment: Packed} of notebook 10's tickets in `mini`, the first seed, as far as they are trained."""
    found, store = {}, Store()
    for e in plan.experiments("mini", "10_packed_tickets"):
        result = store.get(e) if e.seed == 0 else None
        if result is not None and result.ticket_path is not None:  # none of a pack
            found[e] = result.ticket().pack()
    return found


def accuracy(experiment, packed):
    """The packed network's own accuracy in percent, on the test split: torch rounds otherwise, so its accuracy is another."""
    test = data_of(experiment).test
    return 100 * float((packed.predict(test.x.numpy()).argmax(1) == test.y.numpy()).mean())


def rounds_of(step, seconds):
    """How many rounds of everything take about so long, 5 to 200."""
    once = interleaved(step, 1, warm_up=2, settle=SETTLE)
    return int(np.clip(seconds / sum(max(SETTLE, min(t)) + min(t) for t in once.values()), 5, 200))


def speed(seconds, threads, folder):
    """DataFrame of milliseconds an image, a row a contestant and batch."""
    packed, dense = ours(threads), network(CONV6.replace(neuron="relu"))
    snn = network(CONV6.replace(neuron="lif"))
    tables = []
    for batch in BATCHES:
        pictures = images(batch)
        x = normal(pictures)
        tensor = torch.from_numpy(x).contiguous(memory_format=torch.channels_last)
        step = {name: functools.partial(p.predict, pictures, threads=threads) for name, p in packed.items()}
        step |= engines.contestants(dense, x, threads, folder)
        step["dense SNN in torch, T=4"] = functools.partial(engines.run, snn, tensor)
        taken = interleaved(step, rounds_of(step, seconds), settle=SETTLE)
        part = quartiles(taken, batch=batch)
        part[["ms", "low", "high"]] /= batch
        print(part[["batch", "contestant", "ms", "low", "high", "rounds"]].round(3).to_string(index=False), flush=True)
        tables.append(part)
    return pd.concat(tables, ignore_index=True), {name: p.nbytes / (4 * _weights(p)) for name, p in packed.items()}


def _weights(packed):
    return sum(x.inputs * x.outputs * x.kernel**2 for x in packed.layers)


def trained(threads):
    """DataFrame of the stored tickets: accuracy, ms an image at batch 32, the same network dense and float32 in torch."""
    rows = []
    for e, packed in stored().items():
        pictures = images(AT, packed.input_shape)
        dense = engines.in_torch(engines.folded(build_model(e.replace(neuron="relu", weights="float", search="none", sparsity=0.0)).eval()))
        x = torch.from_numpy(pictures.astype(np.float32) / 255)
        step = {"packed": functools.partial(packed.predict, pictures, threads=threads), "torch": functools.partial(engines.run, dense, x)}
        taken = interleaved(step, 60, settle=SETTLE)
        ms = {name: 1e3 * float(np.median(t)) / AT for name, t in taken.items()}
        what = dict(dataset=e.dataset, model=e.model, width=e.width, size=packed.input_shape[-1], neuron=e.neuron, T=packed.steps)
        about = dict(sparsity=e.sparsity, accuracy=accuracy(e, packed), ms=ms["packed"], torch_ms=ms["torch"], over_torch=ms["torch"] / ms["packed"])
        rows.append(what | about | dict(bytes=packed.nbytes, over_float32=packed.nbytes / (4 * _weights(packed))))
    return pd.DataFrame(rows, columns=TRAINED)


def main():
    parser = argparse.ArgumentParser(prog="python -m bench.packed", description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=20, help="for the rounds of one batch size (default: 20)")
    parser.add_argument("--threads", type=int, default=machine.cores(), help="cores for everybody (default: all)")
    parser.add_argument("--output", type=Path, default=paths.results() / "bench", help="folder of the tables (default: results/bench)")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    for name, there in engines.installed().items():
        if not there:
            print(f"{name} is not installed, its rows are left out: pip install -c constraints.txt -e '.[bench]'")
    instructions, vnni = engines.instructions()
    with tempfile.TemporaryDirectory() as folder:
        table, memory = speed(given.seconds, given.threads, folder)
    found = packed_report.goals(table, memory, vnni)
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    about = machine.hardware() | {"instructions": instructions, "kernel": packed_kernel.instructions(), "threads": given.threads}
    about |= {"load": load, "memory": memory, "engines": {n: _version(n) for n in ("onnxruntime", "openvino")}}
    last = trained(given.threads)  # nothing is written before all is measured: a table beside another machine's line would lie
    for part, rows in (("packed", table), ("packed_goals", found), ("packed_trained", last)):
        files.write(given.output / f"{part}.csv", rows.to_csv(index=False, lineterminator="\n", float_format="%.4g"))
        print(rows.round(3).to_string(index=False))
    files.write(given.output / "packed_about.json", files.json_text(about))
    packed_report.write(given.output)
    if given.output == paths.ROOT / "results" / "bench":
        packed_report.fill(given.output)
    print(f"{about['device']}, {instructions}; the kernel uses {about['kernel']}; {given.threads} threads; load {load}")
    return 0 if found.met.all() else 1


def _version(name):
    from importlib import metadata

    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


if __name__ == "__main__":
    sys.exit(main())
