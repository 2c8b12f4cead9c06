"""The names in a checkpoint: which of them belong to a model, under which prefix, and in which wrappers.

Names may start with the ``module.`` of DataParallel, and have the ``_orig_mod.`` of torch.compile anywhere;
both are removed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping

from ...errors import WeightsError
from ..weights import grouped, shortened

MARKS = ("weight_ih_l0", "weight_hh_l0")
"""Ends of names by which the first layer of an nn.LSTM, nn.GRU or nn.RNN is recognised."""
_PARALLEL, _COMPILED = "module.", "_orig_mod."
_KERAS = ("kernel", "recurrent_kernel")
_ENDS = ("_g", "_v", "_orig", "_mask", "_raw", "_u")
_PARAMETRIZED = "parametrizations."


def has_mark(name: object) -> bool:
    """Whether a name is a recurrent module's, even if the weight is computed from others."""
    return isinstance(name, str) and any(mark in name for mark in MARKS)


def under_prefix(
    keys: Collection[str], prefix: str, module_names: Collection[str] | None, *, where: str
) -> dict[str, str]:
    """Each name under `prefix`, without wrappers, and its key in the file.

    Args:
        keys: the file's names.
        prefix: what is removed.
        module_names: the names in the state dict of the module that the tensors are for; None for an nn.LSTM.
        where: the file, for messages.

    Raises:
        WeightsError: there is nothing of the model under `prefix`; the message lists where there is.
    """
    names = {key: key for key in keys}
    uncompiled = {key.replace(_COMPILED, ""): key for key in keys}
    if _COMPILED not in prefix and len(uncompiled) == len(names):
        names = uncompiled
    own = {plain_name(name) for name in module_names or ()}
    while (
        names
        and not prefix.startswith(_PARALLEL)
        and all(name.startswith(_PARALLEL) for name in names)
        and own != {plain_name(name) for name in names}
    ):
        names = {name.removeprefix(_PARALLEL): key for name, key in names.items()}
    if module_names is not None:
        names = _without_inner_wrappers(names, prefix, module_names)
    chosen = {name.removeprefix(prefix): key for name, key in names.items() if name.startswith(prefix)}
    if prefix.endswith(_PARALLEL):
        chosen |= _raw_weights(names, prefix.removesuffix(_PARALLEL))
    if module_names is None:
        if not chosen or (not prefix and not any(plain_name(name) in MARKS for name in chosen)):
            raise WeightsError(f'{where}: has no LSTM under the prefix "{prefix}"; {lstm_prefixes(names)}')
    else:
        counts = _prefix_counts(names, module_names)
        if _count(chosen, module_names) < max(counts.values(), default=1):
            raise WeightsError(
                f'{where}: does not have all of the module\'s tensors under the prefix "{prefix}"; '
                f"{_module_prefixes(names, module_names, counts)}"
            )
    return chosen


def _without_inner_wrappers(names: dict[str, str], prefix: str, module_names: Collection[str]) -> dict[str, str]:
    """Without the ``module.`` of submodules in DataParallel, where the module's own names show that it is none."""
    own = {plain_name(name) for name in module_names}
    if _count([name.removeprefix(prefix) for name in names], module_names) == len(own):
        return names
    stripped = {name.replace(f".{_PARALLEL}", "."): key for name, key in names.items()}
    before, after = _prefix_counts(names, module_names), _prefix_counts(stripped, module_names)
    more = max(after.values(), default=0) > max(before.values(), default=0)
    return stripped if more and len(stripped) == len(names) else names


def _raw_weights(names: Mapping[str, str], parent: str) -> dict[str, str]:
    """The weights of a DropConnect (as fastai's), which holds the LSTM as ``module``: what it keeps there is a draw."""
    return {
        name.removeprefix(parent).removesuffix("_raw"): key
        for name, key in names.items()
        if name.startswith(parent) and name.endswith("_raw") and "." not in name.removeprefix(parent)
    }


def plain_name(name: str) -> str:
    """The parameter that a tensor is of: ``weight_hh_l0`` of ``weight_hh_l0_v`` and of a parametrization's."""
    head, found, rest = name.rpartition(_PARAMETRIZED)
    if found and (not head or head.endswith(".")):
        return head + rest.partition(".")[0]
    return next((name.removesuffix(end) for end in _ENDS if name.endswith(end)), name)


def lstm_prefixes(names: Iterable[str]) -> str:
    """Where the LSTMs of a file are, or what else it holds."""
    names = list(names)
    plain = {plain_name(name) for name in names if not name.endswith("_raw")}
    found = sorted({name.removesuffix(mark) for name in plain for mark in MARKS if name.endswith(mark)})
    if found:
        listed = shortened([f'prefix = "{prefix}"' for prefix in found], ", ")
        return f"its LSTMs are under {listed}"
    held = f"it holds {grouped(names) or 'nothing'}"
    if any(name.replace("/", ".").replace(":0", "").rpartition(".")[2] in _KERAS for name in names):
        return (
            f"its names are Keras's, which keeps weights transposed and has one bias ({held}); save it again under "
            "PyTorch's: weight_ih_l0 = kernel.T, weight_hh_l0 = recurrent_kernel.T, bias_ih_l0 = bias, bias_hh_l0 = 0"
        )
    cells = sorted({name.removesuffix("weight_hh") for name in plain if name.rpartition(".")[2] == "weight_hh"})
    if cells:
        return f"it has no nn.LSTM, and cells (nn.LSTMCell) under {shortened(cells, ', ')}; describe it as a [module]"
    return f"it has no nn.LSTM weights at all ({held})"


def _count(names: Collection[str], module_names: Collection[str]) -> int:
    """How many of a module's parameters are there, as they are or as what they are computed from."""
    return len({plain_name(name) for name in names} & {plain_name(name) for name in module_names})


def _prefix_counts(names: Collection[str], module_names: Collection[str]) -> Counter[str]:
    """How many of a module's names each prefix has in the file."""
    plain = {plain_name(name) for name in names}
    ends: dict[str, list[str]] = {}
    for name in plain:
        ends.setdefault(name.rpartition(".")[2], []).append(name)
    return Counter(
        name.removesuffix(own)
        for own in {plain_name(name) for name in module_names}
        for name in ends.get(own.rpartition(".")[2], ())
        if name == own or name.endswith(f".{own}")
    )


def _module_prefixes(names: Iterable[str], module_names: Collection[str], counts: Counter[str]) -> str:
    if not counts:
        return f"it holds {grouped(list(names)) or 'nothing'}, and the module {grouped(sorted(module_names))}"
    most = max(counts.values())
    best = [f'prefix = "{prefix}"' for prefix, count in counts.items() if count == most]
    total = len({plain_name(name) for name in module_names})
    found = "they are" if most == total else f"{most} of {total} are"
    return f"{found} under {shortened(best, ' or under ')}"
