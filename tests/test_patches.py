"""Patches are ranked as said, the same at every call, and the network really computes on fewer."""

import time

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sltlib import energy, layers, models, patches, table2, train
from sltlib import run
from sltlib.engine import queue as engine_queue, work
from sltlib.data import load_data
from sltlib.experiment import Experiment
from sltlib.registry import SELECTORS
from sltlib.engine.store import Store
from sltlib.ticket import Ticket

NETWORK = Experiment(
    "fashion", model="spikformer", width=1 / 24, heads=2, depth=1, image_size=8, stem_pools=1, timesteps=2, beta=0.5,
    threshold=0.4, train_images=200, epochs=1, batch_size=50, lr=0.01,
)  # fmt: skip
STEM = NETWORK.replace(model="convpep")


def images(n=5, seed=0):
    return torch.randn(n, 1, 8, 8, generator=torch.Generator().manual_seed(seed))


def chosen(selector, patch_sparsity=0.5, **changes):
    """The Experiment of a spikformer with this selector, whatever it needs as source."""
    network = NETWORK.replace(**changes)
    return table2.multisp(network, 0.0, "float", patch_sparsity, selector)


def built(experiment):
    """A model whose every normalisation has seen data, as if trained, in evaluation mode."""
    model = models.build_model(experiment)
    frozen, model.frozen = model.frozen, ()
    with torch.no_grad():
        model.train()(images(20))
        model.frozen = frozen
        if model.selector is not None:
            model.selector.train()(model.stem(images(20)), images(20))
    return model.eval()


# --- which are kept ----------------------------------------------------------------------------


@given(st.integers(1, 30), st.floats(0, 0.99), st.integers(0, 999), st.booleans())
def test_the_best_are_kept_exactly_in_their_order_and_ties_go_to_the_lower_index(places, sparsity, seed, ties):
    scores = torch.rand(3, places, generator=torch.Generator().manual_seed(seed))
    if ties:
        scores = (scores * 2).round()
    index, count = patches.best(scores, sparsity), layers.keep_count(places, sparsity)
    tokens = torch.randn(2, 3, places, 4, generator=torch.Generator().manual_seed(seed))
    kept = patches.keep(tokens, scores, sparsity)
    assert index.shape == (3, count) and kept.shape == (2, 3, count, 4)
    for i, row in enumerate(scores.tolist()):
        expected = sorted(sorted(range(places), key=lambda n: (-row[n], n))[:count])
        assert index[i].tolist() == expected
        assert torch.equal(kept[:, i], tokens[:, i, expected])


def test_rate_ranks_by_spikes():
    tokens = torch.zeros(2, 1, 4, 3)
    tokens[0, 0, 1], tokens[1, 0, 3, 0], tokens[:, 0, 2, 1] = 1, 1, 2  # 3, 1 and 4 spikes
    scores = patches.Rate()(tokens, None)
    assert scores.argsort(descending=True).tolist() == [[2, 1, 3, 0]]
    assert scores[0].tolist() == pytest.approx([0, 3 / 6, 4 / 6, 1 / 6])


@pytest.mark.parametrize("neuron", ["lif", "gelu"])
def test_attention_ranks_by_the_column_sums_of_the_first_block(neuron):
    source = NETWORK.replace(neuron=neuron, depth=2, source=STEM.replace(neuron=neuron))
    model = built(source.replace(source=source, selector="attention", patch_sparsity=0.5))
    dense = built(source)
    model.adopt(Ticket.from_model(dense, source))
    seen = {}
    dense.blocks[0].attention.mix.register_forward_hook(lambda m, i, o: seen.update(mix=m, q=i[0], k=i[1]))
    with torch.no_grad():
        dense(images())
        scores = model.selector(model.stem(images()), images())
    maps = seen["mix"].scores(seen["q"], seen["k"].transpose(-2, -1))  # (T B, heads, N, N)
    expected = maps.sum((1, 2)).unflatten(0, (-1, 5)).mean(0)
    torch.testing.assert_close(scores, expected)
    assert scores.shape == (5, 16) and scores.std() > 0


def test_random_patches_are_each_images_own_whatever_the_batch_and_uniform():
    selector, x = patches.Random(seed=0), images(400)
    tokens = torch.zeros(1, 400, 16, 1)
    scores = selector(tokens, x)
    alone = torch.cat([selector(tokens[:, :1], x[i : i + 1]) for i in (7, 3, 3)])
    assert torch.equal(alone, scores[[7, 3, 3]])
    assert not torch.equal(patches.Random(seed=1)(tokens, x), scores)
    kept = torch.zeros(400, 16).scatter_(1, patches.best(scores, 0.5), 1.0)
    assert len(kept.unique(dim=0)) > 350
    # each place is kept in half of the images, each pair in 7 of 30: within five standard deviations
    pairs = kept.T @ kept / 400
    assert (pairs.diagonal() - 0.5).abs().max() < 5 * (0.25 / 400) ** 0.5
    off = pairs[~torch.eye(16, dtype=torch.bool)]
    assert (off - 7 / 30).abs().max() < 5 * (0.18 / 400) ** 0.5
    near = x.clone()
    near[:, 0, 3, 3] += 1e-3  # another image
    assert (selector(tokens, near) != scores).any(1).all()


def test_random_patches_of_a_recording_depend_on_all_its_frames():
    selector, frames = patches.Random(seed=0), torch.rand(3, 5, 2, 8, 8, generator=torch.Generator().manual_seed(0))
    tokens = torch.zeros(3, 5, 16, 1)
    scores = selector(tokens, frames)
    assert torch.equal(selector(tokens[:, 2:3], frames[:, 2:3]), scores[2:3])
    for frame in range(3):
        other = frames.clone()
        other[frame] += 1
        assert (selector(tokens, other) != scores).any(1).all()


def test_straight_through_gate_is_a_mask_forward_and_a_sigmoid_backward():
    tokens = torch.randn(2, 3, 6, 4, generator=torch.Generator().manual_seed(0))
    scores = torch.randn(3, 6, generator=torch.Generator().manual_seed(1)).requires_grad_()
    gated = patches.gate(tokens, scores, 0.5)
    torch.testing.assert_close(gated.mean(2), patches.keep(tokens, scores, 0.5).mean(2))
    weight = torch.randn(gated.shape, generator=torch.Generator().manual_seed(2))
    (gated * weight).sum().backward()
    expected = (tokens * weight).sum((0, 3)) * 2 * torch.sigmoid(scores) * (1 - torch.sigmoid(scores))
    torch.testing.assert_close(scores.grad, expected.detach())
    assert (scores.grad != 0).all()  # those that are not kept learn too


def test_the_learned_selector_finds_the_patch_that_tells_the_class():
    """Tokens of noise; one, at a random place and marked by its first feature, tells the class."""
    random, selector = torch.Generator().manual_seed(0), patches.Learned(8, torch.Generator().manual_seed(1))
    head = torch.nn.Linear(8, 2)
    torch.nn.init.zeros_(head.weight)
    torch.nn.init.zeros_(head.bias)
    optimizer = torch.optim.Adam([*selector.parameters(), *head.parameters()], 0.03)

    def draw(n=64):
        tokens = torch.randn(1, n, 10, 8, generator=random)
        tokens[..., 0] = 0
        labels, place = (torch.randint(high, (n,), generator=random) for high in (2, 10))
        tokens[0, torch.arange(n), place] = 0
        tokens[0, torch.arange(n), place, 0] = 1
        tokens[0, torch.arange(n), place, 1] = 6.0 * labels - 3
        return tokens, labels, place

    for _ in range(200):
        tokens, labels, _ = draw()
        pooled = patches.gate(tokens, selector(tokens, None), 0.9).mean((0, 2))
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(head(pooled), labels).backward()
        optimizer.step()
    tokens, _, place = draw(500)
    found = patches.best(selector(tokens, None), 0.9)[:, 0]
    assert float((found == place).float().mean()) > 0.9


# --- in the network ----------------------------------------------------------------------------


@pytest.mark.parametrize("selector", [name for name in SELECTORS if name != "none"])
@pytest.mark.parametrize("neuron", ["lif", "gelu"])
def test_a_model_that_keeps_all_patches_is_the_dense_model_exactly(selector, neuron):
    experiment = chosen(selector, neuron=neuron)
    model, dense = built(experiment), models.build_model(NETWORK.replace(neuron=neuron, source=STEM.replace(neuron=neuron)))
    dense.load_state_dict({k: v for k, v in model.state_dict().items() if not k.startswith("selector.")})
    with torch.no_grad():
        assert not torch.equal(model(images()), dense.eval()(images()))
        model.patch_sparsity = 0.0
        assert torch.equal(model(images()), dense(images()))


@pytest.mark.parametrize("selector", [name for name in SELECTORS if name != "none"])
def test_the_encoder_sees_the_kept_patches_of_each_image_only(selector):
    model = built(chosen(selector, 0.6))
    with torch.no_grad():
        tokens = model.stem(images())
        kept, scores = model.embed(images()), model.selector(tokens, images())
        seen = []
        for layer in layers.prunable(model.blocks).values():
            layer.register_forward_hook(lambda m, i, o: seen.append(i[0].shape[:2]))
        logits = model(images())
        assert set(seen) == {(10, 6)}  # T B, and 6 of 16 patches
        assert torch.equal(kept, patches.keep(tokens, scores, 0.6))
        assert torch.equal(model(images()), logits)
        alone = torch.cat([model(image[None]) for image in images()])
    torch.testing.assert_close(alone, logits)  # fixed per image, whatever the batch


def test_the_patches_to_look_at_are_those_that_are_kept():
    model = built(chosen("rate", 0.6))
    index, count = patches.kept(model, images())
    tokens = model.stem(images())
    assert index.shape == (5, 6) and count == 16
    for i, row in enumerate(index):
        assert torch.equal(tokens[:, i, row], model.embed(images())[:, i])


def test_equal_seeds_start_from_equal_encoders_whatever_the_selector():
    heads = [models.build_model(chosen(selector)).blocks for selector in SELECTORS if selector != "none"]
    for other in heads[1:]:
        assert all(torch.equal(a, b) for a, b in zip(heads[0].parameters(), other.parameters(), strict=True))


def test_training_a_selector_moves_nothing_but_it_and_the_head(tmp_path):
    store = Store(tmp_path)
    final = chosen("learned")
    ranking = final.source
    result, stem = work.train(ranking, store), store.get(STEM)
    before = models.build_model(ranking)
    after = result.ticket().apply(models.build_model(ranking))
    assert not torch.equal(before.selector.score.weight, after.selector.score.weight)
    for name, value in stem.ticket().layers.items():
        assert torch.equal(after.get_parameter(f"{name}.weight"), value.weight())
    last = work.train(final, store).ticket().apply(models.build_model(final))
    assert torch.equal(last.selector.score.weight, after.selector.score.weight)


# --- Algorithm 1 -------------------------------------------------------------------------------


def test_multisp_is_four_steps_and_its_ticket_holds_every_level(tmp_path):
    store = Store(tmp_path)
    final = table2.multisp(NETWORK, sparsity=0.6, weights="binary", patch_sparsity=0.4, search=dict(lr=0.05), rank=dict(lr=0.02))
    stem, ranking = final.source.source, final.source
    assert (stem.model, stem.search, stem.sparsity, stem.weights, stem.lr) == ("convpep", "edge-popup", 0.6, "binary", 0.05)
    assert (ranking.model, ranking.search, ranking.selector, ranking.lr) == ("convpep", "none", "learned", 0.02)
    assert (final.model, final.weights, final.lr, final.patch_sparsity) == ("spikformer", "float", NETWORK.lr, 0.4)
    table = run([final], backend="inline", store=store)
    assert table.attrs["trained"] == 3
    ticket = Ticket.load(store.get(final).ticket_path)
    searched, ranked = store.get(stem).ticket(), store.get(ranking).ticket()
    names = [name for name in ticket.layers if name.startswith("stem.")]
    assert len(names) == 5
    for name in names:
        layer = ticket.layers[name]
        assert layer.kept.size == layers.keep_count(layer.mask.size, 0.6)
        assert (layer.mask == searched.layers[name].mask).all()
        assert (layer.kept == searched.layers[name].kept).all() and layer.gain == searched.layers[name].gain
    assert (ticket.rest["selector.score.weight"] == ranked.rest["selector.score.weight"]).all()
    data = load_data("fashion", 8, 200)
    applied = ticket.apply(models.build_model(final))
    assert train.accuracy(applied, data, data.test) == store.get(final).metrics["test_accuracy"]


def test_each_level_alone_is_one_argument():
    dense = table2.multisp(NETWORK, 0.0, "float", 0.0)
    assert dense.selector == "none" and dense.source.search == "none" and dense.source.weights == "float"
    weights = table2.multisp(NETWORK, 0.5, "binary", 0.0)
    assert weights.selector == "none" and weights.source.weights == "binary" and weights.source.sparsity == 0.5
    for selector in ("rate", "random"):
        assert table2.multisp(NETWORK, 0.0, "float", 0.3, selector).source == dense.source
    assert table2.multisp(NETWORK, 0.0, "float", 0.3, "attention").source == dense
    for selector in ("rate", "learned"):  # patches of a network that was trained as a whole
        found = table2.multisp(NETWORK, 0.0, "float", 0.3, selector, source=NETWORK)
        assert (found.source.source if selector == "learned" else found.source) == NETWORK
    assert table2.multisp(NETWORK, patch_sparsity=0.0, source=NETWORK) == NETWORK.replace(source=NETWORK)
    twin = NETWORK.replace(neuron="gelu", stem_neuron="sign")
    assert table2.multisp(twin).source.source.neuron == "sign"
    assert table2.multisp(twin).source.source.key == table2.multisp(twin.replace(neuron="relu")).source.source.key


def test_chains_that_share_a_source_train_it_once(tmp_path):
    chains = [table2.multisp(NETWORK, 0.5, "binary", 0.3, name) for name in ("rate", "random", "attention")]
    table = run(chains, backend="inline", store=Store(tmp_path))
    assert table.attrs["trained"] == 5  # the ConvPEP, the spikformer on all patches, and the three
    queue = engine_queue.Queue(engine_queue.missing(chains, Store(tmp_path / "empty")))
    first = queue.take()
    assert first.model == "convpep" and queue.take() is None  # all others wait for it


# --- what it costs -----------------------------------------------------------------------------


@pytest.mark.parametrize("selector", [name for name in SELECTORS if name != "none"])
@pytest.mark.parametrize("neuron", ["lif", "gelu"])
def test_the_cost_falls_with_the_patches_removed_the_selectors_pass_included(selector, neuron):
    """At a depth where it pays: the selector by attention computes two layers of the first block on all patches."""
    dense = energy.count(built(NETWORK.replace(neuron=neuron, depth=3, source=STEM.replace(neuron=neuron))), images())
    costs = [energy.energy(dense)["pj"]["total"]]
    for sparsity in (0.4, 0.8):
        counts = energy.count(built(chosen(selector, sparsity, neuron=neuron, depth=3)), images())
        costs.append(energy.energy(counts)["pj"]["total"])
        passes = [name for name in counts.index if name.startswith("selector")]
        assert bool(passes) == (selector != "random")
        kept = layers.keep_count(16, sparsity)
        for name in counts.index:
            if name.startswith("blocks") and counts.loc[name, "kind"] == "linear":
                assert counts.loc[name, "macs"] == dense.loc[name, "macs"] * kept / 16
    assert costs == sorted(costs, reverse=True) and len(set(costs)) == 3


def test_the_encoder_is_faster_on_fewer_patches():
    """Really fewer tokens: half the time at most on an eighth of them (the best of several runs)."""
    big = NETWORK.replace(width=1 / 6, depth=2, image_size=16, stem_pools=1, neuron="gelu")
    fastest = []
    for experiment in (big.replace(source=big.replace(model="convpep")), chosen("rate", 0.875, **_changes(big))):
        model, x, times = models.build_model(experiment).eval(), torch.randn(40, 1, 16, 16), []
        with torch.no_grad():
            tokens = models.Embedded(model.embed(x))
            for _ in range(5):
                begin = time.perf_counter()
                model(tokens)
                times.append(time.perf_counter() - begin)
        fastest.append(min(times))
    assert fastest[1] < fastest[0] / 2


def _changes(experiment):
    return {name: getattr(experiment, name) for name in ("width", "depth", "image_size", "stem_pools", "neuron")}
