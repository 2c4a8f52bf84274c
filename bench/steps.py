"""Times of the neuron and of whole training steps, ours beside the others' and the floor; and peak memory."""

import time

import numpy as np
import pandas as pd
import torch

from sltlib.notebook import parameters, profiles, recipes, tune
from sltlib.data import info
from sltlib.experiment import Experiment
from sltlib.table1 import row
from sltlib.models import build_model
from sltlib.neurons import LIF
from sltlib.pruning import prepare
from sltlib.train import device, loss_of, make_optimizer

from . import rivals
from .measure import interleaved, peak_of, quartiles

TIMES = (1, 2, 4, 8, 16)
SHAPES = ((50, 128), (50, 32, 14, 14), (100, 16, 28, 28), (32, 64, 32, 32))
FLOOR = "floor"
OPTIONS = {  # measured at T=4
    "ticket search": dict(weights="binary", search="edge-popup", sparsity=0.5),
    "bfloat16": dict(precision="bfloat16"),
}
MEMORY = (("mini", 4), ("small28", 16), ("conv6", 4))


def networks():
    """{name: Experiment}: the mini profile's, traps' small one, the paper's VGG-9, and the mini spikformer."""
    fields = profiles.settings("mini", tune.IMAGES)
    mini = {k: fields[k] for k in ("dataset", "model", "width", "image_size", "batch_size")}
    former = profiles.settings("mini", tune.TRANSFORMER)
    former = {k: former[k] for k in ("dataset", "width", "depth", "heads", "stem_pools", "image_size", "batch_size")}
    return {
        "mini": Experiment(lr=0.01, **mini),
        "small28": Experiment("fashion", model="conv4", width=0.25, batch_size=100, lr=0.01),
        "conv6": Experiment("cifar10", model="conv6", batch_size=32, lr=0.01),
        "spikformer": Experiment(model="spikformer", affine=True, lr=0.01, **former),
    }


def random_batch(experiment):
    """Images (B, C, H, W) of normal noise and labels, as many as a batch has."""
    of = info(experiment.dataset)
    size, count = experiment.image_size or of.size, experiment.batch_size
    random = torch.Generator().manual_seed(0)
    return torch.randn(count, of.channels, size, size, generator=random), torch.arange(count) % len(of.classes)


def stepper(model, experiment, batch):
    """A function that does one training step."""
    optimizer = make_optimizer(model, experiment)

    def step():
        optimizer.zero_grad(set_to_none=True)
        loss_of(model, *batch).backward()
        optimizer.step()

    return step


def both_ways(model, batch):
    """A function that does one forward and backward, without an optimiser's step."""
    def compute():
        model.zero_grad(set_to_none=True)
        loss_of(model, *batch).backward()

    return compute


def first_layer(model, images):
    """A function that does the forward and backward of what a static image needs only once: layer, pool, norm."""
    block = model.stem.stages[0] if hasattr(model, "stem") else model.blocks[0]

    def compute():
        block.zero_grad(set_to_none=True)
        out = block.norm(block.pool(block.layer(images.contiguous(memory_format=torch.channels_last))))
        out.backward(torch.ones_like(out))

    return compute


def rounds_for(steps, seconds, least=3, most=25):
    """Warm every contestant up, twice where that is quick; how many rounds then fit into so many seconds."""
    for _ in range(2):
        begin = time.perf_counter()
        for step in steps.values():
            step()
        taken = time.perf_counter() - begin
        if taken > seconds:
            break
    return int(np.clip(seconds / taken, least, most))


def floor_of(taken, timesteps):
    """The least that T steps of the ANN's arithmetic take, in seconds, round by round.

    T times the ANN's forward and backward, less T - 1 times the first layer's, which a static image needs once.
    """
    both, first = np.array(taken.pop("ANN")), np.array(taken.pop("first layer"))
    return list(timesteps * both - (timesteps - 1) * first)


def step_table(seconds, times=TIMES, names=None):
    """One row a network, T and contestant: milliseconds of a training step."""
    tables = []
    for name, experiment in networks().items():
        if names and name not in names:
            continue
        where = device()
        batch = tuple(part.to(where) for part in random_batch(experiment))
        ann = build_model(experiment.replace(neuron="gelu" if name == "spikformer" else "relu")).to(where)
        for timesteps in times:
            at = experiment.replace(timesteps=timesteps)
            steps = {who: stepper(model.to(where), at, batch) for who, model in rivals.contestants(at).items()}
            for what, fields in OPTIONS.items() if timesteps == 4 else ():
                if not (name == "spikformer" and "search" in fields):
                    option = at.replace(**fields)
                    steps[f"ours, {what}"] = stepper(prepare(build_model(option), option).to(where), at, batch)
            steps |= {"ANN": both_ways(ann, batch), "first layer": first_layer(ann, batch[0])}
            taken = interleaved(steps, rounds_for(steps, seconds), warm_up=0)
            taken[FLOOR] = floor_of(taken, timesteps)
            tables.append(quartiles(taken, network=name, T=timesteps))
            print(name, f"T={timesteps}", {who: round(float(np.median(t)) * 1e3, 1) for who, t in taken.items()}, flush=True)
    return pd.concat(tables, ignore_index=True)


def neuron_steps(shape, timesteps, dtype):
    """{contestant: forward and backward of a neuron on normal noise} for currents (T, *shape)."""
    random = torch.Generator().manual_seed(0)
    current = torch.randn(timesteps, *shape, generator=random).to(dtype).requires_grad_()
    ours = LIF(0.99)

    def both(spikes_of):
        def compute():
            current.grad = None
            spikes = spikes_of(current)
            spikes.backward(torch.ones_like(spikes))

        return compute

    out = {"ours": both(ours), "snnTorch": both(LIF(0.99, fast=False))}  # the reference steps snntorch.Leaky
    if rivals.HAS_SPIKINGJELLY:
        node = rivals.lif_node(ours)

        def multi(current):
            node.reset()
            return node(current)

        out["spikingjelly"] = both(multi)
    return out


def neuron_table(seconds, times=TIMES, shapes=SHAPES):
    """One row a shape, T, dtype and contestant: milliseconds of the neuron's forward and backward."""
    cells = [(shape, t, torch.float32) for shape in shapes for t in times]
    cells += [(shape, 4, torch.bfloat16) for shape in shapes] + [(shapes[1], 4, torch.float64)]
    tables = []
    for shape, timesteps, dtype in cells:
        steps = neuron_steps(shape, timesteps, dtype)
        taken = interleaved(steps, rounds_for(steps, seconds), warm_up=0)
        tables.append(quartiles(taken, shape="x".join(map(str, shape)), T=timesteps, dtype=str(dtype).removeprefix("torch.")))
    return pd.concat(tables, ignore_index=True)


def peak(name, timesteps, who):
    """MiB that a training step adds to this process, at its peak. For a fresh process."""
    experiment = networks()[name].replace(timesteps=timesteps)
    batch, model = random_batch(experiment), rivals.contestants(experiment)[who]
    warm = LIF(0.99)  # the compiler's own memory is not the step's
    sizes = ((torch.zeros(timesteps, 2**15), None), (torch.zeros(1, 2**15), timesteps))
    for current, steps in sizes if who == "ours" else ():
        spikes = warm(current.requires_grad_(), steps=steps)
        spikes.backward(torch.ones_like(spikes))
    step = stepper(model, experiment, batch)
    return peak_of(lambda: [step() for _ in range(3)])


def search_rows(target=78.0, seeds=(0, 1, 2), every=20, epochs=3, **changes):
    """Seconds and steps until the MPSLT reaches a validation accuracy, one row a seed and contestant.

    The mini profile's ticket, data, recipe and order of batches. Checked every so many steps; evaluation is
    not counted. A contestant that never gets there has no seconds.
    """
    from sltlib.data import load_data
    from sltlib.layers import generator
    from sltlib.train import accuracy, batch, learning_rate

    mini = profiles.settings("mini", tune.IMAGES)
    fields, sparsity = parameters.shared(mini), mini["sparsity"]
    recipe, rows = recipes.recipe("mini", "BinWSNN-ConnS"), []
    for seed in seeds:
        e = row("BinWSNN-ConnS", sparsity, **fields | changes | recipe | dict(seed=seed, epochs=epochs))
        data = load_data(e.dataset, e.image_size, e.train_images)
        for who, model in rivals.contestants(e).items():
            optimizer, size = make_optimizer(model, e), e.batch_size
            per_epoch, seconds, best, reached = len(data.train) // size, 0.0, 0.0, False
            for step in range(per_epoch * epochs):
                epoch, place = divmod(step, per_epoch)
                if place == 0:
                    order = torch.randperm(len(data.train), generator=generator(e, "order", epoch))
                index = order[place * size : (place + 1) * size]
                begin = time.perf_counter()
                model.train()
                for group in optimizer.param_groups:
                    group["lr"] = learning_rate(e, step, per_epoch * epochs)
                optimizer.zero_grad(set_to_none=True)
                loss_of(model, batch(data, data.train.x, index), data.train.y[index]).backward()
                optimizer.step()
                seconds += time.perf_counter() - begin
                if (step + 1) % every == 0:
                    best = max(best, accuracy(model, data, data.val))
                    if reached := best >= target:
                        break
            rows.append({"contestant": who, "seed": seed, "target": target, "steps": step + 1, "best": best,
                         "seconds": seconds if reached else None})  # fmt: skip
            print(rows[-1], flush=True)
    return pd.DataFrame(rows)
