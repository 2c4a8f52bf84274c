"""The LIF neuron against a NumPy oracle, against stepped snntorch.Leaky, and its gradient against autograd."""

import copy
import io
import os
import pickle
import subprocess
import sys
from math import erf

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sltlib import neurons
from sltlib.neurons import LIF, SURROGATES, Sign


def oracle(current, beta, threshold, reset):
    """method, equation by equation: U, S and V of every step, in float32."""
    beta, threshold = np.float32(beta), np.float32(threshold)
    u, s, spikes = np.zeros_like(current[0]), np.zeros_like(current[0]), []
    for i in current:
        if reset == "zero":
            v = u * (1 - s)
            u = beta * v + i
        else:
            u = beta * u + i - threshold * s
        s = (u - threshold > 0).astype(np.float32)
        spikes.append(s)
    return np.stack(spikes)


shapes = st.lists(st.integers(1, 5), min_size=1, max_size=4).map(tuple)
cases = dict(
    shape=shapes, steps=st.integers(1, 9), seed=st.integers(0, 2**31),
    beta=st.floats(0, 1), threshold=st.floats(0.1, 3), reset=st.sampled_from(["zero", "subtract"]),
)  # fmt: skip


def draw(steps, shape, seed):
    return torch.randn(steps, *shape, generator=torch.Generator().manual_seed(seed)) + 0.3


@settings(deadline=None, max_examples=60)
@given(**cases)
def test_spikes_are_those_of_the_numpy_oracle(shape, steps, seed, beta, threshold, reset):
    current = draw(steps, shape, seed)
    expected = oracle(current.numpy(), beta, threshold, reset)
    assert np.array_equal(LIF(beta, threshold, reset)(current).numpy(), expected)


@settings(deadline=None, max_examples=60)
@given(**cases, surrogate=st.sampled_from(sorted(SURROGATES)))
def test_spikes_and_gradient_are_those_of_stepped_snntorch(shape, steps, seed, beta, threshold, reset, surrogate):
    current = draw(steps, shape, seed).requires_grad_()
    weight = draw(steps, shape, seed + 1)  # so that every step's gradient counts on its own
    results = []
    for fast in (True, False):
        spikes = LIF(beta, threshold, reset, surrogate, fast=fast)(current)
        results.append((spikes.detach(), *torch.autograd.grad((spikes * weight).sum(), current)))
    assert torch.equal(results[0][0], results[1][0])
    torch.testing.assert_close(results[0][1], results[1][1], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("reset", ["zero", "subtract"])
@pytest.mark.parametrize("static", [False, True])
def test_compiled_kernel_gives_the_reference(reset, static):
    shape = (3, neurons.COMPILE_FROM + 7)
    current = draw(*shape[:1], shape[1:], 5).reshape(3, 1, -1)
    current = (current[0] if static else current).requires_grad_()
    neurons._state["compiled"] = False
    lif = LIF(0.9, reset_mechanism=reset)
    spikes = lif(current, steps=6) if static else lif(current)
    unrolled = current.expand(6, *current.shape) if static else current
    expected = LIF(0.9, reset_mechanism=reset, fast=False)(unrolled)
    weight = torch.randn(spikes.shape, generator=torch.Generator().manual_seed(1))
    (got,) = torch.autograd.grad((spikes * weight).sum(), current, retain_graph=True)
    (want,) = torch.autograd.grad((expected * weight).sum(), current)
    if neurons._state["compile"]:
        assert neurons.compiled()
    assert torch.equal(spikes, expected)
    torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("fast", [True, False])
def test_constant_current_equals_its_repetition(fast):
    current = draw(2, (5,), 3).requires_grad_()
    lif = LIF(0.8, fast=fast)
    a, b = lif(current, steps=4), lif(current.expand(4, 2, 5))
    assert torch.equal(a, b)
    (ga,), (gb,) = (torch.autograd.grad(s.mul(torch.arange(1.0, 5).view(4, 1, 1)).sum(), current) for s in (a, b))
    torch.testing.assert_close(ga, gb)


def test_membrane_that_equals_the_threshold_does_not_fire():
    current = torch.tensor([[[1.0, 1.0 + 1e-6]]])
    for fast in (True, False):
        assert LIF(0.5, fast=fast)(current).tolist() == [[[0.0, 1.0]]]


def test_the_first_moment_of_the_main_setting():
    """Static N(0,1) currents at beta .99, T=4: the rate that the paper's energy ratio implies, about 0.26.

    The constant I fires at every step from 1 up, at step n of 4 from (1-beta)/(1-beta^n) up: counted by hand.
    """
    current = torch.randn(400_000, generator=torch.Generator().manual_seed(0))
    above = [0.5 - 0.5 * erf((1 - 0.99) / (1 - 0.99**n) / 2**0.5) for n in (1, 2, 3, 4)]
    # I > 1: 4 spikes; fires every 2nd step: 2 spikes; every 3rd or 4th: 1
    expected = (4 * above[0] + 2 * (above[1] - above[0]) + (above[3] - above[1])) / 4
    rate = LIF(0.99)(current.unsqueeze(0), steps=4).mean().item()
    assert rate == pytest.approx(expected, abs=0.002)
    assert rate == pytest.approx(0.257, abs=0.003)


@pytest.mark.parametrize("fast", [True, False])
def test_no_state_stays(fast):
    import snntorch

    before = len(snntorch.SpikingNeuron.instances)
    lif, current = LIF(0.9, fast=fast), draw(4, (2, 3), 0).requires_grad_()
    first = lif(current)
    assert torch.equal(copy.deepcopy(lif)(current), first)
    assert torch.equal(pickle.loads(pickle.dumps(lif))(current), first)
    assert torch.equal(lif(current), first)  # and none from the last batch
    assert len(snntorch.SpikingNeuron.instances) == before


@pytest.mark.parametrize("fast", [True, False])
@pytest.mark.parametrize("learn", [True, False])
def test_low_precision_keeps_its_membrane_and_constants_in_float32(fast, learn):
    """bfloat16 has .98828 for .99 and .69922 for .7."""
    current = draw(8, (4, 50), 0).to(torch.bfloat16)
    lif = torch.nn.Sequential(LIF(0.99, 0.7, fast=fast, learn_beta=learn)).bfloat16()
    spikes = lif(current)
    assert spikes.dtype == torch.bfloat16
    assert torch.equal(spikes.float(), LIF(0.99, 0.7)(current.float()))
    lif.half()
    assert (lif[0].beta.item(), lif[0].threshold.item()) == (np.float32(0.99), np.float32(0.7))
    assert lif.double()(current.double()).dtype == torch.float64


# --- what torch may ask of a function -----------------------------------------------------------------


@pytest.mark.parametrize("steps", [None, 3])
@pytest.mark.parametrize("width", [4, neurons.COMPILE_FROM])
def test_a_current_changed_in_place_after_the_forward_pass_is_torchs_error(steps, width):
    current = draw(3, (1, width), 0).requires_grad_() * 1.0
    spikes = LIF(0.9)(current, steps=steps)
    current.zero_()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        spikes.sum().backward()


@pytest.mark.parametrize("static", [False, True])
@pytest.mark.parametrize("reset", ["zero", "subtract"])
@pytest.mark.parametrize("surrogate", sorted(SURROGATES))
def test_second_derivatives_are_those_of_stepped_snntorch(static, reset, surrogate):
    """A gradient penalty: the derivative of |dL/dI|^2."""
    current = draw(2, (3,), 5) if static else draw(5, (2, 3), 5)
    weight, results = draw(5, (2, 3), 6), []
    for fast in (True, False):
        x = current.clone().requires_grad_()
        spikes = LIF(0.8, 1.0, reset, surrogate, fast=fast)(x, steps=5 if static else None)
        (grad,) = torch.autograd.grad((spikes * weight).sum(), x, create_graph=True)
        penalty = grad.square().sum() + 0 * x.sum()  # straight-through has no second derivative: zero, not an error
        results.append((grad.detach(), *torch.autograd.grad(penalty, x)))
    for got, want in zip(*results, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-4)
    assert (results[0][1] != 0).any() == (surrogate != "straight_through")


def test_second_derivatives_by_hand():
    """One step of .4 under the triangle: dS/dI = .4; the penalty w^2 (1 + x)^2 at x = -.6 has 2 w^2 .4."""
    for fast in (True, False):
        current = torch.tensor([[0.4]], requires_grad=True)
        (grad,) = torch.autograd.grad(3 * LIF(0.9, surrogate="triangle", fast=fast)(current), current, create_graph=True)
        (second,) = torch.autograd.grad(grad.square(), current)
        assert grad.item() == pytest.approx(1.2) and second.item() == pytest.approx(2 * 9 * 0.4)
    x = torch.tensor([-0.25], requires_grad=True)
    (grad,) = torch.autograd.grad(Sign()(x), x, create_graph=True)  # 2 - 2 |x|
    (second,) = torch.autograd.grad(grad.square(), x)
    assert grad.item() == 1.5 and second.item() == 2 * 1.5 * 2


@pytest.mark.parametrize("reset", ["zero", "subtract"])
def test_learned_constants_get_the_gradient_of_snntorch(reset):
    import snntorch

    current, weight = draw(6, (3, 4), 0).requires_grad_(), draw(6, (3, 4), 1)
    theirs = snntorch.Leaky(0.8, 0.9, learn_beta=True, learn_threshold=True, reset_mechanism=reset)
    theirs.spike_grad, mem = LIF(0.8).spike_grad, torch.zeros(3, 4)  # the same surrogate
    spikes = []
    for i in current:
        spike, mem = theirs(i, mem)
        spikes.append(spike)
    (torch.stack(spikes) * weight).sum().backward()
    beta, threshold = torch.nn.Parameter(torch.tensor(0.8)), torch.nn.Parameter(torch.tensor(0.9))
    expected = current.grad
    for lif in (LIF(0.8, 0.9, reset, learn_beta=True, learn_threshold=True), LIF(beta, threshold, reset)):
        current.grad = None
        (lif(current) * weight).sum().backward()
        torch.testing.assert_close(lif.beta.grad, theirs.beta.grad)
        torch.testing.assert_close(lif.threshold.grad, theirs.threshold.grad)
        torch.testing.assert_close(current.grad, expected)
        assert {name for name, _ in lif.named_parameters()} == {"beta", "threshold"} and "beta=0.8" in repr(lif)
    assert beta.grad is not None and threshold.grad is not None  # these themselves, not copies
    assert not list(LIF(0.8).parameters())


def test_a_learned_beta_is_held_in_its_range():
    lif, current = LIF(0.9, learn_beta=True), draw(4, (2, 3), 0)
    with torch.no_grad():
        lif.beta.fill_(1.5)
    assert torch.equal(lif(current), LIF(1.0)(current))


@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")  # deprecated, and still in use
def test_a_neuron_is_traced_exported_and_compiled_by_its_plain_path(monkeypatch):
    """Currents above COMPILE_FROM: the kernel of our own would stand in the way."""
    watched, call = [], neurons._call
    monkeypatch.setattr(neurons, "_call", lambda *a, **k: watched.append(neurons._watched()) or call(*a, **k))
    lif, current = LIF(0.9), draw(3, (2, neurons.COMPILE_FROM), 0)
    expected = LIF(0.9, fast=False)(current)
    traced, file = torch.jit.trace(lif, current), io.BytesIO()
    torch.jit.save(traced, file)
    file.seek(0)
    assert torch.equal(torch.jit.load(file)(current), expected)
    assert torch.equal(torch.export.export(lif, (current,)).module()(current), expected)
    from torch.fx.experimental.proxy_tensor import make_fx

    assert torch.equal(make_fx(lif)(current)(current), expected)
    assert not any(watched)
    narrow = current[..., :5].clone().requires_grad_()
    compiled = torch.compile(lif, dynamic=True, backend="aot_eager")
    weight = draw(3, (2, 5), 1)
    got, want = (torch.autograd.grad((f(narrow) * weight).sum(), narrow)[0] for f in (compiled, LIF(0.9, fast=False)))
    torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-5)


@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")  # deprecated, and still in use
def test_a_failed_trace_leaves_the_compiler_on(monkeypatch):
    monkeypatch.setitem(neurons._state, "compile", True)

    class Broken(torch.nn.Sequential):
        def forward(self, x):
            return {1: super().forward(x)}[2]

    with pytest.raises(KeyError):
        torch.jit.trace(Broken(LIF(0.9)), draw(3, (1, neurons.COMPILE_FROM), 0))
    assert neurons._state["compile"]


def test_without_a_compiler_one_notice_and_the_same_spikes(tmp_path):
    code = """
import torch, warnings
from sltlib.neurons import LIF, COMPILE_FROM
x = torch.randn(4, 1, COMPILE_FROM, generator=torch.Generator().manual_seed(0)).requires_grad_()
with warnings.catch_warnings(record=True) as seen:
    warnings.simplefilter("always")
    for _ in range(3):
        y = LIF(0.9)(x)
        y.sum().backward()
ours = [w for w in seen if "sltlib" in str(w.message)]
assert len(ours) == 1, seen
assert "C++ compiler" in str(ours[0].message)
assert torch.equal(y, LIF(0.9, fast=False)(x))
print("told once")
"""
    env = os.environ | {"CXX": str(tmp_path / "no-compiler"), "TORCHINDUCTOR_CACHE_DIR": str(tmp_path), "SLT_COMPILE": "1"}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=120)
    assert "told once" in done.stdout, done.stderr[-2000:]


def test_all_wrong_arguments_are_named_at_once():
    with pytest.raises(ValueError, match=r"beta=1.5.*threshold=0.*reset_mechanism='soft'.*surrogate='atn'.*atan"):
        LIF(1.5, 0, "soft", "atn")
    with pytest.raises(ValueError, match=r"\(T, B, \.\.\.\)"):
        LIF(0.9)(torch.zeros(3))
    with pytest.raises(ValueError, match=r"\(T, B, \.\.\.\)"):
        LIF(0.9)(torch.zeros(0, 3))
    for steps in (0, -1, 2.0, True):
        with pytest.raises(ValueError, match=f"steps={steps}: give a whole number"):
            LIF(0.9)(torch.zeros(2, 3), steps=steps)
    with pytest.raises(ValueError, match=r"beta of shape \(3,\): give one number"):
        LIF(torch.tensor([0.9, 0.8, 0.7]))


def test_sign_and_its_bi_real_gradient():
    x = torch.tensor([-1.5, -1.0, -0.25, 0.0, 0.5, 2.0], requires_grad=True)
    y = Sign()(x)
    y.sum().backward()
    assert y.tolist() == [-1, -1, -1, 1, 1, 1]
    assert x.grad.tolist() == [0, 0, 1.5, 2, 1, 0]
