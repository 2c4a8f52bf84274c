"""The LIF neuron against a NumPy oracle, against stepped snntorch.Leaky, and its gradient against autograd."""

import copy
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


def test_low_precision_keeps_its_membrane_in_float32():
    current = draw(8, (4, 50), 0).to(torch.bfloat16)
    spikes = LIF(0.99)(current)
    assert spikes.dtype == torch.bfloat16
    assert torch.equal(spikes.float(), LIF(0.99)(current.float()))


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


def test_sign_and_its_bi_real_gradient():
    x = torch.tensor([-1.5, -1.0, -0.25, 0.0, 0.5, 2.0], requires_grad=True)
    y = Sign()(x)
    y.sum().backward()
    assert y.tolist() == [-1, -1, -1, 1, 1, 1]
    assert x.grad.tolist() == [0, 0, 1.5, 2, 1, 0]
