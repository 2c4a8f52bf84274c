"""Spikformer against a plain loop, its counts, its gradients, its twin, and the chain of frozen ConvPEPs."""

import pytest
import snntorch
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from sltlib import layers, models, pruning, spikformer, train
from sltlib.data import load_data
from sltlib.experiment import Experiment
from sltlib.engine import work
from sltlib.engine.checkpoints import Checkpoint
from sltlib.engine.store import Store
from sltlib.ticket import Ticket

SMALL = Experiment(
    "fashion", model="spikformer", width=1 / 24, heads=4, depth=2, image_size=8, stem_pools=1, timesteps=3, beta=0.5,
    threshold=0.4, train_images=300, epochs=2, batch_size=50, lr=0.01,
)  # fmt: skip
STEM = SMALL.replace(model="convpep", search="edge-popup", sparsity=0.5, weights="binary")
NEURONS = ("lif", "relu", "sign", "gelu")


def images(n=4, size=8, seed=0):
    return torch.randn(n, 1, size, size, generator=torch.Generator().manual_seed(seed))


def built(**changes):
    """A small network whose normalisation has seen data, in evaluation mode."""
    model = models.build_model(SMALL.replace(**changes))
    with torch.no_grad():
        for seed in range(3):
            model.train()(images(16, SMALL.replace(**changes).image_size, seed))
    return model.eval()


# --- shapes and counts -------------------------------------------------------------------------


@pytest.mark.parametrize(("affine", "count"), [(True, 9_324_730), (False, 9_281_050)])
def test_parameters_of_spikformer_4_384_on_cifar10(affine, count):
    experiment = Experiment("cifar10", model="spikformer", affine=affine)
    assert models.count_parameters(models.build_model(experiment)) == count
    twin = experiment.replace(neuron="gelu", stem_neuron="sign")
    assert models.count_parameters(models.build_model(twin)) == count


def test_the_published_network_for_events_is_a_matter_of_parameters():
    """Two blocks of 256 features and 16 heads, patches of 16x16: 64 tokens of 128x128."""
    sizes = dict(depth=2, width=2 / 3, heads=16, stem_pools=4)
    published = Experiment("cifar10", model="spikformer", neuron="relu", affine=True, **sizes)
    model = spikformer.spikformer(published, channels=2, size=128, classes=11).eval()
    stem = sum(9 * a * b for a, b in ((2, 32), (32, 64), (64, 128), (128, 256), (256, 256))) + 2 * (32 + 64 + 128 + 512)
    block = 4 * (256 * 256 + 256) + 2 * 4 * 256 * 256 + 1024 + 256 + 2 * (4 * 256 + 1024 + 256)
    assert models.count_parameters(model) == stem + 2 * block + 256 * 11 + 11
    with torch.no_grad():
        assert model.stem(torch.zeros(1, 1, 2, 128, 128)).shape[2:] == (64, 256)


@pytest.mark.parametrize("neuron", NEURONS)
@pytest.mark.parametrize("stem", NEURONS)
def test_any_neuron_in_the_stem_and_in_the_blocks_images_and_frames(neuron, stem):
    model = models.build_model(SMALL.replace(neuron=neuron, stem_neuron=stem))
    steps = 3 if "lif" in (neuron, stem) else 1
    assert model.steps(images()).shape == (steps, 4, 10)
    frames = torch.randn(2, 4, 1, 8, 8)
    assert model.steps(frames).shape == (2, 4, 10) and model(frames).shape == (4, 10)
    model(images()).sum().backward()
    assert all(p.grad is not None for p in model.parameters())


@pytest.mark.parametrize(("size", "pools", "tokens"), [(8, 1, 16), (8, 4, 1), (15, 2, 16), (28, 2, 49), (9, 3, 4)])
def test_any_square_size_and_any_pooling_gives_its_tokens(size, pools, tokens):
    model = models.build_model(SMALL.replace(image_size=size, stem_pools=pools))
    assert model.embed(images(2, size)).shape == (3, 2, tokens, 16)


def test_the_first_convolution_of_a_static_image_is_computed_once():
    model, seen = built(), []
    for layer in layers.prunable(model).values():
        layer.register_forward_hook(lambda m, i, o: seen.append(len(i[0])))
    model(images())
    assert seen[0] == 4 and set(seen[1:]) == {12}


# --- what it computes --------------------------------------------------------------------------


def plain_spikformer(model, x, steps, beta, threshold, heads):
    """Step by step, token by token of one image after the other, with `snntorch.Leaky`: the textbook way."""
    cells = {}

    def fire(name, current, at=threshold):
        if name not in cells:
            cells[name] = [snntorch.Leaky(beta, threshold=at, reset_mechanism="zero"), torch.zeros_like(current)]
        spikes, cells[name][1] = cells[name][0](current, cells[name][1])
        return spikes.to(current.dtype)

    def dense(name, block, tokens):
        current = nn.functional.linear(tokens, block.layer.weight)  # (B, N, D)
        mean, var = block.norm.running_mean, block.norm.running_var
        return fire(name, (current - mean) / (var + 1e-5).sqrt())

    logits = []
    for _ in range(steps):
        h = x
        for i, stage in enumerate(model.stem.stages):
            h = fire(f"stage {i}", stage.norm(stage.layer(h)))
            if i >= 4 - model.stem.pools:
                h = nn.functional.max_pool2d(h, 3, stride=2, padding=1)
        place = model.stem.position
        h = h + fire("position", place.norm(place.layer(h)))
        tokens = h.flatten(2).transpose(1, 2)  # (B, N, D)
        for i, block in enumerate(model.blocks):
            part = block.attention
            q, k, v = (dense(f"{i} {name}", getattr(part, name), tokens) for name in "qkv")
            mixed = torch.zeros_like(q)
            width = q.shape[-1] // heads
            for b in range(len(q)):
                for head in range(heads):
                    own = slice(head * width, (head + 1) * width)
                    for n in range(q.shape[1]):
                        for m in range(q.shape[1]):
                            mixed[b, n, own] += 0.125 * (q[b, n, own] @ k[b, m, own]) * v[b, m, own]
            attended = fire(f"{i} attention", mixed, threshold / 2)
            tokens = tokens + dense(f"{i} project", part.project, attended)
            hidden = dense(f"{i} expand", block.expand, tokens)
            tokens = tokens + dense(f"{i} contract", block.contract, hidden)
        logits.append(tokens.mean(1) @ model.head.weight.T + model.head.bias)
    return torch.stack(logits)


def test_time_folded_into_the_batch_equals_a_plain_loop_with_spiking_attention():
    model = built()
    rates = []
    for neuron in models.neurons(model).values():
        neuron.register_forward_hook(lambda m, i, o: rates.append(float(o.mean())))
    with torch.no_grad():
        logits = model.steps(images(2))
        expected = plain_spikformer(model, images(2), 3, SMALL.beta, SMALL.threshold, SMALL.heads)
    assert min(rates) > 0.01  # nothing is silent, so the comparison means something
    torch.testing.assert_close(logits, expected)


@given(st.integers(1, 6), st.integers(1, 6), st.integers(0, 999))
def test_both_orders_of_spiking_attention_give_the_same_bits(places, width, seed):
    random = torch.Generator().manual_seed(seed)
    q, k, v = (torch.randint(0, 2, (2, 3, places, width), generator=random).float() for _ in range(3))
    mix = spikformer.Mix(spiking=True)
    expected = torch.einsum("bhnd,bhmd,bhme->bhne", q, k, v) * 0.125
    assert torch.equal(mix(q, k, v), expected)
    mix.scores_first = lambda q: not (q.shape[-2] <= q.shape[-1])
    assert torch.equal(mix(q, k, v), expected)


def test_attention_takes_the_cheaper_order():
    mix = spikformer.Mix(spiking=True)
    assert mix.scores_first(torch.zeros(1, 1, 4, 8)) and not mix.scores_first(torch.zeros(1, 1, 8, 4))
    assert spikformer.Mix(spiking=False).scores_first(torch.zeros(1, 1, 8, 4))  # a softmax needs the scores


def test_the_twins_attention_is_torchs_softmax_attention_and_its_graph_has_gelu():
    q, k, v = (torch.randn(2, 3, 5, 4, generator=torch.Generator().manual_seed(s)) for s in range(3))
    expected = nn.functional.scaled_dot_product_attention(q, k, v)
    torch.testing.assert_close(spikformer.Mix(spiking=False)(q, k, v), expected)
    twin, spiking = built(neuron="gelu"), built()
    assert [n for n, _ in twin.named_parameters()] == [n for n, _ in spiking.named_parameters()]
    assert {type(n) for n in models.neurons(twin).values()} == {nn.GELU}
    binarised = models.neurons(models.build_model(SMALL.replace(neuron="gelu", stem_neuron="sign")))
    assert {name for name, n in binarised.items() if type(n).__name__ == "Sign"} == {
        name for name in binarised if name.startswith("stem.")
    }


def test_attentions_neurons_have_half_the_threshold():
    found = {name: float(n.threshold) for name, n in models.neurons(models.build_model(SMALL)).items()}
    half = {name for name, threshold in found.items() if threshold == pytest.approx(SMALL.threshold / 2)}
    assert half == {"blocks.0.attention", "blocks.1.attention"}


def test_images_do_not_mix():
    model = built()
    with torch.no_grad():
        together, alone = model(images()), torch.cat([model(image[None]) for image in images()])
    torch.testing.assert_close(together, alone)


# --- gradients ---------------------------------------------------------------------------------


@pytest.mark.parametrize("spiking", [True, False])
@pytest.mark.parametrize("places", [2, 5])
def test_gradients_of_attention_are_those_of_finite_differences(spiking, places):
    mix = spikformer.Mix(spiking)
    random = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(1, 2, places, 3, dtype=torch.float64, generator=random).requires_grad_() for _ in range(3))
    assert torch.autograd.gradcheck(mix, (q, k, v))


def test_gradients_of_a_twin_are_those_of_finite_differences():
    model = built(neuron="gelu", depth=1).double()
    x, weight = images(2).double(), model.blocks[0].attention.q.layer.weight
    loss = lambda: nn.functional.cross_entropy(model(x), torch.tensor([1, 2]))  # noqa: E731
    loss().backward()
    for at in ((0, 0), (3, 5), (15, 2)):
        with torch.no_grad():
            values = []
            for step in (1e-6, -2e-6):
                weight[at] += step
                values.append(float(loss()))
            weight[at] += 1e-6
        assert float(weight.grad[at]) == pytest.approx((values[0] - values[1]) / 2e-6, rel=1e-4, abs=1e-9)


def test_gradients_of_the_spiking_network_are_those_of_the_plain_loop():
    """Through time, stem, attention and residuals, with snnTorch's surrogate (the reset is detached in both)."""
    model = built(depth=1).double()
    names = [n for n, _ in model.named_parameters()]
    found = torch.autograd.grad(model.steps(images(2).double()).square().sum(), list(model.parameters()))
    plain = plain_spikformer(model, images(2).double(), 3, SMALL.beta, SMALL.threshold, SMALL.heads)
    expected = torch.autograd.grad(plain.square().sum(), list(model.parameters()))
    for name, a, b in zip(names, found, expected, strict=True):
        assert b.abs().max() > 0, name
        # snnTorch's spikes are float32, and so are the gradients that pass them
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6, msg=lambda text, name=name: f"{name}: {text}")


# --- the ConvPEP and the chain -----------------------------------------------------------------


def test_a_search_of_the_convpep_trains_its_scores_and_the_temporary_head():
    for search in ("edge-popup", "random-readout"):
        experiment = STEM.replace(search=search)
        model = pruning.prepare(models.build_model(experiment), experiment)
        trained = {n for n, p in model.named_parameters() if p.requires_grad}
        scores = {f"{n}.scores" for n in layers.prunable(model)} if search == "edge-popup" else set()
        assert trained == {"head.weight", "head.bias"} | scores
        assert set(layers.prunable(model)) == {f"stem.stages.{i}.layer" for i in range(4)} | {"stem.position.layer"}
    dense = pruning.prepare(models.build_model(SMALL.replace(model="convpep")), SMALL.replace(model="convpep"))
    assert all(p.requires_grad for p in dense.parameters())


def files_of(result):
    skip = ("provenance.json", "manifest.json")  # these hold times
    return {p.name: p.read_bytes() for p in result.path.iterdir() if p.name not in skip}


@pytest.fixture(scope="module")
def chain(tmp_path_factory):
    """A searched ConvPEP, and the spikformer trained on it; its store."""
    store = Store(tmp_path_factory.mktemp("chain"))
    network = SMALL.replace(source=STEM, affine=True)
    return store, network, work.train(network, store)


def test_a_source_stays_as_it_was_found_and_the_rest_is_trained(chain):
    store, network, result = chain
    stem, whole = store.get(STEM).ticket(), result.ticket()
    for name, layer in stem.layers.items():
        other = whole.layers[name]
        assert (layer.mask == other.mask).all() and (layer.kept == other.kept).all() and layer.gain == other.gain
        assert layer.kept.dtype == bool  # signs: one bit a weight
    norms = [name for name in stem.rest if name.startswith("stem.")]
    assert len(norms) == 10 and all((stem.rest[name] == whole.rest[name]).all() for name in norms)
    fresh, trained = models.build_model(network), result.ticket().apply(models.build_model(network))
    for name, parameter in fresh.named_parameters():
        if not name.startswith("stem."):
            assert not torch.equal(parameter, trained.get_parameter(name)), name
    assert whole.layers["blocks.0.expand.layer"].gain is None


def test_the_ticket_of_a_chain_predicts_what_was_measured(chain):
    _, network, result = chain
    data = load_data("fashion", 8, 300)
    applied = Ticket.load(result.ticket_path).apply(models.build_model(network))
    plain = Ticket.load(result.ticket_path).materialize(models.build_model(network))
    assert train.accuracy(applied, data, data.test) == result.metrics["test_accuracy"]
    x = data.batch(data.test.x, torch.arange(50))
    with torch.no_grad():
        assert torch.equal(plain(x), applied(x))
    again = Ticket.from_model(applied, network)
    assert all((again.layers[n].kept == layer.kept).all() for n, layer in result.ticket().layers.items())
    assert again.layers["stem.position.layer"].kept.dtype == bool


def test_frozen_norms_stay_in_evaluation_mode_and_collect_nothing(chain):
    _, network, result = chain
    model = result.ticket().apply(models.build_model(network)).train()
    assert not any(m.training for m in model.stem.modules()) and all(b.training for b in model.blocks)
    before = model.stem.position.norm.running_mean.clone()
    model(images(8)).sum().backward()
    assert torch.equal(model.stem.position.norm.running_mean, before)
    assert all(p.grad is None for p in model.stem.parameters())


@pytest.mark.parametrize("stem", ["lif", "sign", "relu"])
def test_tokens_kept_from_a_frozen_convpep_are_those_of_every_batch(stem, monkeypatch):
    source = SMALL.replace(model="convpep", neuron=stem)
    model = models.build_model(SMALL.replace(source=source, stem_neuron=stem))
    for part in model.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.running_mean.normal_(0, 0.1, generator=torch.Generator().manual_seed(1))
    data = load_data("fashion", 8, 330)
    kept = train.frozen_tokens(model.train(), data, 50)
    assert kept.dtype == (torch.float32 if stem == "relu" else torch.int8)
    assert kept.shape == (330, 3 if stem == "lif" else 1, 16, 16)
    index = torch.randperm(330, generator=torch.Generator().manual_seed(0))[:50]
    with torch.no_grad():
        tokens = model.embed(train.batch(data, data.train.x, index))
        assert torch.equal(kept[index].transpose(0, 1).float(), tokens)
        x = train.batch(data, data.train.x, index)
        assert torch.equal(model.eval()(models.Embedded(tokens)), model(x))
    monkeypatch.setattr(train, "TOKEN_BYTES", 1000)
    assert train.frozen_tokens(model, data, 50) is None
    assert train.frozen_tokens(models.build_model(SMALL), data, 50) is None


@pytest.mark.parametrize("loss", ["mean", "per-step"])
def test_training_on_kept_tokens_is_training_on_images(chain, tmp_path, monkeypatch, loss):
    store, network, _ = chain
    network, tickets = network.replace(epochs=1, loss=loss), []
    for limit in (2**30, 0):
        monkeypatch.setattr(train, "TOKEN_BYTES", limit)
        tickets.append(train.train(network, store.get(STEM).ticket()).ticket)
        tickets[-1].save(tmp_path / str(limit))
    assert (tmp_path / str(2**30)).read_bytes() == (tmp_path / "0").read_bytes()


def test_augmented_images_pass_the_frozen_convpep_every_time(tmp_path, monkeypatch):
    store, short = Store(tmp_path), dict(train_images=100, epochs=1)
    stem = STEM.replace(**short)
    work.train(stem, store)
    monkeypatch.setattr(train, "frozen_tokens", lambda *a: pytest.fail("one view is not the next"))
    work.train(SMALL.replace(source=stem, augment="crop", **short), store)


@pytest.mark.parametrize("chained", [False, True], ids=["joint", "chained"])
def test_stopped_spikformer_resumes_bit_identically(tmp_path, monkeypatch, chained, chain):
    store, network, whole = chain
    if not chained:
        network = SMALL.replace(depth=1)
        whole = work.train(network, Store(tmp_path / "whole"))
    killed = Store(tmp_path / "killed")
    if chained:
        work.train(STEM, killed)
    monkeypatch.setenv("SLT_CHECKPOINT_S", "0")
    save = Checkpoint.save

    def save_then_die(self, step, *state):
        save(self, step, *state)
        if step == 8:
            raise KeyboardInterrupt

    monkeypatch.setattr(Checkpoint, "save", save_then_die)
    with pytest.raises(KeyboardInterrupt):
        work.train(network, killed)
    result = work.train(network, killed)
    assert result.provenance["resumed"] == 8
    assert files_of(result) == files_of(whole)


def test_a_search_of_a_spikformer_is_refused_with_the_way_to_do_it():
    with pytest.raises(ValueError, match="model='convpep'.*as the spikformer's source"):
        SMALL.replace(search="edge-popup", sparsity=0.5)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        (dict(width=0.1), r"38 features.*0\.0833333 \(32\) or 0\.104167 \(40\)"),
        (dict(width=1e-4), r"0 features, which 8 and its 4 heads must divide, and one at least: give 0\.0208333 \(8\)"),
        (dict(width=1e-4, heads=12), r"0 features.*give 0\.0625 \(24\)"),
        (dict(width=1e-4, model="convpep", heads=12), r"0 features, which 8 must divide, and one at least: give 0\.0208333 \(8\)"),
        (dict(width=0.02, heads=12), r"8 features, which 8 and its 12 heads must divide: give 0\.0625 \(24\)"),
        (dict(heads=5), "8 and its 5 heads must divide"),
        (dict(selector="rate", source=STEM), "patch_sparsity above 0"),
        (dict(patch_sparsity=0.3), "patch_sparsity above 0"),
        (dict(selector="rate", patch_sparsity=0.3), "frozen ConvPEP"),
        (dict(selector="attention", patch_sparsity=0.3, source=STEM), "first block"),
        (dict(selector="learned", patch_sparsity=0.3, source=STEM), "convpep with selector='learned'"),
        (dict(model="convpep", selector="rate", patch_sparsity=0.3, source=STEM), "trains nothing"),
        (dict(model="convpep", stem_neuron="sign"), "one activation"),
        (dict(source=SMALL.replace(source=STEM, selector="rate", patch_sparsity=0.3)), "sees all patches"),
        (dict(source=Experiment("fashion", search="edge-popup", sparsity=0.5)), "source is a conv4"),
        (dict(source=STEM, timesteps=2, beta=0.9), "timesteps=3.*beta=0.5"),
        (dict(source=STEM, stem_pools=2), "stem_pools=1"),
        (dict(source=STEM, neuron="gelu"), "stem_activation='lif'"),
    ],
)
def test_chains_that_do_not_fit_are_refused(changes, says):
    with pytest.raises(ValueError, match=says):
        SMALL.replace(**changes)
