"""CumSum: the sum so far is carried."""

from __future__ import annotations

from ...size import ONE, normal
from ..facts import Fact, RefusedError, Stream, with_size
from ..graph import END
from ..rewriter import Call, Rewriter, family, of_stream
from ..stages import real, require_plain


@family("CumSum")
@of_stream
def cumsum(p: Rewriter, call: Call, fact: Stream) -> list[Fact]:
    """Along time the sum of the calls before is added."""
    axes = call.integers(1)
    if axes is None:
        raise RefusedError("sums along an axis that is not constant")
    if normal(axes[0], fact.rank) != fact.axis:
        p.copy(call)
        return [fact]
    if call.attributes.get("reverse"):
        raise RefusedError("sums from the end of the sequence", "a sum from its start")
    require_plain(fact)
    g, x = p.graph, p.name(call.node.input[0])
    state = g.state(p.state_name("sum"), p.dtype(fact), with_size(fact.shape, fact.axis, ONE))
    exclusive = int(call.attributes.get("exclusive", 0))
    own = g.add("CumSum", x, p.name(call.node.input[1]), exclusive=exclusive)
    result = g.add("Add", own, state.name)
    if g.is_exact(fact.count) and not exclusive:
        g.feed(state, g.cut(result, fact.axis, -1, END))
    else:
        g.feed(state, g.add("Add", state.name, g.total(real(p, x, fact), fact.axis)))
    p.emitted(call, result)
    return [fact]
