"""The dense network of a ticket in the engines that are installed: torch, ONNX Runtime, OpenVINO; float32 and int8.

The graph is what a user would deploy: normalisation folded into the weights, nothing else changed. It is written as
ONNX by hand (a convolution, a pool, a rectifier), so that no exporter stands between the network and the engines.
"""

import contextlib
import ctypes
import functools
import importlib.util
import logging
from pathlib import Path

import numpy as np
import torch

CALIBRATION = 64  # images that int8 scales are taken from


def installed():
    """{package: whether it is there} of the engines beside torch."""
    return {name: importlib.util.find_spec(name) is not None for name in ("onnx", "onnxruntime", "openvino")}


def instructions():
    """What of the processor's instructions the engines' speed depends on, and whether it multiplies int8 in one step."""
    try:
        flags = set(next(x for x in Path("/proc/cpuinfo").read_text().splitlines() if x.startswith("flags")).split())
    except (OSError, StopIteration):
        flags = set()
    names = {"avx512f": "AVX-512", "avx2": "AVX2", "avx512_vnni": "VNNI", "avx_vnni": "VNNI", "avx512_bf16": "bf16", "amx_int8": "AMX"}
    found = list(dict.fromkeys(words for flag, words in names.items() if flag in flags))
    return ", ".join(found) or torch.backends.cpu.get_cpu_capability(), "VNNI" in found


def folded(model):
    """[(weight, bias, pool)] of the convolutions and linear layers of a relu network of models.PLANS, norms folded in."""
    layers = []
    for block in (*model.blocks, *model.hidden):
        weight, norm = block.layer.effective_weight().detach(), block.norm
        scale = (norm.running_var + norm.eps).rsqrt() * (norm.weight if norm.weight is not None else 1)
        if not (scale > 0).all():
            raise ValueError("a norm behind a max-pool folds into the weights where its scale is above 0")
        bias = (norm.bias if norm.bias is not None else 0) - norm.running_mean * scale
        shape = (-1,) + (1,) * (weight.dim() - 1)
        pool = isinstance(getattr(block, "pool", None), torch.nn.MaxPool2d)
        layers.append(((weight * scale.view(shape)).detach(), bias.detach(), pool))
    head = model.head.effective_weight().detach()
    layers.append((head, torch.zeros(len(head)), False))
    return layers


def in_torch(layers):
    """The same as nn modules."""
    made = []
    for i, (weight, bias, pool) in enumerate(layers):
        if weight.dim() == 2 and layers[i - 1][0].dim() == 4:
            made.append(torch.nn.Flatten())
        if weight.dim() == 4:
            part = torch.nn.Conv2d(weight.shape[1], weight.shape[0], 3, padding=1)
        else:
            part = torch.nn.Linear(weight.shape[1], weight.shape[0])
        part.weight, part.bias = torch.nn.Parameter(weight), torch.nn.Parameter(bias)
        made.append(part)
        if pool:
            made.append(torch.nn.MaxPool2d(2))
        if i + 1 < len(layers):
            made.append(torch.nn.ReLU())
    return torch.nn.Sequential(*made).eval()


def in_onnx(layers, shape, path):
    """The same as an ONNX file, for any number of images of a shape (C, H, W)."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    nodes, constants, last = [], [], "images"

    def add(kind, *more, **how):
        nonlocal last
        nodes.append(helper.make_node(kind, [last, *more], [f"x{len(nodes)}"], **how))
        last = f"x{len(nodes) - 1}"

    for i, (weight, bias, pool) in enumerate(layers):
        if weight.dim() == 2 and layers[i - 1][0].dim() == 4:
            add("Flatten")
        constants += [numpy_helper.from_array(weight.numpy(), f"w{i}"), numpy_helper.from_array(bias.numpy(), f"b{i}")]
        if weight.dim() == 4:
            add("Conv", f"w{i}", f"b{i}", kernel_shape=[3, 3], pads=[1, 1, 1, 1])
        else:
            add("Gemm", f"w{i}", f"b{i}", transB=1)
        if pool:
            add("MaxPool", kernel_shape=[2, 2], strides=[2, 2])
        if i + 1 < len(layers):
            add("Relu")
    given = [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["N", *shape])]
    out = [helper.make_tensor_value_info(last, TensorProto.FLOAT, ["N", len(layers[-1][0])])]
    graph = helper.make_graph(nodes, "ann", given, out, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    onnx.save(model, path)


def quantized(path, to, images, vnni):
    """The ONNX file in int8: scales from images; without VNNI, where int8 products saturate, 7 bits and weights by channel.

    With VNNI one scale a layer: with one for each channel OpenVINO (2026.4) computes fully connected layers wrongly there,
    with errors as large as the logits; in ONNX Runtime both ways are as exact.
    """
    from onnxruntime import quantization as q

    class Reader(q.CalibrationDataReader):
        rest = iter([{"images": images[i : i + 16]} for i in range(0, len(images), 16)])

        def get_next(self):
            return next(self.rest, None)

    logging.getLogger().setLevel(logging.ERROR)  # its advice on preparing a graph that is prepared
    q.quantize_static(
        path, to, Reader(), quant_format=q.QuantFormat.QDQ, per_channel=not vnni, reduce_range=not vnni,
        activation_type=q.QuantType.QUInt8, weight_type=q.QuantType.QInt8,
    )  # fmt: skip


def ort(path, threads):
    """A function of images (N, C, H, W) float32 that ONNX Runtime computes."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads, options.log_severity_level = threads, 1, 3
    session = onnxruntime.InferenceSession(str(path), options, ["CPUExecutionProvider"])
    return lambda images: session.run(None, {"images": images})[0]


def signal_stack():
    """This thread's alternate signal stack (sigaltstack): the bytes of a stack_t."""
    found = ctypes.create_string_buffer(24)
    ctypes.CDLL(None).sigaltstack(None, found)
    return found.raw


@contextlib.contextmanager
def keeping_signal_stack():
    """Give this thread its signal stack back afterwards.

    OpenVINO (2026.4) compiles on one of its own, and may free it while the thread still has it: then the next signal
    that Python handles, such as Ctrl-C, ends the process with a segmentation fault.
    """
    before = signal_stack()
    try:
        yield
    finally:
        ctypes.CDLL(None).sigaltstack(before, None)


def openvino(path, threads, shape, precision="f32"):
    """A function of images of one shape (N, C, H, W) that OpenVINO computes, at most in a precision: f32 or bf16."""
    import openvino as ov

    core = ov.Core()
    model = core.read_model(path)
    model.reshape(list(shape))
    how = {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": precision}
    with keeping_signal_stack():
        compiled = core.compile_model(model, "CPU", how)
        request, out = compiled.create_infer_request(), compiled.output(0)
    return lambda images: request.infer({0: images})[out]


def run(network, x):
    """What a network of torch computes."""
    with torch.inference_mode():
        return network(x).numpy()


def contestants(model, images, threads, folder):
    """{engine: function without arguments} of a dense relu network on images (N, C, H, W) float32, as many as run here."""
    layers, found = folded(model), {}
    plain = in_torch(layers)
    last = in_torch(layers).to(memory_format=torch.channels_last)
    tensor, wide = torch.from_numpy(images), torch.from_numpy(images).contiguous(memory_format=torch.channels_last)

    found["torch fp32"] = functools.partial(run, plain, tensor)
    found["torch fp32, channels last"] = functools.partial(run, last, wide)
    there = installed()
    if not there["onnx"]:
        return found
    path, small = Path(folder) / "fp32.onnx", Path(folder) / "int8.onnx"
    in_onnx(layers, images.shape[1:], path)
    vnni = instructions()[1]
    if there["onnxruntime"]:
        calibration = np.random.default_rng(1).permutation(images)[:CALIBRATION]
        quantized(path, small, calibration, vnni)
        for name, file in (("ONNX Runtime fp32", path), ("ONNX Runtime int8", small)):
            found[name] = functools.partial(ort(file, threads), images)
    if there["openvino"]:
        files = {"OpenVINO fp32": (path, "f32")} | ({"OpenVINO int8": (small, "f32")} if small.exists() else {})
        if "bf16" in instructions()[0]:
            files["OpenVINO bf16"] = (path, "bf16")
        for name, (file, precision) in files.items():
            found[name] = functools.partial(openvino(file, threads, images.shape, precision), images)
    return found
