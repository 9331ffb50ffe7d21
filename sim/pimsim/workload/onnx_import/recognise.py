"""From nodes to the operators of a decoder, by what they compute and how values flow.

One pass over the nodes in their order. Products, norms, attention, tables and mixtures of experts
are parts; arithmetic between them is glue until the part that uses it says what it was: rotary
positions before attention, an activation between two products, a sum of experts. What nobody claims
is unknown. Names of nodes and values are never looked at.
"""

from __future__ import annotations

from typing import Any

from pimsim.config.errors import InputError
from pimsim.workload.onnx_import.attention import fused_attention, plain_attention
from pimsim.workload.onnx_import.experts import fused_experts, gathered_weight
from pimsim.workload.onnx_import.formats import Stored
from pimsim.workload.onnx_import.glue import ELEMENTWISE, FUNCTIONS, GlueRoles
from pimsim.workload.onnx_import.graph import GEMMS, MOVEMENT, GraphView
from pimsim.workload.onnx_import.parts import Flow, GraphPart, Unknown
from pimsim.workload.onnx_import.reading import count_elements
from pimsim.workload.onnx_import.spelt import spelt_attention, spelt_norm

__all__ = ["recognise"]

_NORMS = frozenset({
    "SimplifiedLayerNormalization", "SkipSimplifiedLayerNormalization", "LayerNormalization",
    "SkipLayerNormalization", "RMSNormalization",
})  # fmt: skip
_FUSED_ATTENTION = frozenset({
    "GroupQueryAttention", "MultiHeadAttention", "PagedAttention", "Attention",
})  # fmt: skip
_STREAM = ("embed", "residual")


def recognise(graph: GraphView, ids: str) -> tuple[list[GraphPart], list[Unknown]]:
    """Parts, each after those that it needs, and the nodes that are left over.

    Parameters
    ----------
    graph
        With shapes.
    ids
        Name of the input with token ids.

    Raises
    ------
    InputError
        For attributes and shapes that make no sense.
    """
    return Recogniser(graph, ids).run()


class Recogniser:
    """The pass; ``flows`` says of each value where it comes from."""

    def __init__(self, graph: GraphView, ids: str) -> None:
        self.graph, self.ids = graph, ids
        self.flows: dict[str, Flow] = {}
        self.parts: list[GraphPart] = []
        self.glue = GlueRoles(self)
        self.unknown: list[Unknown] = []
        self.patterns: dict[int, Any] = {}
        """What is spelt out, by the identity of its nodes."""
        self.last: dict[int, int] = {}
        """Where a pattern's last node stands, by the pattern's identity."""
        self.positions: dict[str, Stored] = {}
        """Values that are rows of a table which is not looked up by token."""

    def run(self) -> tuple[list[GraphPart], list[Unknown]]:
        """All nodes."""
        self._find_patterns()
        for node in self.graph.nodes:
            pattern = self.patterns.get(id(node))
            if pattern is None:
                self._node(node)
            elif self.last[id(pattern)] == self.graph.place[id(node)]:
                self._pattern(pattern)
        for each in self.graph.loaded.graph.output:
            self.glue.leave(self.flow(each.name))
        claimed = self.glue.claimed
        left = {at: node for flow in self.flows.values() for at, node in flow.glue.items()}
        self.unknown += [_unknown(left[at]) for at in sorted(left) if at not in claimed]
        return self.parts, self.unknown

    # what flows ---------------------------------------------------------------------------------
    def flow(self, *names: str) -> Flow:
        """Where values come from, together."""
        found = Flow()
        for name in names:
            found = found | self.flows.get(name, Flow())
        return found

    def add(self, part: GraphPart, *outs: str) -> GraphPart:
        """A part, whose results are these values."""
        self.parts.append(part)
        for name in (part.out, *outs):
            if name:
                self.flows[name] = Flow({part: None})
        return part

    def _find_patterns(self) -> None:
        for node in self.graph.nodes:
            found: Any = None
            if id(node) in self.patterns:
                continue
            if node.op_type == "ReduceMean":
                found = spelt_norm(self.graph, node)
            elif node.op_type == "Softmax":
                found = spelt_attention(self.graph, node)
            if found is not None:
                for each in found.nodes:
                    self.patterns[id(each)] = found
                self.last[id(found)] = max(self.graph.place[id(each)] for each in found.nodes)

    def _pattern(self, found: Any) -> None:
        if hasattr(found, "query"):
            plain_attention(self, found)
            return
        part = GraphPart(
            "norm", found.out, self.consume(found.data).sources,
            {"width": self.graph.width(found.out), "function": found.function},
            list(found.weights), module=found.nodes[-1].name,
        )  # fmt: skip
        self.add(part)

    # nodes ---------------------------------------------------------------------------------------
    def _node(self, node: Any) -> None:
        kind, graph = node.op_type, self.graph
        if kind in GEMMS and self._product(node):
            return
        if kind in _NORMS:
            self._norm(node)
        elif kind in _FUSED_ATTENTION:
            fused_attention(self, node)
        elif kind in ("MoE", "QMoE"):
            fused_experts(self, node)
        elif self._table(node) or self._sum(node):
            return
        elif kind in MOVEMENT or not any(graph.floating(name) for name in node.output):
            self._move(node)
        else:
            self._arithmetic(node)

    def _move(self, node: Any) -> None:
        # sizes of a vector are no vector
        flow = Flow() if node.op_type in ("Shape", "Size") else self.flow(*node.input)
        if node.op_type in ("ReduceSum", "Clip", "Min", "Max") and flow.sources:
            self.glue.note(node, flow)
        for name in node.output:
            self.flows[name] = flow
        for name in node.input:
            if name in self.positions and node.op_type in ("Unsqueeze", "Reshape", "Squeeze",
                                                           "Expand", "Cast", "Slice"):  # fmt: skip
                self.positions |= {out: self.positions[name] for out in node.output}
        if node.op_type == "DynamicQuantizeLinear":
            for name in node.output[1:]:  # a scale is no vector
                self.flows[name] = Flow()

    def _arithmetic(self, node: Any) -> None:
        flow = self.flow(*node.input)
        known = node.op_type in ELEMENTWISE or node.op_type in FUNCTIONS
        known |= node.op_type in ("Softmax", "RotaryEmbedding", "Sin", "Cos", "Einsum", "Exp")
        known |= node.op_type in GEMMS and not flow.sources  # positions times frequencies
        if not known:
            self.unknown.append(_unknown(node))
        elif flow.sources:
            self.glue.note(node, flow)
            flow = Flow(flow.sources, flow.glue | {self.graph.place[id(node)]: node})
        for name in node.output:
            self.flows[name] = flow

    def consume(self, name: str) -> Flow:
        """The sources of a value that a part uses, its glue having become what it is."""
        return self.glue.settle(name)

    def _product(self, node: Any) -> bool:
        graph, kind = self.graph, node.op_type
        data, experts, weight = node.input[0], 0, None
        if kind == "MatMulNBits":
            weight = graph.packed(node)
        elif kind == "MatMulInteger":
            weight = graph.integer(node)
        else:
            for at in (1, 0):
                weight = graph.stored(node.input[at])
                if weight is None and (found := gathered_weight(graph, node.input[at])):
                    weight, experts = found
                if weight is not None:
                    data = node.input[1 - at]
                    break
        if weight is None or self._is_angle(data):
            return False
        flow = self.consume(data)
        out = node.output[0]
        depth = graph.width(data)
        if experts:
            depth = self._expert_depth(node, data)
        width = weight.elements // max(depth * max(experts, 1), 1)
        if not depth and weight.rank == 3:
            raise InputError(
                f"{graph.where(node)}: it works on every expert for every token, so which experts "
                "tokens go to is not seen; this architecture is not supported"
            )
        if not depth or width * depth * max(experts, 1) != weight.elements:
            raise InputError(
                f"{graph.where(node)}: a product of {depth} features with the weight "
                f"{weight.name!r} of shape {weight.shape}"
            )
        part = GraphPart(
            "product", out, dict(flow.sources),
            {"n": width, "k": depth, "experts": experts, "data": data}, [weight], module=node.name,
        )  # fmt: skip
        if kind == "Gemm" and len(node.input) > 2 and node.input[2]:
            self._bias(part, graph.stored(node.input[2]))
        if kind == "MatMulNBits" and len(node.input) > 5 and node.input[5]:
            self._bias(part, graph.stored(node.input[5]))
        if experts:
            self.glue.routed(part, node)
        self.add(part)
        return True

    def _is_angle(self, data: str) -> bool:
        """Positions times frequencies: nothing of a token's vector flows in."""
        return not self.flow(data).sources

    def _expert_depth(self, node: Any, data: str) -> int:
        """Features of a product whose data are columns, (pairs, features, 1), or rows."""
        shape = self.graph.shape(data)
        column = bool(shape) and shape[-1] == 1 and node.input[1] == data
        return shape[-2] if column and len(shape) > 1 else self.graph.width(data)

    def _bias(self, part: GraphPart, weight: Stored | None) -> bool:
        if weight is None or weight.elements != part.facts["n"] * max(part.facts["experts"], 1):
            return False
        part.facts["bias"] = True
        part.weights.append(weight)
        return True

    def _norm(self, node: Any) -> None:
        graph, kind = self.graph, node.op_type
        rms = "Simplified" in kind or kind == "RMSNormalization"
        skip = kind.startswith("Skip")
        data = node.input[0]
        if skip:
            gains = [2] if rms else [2, 3]
            bias = 3 if rms else 4
            if len(node.input) > bias and node.input[bias]:
                part = self.flow(node.input[1]).only("product")
                if part is None or not self._bias(part, graph.stored(node.input[bias])):
                    raise InputError(f"{graph.where(node)}: its bias belongs to no product")
            added = self._residual(node, node.input[0], node.input[1],
                                   node.output[3] if len(node.output) > 3 else "")  # fmt: skip
            sources: dict[GraphPart, None] = {added: None}
        else:
            gains = [1] if rms else [1, 2]
            sources = self.consume(data).sources
        weights = [
            found for at in gains if len(node.input) > at and node.input[at]
            and (found := graph.stored(node.input[at])) is not None
        ]  # fmt: skip
        if kind == "LayerNormalization" and len(weights) == 1 and self._ones(node.input[1]):
            weights = []  # the operator must be given a gain; the model has none
        facts = {"width": graph.width(node.output[0]),
                 "function": "rmsnorm" if rms else "layernorm"}  # fmt: skip
        self.add(GraphPart("norm", node.output[0], dict(sources), facts, weights, module=node.name))

    def _table(self, node: Any) -> bool:
        """Rows of a table by token or by position; False for any other node."""
        graph = self.graph
        if node.op_type not in ("Gather", "GatherBlockQuantized"):
            return False
        if graph.values.get(node.input[1]) is None or graph.constant(node.input[1]) is not None:
            return False
        found = graph.table(node)
        if found is None or self.flow(node.input[1]).sources:
            return False
        weight, rows = found
        if not self._by_token(node.input[1]):
            self.positions[node.output[0]] = weight
            self.flows[node.output[0]] = Flow()
            return True
        width = weight.elements // max(rows, 1)
        facts = {"width": width, "rows": rows, "tables": 1, "scaled": False}
        self.add(GraphPart("embed", node.output[0], {}, facts, [weight], module=node.name))
        return True

    def _ones(self, name: str) -> bool:
        held = self.graph.literal(name)
        return held is not None and bool((held == 1).all())

    def _by_token(self, name: str) -> bool:
        for _ in range(12):
            if name == self.ids:
                return True
            node = self.graph.maker.get(name)
            if node is None or node.op_type not in (
                "Reshape", "Cast", "Identity", "Unsqueeze", "Squeeze", "Flatten", "Where", "Slice",
            ):  # fmt: skip
                return False
            name = node.input[1 if node.op_type == "Where" else 0]
        return False

    # sums ----------------------------------------------------------------------------------------
    def _sum(self, node: Any) -> bool:
        """A bias, a row of positions, or the residual stream's sum; False for any other."""
        graph = self.graph
        if node.op_type != "Add" or len(node.input) != 2:
            return False
        one, two = node.input
        for data, other in ((one, two), (two, one)):
            if self._biased(data, other, node.output[0]):
                return True
            embed = self.flow(data).only("embed")
            table = self.positions.get(other) or self._position_rows(other)
            if (
                embed is not None
                and table is not None
                and graph.width(other) == embed.facts["width"]
            ):
                embed.weights.append(table)
                embed.facts["tables"] += 1
                self.flows[node.output[0]] = self.flow(data)
                return True
        if not self._adds_up(one, two):
            return False
        a, b = self.flow(one), self.flow(two)
        if self.glue.mixture(a) or self.glue.mixture(b):
            streams = [all(each.what in _STREAM for each in flow.sources) for flow in (a, b)]
            if not any(streams):
                self._arithmetic(node)  # experts and a shared one
                return True
        self._residual(node, one, two, node.output[0])
        return True

    def _position_rows(self, name: str) -> Stored | None:
        """A stored table that is added as it is, or a slice of it."""
        node = self.graph.maker.get(name)
        for _ in range(8):
            if node is None or node.op_type not in ("Slice", "Unsqueeze", "Expand", "Reshape"):
                break
            name = node.input[0]
            node = self.graph.maker.get(name)
        found = self.graph.stored(name)
        return found if found is not None and found.rank == 2 else None

    def _biased(self, data: str, other: str, out: str) -> bool:
        flow = self.flow(data)
        part = flow.only("product")
        if part is None or not self.glue.scales_only(flow):
            return False
        weight = self.graph.stored(other)
        if weight is None and part.facts["experts"]:
            found = gathered_weight(self.graph, other)
            weight = found[0] if found else None
        if weight is None or not self._bias(part, weight):
            return False
        self.flows[out] = flow
        part.out = out if not part.facts["experts"] else part.out
        return True

    def _adds_up(self, one: str, two: str) -> bool:
        """Whether two vectors of a token are added that come from different parts."""
        shape = self.graph.shape(one)
        if shape != self.graph.shape(two) or len(shape) not in (2, 3):
            return False
        a, b = self.flow(one), self.flow(two)
        if not a.sources or not b.sources or set(a.sources) == set(b.sources):
            return False
        return not self.glue.activates(a, b)

    def _residual(self, node: Any, one: str, two: str, out: str) -> GraphPart:
        sources = self.consume(one).sources | self.consume(two).sources
        shape = self.graph.shape(one)
        part = GraphPart(
            "residual", out or one, dict(sources), {"width": shape[-1] if shape else 0},
            module=node.name,
        )  # fmt: skip
        self.parts.append(part)
        if out:
            self.flows[out] = Flow({part: None})
        return part

    def rows(self, name: str) -> int:
        """Vectors along the last axis."""
        return count_elements(self.graph.shape(name)[:-1])


def _unknown(node: Any) -> Unknown:
    return Unknown(node.name, node.op_type, node.domain or "ai.onnx")
