"""Parameter counts of the papers, shapes, and time: what is folded, shared and averaged."""

import pytest
import torch

from sltlib import data, layers, models
from sltlib.experiment import Experiment
from sltlib.neurons import LIF

CIFAR = dict(dataset="cifar10")


@pytest.mark.parametrize(
    ("name", "plain", "affine"),
    [
        ("conv2", 4_300_992, 4_302_272),
        ("conv4", 2_425_024, 2_426_816),
        ("conv6", 2_261_184, 2_264_000),
        ("conv8", 5_275_840, 5_280_704),
        ("resnet19", 12_619_968, 12_630_858),
    ],
)
def test_parameter_counts_of_the_papers_networks(name, plain, affine):
    for count, flag in ((plain, False), (affine, True)):
        assert models.count_parameters(models.build_model(Experiment("cifar10", model=name, affine=flag))) == count


def test_multiply_accumulates_of_conv6_and_resnet19():
    """153.9 M and 2.216 G at 32x32; the first convolution of conv6 1.77 M."""
    for name, total, first in (("conv6", 153.9e6, 1.77e6), ("resnet19", 2.216e9, 1.77e6)):
        model, macs = models.build_model(Experiment("cifar10", model=name, neuron="relu")).eval(), []
        for layer in layers.prunable(model).values():
            layer.register_forward_hook(lambda m, i, o, macs=macs: macs.append(o.numel() * m.weight[0].numel()))
        with torch.no_grad():
            model(torch.zeros(1, 3, 32, 32))
        assert sum(macs) == pytest.approx(total, rel=1e-3) and macs[0] == pytest.approx(first, rel=1e-2)


@pytest.mark.parametrize("name", ["conv2", "conv4", "conv6", "resnet19", "linear"])
@pytest.mark.parametrize("neuron", ["relu", "sign", "lif"])
@pytest.mark.parametrize("size", [8, 15, 28])
def test_any_input_size_gives_logits(name, neuron, size):
    model = models.build_model(Experiment("fashion", model=name, width=0.07, neuron=neuron, image_size=size))
    assert model(torch.randn(3, 1, size, size)).shape == (3, 10)


def test_an_image_too_small_is_refused():
    with pytest.raises(ValueError, match="image_size=8 is too small for conv8"):
        Experiment("fashion", model="conv8", image_size=8)
    with pytest.raises(ValueError, match="conv8 halves its input 4 times: 10 pixels"):
        models.vgg(Experiment("fashion", model="conv8"), channels=1, size=10, classes=2)
    with pytest.raises(ValueError, match="fashion"):
        models.build_model(Experiment("fashoin"))


def spiking(**changes):
    return models.build_model(Experiment("fashion", model="conv4", width=0.1, image_size=14, **changes))


def test_the_first_layer_of_a_static_image_is_computed_once():
    model, images = spiking(timesteps=3), torch.randn(4, 1, 14, 14)
    seen = []
    for layer in layers.prunable(model).values():
        layer.register_forward_hook(lambda m, i, o: seen.append(len(i[0])))
    model(images)
    assert seen == [4, 12, 12, 12, 12, 12, 12]


def test_a_static_image_is_the_same_frame_at_every_step():
    model, images = spiking(timesteps=5).eval(), torch.randn(4, 1, 14, 14)
    frames = images.expand(5, *images.shape)
    torch.testing.assert_close(model.steps(frames), model.steps(images))


def test_time_folded_into_the_batch_equals_a_plain_loop():
    """Layer by layer and step by step with snntorch.Leaky, the textbook way."""
    import snntorch

    model, images = spiking(timesteps=4).eval(), torch.randn(6, 1, 14, 14)
    blocks = [*model.blocks, *model.hidden]
    neurons = [snntorch.Leaky(0.99, threshold=1.0, reset_mechanism="zero") for _ in blocks]
    membranes, currents = [n.reset_mem() for n in neurons], []
    for _ in range(4):
        x = images
        for i, block in enumerate(blocks):
            if i == len(model.blocks):
                x = x.flatten(1)
            current = block.norm(block.pool(block.layer(x)))
            if membranes[i].shape != current.shape:
                membranes[i] = torch.zeros_like(current)
            x, membranes[i] = neurons[i](current, membranes[i])
        currents.append(model.head(x))
    torch.testing.assert_close(model(images), torch.stack(currents).mean(0))


def test_normalisation_is_over_the_folded_batch():
    model, images = spiking(timesteps=4), torch.randn(8, 1, 14, 14)
    second = model.blocks[1]
    seen = []
    second.norm.register_forward_hook(lambda m, i, o: seen.append((i[0], o)))
    model(images)
    (inside, outside), = seen
    assert len(inside) == 32  # T B at once: one mean and variance over all steps
    mean, var = inside.mean((0, 2, 3), keepdim=True), inside.var((0, 2, 3), keepdim=True, unbiased=False)
    torch.testing.assert_close(outside, (inside - mean) / (var + 1e-5).sqrt())


def test_non_spiking_rows_see_each_frame_by_itself_and_average_their_logits():
    model = models.build_model(Experiment("fashion", model="conv2", width=0.1, image_size=8, neuron="relu")).eval()
    frames = torch.randn(3, 5, 1, 8, 8)
    torch.testing.assert_close(model(frames), torch.stack([model(f) for f in frames]).mean(0))


def test_output_is_the_mean_over_time_of_the_last_current():
    model, images = spiking(timesteps=4), torch.randn(3, 1, 14, 14)
    assert model.steps(images).shape == (4, 3, 10)
    model.eval()
    torch.testing.assert_close(model(images), model.steps(images).mean(0))


def test_equal_experiments_give_equal_weights_and_seeds_differ():
    a, b, c = spiking(seed=0), spiking(seed=0), spiking(seed=1)
    assert all(torch.equal(x, y) for x, y in zip(a.parameters(), b.parameters(), strict=True))
    assert not any(torch.equal(x, y) for x, y in zip(a.parameters(), c.parameters(), strict=True))


def test_timestep_one_and_every_neuron_is_counted():
    model = spiking(timesteps=1)
    assert list(models.neurons(model)) == ["blocks.0", "blocks.1", "blocks.2", "blocks.3", "hidden.0", "hidden.1"]
    assert all(isinstance(n, LIF) for n in models.neurons(model).values())
    assert model(torch.randn(2, 1, 14, 14)).shape == (2, 10)
    assert data.info("fashion").channels == 1
