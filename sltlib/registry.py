"""What can be chosen by name, and added to: models, neurons, searches, selectors of patches.

Adding one is one function and one name in one of these dicts: "module:function" if it is to stay (workers read
this file), or, in a process of your own, the function itself. `lookup` finds it.
"""

import importlib

MODELS = {
    "conv2": "sltlib.models:vgg",
    "conv4": "sltlib.models:vgg",
    "conv6": "sltlib.models:vgg",
    "conv8": "sltlib.models:vgg",
    "resnet19": "sltlib.models:resnet19",
    "linear": "sltlib.models:linear",
    "spikformer": "sltlib.spikformer:spikformer",
    "convpep": "sltlib.spikformer:convpep",
}
NEURONS = {
    "relu": "sltlib.neurons:relu",
    "sign": "sltlib.neurons:sign",
    "lif": "sltlib.neurons:lif",
    "gelu": "sltlib.neurons:gelu",
}
SEARCHES = {
    "none": "sltlib.pruning:dense",
    "edge-popup": "sltlib.pruning:edge_popup",
    "bernoulli": "sltlib.pruning:bernoulli",
    "magnitude": "sltlib.standard:pruned",
    "early-bird": "sltlib.standard:early_bird",
    "snip": "sltlib.standard:snip",
    "random-readout": "sltlib.pruning:random_readout",
    "random-trained": "sltlib.pruning:random_trained",
    "found-mask-trained": "sltlib.pruning:found_mask_trained",
}
SELECTORS = {
    "none": None,
    "rate": "sltlib.patches:rate",
    "attention": "sltlib.patches:attention",
    "learned": "sltlib.patches:learned",
    "random": "sltlib.patches:random",
}
TABLES = {"model": MODELS, "neuron": NEURONS, "search": SEARCHES, "selector": SELECTORS}
_SHIPPED = {name: dict(table) for name, table in TABLES.items()}

SPIKING = {"lif"}  # the neurons that map (T, B, ...) currents to (T, B, ...) spikes
SCORED = {"edge-popup", "bernoulli"}  # the searches that freeze the weights and train a number for each
PRUNED = {"magnitude", "early-bird", "snip"}  # the searches that prune a float network and train what stays
CONTROLS = ("random-readout", "random-trained", "found-mask-trained")  # searches that do not look
TRANSFORMERS = {"spikformer", "convpep"}  # the models that read the fields from depth to selector
EMBEDDING = 384  # Spikformer's features a token at width 1
SMALLEST = {"conv8": 16}  # pixels a side, where 8 (the least there is) are too few for the pooling


def lookup(table: dict, name: str):
    """The function that a table above names."""
    target = table[name]
    if target is None or callable(target):
        return target
    module, _, function = target.partition(":")
    return getattr(importlib.import_module(module), function)


def added(experiment) -> list[str]:
    """Which of model, neuron, search and selector was added to its table in this process, and so is unknown to others."""
    return [n for n in TABLES if TABLES[n][getattr(experiment, n)] is not _SHIPPED[n].get(getattr(experiment, n))]
