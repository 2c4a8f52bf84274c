"""Standard tickets: what holds of every pruned network, and the criteria of Early-Bird, Early-Time and SNIP by hand."""

import math

import numpy as np
import pytest
import torch

from sltlib import layers, models, pruning, run, standard, train
from sltlib.data import load_data
from sltlib.engine import work
from sltlib.engine.queue import Queue, missing
from sltlib.engine.store import Store
from sltlib.experiment import Experiment
from sltlib.notebook import parameters, plan, profiles, recipes, tune

DENSE = Experiment("fashion", model="conv2", width=0.1, image_size=8, train_images=300, epochs=3, batch_size=50, lr=0.01)
CHAIN = standard.chain(DENSE, 3, rewind_epoch=1)
TOP = standard.one_shot(DENSE, 0.8, rewind_epoch=1)
BIRD = DENSE.replace(search="early-bird", sparsity=0.8, looks=3)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """A trained chain, and what it needs."""
    found = Store(tmp_path_factory.mktemp("chain"))
    run(CHAIN, backend="inline", store=found)
    return found


def ticket(store, experiment):
    return store.get(experiment).ticket()


def total(masks):
    return sum(mask.numel() for mask in masks.values()), sum(int(mask.sum()) for mask in masks.values())


# --- the pruner


def test_magnitude_by_hand():
    weights = {"a": torch.tensor([[3.0, -0.1], [0.2, -4.0]]), "b": torch.tensor([-0.3, 0.05])}
    masks = standard.magnitude(weights, 0.5)  # the largest three of six, whichever layer they are in
    assert masks["a"].tolist() == [[True, False], [False, True]] and masks["b"].tolist() == [True, False]
    again = standard.magnitude({"a": torch.tensor([[0.1, 9.0], [9.0, 0.2]]), "b": torch.tensor([0.3, 9.0])}, 2 / 3, masks)
    assert again["a"].tolist() == [[False, False], [False, True]] and again["b"].tolist() == [True, False]  # no return


def test_no_layer_is_emptied():
    masks = standard.magnitude({"large": torch.ones(90) * 5, "small": torch.linspace(0.1, 0.2, 10)}, 0.9)
    assert total(masks) == (100, 10) and masks["small"].tolist() == [False] * 9 + [True]


def test_fourteen_rounds_keep_exact_counts_and_never_bring_back():
    random = torch.Generator().manual_seed(0)
    shapes, kept = {"a": (16, 3, 3, 3), "b": (64, 100)}, None
    for n in range(1, 15):
        weights = {name: torch.randn(shape, generator=random) for name, shape in shapes.items()}
        masks = standard.magnitude(weights, standard.after(n), kept)
        size, left = total(masks)
        assert left == round(size * 0.75**n)
        assert kept is None or all(bool((kept[name] | ~masks[name]).all()) for name in masks)
        kept = masks
    rounds = [25.0, 43.75, 57.81, 68.36, 76.27, 82.20, 86.65, 89.99, 92.49, 94.37, 95.78, 96.83, 97.62, 98.22]
    assert [100 * standard.after(n) for n in range(1, 15)] == pytest.approx(rounds, abs=0.006)


# --- the chain


def test_a_chains_masks_are_nested_and_exact(store):
    masks = [ticket(store, level).masks() for level in CHAIN]
    for n, (before, after) in enumerate(zip(masks, masks[1:], strict=False), 1):
        size, left = total(after)
        assert left == round(size * 0.75**n) == store.get(CHAIN[n]).metrics["kept"]
        assert all(bool((before[name] | ~after[name]).all()) for name in after)
    assert {e.key for e in plan.with_sources(CHAIN[-1:]).values()} == {*(e.key for e in CHAIN), CHAIN[-1].early.key}


def test_a_round_removes_the_smallest_of_what_was_trained(store):
    before, after = (ticket(store, level) for level in CHAIN[1:3])
    sizes = torch.cat([layer.weight().abs().reshape(-1) for layer in before.layers.values()])
    kept, there = (torch.cat([mask.reshape(-1) for mask in t.masks().values()]) for t in (after, before))
    assert sizes[kept].min() >= sizes[there & ~kept].max()


@pytest.fixture
def at_start(monkeypatch):
    """The state of every network as its training begins."""
    seen, fit = [], train.fit

    def noted(model, *args, **options):
        seen.append({name: value.clone() for name, value in model.state_dict().items()})
        return fit(model, *args, **options)

    monkeypatch.setattr(train, "fit", noted)
    return seen


def test_rewound_weights_are_the_mask_times_the_stored_early_weights(store, at_start):
    level = CHAIN[2]
    early = ticket(store, level.early)
    found = train.train(level, ticket(store, level.source), early=early)
    masks = found.ticket.masks()
    (start,) = at_start
    for name, layer in early.layers.items():
        assert torch.equal(start[f"{name}.weight"], layer.weight() * masks[name])
        assert torch.equal(start[f"{name}.mask"], masks[name])
    assert early.rest.keys() and all(np.array_equal(start[name].numpy(), value) for name, value in early.rest.items())
    assert found.history[0]["epoch"] == 1 and len(found.history) == level.passes == 2
    assert found.ticket == ticket(store, level) and found.provenance["resumed"] == 0


def test_without_rewinding_it_begins_with_the_dense_networks_first_weights(store, at_start):
    level = standard.one_shot(DENSE, 0.8, rewind_epoch=0)
    found = train.train(level, ticket(store, DENSE))
    fresh = models.build_model(DENSE)
    masks = found.ticket.masks()
    for name, layer in layers.prunable(fresh).items():
        assert torch.equal(at_start[0][f"{name}.weight"], layer.weight * masks[name])
    assert level.early is None and len(found.history) == 3


class Steps:
    """Checkpoints that keep the weights after every step, and may stop the training after one."""

    def __init__(self, last=math.inf, kept=None):
        self.weights, self.last, self.kept = {}, last, kept

    def load(self):
        return self.kept

    def due(self):
        return True

    def save(self, step, model, optimizer, history):
        self.weights[step] = {name: value.clone() for name, value in model.state_dict().items()}
        if step == self.last:
            self.kept = (step, [dict(line) for line in history], self.weights[step], optimizer.state_dict()["state"])
            raise KeyboardInterrupt


def test_early_weights_are_those_of_the_whole_dense_training_at_that_epoch(store):
    """Not those of a short training: the schedule is the long one's."""
    steps = Steps()
    whole = train.train(DENSE, checkpoints=steps)
    early = store.get(DENSE.replace(stop_epoch=1))
    assert [line["train_loss"] for line in early.history] == [whole.history[0]["train_loss"]]
    for name, layer in early.ticket().layers.items():
        assert torch.equal(layer.weight(), steps.weights[6][f"{name}.weight"])
    short = train.train(DENSE.replace(epochs=1))
    assert any((short.ticket.layers[name].weight() != layer.weight()).any() for name, layer in early.ticket().layers.items())


def test_training_goes_on_with_the_rates_and_batches_of_the_dense_training(store, monkeypatch):
    """With nothing removed, a constant rate and SGD without momentum, it is the dense training."""
    dense = DENSE.replace(optimizer="sgd", momentum=0.0, lr=0.1, augment="crop-flip")
    whole, early = train.train(dense), train.train(dense.replace(stop_epoch=1))
    level = standard.one_shot(dense, 1e-9, rewind_epoch=1)
    again = train.train(level, whole.ticket, early=early.ticket)
    assert [line["train_loss"] for line in again.history] == [line["train_loss"] for line in whole.history[1:]]


@pytest.mark.parametrize(
    "how", [dict(optimizer="sgd", momentum=0.9, weight_decay=0.01), dict(weight_decay=0.01), dict(affine=True)], ids=["sgd", "adam", "affine"]
)
def test_pruned_weights_stay_exactly_zero(how):
    experiment = standard.one_shot(DENSE.replace(**how), 0.8, rewind_epoch=1)
    whole, early = train.train(experiment.source), train.train(experiment.early)
    data = load_data("fashion", 8, 300)
    model = models.build_model(experiment)
    pruning.prepare(model, experiment, data, standard.found_in(whole.ticket, experiment))
    standard.rewind(model, early.ticket)
    train.fit(model, data, experiment)
    for layer in layers.prunable(model).values():
        assert not layer.weight[~layer.mask].any() and not layer.effective_weight()[~layer.mask].any()
        assert (layer.weight[layer.mask] != 0).all()
    plain = layers.materialize(model)
    kept = sum(int((m.weight != 0).sum()) for m in plain.modules() if isinstance(m, torch.nn.Conv2d | torch.nn.Linear))
    assert kept == layers.keep_count(whole.ticket.size, 0.8)


def test_a_killed_level_goes_on_bit_identically(store):
    level = CHAIN[1]
    given = dict(source=ticket(store, DENSE), early=ticket(store, level.early))
    stopped = Steps(last=9)  # in mid-epoch
    with pytest.raises(KeyboardInterrupt):
        train.train(level, checkpoints=stopped, **given)
    found = train.train(level, checkpoints=Steps(kept=stopped.kept), **given)
    assert found.provenance["resumed"] == 9 and found.ticket == ticket(store, level)
    assert found.history == store.get(level).history


def test_what_a_level_needs_is_trained_first_and_once(tmp_path):
    store = Store(tmp_path)
    todo = missing([TOP, TOP.early], store)
    assert {e.key for e in todo} == {TOP.key, DENSE.key, TOP.early.key} and len(todo) == 3
    queue = Queue(todo)
    first = [queue.take() for _ in range(2)]
    assert {e.key for e in first} == {DENSE.key, TOP.early.key} and queue.take() is None
    queue.done(first[0])
    assert queue.take() is None
    queue.done(first[1])
    assert queue.take() == TOP
    failing = Queue(missing(CHAIN, store))
    while (taken := failing.take()) and taken != CHAIN[-1].early:
        pass
    failing.failed(CHAIN[-1].early, "no reason")
    assert {e.key for e, _ in failing.failures.values()} == {CHAIN[-1].early.key, *(e.key for e in CHAIN[1:])}


def test_one_training_by_itself_trains_what_it_needs(tmp_path):
    store = Store(tmp_path)
    result = work.train(TOP, store)
    assert set(store.keys()) == {TOP.key, DENSE.key, TOP.early.key}
    assert result.metrics["density"] == pytest.approx(0.2, abs=1e-3)


def test_passes_add_up():
    assert (DENSE.passes, DENSE.replace(stop_epoch=1).passes, TOP.passes) == (3, 1, 2)
    assert sum(e.passes for e in CHAIN) == 3 + 3 * 2  # the early weights are on the way of the dense training


def passes_of(experiment, searched=None):
    return sum(made for _, made in standard.effort(experiment, searched))


def test_effort_counts_all_that_was_trained_and_nothing_twice():
    assert passes_of(DENSE) == 3
    assert passes_of(TOP) == 3 + 2
    assert passes_of(CHAIN[3]) == 3 + 3 * 2
    level = standard.one_shot(BIRD, 0.8, rewind_epoch=1)
    assert passes_of(level) == 3 + 2  # as long as it is not known how soon the bird ended
    assert passes_of(level, {BIRD.key: 1.5}) == 1.5 + 2
    assert passes_of(level, {BIRD.key: 0.5}) == 0.5 + 2 + 1  # it ended before the early weights
    fewer = standard.one_shot(DENSE.replace(timesteps=2), 0.8, 1).replace(timesteps=4)
    assert [(e.timesteps, made) for e, made in standard.effort(fewer)] == [(4, 2), (2, 3), (4, 1)]
    ann = standard.one_shot(DENSE.replace(neuron="relu"), 0.8, 1)
    assert passes_of(ann.replace(neuron="lif", source=ann)) == 3 + 2 + 2 + 1


def test_pruning_at_equal_cost_takes_as_many_passes_as_the_dense_training():
    for epochs, rewind in ((3, 1), (10, 2), (5, 3), (100, 6)):
        level = standard.at_cost(DENSE.replace(epochs=epochs), 0.8, rewind)
        assert passes_of(level) == epochs and level.source.epochs == level.epochs > rewind
    with pytest.raises(ValueError, match="epochs=4 and rewind_epoch=1: give two even numbers, or two odd ones"):
        standard.at_cost(DENSE.replace(epochs=4), 0.8, 1)


# --- an ANN's mask in an SNN


def test_an_anns_mask_is_taken_over_as_it_is(store):
    ann = standard.one_shot(DENSE.replace(neuron="relu"), 0.8, rewind_epoch=1)
    lif = ann.replace(neuron="lif", source=ann)
    table = run([ann, lif], backend="inline", store=store)
    assert lif.early == DENSE.replace(stop_epoch=1) and ann.early.neuron == "relu"
    theirs, ours = (ticket(store, e).masks() for e in (ann, lif))
    assert all(torch.equal(theirs[name], ours[name]) for name in ours)
    assert table.density.nunique() == 1


# --- Early-Bird


def test_the_distance_is_the_largest_share_in_which_two_masks_differ():
    masks = torch.tensor([[1, 1, 0, 0], [1, 0, 1, 0], [0, 0, 1, 1]], dtype=torch.bool)
    assert standard.distance(masks[[0, 0]]) == 0
    assert standard.distance(masks[:2]) == standard.distance(masks[1:]) == 0.5
    assert standard.distance(masks) == 1.0  # first and last, which are no neighbours
    assert standard.distance(masks[:1]) == math.inf


class Layered(torch.nn.Module):
    """One layer of 100 weights, of which 50 stay."""

    def __init__(self):
        super().__init__()
        self.layer = layers.Linear(100, 1, bias=False)

    def keep(self, first):
        """Let the weights from here on be the 50 largest."""
        with torch.no_grad():
            self.layer.weight.fill_(0.1)
            self.layer.weight[0, first : first + 50] = 1.0


def test_early_bird_ends_when_five_masks_stand_still():
    experiment, model = BIRD.replace(sparsity=0.5, looks=2), Layered()
    standard.early_bird(model, experiment, None, None)
    # The masks by hand: shifted by one, two masks differ in 2 of 100 weights: .02 is not below .02.
    firsts = [0, 1, 1, 1, 1, 1, 1]
    ended = []
    for n, first in enumerate(firsts, 1):
        model.keep(first)
        assert not standard.look(model, experiment, 10 * n - 1, 20), "between two looks"
        ended.append(standard.look(model, experiment, 10 * n, 20))
    assert ended == [False] * 5 + [True, True]
    model.keep(30)
    noted = standard.hatch(model, experiment, 70, 20)
    assert noted == {"search_epochs": 3.5, "mask_distance": 0.0}
    assert model.layer.mask[0].nonzero().squeeze(1).tolist() == list(range(30, 80)), "the mask of the last moment"
    assert not model.layer.weight[~model.layer.mask].any() and "recent_masks" not in model.state_dict()


def test_early_bird_waits_for_five_masks_even_where_so_few_weights_stay_that_none_can_differ_much():
    experiment, model = BIRD.replace(sparsity=0.995, looks=1), Layered()
    standard.early_bird(model, experiment, None, None)
    assert [standard.look(model, experiment, step, 1) for step in range(1, 6)] == [False] * 4 + [True]
    assert standard.hatch(model, experiment, 5, 1)["mask_distance"] == 0


def test_a_bird_is_the_dense_training_until_it_ends(monkeypatch):
    monkeypatch.setattr(standard, "STILL", 0.15)  # 8x8 images and 300 of them move masks for long
    steps = Steps()
    train.train(DENSE, checkpoints=steps)
    bird = train.train(BIRD)
    end = round(bird.metrics["search_epochs"] * 6)
    assert 10 <= end < 18 and end % 2 == 0 and bird.metrics["mask_distance"] < 0.15
    masks = bird.ticket.masks()
    for name, layer in bird.ticket.layers.items():
        assert torch.equal(layer.weight(), steps.weights[end][f"{name}.weight"] * masks[name])
    assert bird.ticket.kept == layers.keep_count(bird.ticket.size, 0.8)
    stopped = Steps(last=9)
    with pytest.raises(KeyboardInterrupt):
        train.train(BIRD, checkpoints=stopped)
    again = train.train(BIRD, checkpoints=Steps(kept=stopped.kept))
    assert again.ticket == bird.ticket and again.history == bird.history


def test_a_birds_mask_is_trained_from_early_weights(store):
    level = standard.one_shot(BIRD, 0.8, rewind_epoch=1)
    run([level], backend="inline", store=store)
    bird, found = ticket(store, BIRD).masks(), ticket(store, level).masks()
    assert all(torch.equal(bird[name], found[name]) for name in found)
    assert level.early.key == TOP.early.key  # it is trained once
    assert store.get(BIRD).metrics["search_epochs"] <= 3


# --- Early-Time


def by_hand(logits):
    """KL(p_T || p_T'), the mean over images, with loops."""
    steps, images, classes = logits.shape

    def said(t, i):
        values = [math.exp(sum(float(logits[s, i, c]) for s in range(t)) / t) for c in range(classes)]
        return [value / sum(values) for value in values]

    def kl(t):
        whole = [(said(steps, i), said(t, i)) for i in range(images)]
        return sum(a * math.log(a / b) for p, q in whole for a, b in zip(p, q, strict=True)) / images

    return {t: kl(t) / kl(2) for t in range(1, steps + 1)}


def test_early_time_by_hand():
    random = torch.Generator().manual_seed(3)
    logits = torch.randn(6, 1, 4, generator=random) + 0.5 * torch.randn(6, 5, 4, generator=random)
    chosen, divergence = standard.early_time(logits)
    wanted = by_hand(logits)
    assert divergence == pytest.approx(wanted) and divergence[2] == 1 and divergence[6] == pytest.approx(0, abs=1e-12)
    assert chosen == next(t for t in range(2, 7) if wanted[t] < 0.6)
    assert standard.early_time(logits, enough=1.1)[0] == 2
    assert standard.early_time(logits, enough=1e-9)[0] == 6


def test_early_time_takes_all_steps_where_few_say_nothing_less():
    assert standard.early_time(torch.ones(4, 3, 2)) == (4, {})  # two steps say all there is: no scale to measure by
    assert standard.early_time(torch.randn(2, 3, 2)) == (2, {})


def test_the_first_steps_of_a_network_are_the_network_at_fewer_steps():
    model = models.build_model(DENSE).eval()
    x = torch.rand(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    four = model.steps(x)
    model.set_timesteps(2)
    torch.testing.assert_close(model(x), four[:2].mean(0))


def test_a_source_may_have_fewer_steps(store):
    level = standard.one_shot(DENSE.replace(timesteps=2), 0.8, 1).replace(timesteps=4)
    assert level.early == DENSE.replace(stop_epoch=1) and level.source.timesteps == 2
    run([level], backend="inline", store=store)


# --- SNIP


def test_sensitivity_is_what_a_removal_does_to_the_loss_to_first_order():
    experiment = DENSE.replace(search="snip", sparsity=0.8)
    data = load_data("fashion", 8, 300)
    model = models.build_model(experiment)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    x, y = data.batch(data.train.x, torch.arange(40)), data.train.y[:40]
    scores = standard.sensitivity(model, x, y, scale=2.0)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items()), "the model is only looked at"
    model.train()
    loss = torch.nn.functional.cross_entropy(2.0 * model(x), y)
    loss.backward()
    head = model.head
    torch.testing.assert_close(scores["head"], (head.weight * head.weight.grad).abs().detach())
    # the last layer is smooth: take its most sensitive weight to 99 % and see the loss move
    at = np.unravel_index(int(scores["head"].argmax()), scores["head"].shape)
    with torch.no_grad():
        model.load_state_dict(before)
        head.weight[at] *= 0.99
        moved = torch.nn.functional.cross_entropy(2.0 * model(x), y) - loss
    assert abs(float(moved)) == pytest.approx(0.01 * float(scores["head"][at]), rel=0.05)


def test_snip_keeps_the_most_sensitive_weights_of_the_dense_networks_first_ones():
    experiment = DENSE.replace(search="snip", sparsity=0.8)
    data = load_data("fashion", 8, 300)
    model = pruning.prepare(models.build_model(experiment), experiment, data)
    fresh = models.build_model(DENSE)
    index = torch.randperm(300, generator=layers.generator(DENSE, "order", 0))
    scores = standard.sensitivity(fresh, data.batch(data.train.x, index), data.train.y[index])
    wanted = standard.magnitude(scores, 0.8)
    for name, layer in layers.prunable(model).items():
        assert torch.equal(layer.mask, wanted[name])
        assert torch.equal(layer.weight, layers.prunable(fresh)[name].weight * layer.mask)
    assert train.train(experiment).metrics["density"] == pytest.approx(0.2, abs=1e-3)


# --- what goes together


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (dict(search="magnitude", sparsity=0.5), "needs a source, the experiment whose trained network"),
        (dict(search="magnitude", sparsity=0.5, source=DENSE, weights="binary"), "prunes the float weights"),
        (dict(search="magnitude", sparsity=0.5, source=DENSE.replace(weights="binary")), "signs, which have no magnitude"),
        (dict(search="magnitude", sparsity=0.5, source=TOP), "source has sparsity=0.8, this experiment less"),
        (dict(search="magnitude", sparsity=0.5, source=DENSE.replace(width=0.2)), "source has width=0.2"),
        (dict(search="magnitude", sparsity=0.5, source=DENSE.replace(seed=1), rewind_epoch=1), "source has seed=1, this experiment 0"),
        (dict(search="magnitude", sparsity=0.5, source=CHAIN[1].replace(seed=1, source=DENSE.replace(seed=1))), "source has seed=1"),
        (dict(search="magnitude", sparsity=0.5, source=DENSE, rewind_epoch=3), "rewind_epoch=3: give fewer than epochs=3"),
        (dict(search="magnitude", sparsity=0.5, source=DENSE, search_timesteps=2), "prune a source of fewer timesteps"),
        (dict(search="early-bird", sparsity=0.5, source=DENSE), "source goes with"),
        (dict(search="early-bird", sparsity=0.5, rewind_epoch=1), "rewind_epoch=1 goes with search='magnitude'"),
        (dict(search="snip", sparsity=0.5, stop_epoch=1), "stop_epoch=1 ends a dense training"),
        (dict(stop_epoch=3), "stop_epoch=3: give fewer than epochs=3"),
        (dict(search="snip"), "needs a sparsity"),
        (dict(looks=0), "looks=0: give at least 1"),
    ],
)
def test_what_does_not_go_together_is_refused(wrong, says):
    with pytest.raises(ValueError, match=says):
        DENSE.replace(**wrong)


def test_a_mask_of_another_neuron_is_taken_and_of_another_seed_only_by_a_control():
    """A pruned network goes back to weights of its own seed: those of another were never pruned. A control draws its own anyway."""
    relu = DENSE.replace(neuron="relu")
    assert DENSE.replace(search="magnitude", sparsity=0.5, source=relu, rewind_epoch=1).early.neuron == "lif"
    ticket = DENSE.replace(search="edge-popup", sparsity=0.5, seed=1)
    assert DENSE.replace(search="found-mask-trained", sparsity=0.5, source=ticket).source.seed == 1


def test_fields_are_in_the_keys_of_what_reads_them_only():
    assert DENSE.replace(looks=4).key == DENSE.key and BIRD.replace(looks=4).key != BIRD.key
    assert DENSE.replace(stop_epoch=1).key != DENSE.key
    assert TOP.replace(rewind_epoch=2).key != TOP.key
    assert len({e.key for e in CHAIN}) == 4
    assert Experiment.from_spec(CHAIN[-1].spec()) == CHAIN[-1] == Experiment.from_spec(CHAIN[-1].canonical())


# --- notebook 09


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (dict(rewind=0), "rewind=0: give an epoch above 0"),
        (dict(rewind=3), "rewind=3: give an epoch above 0 and below epochs=3"),
        (dict(rewind=2), "rewind=2: give an epoch .*odd where that is odd"),
        (dict(rounds=[0, 2]), "rounds holds 0: give 1 to 30 rounds"),
        (dict(rivals=["BinWSNN"]), "rivals holds 'BinWSNN': give ticket rows .*SNN-ConnS"),
        (dict(rivals=["SNN-ConnS gates"]), "rivals holds 'SNN-ConnS gates': .*and bernoulli, random-readout or random-trained"),
        (dict(looks=0), "looks=0: give at least 1"),
    ],
)
def test_wrong_parameters_are_refused_before_anything_is_written(wrong, says, tmp_path):
    with pytest.raises(ValueError, match=says):
        parameters.check("09_standard_tickets", profiles.declared("09_standard_tickets") | wrong)
    assert not (tmp_path / "results").exists()


def test_every_row_of_the_claim_is_trained_in_mini_at_equal_cost():
    found = plan.experiments("mini", "09_standard_tickets")
    at = [e for e in found if abs(e.sparsity - 0.9) < 1e-3 and e.neuron == "lif"]
    slt = [e for e in at if e.search == "edge-popup" and e.weights == "float" and e.epochs == 3]
    pruned = [e for e in at if e.search == "magnitude" and e.epochs == 2]
    assert len(slt) == len(pruned) == 3
    assert {passes_of(e) for e in slt + pruned} == {3}


def test_pruned_rows_are_tuned_at_their_sparsity_with_a_dense_network_of_the_same_recipe():
    (arms,) = tune.arms("mini", tune.STANDARD)
    assert {"SNN", "ANN", "linear", "SNN magnitude at 0.5781", "SNN snip at 0.8999", "SNN-ConnS at 0.8999", "BinWSNN-ConnS at 0.5781"} <= set(arms)
    recipe = dict(optimizer="adam", lr=0.02, logit_scale=4.0)
    found = tune.settings("mini", tune.STANDARD)
    e = tune.judge(tune.STANDARD, found, "SNN magnitude at 0.8999", arms["SNN magnitude at 0.8999"], recipe, 1000)
    assert (e.search, e.sparsity, e.rewind_epoch, e.source.search) == ("magnitude", standard.after(8), 1, "none")
    assert {(part.lr, part.logit_scale, part.seed) for part in (e, e.source, e.early)} == {(0.02, 4.0, 1000)}
    e = tune.judge(tune.STANDARD, found, "ANN snip at 0.8999", arms["ANN snip at 0.8999"], recipe, 1000)
    assert (e.search, e.neuron, e.source) == ("snip", "relu", None)


def test_what_was_not_tuned_by_itself_has_the_dense_networks_recipe(monkeypatch):
    choices = {"SNN": dict(optimizer="adam", lr=0.1), "ANN": dict(optimizer="adam", lr=0.2), "SNN magnitude at 0.9": dict(optimizer="adam", lr=0.3)}
    monkeypatch.setattr(recipes, "read", lambda name: {"choices": choices})
    assert recipes.recipe("any", "SNN snip", 0.9)["lr"] == 0.1 and recipes.recipe("any", "ANN magnitude", 0.9)["lr"] == 0.2
    assert recipes.recipe("any", "SNN magnitude", 0.8)["lr"] == 0.3
