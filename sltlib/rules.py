"""Which fields of an Experiment go together: every contradiction in words, before anything trains."""

import dataclasses
import math

from sltlib.registry import EMBEDDING, PRUNED, SCORED, SMALLEST, SPIKING, TRANSFORMERS, added

# Fields that transformers alone read. Elsewhere they would be in no key and change nothing, but stand in the table.
OF_TOKENS = ("depth", "heads", "stem_pools", "stem_neuron", "patch_sparsity", "selector")


def contradictions(e) -> list[str]:
    """What is wrong with an Experiment whose fields are right one by one; [] where nothing is."""
    problems = []
    if e.search == "none" and e.sparsity:
        problems.append(f"sparsity={e.sparsity} needs a search (search='edge-popup'); dense means sparsity=0")
    if e.search != "none" and not e.sparsity:
        problems.append(f"search={e.search!r} needs a sparsity above 0 and below 1")
    if e.search in SCORED and e.affine:
        problems.append("affine=True: a ticket search trains nothing but scores; leave affine=False")
    if e.ranking != "layer" and e.search not in SCORED:
        problems.append(f"ranking={e.ranking!r} goes with a ticket search: search='edge-popup' or 'bernoulli'")
    if e.ranking == "scaled" and e.search == "bernoulli":
        problems.append("ranking='scaled' with search='bernoulli': all gates start at one scale, so give ranking='global'")
    chained = e.model in TRANSFORMERS and e.search == "none"
    if e.search == "found-mask-trained" and e.source is None:
        problems.append("search='found-mask-trained' needs a source, the experiment whose mask it takes")
    if e.source is not None and e.search not in ("found-mask-trained", "magnitude") and not chained:
        problems.append("source goes with search='found-mask-trained' or 'magnitude', or with search='none' of a spikformer or convpep")
    if e.search_timesteps:
        problems += _early_time(e, chained)
    if e.search in PRUNED or e.stop_epoch or e.rewind_epoch:
        problems += _pruned(e)
    if e.model in TRANSFORMERS:
        problems += _transformer(e)
    elif not added(e):  # who knows what an added function reads
        problems += _no_transformer(e)
    if e.source is not None and e.search == "found-mask-trained":
        if e.source.search not in SCORED:
            problems.append("source must be a ticket search (search='edge-popup' or 'bernoulli')")
        problems += _unequal(e, ("dataset", "model", "width", "image_size", "sparsity"))
    if e.image_size and e.image_size < SMALLEST.get(e.model, 0):
        problems.append(f"image_size={e.image_size} is too small for {e.model}, which wants {SMALLEST[e.model]} pixels")
    if e.model == "linear" and (e.search != "none" or e.weights != "float" or e.affine):
        problems.append("model='linear' is a dense float classifier: leave search, weights and affine alone")
    return problems


def _unequal(e, names):
    """The fields that must be those of the source, and are not."""
    pairs = ((name, getattr(e, name), getattr(e.source, name)) for name in names)
    return [
        f"source has {name}={theirs!r}, this experiment {mine!r}: they must be equal"
        for name, mine, theirs in pairs
        if mine != theirs
    ]


def _early_time(e, chained):
    """What is wrong with a search at fewer steps."""
    given, problems = f"search_timesteps={e.search_timesteps}", []
    if e.search_timesteps >= e.timesteps:
        problems.append(f"{given}: give fewer than timesteps={e.timesteps}, or 0 for timesteps")
    if e.epochs < 2:
        problems.append(f"{given} needs 2 epochs or more: the last one runs at timesteps={e.timesteps}")
    if e.event:
        problems.append(f"{given}: the steps of a recording are its frames; it goes with static images")
    if chained and e.source is not None:
        problems.append(f"{given}: a frozen ConvPEP gives its tokens for all timesteps; leave it 0")
    return problems


def _pruned(e):
    """What is wrong with a network that is pruned, and with the early weights that it is set back to."""
    problems = []
    if e.search in PRUNED and (e.weights != "float" or e.model in TRANSFORMERS):
        problems.append(f"search={e.search!r} prunes the float weights of a convolutional network: weights='float', and model='conv2', say")
    if e.search in PRUNED and e.search_timesteps:
        problems.append(f"search_timesteps={e.search_timesteps} with search={e.search!r}: prune a source of fewer timesteps instead")
    if e.stop_epoch and (e.search != "none" or e.source is not None):
        problems.append(f"stop_epoch={e.stop_epoch} ends a dense training, of search='none' and without a source; leave it 0")
    if e.rewind_epoch and e.search != "magnitude":
        problems.append(f"rewind_epoch={e.rewind_epoch} goes with search='magnitude'; leave it 0")
    for name in ("stop_epoch", "rewind_epoch"):
        if getattr(e, name) >= e.epochs:
            problems.append(f"{name}={getattr(e, name)}: give fewer than epochs={e.epochs}")
    if e.search == "magnitude" and e.source is None:
        problems.append("search='magnitude' needs a source, the experiment whose trained network it prunes")
    if e.search == "magnitude" and e.source is not None:
        if e.source.weights != "float":
            problems.append("source has weights='binary': its ticket holds signs, which have no magnitude; give one of weights='float'")
        if e.source.sparsity > e.sparsity:
            problems.append(f"source has sparsity={e.source.sparsity}, this experiment less: pruning removes, so give {e.source.sparsity} or more")
        problems += _unequal(e, ("dataset", "model", "width", "image_size", "seed"))  # of another seed: set back to weights that were never pruned
    return problems


def _no_transformer(e):
    """Which fields are set that only transformers read."""
    defaults = {f.name: f.default for f in dataclasses.fields(e)}
    return [
        f"{name}={getattr(e, name)!r} with model={e.model!r}: only model='spikformer' and 'convpep' have patches and blocks; leave it {defaults[name]!r}"
        for name in OF_TOKENS
        if getattr(e, name) != defaults[name]
    ]


def _transformer(e):
    """What is wrong with a spikformer or convpep, its selector and its source."""
    problems, features = [], round(EMBEDDING * e.width)
    unit = math.lcm(8, e.heads) if e.model == "spikformer" else 8
    if features % unit or not features:
        near = [n for n in (features // unit * unit, (features // unit + 1) * unit) if n]
        right = " or ".join(f"{n / EMBEDDING:.6g} ({n})" for n in near)
        heads = f" and its {e.heads} heads" if e.model == "spikformer" else ""
        problems.append(f"width={e.width} gives {features} features, which 8{heads} must divide{'' if features else ', and one at least'}: give {right}")
    if e.model == "spikformer" and e.search != "none":
        problems.append(
            f"search={e.search!r} with model='spikformer': search its ConvPEP alone (model='convpep') and give "
            "that experiment as the spikformer's source"
        )
    if e.model == "convpep" and e.stem_neuron != "same":
        problems.append("model='convpep' has one activation: name it as neuron and leave stem_neuron='same'")
    if (e.selector == "none") != (e.patch_sparsity == 0):
        problems.append("a selector goes with patch_sparsity above 0; all patches means selector='none'")
    if e.model == "convpep" and e.selector not in ("none", "learned"):
        problems.append(f"selector={e.selector!r} trains nothing: give it to the spikformer, not to the convpep")
    if e.selector != "none" and e.source is None:
        problems.append(f"selector={e.selector!r} ranks the patches of a frozen ConvPEP: give it as source")
    if e.source is not None and e.search == "none":
        problems += _chain(e)
    return problems


def _chain(e):
    """Whether the source is one whose ConvPEP, and selector, this experiment can take over."""
    source, problems = e.source, []
    if source.model not in TRANSFORMERS:
        return [f"source is a {source.model}: give a convpep or a spikformer"]
    if e.model == "spikformer" and e.selector == "learned":
        if (source.model, source.selector, source.patch_sparsity) != ("convpep", "learned", e.patch_sparsity):
            problems.append(
                "selector='learned' takes over what a convpep with selector='learned' and the same "
                "patch_sparsity has learned: give that as source"
            )
    elif source.selector != "none":
        problems.append(f"source has selector={source.selector!r}: give one that sees all patches")
    elif e.selector == "attention" and source.model != "spikformer":
        problems.append("selector='attention' ranks by a trained spikformer's first block: give that as source")
    same = ["dataset", "width", "image_size", "stem_pools", "stem_activation"]
    if e.event or e.stem_activation in SPIKING:  # else the source has no time, and its key no timesteps
        same.append("timesteps")
    if e.stem_activation in SPIKING:
        same += ["beta", "threshold", "reset"]
    if e.selector == "attention":
        same += ["heads", "neuron"]
    return problems + _unequal(e, same)
