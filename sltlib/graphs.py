"""One training step: eagerly, or on a GPU replayed as a CUDA graph, which saves the launch of every kernel.

`SLT_CUDA_GRAPHS=1` switches graphs on, for Adam and the ranking in every layer; else, and on a CPU, steps are
eager. A graph reads and writes fixed memory: images, labels and rate are copied into place before each replay.
"""

import os

import torch

WARM_UP = 3  # eager steps before a capture, so that every kernel is compiled and every buffer there; undone after


def stepper(loss_of, optimizer, model):
    """A function step(x, y, lr): one step of the optimiser on loss_of(x, y); returns the loss, detached."""
    cuda = next(model.parameters()).device.type == "cuda"
    # A global ranking remembers masks by what a replay does not touch, and asks the host.
    ranked = any(getattr(part, "ranking", None) is not None for part in model.modules())
    if cuda and os.environ.get("SLT_CUDA_GRAPHS") == "1" and isinstance(optimizer, torch.optim.Adam) and not ranked:
        return Graph(loss_of, optimizer, model)
    return Eager(loss_of, optimizer)


class Eager:
    """Every step is computed as it is written here."""

    def __init__(self, loss_of, optimizer):
        self.loss_of, self.optimizer = loss_of, optimizer

    def __call__(self, x, y, lr):
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        return self.compute(x, y)

    def compute(self, x, y):
        loss = self.loss_of(x, y)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        return loss.detach()


class Graph(Eager):
    """The same step, captured at the first call, and again where the batch's shape or the time steps change.

    optimizer : Adam. model : whose state the warming up must not change. capture(function) runs `function` as a
    graph; returns what repeats it. The loss that a call returns is overwritten by the next one.
    """

    def __init__(self, loss_of, optimizer, model, capture=None):
        super().__init__(loss_of, optimizer)
        self.model, self.capture, self.replay, self.captured = model, capture or cuda_graph, None, None
        where = next(model.parameters()).device
        for group in optimizer.param_groups:
            group["capturable"] = where.type == "cuda"
            group["lr"] = torch.tensor(float(group["lr"]), dtype=torch.float64, device=where)
        for state in optimizer.state.values():  # of a checkpoint
            state["step"] = state["step"].to(where)

    def __call__(self, x, y, lr):
        now = (x.shape, x.dtype, y.shape, getattr(self.model, "timesteps", None))
        if self.captured != now:
            self._capture(x, y)
            self.captured = now
        self.x.copy_(x)
        self.y.copy_(y)
        for group in self.optimizer.param_groups:
            group["lr"].fill_(lr)
        self.replay()
        return self.loss

    def _capture(self, x, y):
        self.x, self.y = x.clone(), y.clone()
        kept = [(tensor, tensor.clone()) for tensor in self.model.state_dict().values()]
        kept += [(tensor, tensor.clone()) for tensor in self._moments()]
        fresh = not self.optimizer.state

        def once():
            self.loss = self.compute(self.x, self.y)

        self.replay = self.capture(once)
        with torch.no_grad():  # what warming up has learnt is forgotten, in place: the graph knows these addresses
            for tensor, value in kept:
                tensor.copy_(value)
            for tensor in self._moments() if fresh else ():
                tensor.zero_()

    def _moments(self):
        """Adam's step counts and moments, which are all zero before the first step."""
        return [value for state in self.optimizer.state.values() for value in state.values()]


def cuda_graph(function):
    """Capture `function` after warming up on a stream of its own; returns the graph's replay."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(WARM_UP):
            function()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        function()
    return graph.replay
