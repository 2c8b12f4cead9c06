"""Builds the graph of a generating file: a Loop with the step's nodes as its body, which carries the states.

The first step takes the whole prompt, and every later one the previous step's output, so the body's input first has
the prompt's length and then one time step: a Loop may carry values whose shapes change, a Scan may not.
Nodes that depend on nothing that changes from step to step, such as an encoder, stay outside.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto, helper

from ..generation_spec import COUNTS, GENERATED, MAX_STEPS, NOISE, SCORES, TEMPERATURE
from ..onnxgraph import outer_values
from ..onnxgraph.nodes import RANDOM, needed_nodes, rename_values
from .carried import Carried, Parts, parts_of
from .choose import LOOP, OWN, OwnNodes, greedy, last_step, sampled, score
from .layout import Layout, numbers_of
from .stop import COUNT, DONE, GO_ON, NEXT_COUNT, NEXT_DONE, add_stop, done, padded, stop_flag

Dims = Sequence[int | str | None]
_FEW_TOKENS = 256
"""Up to this many tokens, the logits of all steps are kept until the end: 1 kB a step."""
_DRAWN = RANDOM | {"Dropout"}
"""Random operators, which yield different numbers in each step."""
Built = tuple[ModelProto, dict[str, np.ndarray]]
"""A model without its initializers, and the initializers."""


@dataclass
class _Interface:
    """The values that the loop carries and returns, in order, by their names in the body and in the outer graph."""

    inputs: list[ValueInfoProto] = field(default_factory=list)
    outputs: list[ValueInfoProto] = field(default_factory=list)
    initial: list[str] = field(default_factory=list)
    final: list[str] = field(default_factory=list)

    def carry(self, before: ValueInfoProto, after: ValueInfoProto, initial: str, final: str) -> None:
        self.inputs.append(before)
        self.outputs.append(after)
        self.initial.append(initial)
        self.final.append(final)

    def collect(self, value: ValueInfoProto, final: str) -> None:
        """Stack a value of each step."""
        self.outputs.append(value)
        self.final.append(final)


def generating_model(model: ModelProto, constants: Mapping[str, np.ndarray], layout: Layout) -> Built:
    """Build the graph that repeats a step; return it and its initializers.

    Args:
        model: the step's model, with its functions inlined.
        constants: its initializers.
        layout: its layout.
    """
    return _Builder(model, constants, layout).build()


class _Builder:
    def __init__(self, model: ModelProto, constants: Mapping[str, np.ndarray], layout: Layout) -> None:
        self.model = model
        self.layout = layout
        self.generation = layout.step.generation
        self.constants = constants
        self.types = {value.name: value.type for value in (*model.graph.input, *model.graph.output)}
        self.prefix = f"{OWN}step/"
        self.before = OwnNodes(initializers=dict(constants))
        self.body = OwnNodes(initializers=self.before.initializers)
        self.after = OwnNodes(initializers=self.before.initializers)
        self.interface = _Interface()
        self.scores = self.numbers = ""

    def build(self) -> Built:
        layout, model = self.layout, self.model
        names = [layout.fed.name, *layout.states, *layout.states.values()]
        renamed = {name: self.prefix + name for name in names}
        outside, inside = _divided(model.graph.node, {layout.fed.name, *layout.states})
        parts = self._parts(inside)
        for state, found in parts.items():
            inside = [node for node in inside if node is not found.split and node is not found.join]
            initial = {value: f"{self.prefix}{value}/initial" for value in found.split.output}
            self.before.nodes.append(_renamed(found.split, initial))
            final = {value: f"{self.prefix}{value}/final" for value in found.join.input}
            self.after.nodes.append(_renamed(found.join, final))
            del renamed[state]
        self.before.nodes += [_renamed(node, renamed) for node in outside]
        self.body.nodes += [_renamed(node, renamed) for node in inside]
        self._zero_or_more()
        element = self._choose()
        self._carry_fed(element)
        self._carry_states(renamed, parts)
        self._collect(element)
        return self._assembled()

    # --- the body ----------------------------------------------------------------------------------------------

    def _zero_or_more(self) -> None:
        """Compute the sizes of one step's value, for the shape of the results of 0 steps."""
        shape = self.before.one("Shape", self.layout.fed.name, name="generate/prompt/Shape")
        rank = len(self.layout.fed.shape)
        kept = self.before.integers(*(axis for axis in range(rank) if axis != self.layout.step.time_axis))
        self.before.one("Gather", shape, kept, name="generate/prompt/element")
        self.before.one(
            "Gather", shape, self.before.integers(self.layout.step.batch_axis), name="generate/prompt/batch"
        )

    def _choose(self) -> str:
        """The value that a step generates: for tokens ``(batch, 1)``, otherwise the output's last step."""
        layout, generation, body = self.layout, self.generation, self.body
        last = self._last(layout.output.name, layout.step.output_time_axis)
        if not layout.step.of_tokens:
            return self._ended(last, layout.step.element_batch, numbers_of(layout.fed))
        if generation.choose == "greedy":
            token = greedy(body, last)
        else:
            noise = body.one(
                "Gather", "generate/noise/steps", "generate/step/number", name="generate/noise/step", axis=0
            )
            token = sampled(body, last, TEMPERATURE, noise, generation.top_k, numbers_of(layout.output))
        if self._scored_at_once(last):
            self.numbers = last
        else:
            self.scores = score(body, last, token, axis=1)
            if generation.stops:
                zero = body.constant("generate/stop/no_score", np.array(0, numbers_of(layout.output)))
                name = "generate/stop/score"
                self.scores = body.one("Where", done(body, 2, 0), zero, self.scores, name=name)
        return self._ended(token, 0, np.dtype(np.int64))

    def _scored_at_once(self, last: str) -> bool:
        """Whether to compute the scores of all steps after the loop: it is faster, but each step's logits are kept."""
        tokens = self.layout.output.shape[-1]
        few = isinstance(tokens, int) and tokens <= _FEW_TOKENS
        return few and not self.generation.stops and any(last in node.output for node in self.body.nodes)

    def _last(self, value: str, axis: int | None) -> str:
        """The last time step of an output."""
        if self.layout.step.outer_axis is not None:
            return self._last_rows(value)
        if axis is None:
            return value
        return last_step(self.body, value, axis, f"generate/last/{value}")

    def _last_rows(self, value: str) -> str:
        """As `_last`, for an output whose rows are the steps of all sequences: its last rows, or every nth row."""
        body, batch = self.body, "generate/prompt/batch"
        first, end = body.integers(0), body.integers(2**31 - 1)
        if self.layout.step.outer_axis == "time":
            start = self.before.one("Neg", batch, name="generate/rows/start")
            return body.one("Slice", value, start, end, first, name="generate/rows/last")
        shape = body.one("Shape", value, name="generate/rows/Shape")
        count = body.one("Gather", shape, first, name="generate/rows/count")
        steps = body.one("Div", count, batch, name="generate/rows/steps")
        start = body.one("Sub", steps, body.integers(1), name="generate/rows/start")
        return body.one("Slice", value, start, end, first, steps, name="generate/rows/last")

    def _ended(self, value: str, batch: int, dtype: np.dtype[np.generic]) -> str:
        """The value that a step generates, with padding for sequences that have ended."""
        if not self.generation.stops:
            return value
        rank = 2 if self.layout.step.of_tokens else len(self.layout.element_dims)
        chosen = padded(self.body, self.generation, value, (rank, batch), dtype)
        flag = ""
        if self.generation.stop_output is not None:
            flag = stop_flag(self.body, self.types[self.generation.stop_output], self.layout)
        add_stop(self.body, self.generation.stop_token, value, flag)
        return chosen

    # --- carried values ----------------------------------------------------------------------------------------

    def _carry_fed(self, element: str) -> None:
        layout, body, value = self.layout, self.body, element
        fed, time = layout.fed, layout.step.time_axis
        kind = helper.np_dtype_to_tensor_dtype(numbers_of(fed))
        if layout.step.of_tokens:
            if kind != TensorProto.INT64:
                value = body.one("Cast", value, name="generate/next/Cast", to=kind)
            if time is None:
                value = body.one("Squeeze", value, body.integers(1), name="generate/next/Squeeze")
            elif time == 0:
                value = body.one("Transpose", value, name="generate/next/Transpose", perm=[1, 0])
        elif time is not None:
            value = body.one("Unsqueeze", value, body.integers(time), name="generate/next/Unsqueeze")
        if layout.step.of_tokens and value == element:
            value = body.one("Identity", value, name="generate/next/input")
        before = list(fed.shape)
        after = [1 if axis == time else dim for axis, dim in enumerate(before)]
        own = self.prefix + fed.name
        self.interface.carry(_info(own, kind, before), _info(value, kind, after), fed.name, "generate/loop/last")
        if self.generation.stops:
            batch = fed.shape[layout.step.batch_axis]
            self._carry_row(DONE, NEXT_DONE, np.array([False]), "generate/loop/done", batch)
            self._carry_row(COUNT, NEXT_COUNT, np.array([0], np.int64), COUNTS, batch)

    def _carry_row(self, name: str, after: str, start: np.ndarray, final: str, batch: int | str | None) -> None:
        """Carry one number for each sequence."""
        kind = helper.np_dtype_to_tensor_dtype(start.dtype)
        constant = self.before.constant(f"{name}/start", start)
        initial = self.before.one("Expand", constant, "generate/prompt/batch", name=f"{name}/initial")
        self.interface.carry(_info(name, kind, [batch]), _info(after, kind, [batch]), initial, final)

    def _parts(self, nodes: Sequence[NodeProto]) -> dict[str, Parts]:
        outputs = [value.name for value in self.model.graph.output]
        found = {
            state: parts_of(nodes, state, after, outputs, self.constants) for state, after in self.layout.states.items()
        }
        return {state: parts for state, parts in found.items() if parts is not None}

    def _carry_states(self, renamed: Mapping[str, str], parts: Mapping[str, Parts]) -> None:
        for state, after in self.layout.states.items():
            kind = self.types[state].tensor_type
            dims: list[int | str | None] = [
                dim.dim_param or (dim.dim_value if dim.HasField("dim_value") else None) for dim in kind.shape.dim
            ]
            if state in parts:
                dims[0] = 1
                names = zip(parts[state].split.output, parts[state].join.input, strict=True)
                values = [Carried(before, part, state) for before, part in names]
                ends = [(f"{self.prefix}{one.name}/initial", f"{self.prefix}{one.after}/final") for one in values]
            else:
                values = [Carried(renamed[state], renamed[after], state)]
                ends = [(state, after)]
            for value, (initial, final) in zip(values, ends, strict=True):
                next_value = self._kept(value, len(dims))
                before_info = _info(value.name, kind.elem_type, dims)
                self.interface.carry(before_info, _info(next_value, kind.elem_type, dims), initial, final)

    def _kept(self, value: Carried, rank: int) -> str:
        """A state after a step, unchanged for sequences that have ended.

        It is always a new value: a graph's outputs must not repeat, or be one of its inputs.
        """
        if self.generation.stops:
            ended = done(self.body, rank, self.layout.state_axes[value.state])
            return self.body.one("Where", ended, value.name, value.after, name=f"generate/stop/{value.after}")
        made = {output for node in self.body.nodes for output in node.output}
        taken = {info.name for info in self.interface.outputs}
        if value.after in made and value.after not in taken:
            return value.after
        return self.body.one("Identity", value.after, name=f"generate/next/{value.after}")

    def _collect(self, element: str) -> None:
        layout, tokens = self.layout, self.layout.step.of_tokens
        if element in {info.name for info in self.interface.outputs}:
            element = self.body.one("Identity", element, name=f"generate/step/{'token' if tokens else 'value'}")
        batch = layout.fed.shape[layout.step.batch_axis]
        dims: Dims = [batch, 1] if tokens else layout.element_dims
        kind = TensorProto.INT64 if tokens else helper.np_dtype_to_tensor_dtype(numbers_of(layout.fed))
        self.interface.collect(_info(element, kind, dims), "generate/loop/generated")
        if tokens:
            kind = helper.np_dtype_to_tensor_dtype(numbers_of(layout.output))
            if self.numbers:
                all_numbers = [batch, layout.output.shape[-1]]
                self.interface.collect(_info(self.numbers, kind, all_numbers), "generate/loop/numbers")
            else:
                self.interface.collect(_info(self.scores, kind, dims), "generate/loop/scores")

    # --- the outer graph ---------------------------------------------------------------------------------------

    def _assembled(self) -> Built:
        layout, generation, before = self.layout, self.generation, self.before
        stops = generation.stops
        if not stops:
            self.body.one("Identity", "generate/step/going", name=GO_ON)
        if generation.choose == "sample":
            turned = before.one("Transpose", NOISE, name="generate/noise/Transpose", perm=[1, 0])
            before.one("Unsqueeze", turned, before.integers(2), name="generate/noise/steps")
            shape = before.one("Shape", NOISE, name="generate/noise/Shape")
            one = before.constant("generate/int/1", np.array(1, np.int64))
            count = before.one("Gather", shape, one, name="generate/noise/count")
        else:
            count = MAX_STEPS
        head = [
            _info("generate/step/number", TensorProto.INT64, []),
            _info("generate/step/going", TensorProto.BOOL, []),
        ]
        kept, _ = needed_nodes(self.body.nodes, [GO_ON, *(value.name for value in self.interface.outputs)])
        body = helper.make_graph(
            kept, "step", [*head, *self.interface.inputs], [_info(GO_ON, TensorProto.BOOL, []), *self.interface.outputs]
        )
        loop = helper.make_node(
            "Loop", [count, "", *self.interface.initial], self.interface.final, name=LOOP, body=body
        )
        self._shaped_results()
        graph = self.model.graph
        given = {value.name: value for value in graph.input if value.name not in self.constants}
        prompt = given.pop(layout.fed.name)
        batch = layout.fed.shape[layout.step.batch_axis]
        added = [_info(MAX_STEPS, TensorProto.INT64, [])]
        if generation.choose == "sample":
            kind = helper.np_dtype_to_tensor_dtype(numbers_of(layout.output))
            added = [_info(NOISE, kind, [batch, MAX_STEPS]), _info(TEMPERATURE, kind, [])]
        states = [given.pop(name) for name in layout.states]
        results = self._results()
        after = {value.name: value for value in graph.output}
        model = ModelProto()
        model.CopyFrom(self.model)
        del model.graph.node[:], model.graph.initializer[:], model.graph.value_info[:]
        del model.graph.input[:], model.graph.output[:]
        nodes, used = needed_nodes(
            [*before.nodes, loop, *self.after.nodes], [value.name for value in (*results, *after.values())]
        )
        model.graph.node.extend(nodes)
        model.graph.input.extend([prompt, *added, *given.values(), *states])
        model.graph.output.extend([*results, *(after[name] for name in layout.states.values())])
        return model, {name: array for name, array in before.initializers.items() if name in used}

    def _shaped_results(self) -> None:
        """The steps along the axis that the prompt has them; after no steps as well, of which a Loop forgets sizes."""
        layout, after = self.layout, self.after
        if self.numbers:
            scores = score(after, "generate/loop/numbers", "generate/loop/generated", axis=2)
            after.one("Identity", scores, name="generate/loop/scores")
        tokens = layout.step.of_tokens
        for name, final in ((GENERATED, "generate/loop/generated"), (SCORES, "generate/loop/scores"))[: 1 + tokens]:
            shape = after.one("Shape", final, name=f"{final}/Shape")
            count = after.one("Gather", shape, after.integers(0), name=f"{final}/count")
            dims = after.one("Concat", count, "generate/prompt/element", name=f"{final}/dims", axis=0)
            value = after.one("Reshape", final, dims, name=f"{final}/Reshape", allowzero=1)
            rank = 1 + len(layout.element_dims)
            order = list(range(1, rank))
            order.insert(layout.step.steps_axis(len(layout.element_dims)), 0)
            kind = helper.np_dtype_to_tensor_dtype(numbers_of(layout.fed))
            cast = tokens and name == GENERATED and kind != TensorProto.INT64
            moved = "" if order == list(range(rank)) else f"{final}/Transpose"
            if cast:
                value = after.one("Cast", value, name=f"{final}/Cast", output="" if moved else name, to=kind)
            if moved:
                after.one("Transpose", value, name=moved, output=name, perm=order)
            elif not cast:
                after.one("Identity", value, name=f"{final}/Identity", output=name)

    def _results(self) -> list[ValueInfoProto]:
        layout = self.layout
        dims = list(layout.element_dims)
        dims.insert(layout.step.steps_axis(len(layout.element_dims)), "steps")
        results = [_info(GENERATED, helper.np_dtype_to_tensor_dtype(numbers_of(layout.fed)), dims)]
        if layout.step.of_tokens:
            kind = helper.np_dtype_to_tensor_dtype(numbers_of(layout.output))
            results.append(_info(SCORES, kind, dims))
        if self.generation.stops:
            results.append(_info(COUNTS, TensorProto.INT64, [layout.fed.shape[layout.step.batch_axis]]))
        return results


def _info(name: str, kind: int, dims: Dims) -> ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, list(dims))


def _divided(nodes: Iterable[NodeProto], changing: set[str]) -> tuple[list[NodeProto], list[NodeProto]]:
    """The nodes with the same result in every step, and those that depend on `changing`; both in their order."""
    changing, outside, inside = set(changing), [], []
    for node in nodes:
        if changing.isdisjoint(node.input) and changing.isdisjoint(outer_values(node)) and node.op_type not in _DRAWN:
            outside.append(node)
        else:
            changing.update(node.output)
            inside.append(node)
    return outside, inside


def _renamed(node: NodeProto, names: Mapping[str, str]) -> NodeProto:
    """A copy of a node, with some values in it and its bodies renamed."""
    copy = NodeProto()
    copy.CopyFrom(node)
    rename_values([copy], names)
    return copy
