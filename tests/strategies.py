"""Hypothesis strategies for LSTM configurations."""

from __future__ import annotations

from hypothesis import strategies as st

from lstm_onnx.spec import MAX_OPSET, MIN_OPSET, PROJECTIONS, ExportOptions, LSTMSpec

SEEDS = st.integers(0, 2**31 - 1)


@st.composite
def specs(draw: st.DrawFn, max_size: int = 96, max_layers: int = 4) -> LSTMSpec:
    """Sizes from 1, projected and plain ones equally often."""
    hidden_size = draw(st.integers(1, max_size))
    projected = hidden_size > 1 and draw(st.booleans())
    return LSTMSpec(
        input_size=draw(st.integers(1, max_size)),
        hidden_size=hidden_size,
        num_layers=draw(st.integers(1, max_layers)),
        bias=draw(st.booleans()),
        batch_first=draw(st.booleans()),
        bidirectional=draw(st.booleans()),
        proj_size=draw(st.integers(1, hidden_size - 1)) if projected else 0,
    )


@st.composite
def export_options(draw: st.DrawFn) -> ExportOptions:
    return ExportOptions(
        lengths=draw(st.booleans()),
        projection=draw(st.sampled_from(PROJECTIONS)),
        opset=draw(st.integers(MIN_OPSET, MAX_OPSET)),
    )
