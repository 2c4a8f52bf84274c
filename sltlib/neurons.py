"""The neurons: leaky integrate-and-fire (fused over time), and the sign activation.

LIF with hard reset ("zero", the papers'):
    U[t] = beta V[t-1] + I[t],   S[t] = 1 if U[t] > threshold else 0,   V[t] = U[t] (1 - S[t])
with soft reset ("subtract"), where the threshold is taken off one step later, undecayed:
    U[t] = beta U[t-1] + I[t] - threshold S[t-1]
The step of S has no useful derivative; the backward pass uses a surrogate of U - threshold and
treats the reset as a constant (it is detached), as snnTorch does.
"""

import contextlib
import functools
import math
import os
import types
import warnings

import snntorch
import torch

# Derivatives of the spike with respect to x = U - threshold. A new one: its function and name here, and its
# name in experiment.py, at `surrogate`.
SURROGATES = {
    "atan": lambda x: 1 / (1 + (math.pi * x) * (math.pi * x)),  # alpha = 2, Fang et al. 2021
    "fast_sigmoid": lambda x: 1 / ((25 * x.abs() + 1) * (25 * x.abs() + 1)),  # slope 25, Zenke & Ganguli 2018
    "sigmoid": lambda x: 25 * torch.sigmoid(25 * x) * torch.sigmoid(-25 * x),  # slope 25
    "triangle": lambda x: (1 - x.abs()).clamp(min=0),  # Bellec et al. 2018
    "straight_through": lambda x: torch.ones_like(x),
}
# Below this many currents the start of the compiler costs more than it saves.
COMPILE_FROM = 2**15


def _wide(current):
    """Membranes are kept in float32 at least, whatever the precision of the current."""
    return current if current.dtype == torch.float64 else current.float()


def _membranes(current, beta, threshold, steps, zero, constant):
    """(T, ...) currents, or one (...) for every step: lists of U - threshold and of who fired, step by step."""
    distances, fired, u, s = [], [], None, None
    for t in range(steps):
        i = _wide(current if constant else current[t])  # (N,)
        if u is None:
            u = i
        elif zero:
            u = beta * torch.where(s, torch.zeros_like(u), u) + i
        else:
            u = beta * u + i - threshold * s.to(u.dtype)
        distances.append(u - threshold)
        s = distances[-1] > 0
        fired.append(s)
    return distances, fired


def _forward(current, beta, threshold, steps, zero, constant):
    """(T, N) currents, or one (N,) for every step, to (T, N) spikes."""
    _, fired = _membranes(current, beta, threshold, steps, zero, constant)
    return torch.stack([s.to(current.dtype) for s in fired])  # (T, N)


def _plain(current, beta, threshold, steps, zero, constant, surrogate):
    """The same spikes in operations that torch can differentiate (any number of times), compile, trace and export."""
    currents = current if constant else current.unbind(0)
    spikes, fired = _membranes(currents, beta, threshold, steps, zero, constant)
    if torch.jit.is_tracing() or torch.compiler.is_exporting():  # no derivative is wanted
        spikes = fired
    elif torch.compiler.is_compiling():  # it has no place for _Spike; 0 times the surrogate has its gradient
        rising = [SURROGATES[surrogate](x).detach() for x in spikes]
        spikes = [s.to(x.dtype) + (x - x.detach()) * d for s, x, d in zip(fired, spikes, rising, strict=True)]
    else:
        spikes = [_Spike.apply(surrogate, x) for x in spikes]
    return torch.stack([s.to(current.dtype) for s in spikes])  # (T, ...)


def _backward(grad, current, beta, threshold, steps, zero, constant, surrogate):
    """dL/dS (T, N) to dL/dI, (T, N) or (N,); recomputes the membrane, which is cheaper than storing it."""
    distances, fired = _membranes(current, beta, threshold, steps, zero, constant)
    grads, carried = [], None
    for t in reversed(range(steps)):
        g = grad[t].to(distances[t].dtype) * SURROGATES[surrogate](distances[t])
        if carried is not None:
            back = beta * carried
            g = g + (torch.where(fired[t], torch.zeros_like(back), back) if zero else back)
        carried = g
        grads.append(g)
    if constant:
        return sum(grads[1:], grads[0]).to(current.dtype)  # (N,)
    return torch.stack(grads[::-1]).to(current.dtype)  # (T, N)


_state = {"compile": os.environ.get("SLT_COMPILE", "1") != "0", "compiled": False}


def compiled() -> bool:
    """Whether this process has run the compiled neuron (what a Result's provenance records)."""
    return _state["compiled"]


@functools.cache
def _compiled(function, **fixed):
    """One kernel for all sizes: steps, reset and surrogate are fixed, the number of neurons is not."""

    def kernel(*tensors):
        return function(*tensors, **fixed)

    # torch.compile counts recompilations by code object, so each kernel gets its own.
    code = kernel.__code__.replace(co_name=function.__name__)
    return torch.compile(types.FunctionType(code, kernel.__globals__, closure=kernel.__closure__), dynamic=True)


def _call(function, size, *tensors, **fixed):
    if not _state["compile"] or size < COMPILE_FROM:
        return function(*tensors, **fixed)
    try:
        out = _compiled(function, **fixed)(*tensors)
        _state["compiled"] = True
        return out
    except Exception as error:
        if isinstance(error, torch.OutOfMemoryError):
            raise
        out = function(*tensors, **fixed)  # if this fails too, the input is wrong, not the compiler
        _state["compile"] = False
        why = (str(error).strip().splitlines() or [type(error).__name__])[0]
        warnings.warn(
            "sltlib: no compiled neuron, training runs several times slower but gives the same spikes. "
            f"torch.compile needs a C++ compiler (g++ or clang++; set CXX if it is elsewhere). It said: {why}",
            stacklevel=2,
        )
        return out


def _length(current):
    """The time steps of (T, ...) currents: a number, also where torch is tracing and sizes are tensors."""
    return len(current.unbind(0)) if torch.jit.is_tracing() else current.shape[0]


def _watched():
    """Whether torch records, compiles or exports what is run just now: then it wants operations, not our kernel."""
    recording = torch.jit.is_tracing() or torch.compiler.is_compiling() or torch.compiler.is_exporting()
    return recording or torch.utils._python_dispatch._get_current_dispatch_mode() is not None


def _memory_order(tensor, keep):
    """Dimensions from the outermost in memory to the innermost, the first `keep` in their place.

    The neuron is the same for every cell, so it takes channels-last currents as they lie.
    """
    rest = sorted(range(keep, tensor.dim()), key=lambda d: (-tensor.stride(d), d))
    return [*range(keep), *rest]


def _inverse(order):
    return [order.index(d) for d in range(len(order))]


class _Fused(torch.autograd.Function):
    @staticmethod
    def forward(ctx, current, beta, threshold, steps, zero, constant, surrogate):
        order = _memory_order(current, 0 if constant else 1)
        laid = current.permute(order)
        # .data: the compiler would guard on the shape of a view's base, and recompile for each layer.
        flat = (laid.reshape(-1) if constant else laid.reshape(steps, -1)).data
        fixed = dict(steps=steps, zero=zero, constant=constant)
        spikes = _call(_forward, flat.numel(), flat, beta, threshold, **fixed)
        ctx.save_for_backward(current, beta, threshold)  # the current itself: torch sees whether it is changed in place
        ctx.fixed, ctx.shape, ctx.laid = dict(fixed, surrogate=surrogate), laid.shape, order
        # where each dimension of the spikes, (T, ...), and of the current stands in memory
        ctx.order = [0, *(place + 1 for place in order)] if constant else order
        ctx.back = _inverse(order)
        spikes = spikes.reshape(steps, *(laid.shape if constant else laid.shape[1:]))
        return spikes.permute(_inverse(ctx.order))

    @staticmethod
    def backward(ctx, grad):
        current, beta, threshold = ctx.saved_tensors
        if torch.is_grad_enabled():  # create_graph: this gradient is to be differentiated again
            spikes = _plain(current, beta, threshold, **ctx.fixed)
            return *torch.autograd.grad(spikes, current, grad, create_graph=True), None, None, None, None, None, None
        laid = current.permute(ctx.laid)
        flat = (laid.reshape(-1) if ctx.fixed["constant"] else laid.reshape(len(laid), -1)).data
        grad = grad.permute(ctx.order).reshape(grad.shape[0], -1).data
        out = _call(_backward, flat.numel(), grad, flat, beta, threshold, **ctx.fixed)
        return out.reshape(ctx.shape).permute(ctx.back), None, None, None, None, None, None


def _constant(value):
    """A constant of the neuron as a tensor of its own, in float32 at least."""
    value = value.item() if isinstance(value, torch.Tensor) else float(value)
    return torch.tensor(value, dtype=torch.promote_types(torch.get_default_dtype(), torch.float32))


class LIF(snntorch.Leaky):
    """Leaky integrate-and-fire neurons: `LIF(beta)(current)` maps (T, B, ...) currents to (T, B, ...) spikes.

    beta : decay of the membrane a step, 0 to 1 (lambda in the paper). threshold : above 0; a membrane
    that equals it does not fire. reset_mechanism : "zero" (the papers') or "subtract". surrogate : a
    name in SURROGATES. fast=False steps `snntorch.Leaky` itself, the reference. learn_beta, learn_threshold :
    train that constant, as in snnTorch (beta is held in 0 to 1 where it is used); one given as a Parameter
    is learned too. A neuron that learns runs step by step, several times slower.

    The neuron starts at rest at each call and keeps no state. `forward(current, steps=T)` repeats one
    (B, ...) current T times (direct encoding of a static image) without storing it T times. Its constants and
    membrane stay float32 under `model.half()` and `model.bfloat16()`; spikes have the current's type.

    Raises ValueError for an argument out of range or an unknown name.
    Source: method of arXiv 2311.12060 in the form that fires; snnTorch 1.0.0's Leaky.
    """

    def __init__(
        self, beta, threshold=1.0, reset_mechanism="zero", surrogate="atan", fast=True,
        learn_beta=False, learn_threshold=False,
    ):  # fmt: skip
        problems = []
        for name, value, right, wanted in (
            ("beta", beta, lambda v: 0 <= v <= 1, "a decay from 0 to 1"),
            ("threshold", threshold, lambda v: v > 0, "a number above 0"),
        ):
            if isinstance(value, torch.Tensor) and value.numel() != 1:
                problems.append(f"{name} of shape {tuple(value.shape)}: give one number for all neurons")
            elif not right(value):
                problems.append(f"{name}={value!r}: give {wanted}")
        if reset_mechanism not in ("zero", "subtract"):
            problems.append(f"reset_mechanism={reset_mechanism!r}: choose zero or subtract")
        if surrogate not in SURROGATES:
            problems.append(f"surrogate={surrogate!r}: choose from {', '.join(SURROGATES)}")
        if problems:
            raise ValueError("LIF: " + "; ".join(problems))
        meta = torch.get_default_device().type == "meta"  # a network without weights: its neurons have their constants
        with torch.device("cpu") if meta else contextlib.nullcontext():
            super().__init__(
                _constant(beta),
                threshold=_constant(threshold),
                spike_grad=functools.partial(_Spike.apply, surrogate),
                reset_mechanism=reset_mechanism,
                learn_beta=learn_beta or isinstance(beta, torch.nn.Parameter),
                learn_threshold=learn_threshold or isinstance(threshold, torch.nn.Parameter),
            )
        for name, value in {"beta": beta, "threshold": threshold}.items():
            if isinstance(value, torch.nn.Parameter):
                setattr(self, name, value)  # itself: snnTorch learns a copy
        # snnTorch keeps every neuron it makes in this list for ever, and resets them all together.
        self.instances[:] = [other for other in self.instances if other is not self]
        self.surrogate, self.fast = surrogate, fast

    def forward(self, current, steps=None):
        if steps is not None and (type(steps) is not int or steps < 1):
            raise ValueError(f"LIF: steps={steps!r}: give a whole number of time steps, at least 1")
        if steps is None and (current.dim() < 2 or not _length(current)):
            raise ValueError(f"LIF wants a current of shape (T, B, ...), got {tuple(current.shape)}")
        if not self.fast:
            return self.reference(current if steps is None else current.expand(steps, *current.shape))
        wide = torch.promote_types(current.dtype, torch.float32)
        beta, threshold = self.beta.to(wide), self.threshold.to(wide)
        zero, constant, steps = self.reset_mechanism == "zero", steps is not None, steps or _length(current)
        if self.beta.requires_grad or self.threshold.requires_grad or _watched():
            return _plain(current, beta.clamp(0, 1), threshold, steps, zero, constant, self.surrogate)
        return _Fused.apply(current, beta, threshold, steps, zero, constant, self.surrogate)

    def _apply(self, fn, recurse=True):
        exact = {name: getattr(self, name).detach() for name in ("beta", "threshold")}
        super()._apply(fn, recurse)
        for name, value in exact.items():  # half a precision makes .98828 of .99
            now = getattr(self, name)
            if now.dtype.itemsize < 4:
                now.data = value.to(now.device)
        return self

    def reference(self, current):
        """The same spikes from `snntorch.Leaky`, stepped: (T, B, ...) to (T, B, ...). Slow, and the oracle."""
        mem, spikes = torch.zeros_like(_wide(current[0])), []
        for i in _wide(current):
            spike, mem = super().forward(i, mem)
            spikes.append(spike.to(current.dtype))
        self.mem, self.reset = torch.zeros(0, device=mem.device), None  # leave no state (and no graph) behind
        return torch.stack(spikes)

    def extra_repr(self):
        return (f"beta={self.beta.item():g}, threshold={self.threshold.item():g}, "
                f"reset_mechanism={self.reset_mechanism!r}, surrogate={self.surrogate!r}")  # fmt: skip


class _Spike(torch.autograd.Function):
    """The step function with a surrogate derivative, in the form that snnTorch's neurons take."""

    @staticmethod
    def forward(ctx, surrogate, x):
        ctx.surrogate = surrogate
        ctx.save_for_backward(x)
        return (x > 0).to(x.dtype)

    @staticmethod
    def backward(ctx, grad):
        (x,) = ctx.saved_tensors
        return None, grad * SURROGATES[ctx.surrogate](x)


class _Sign(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return torch.where(x >= 0, 1.0, -1.0).to(x.dtype)

    @staticmethod
    def backward(ctx, grad):
        (x,) = ctx.saved_tensors
        return grad * (2 - 2 * x.abs()).clamp(min=0)


class Sign(torch.nn.Module):
    """Binary activation: +1 where x >= 0, else -1; gradient 2(1 - |x|) on [-1, 1] (Bi-Real Net, Liu 2018)."""

    def forward(self, x):
        return _Sign.apply(x)


def lif(experiment):
    """The LIF neuron that an Experiment describes."""
    return LIF(experiment.beta, experiment.threshold, experiment.reset, experiment.surrogate)


def sign(experiment):
    """The sign activation."""
    return Sign()


def relu(experiment):
    """The rectifier of the non-spiking rows."""
    return torch.nn.ReLU()


def gelu(experiment):
    """The smooth rectifier of non-spiking transformers."""
    return torch.nn.GELU()
