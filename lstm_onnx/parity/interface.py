"""What a file says of itself beside its numbers: inputs and outputs that PyTorch does not have, and declared shapes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ..runtime import Model
from .expected import Expected
from .report import CaseResult

LABEL = "inputs and outputs"


def interface_problems(model: Model, expected: Sequence[Expected]) -> Iterator[str]:
    """What the file takes, gives or declares that PyTorch does not, by what is `expected` of it."""
    known = {name for case in expected for call in case.calls for name in call.reference}
    references = [call.reference for case in expected if not case.every for call in case.calls]
    extra = [name for name in model.outputs if name not in known]
    if extra and known:
        yield f"the file also gives {', '.join(extra)}, which PyTorch does not"
    optional = [item.name for item in model.session.get_overridable_initializers()]
    if optional:
        yield f"the file also takes {', '.join(optional)}, with a default, which PyTorch does not"
    for name, info in model.outputs.items():
        shapes = {reference[name].shape for reference in references if name in reference}
        wrong = sorted(shape for shape in shapes if not _fits(info.shape, shape))
        if wrong:
            declared = ", ".join("?" if dim is None else str(dim) for dim in info.shape)
            yield f"the file declares {name} as ({declared}), and PyTorch's is also {wrong[0]}"


def _fits(declared: Sequence[int | str | None], shape: Sequence[int]) -> bool:
    if not declared:  # nothing is said
        return True
    pairs = zip(declared, shape, strict=False)
    return len(declared) == len(shape) and all(not isinstance(dim, int) or dim == size for dim, size in pairs)


def interface_case(problems: Sequence[str]) -> CaseResult:
    """The problems as a case that fails."""
    return CaseResult(LABEL, error="; ".join(problems))
