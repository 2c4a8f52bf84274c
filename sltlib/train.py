"""The one training loop: from an Experiment to what it found, resumable at any step.

Nothing random is carried from step to step: the order of an epoch and the augmentation of a batch
are drawn from generators seeded by (experiment, purpose, position). So a checkpoint is the model,
the optimiser and a step number, and a resumed run computes the same bits as one never stopped.
"""

import math
import time
from dataclasses import dataclass

import torch

from sltlib import layers, models, neurons, pruning, standard
from sltlib.base.machine import device, hardware
from sltlib.data import load_data
from sltlib.predictions import Predictions
from sltlib.ticket import Ticket

EVALUATION_BATCH = 250
TOKEN_BYTES = 2**30  # what a frozen ConvPEP gives for all training images is kept up to this size


class Diverged(RuntimeError):
    """The loss of a training stopped being finite."""


@dataclass(frozen=True)
class Trained:
    """What a training leaves: metrics, a line of history an epoch, what it ran on, its ticket, and what it says of
    every test image."""

    metrics: dict
    history: list[dict]
    provenance: dict
    ticket: Ticket
    predictions: Predictions


def train(experiment, source=None, checkpoints=None, report=None, early=None) -> Trained:
    """Prepare, fit and measure one network as an Experiment describes it.

    source, early : the Tickets of `experiment.source` and `experiment.early`, where it has them. checkpoints : what keeps the state of a
    training: load(), due() and save(step, model, optimizer, history). report(done_steps, total_steps) is
    called at most four times a second. Computes on one CPU thread, so that no backend and no order of work
    changes a bit. Raises Diverged where the loss stops being finite.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return _train(experiment, source, early, checkpoints, report or (lambda done, total: None))
    finally:
        torch.set_num_threads(threads)


def _train(experiment, source, early, checkpoints, report):
    begin, where = time.perf_counter(), device()
    data = data_of(experiment, where)
    model = models.build_model(experiment)
    model = pruning.prepare(model, experiment, data, standard.found_in(source, experiment))
    model.adopt(source)
    standard.rewind(model, early)
    model = model.to(where)
    history, resumed = fit(model, data, experiment, report, checkpoints)
    metrics, predictions = measure(model, data)
    metrics |= {name: history[-1][name] for name in ("search_epochs", "mask_distance") if name in history[-1]}
    if experiment.search == "bernoulli":
        with pruning.relaxed(model) as gated:
            metrics |= {f"gates_{split}_accuracy": accuracy(model, data, getattr(data, split)) for split in ("val", "test")}
            opened = sum(int((layer.scores > 0).sum()) for layer in gated)
        metrics["gates_density"] = opened / sum(layer.scores.numel() for layer in gated)
    ticket = Ticket.from_model(model, experiment)
    metrics |= {"parameters": models.count_parameters(model), "kept": ticket.kept, "density": ticket.kept / ticket.size}
    metrics |= {"train_loss": history[-1]["train_loss"], "kept_by_layer": {k: v.kept.size for k, v in ticket.layers.items()}}
    seconds = round(time.perf_counter() - begin, 4)
    about = hardware() | {"compiled": neurons.compiled(), "data": data.fingerprint, "seconds": seconds, "resumed": resumed}
    return Trained(metrics, history, about, ticket, predictions)


def data_of(experiment, where="cpu"):
    """The data that an Experiment trains on, as tensors on a device."""
    fields = ("dataset", "image_size", "train_images", "timesteps", "binning")
    name, image_size, train_images, timesteps, binning = (getattr(experiment, field) for field in fields)
    return load_data(name, image_size, train_images, where, timesteps=timesteps, binning=binning)


def make_optimizer(model, experiment):
    """Adam or SGD over what the search left trainable."""
    trained = [p for p in model.parameters() if p.requires_grad]
    options = dict(lr=experiment.lr, weight_decay=experiment.weight_decay)
    if experiment.optimizer == "adam":
        return torch.optim.Adam(trained, **options)
    return torch.optim.SGD(trained, momentum=experiment.momentum, **options)


def learning_rate(experiment, step, total):
    """The rate of a step: constant, or a cosine from lr to 0 (Loshchilov & Hutter 2017)."""
    if experiment.schedule == "constant":
        return experiment.lr
    return experiment.lr * 0.5 * (1 + math.cos(math.pi * step / total))


def fit(model, data, experiment, report=lambda done, total: None, checkpoints=None):
    """Train a prepared model; returns (history, the step it resumed from).

    The incomplete last batch of an epoch is left out. history: one line an epoch, train_loss, and in the last one what a
    search notes that ends by itself. A network that was set back begins in its `rewind_epoch`: the same batches and
    rates follow as in the dense training, but the optimiser is a new one.
    """
    images, labels = data.train.x, data.train.y
    size = min(experiment.batch_size, len(labels))
    per_epoch = len(labels) // size
    total, begin, history = per_epoch * experiment.epochs, per_epoch * experiment.rewind_epoch, []
    end, start = per_epoch * experiment.stop_epoch or total, begin
    optimizer = make_optimizer(model, experiment)
    loaded = checkpoints.load() if checkpoints else None
    if loaded:
        start, history, weights, state = loaded
        model.load_state_dict(weights)
        optimizer.load_state_dict(optimizer.state_dict() | {"state": state})
    model.train()
    tokens = frozen_tokens(model, data, size) if experiment.augment == "none" else None
    last_report, order = time.monotonic(), None

    loss_sum = torch.tensor(history.pop()["loss_sum"] if start % per_epoch else 0.0, dtype=torch.float64)
    loss_sum = loss_sum.to(labels.device)
    for step in range(start, end):
        epoch, position = divmod(step, per_epoch)
        if order is None or position == 0:
            order = torch.randperm(len(labels), generator=layers.generator(experiment, "order", epoch))
        index = order[position * size : (position + 1) * size].to(labels.device)
        if tokens is None:
            x = batch(data, images, index, experiment.augment, layers.generator(experiment, "augment", step))
        else:
            x = tokens.index_select(0, index).transpose(0, 1).float()
        if experiment.search_timesteps:  # few steps in all epochs but the last
            last = epoch == experiment.epochs - 1
            model.set_timesteps(experiment.timesteps if last else experiment.search_timesteps)
        pruning.draw_noise(model, experiment, step)
        loss = loss_of(model, x if tokens is None else models.Embedded(x), labels[index], experiment.loss, experiment.logit_scale)
        loss = loss + pruning.regularizer(model, experiment)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(experiment, step, total)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        loss_sum += loss.detach()
        over = standard.look(model, experiment, step + 1, per_epoch)
        if over or position == per_epoch - 1:
            history.append({"epoch": epoch, "train_loss": float(loss_sum) / (position + 1)})
            if not math.isfinite(history[-1]["train_loss"]):
                raise Diverged(f"the loss is not finite after epoch {epoch}: lower lr={experiment.lr} ({experiment})")
            loss_sum.zero_()
        if over:
            break
        if checkpoints and checkpoints.due() and step + 1 < end:
            unfinished = [] if position == per_epoch - 1 else [{"loss_sum": float(loss_sum)}]
            checkpoints.save(step + 1, model, optimizer, history + unfinished)
        if time.monotonic() - last_report > 0.25:
            last_report = time.monotonic()
            report(step + 1 - begin, end - begin)
    history[-1] |= standard.hatch(model, experiment, step + 1, per_epoch)
    pruning.draw_noise(model, experiment, None)
    report(end - begin, end - begin)
    return history, start if loaded else 0


def batch(data, images, index, augment="none", generator=None):
    """What a model takes: images (B, C, H, W), or frames with time first, (T, B, 2, H, W); float32."""
    x = data.batch(images, index, augment, generator)
    return x.transpose(0, 1) if x.dim() == 5 else x


@torch.no_grad()
def frozen_tokens(model, data, size):
    """What a frozen ConvPEP, and selector, make of the training images: (N, T, patches, features).

    int8 where that is exact, else float32; computed in batches of `size`, as if it were done again for every
    step. None for a model without frozen parts, or above TOKEN_BYTES.
    """
    if not model.frozen:
        return None
    images, kept = data.train.x, None
    for start in range(0, len(images), size):
        index = torch.arange(start, start + size, device=images.device) % len(images)
        part = model.embed(batch(data, images, index)).transpose(0, 1)  # (B, T, K, D)
        exact = torch.equal(part, part.to(torch.int8).float())
        if kept is None:
            if part[0].numel() * (1 if exact else 4) * len(images) > TOKEN_BYTES:
                return None
            kept = torch.empty(len(images), *part.shape[1:], dtype=torch.int8, device=part.device)
        if not exact:
            kept = kept.float()
        kept[start : start + size] = part[: len(images) - start]
    return kept


def loss_of(model, x, labels, kind="mean", scale=1.0):
    """Cross-entropy of the mean current ("mean"), or the mean of every step's ("per-step", Deng et al. 2022).

    scale : the loss is taken of so many times the logits. A ticket's last layer is frozen and cannot make them
    larger itself, so without it a sparse spiking ticket is trained at a high temperature.
    """
    if kind == "mean":
        return torch.nn.functional.cross_entropy(scaled(model(x), scale), labels)
    logits = scaled(model.steps(x), scale)  # (T, B, classes)
    return torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels.repeat(logits.shape[0]))


def scaled(logits, scale):
    """logits times the scale; untouched at 1."""
    return logits if scale == 1 else logits * scale


@torch.no_grad()
def predict(model, data, images):
    """Logits (N, classes) of uint8 images, in evaluation mode, batch by batch; leaves the mode as it was."""
    places, training = torch.arange(len(images), device=images.device).split(EVALUATION_BATCH), model.training
    model.eval()
    try:
        return torch.cat([model(batch(data, images, index)) for index in places])
    finally:
        model.train(training)


def accuracy(model, data, split):
    """Percent of a split that the model gets right."""
    return 100 * float((predict(model, data, split.x).argmax(1) == split.y).double().mean())


def predictions_of(model, data):
    """The class that the model gives every test image."""
    return Predictions.of(predict(model, data, data.test.x).argmax(1).cpu(), data.test.y.cpu())


def measure(model, data):
    """Validation and test accuracy in percent and the firing rate of every layer on the test split; and its Predictions.

    A rate is the mean number of spikes a neuron and step; for relu and sign it is the share of
    activations above zero.
    """
    sums, hooks = {}, []
    for name, neuron in models.neurons(model).items():
        def count(module, inputs, output, name=name):
            fired = sums.setdefault(name, [0, 0])
            fired[0] += int((output > 0).sum())
            fired[1] += output.numel()
        hooks.append(neuron.register_forward_hook(count))
    predictions = predictions_of(model, data)
    for hook in hooks:
        hook.remove()
    rates = {name: fired / seen for name, (fired, seen) in sums.items()}
    fired, seen = (sum(column) for column in zip(*sums.values(), strict=True)) if sums else (0, 0)
    metrics = {
        "val_accuracy": accuracy(model, data, data.val),
        "test_accuracy": predictions.accuracy,
        "rate": fired / seen if seen else None,
        "rate_by_layer": rates,
    }
    return metrics, predictions
