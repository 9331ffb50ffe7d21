"""Arithmetic between parts: what it was, once the part that uses it is known."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pimsim.workload.onnx_import.parts import Flow, GraphPart
from pimsim.workload.onnx_import.reading import count_elements

if TYPE_CHECKING:
    from pimsim.workload.onnx_import.recognise import Recogniser

__all__ = ["ELEMENTWISE", "FUNCTIONS", "GlueRoles"]

ELEMENTWISE = frozenset({"Add", "Sub", "Mul", "Div", "Neg", "Pow", "Sqrt", "Reciprocal", "Abs"})
FUNCTIONS = {
    "Sigmoid": "silu", "Swish": "silu", "QuickGelu": "silu", "HardSwish": "silu", "Relu": "relu",
    "Gelu": "gelu", "FastGelu": "gelu", "BiasGelu": "gelu", "Tanh": "gelu", "Erf": "gelu",
}  # fmt: skip
"""Activations by the node that tells them: a SiLU is x times a sigmoid, of x or of a multiple."""
_NO_ARITHMETIC = frozenset({"ReduceSum", "Clip", "Min", "Max"})


class GlueRoles:
    """Gives glue its role; ``claimed``: places of nodes that have one."""

    def __init__(self, reader: Recogniser) -> None:
        self.reader = reader
        self.claimed: set[int] = set()
        self.inputs: dict[int, Flow] = {}
        """What flows into a node."""

    def note(self, node: Any, flow: Flow) -> None:
        """Remember what flows into a node."""
        at = self.reader.graph.place[id(node)]
        self.inputs[at] = flow
        if node.op_type in ("Softmax", "Sigmoid") and len(flow.sources) == 1:
            part = next(iter(flow.sources))
            if part.what == "product":
                kind = "softmax" if node.op_type == "Softmax" else "sigmoid"
                width = self.reader.graph.width(node.output[0])
                part.facts.setdefault("scores", (kind, width))
        if node.op_type in _NO_ARITHMETIC:
            self.claimed.add(at)

    def _scales(self, node: Any) -> bool:
        """Whether a node only multiplies by, or divides by, what is no vector of a token."""
        if node.op_type == "Neg":
            return True
        if node.op_type not in ("Mul", "Div") or len(node.input) != 2:
            return False
        reader = self.reader
        others = [name for name in node.input if not reader.flow(name).sources]
        return len(others) == 1 and (
            reader.graph.scalar(others[0]) or reader.graph.stored(others[0]) is None
        )

    def _by_one(self, node: Any) -> bool:
        """Whether a node multiplies by, or divides by, a 1 of the file: nothing is computed."""
        if node.op_type not in ("Mul", "Div"):
            return False
        held = [self.reader.graph.literal(name) for name in node.input]
        return any(each is not None and bool((each == 1).all()) for each in held)

    def claim_scales(self, flow: Flow) -> None:
        """Factors among glue belong to what uses it."""
        self.claimed |= {at for at, node in flow.glue.items() if self._scales(node)}

    def scales_only(self, flow: Flow) -> bool:
        """Whether all glue are factors."""
        return all(self._scales(node) for node in flow.glue.values())

    def _function(self, flow: Flow) -> tuple[int, str] | None:
        """The activation function among glue, the first one."""
        for at in sorted(flow.glue):
            kind = flow.glue[at].op_type
            if kind in FUNCTIONS:
                return at, FUNCTIONS[kind]
        return None

    def activates(self, a: Flow, b: Flow) -> bool:
        """Whether a sum of these is a part of an activation spelt out."""
        sources = a.sources | b.sources
        if not all(part.what == "product" for part in sources):
            return False
        return bool(a.glue or b.glue) and not (set(a.sources) - set(b.sources)
                                               and set(b.sources) - set(a.sources))  # fmt: skip

    def mixture(self, flow: Flow) -> bool:
        """Whether the results of experts are in it."""
        return any(
            part.what in ("experts", "combine")
            or (part.what == "product" and part.facts["experts"])
            for part in flow.sources
        )  # fmt: skip

    # roles ----------------------------------------------------------------------------------------
    def settle(self, name: str) -> Flow:
        """The flow of a value that a product, a norm or a sum uses.

        An activation between two products becomes a part, and so does the weighted sum of experts.
        """
        reader = self.reader
        flow = reader.flow(name)
        if not flow.glue and not self.mixture(flow):
            return flow
        made: GraphPart | None = None
        if any(part.what == "experts" for part in flow.sources) or self._done_experts(flow):
            made = self._combine(name, flow)
        elif (found := self._function(flow)) is not None and self._of_products(flow):
            made = self._activation(name, flow, *found)
        elif self.turns(flow.glue) and flow.only("product") is not None:
            return self.rope(name)
        elif self._embeds(flow):
            part = next(iter(flow.sources))
            part.facts["scaled"] |= any(not self._by_one(node) for node in flow.glue.values())
            self.claimed |= set(flow.glue)
        elif self.scales_only(flow):
            self.claimed |= set(flow.glue)
        kept = Flow(flow.sources) if made is None else Flow({made: None})
        reader.flows[name] = kept
        return kept

    def _embeds(self, flow: Flow) -> bool:
        return flow.only("embed") is not None and self.scales_only(flow)

    def _of_products(self, flow: Flow) -> bool:
        return all(part.what == "product" for part in flow.sources) and len(flow.sources) <= 2

    def _activation(self, name: str, flow: Flow, at: int, function: str) -> GraphPart:
        reader = self.reader
        through = self.inputs[at].sources
        width = reader.graph.width(name)
        products = list(flow.sources)
        experts = max(part.facts["experts"] for part in products)
        if experts:
            width = products[0].facts["n"]
            shape = reader.graph.shape(name)
            width = next((dim for dim in reversed(shape) if dim not in (1,)), width)
        packed = len(products) == 1 and products[0].facts["n"] == 2 * width
        for part in products:
            part.facts["passes"] = part in through
        facts = {
            "function": function, "gated": len(products) == 2 or packed, "width": width,
            "experts": experts, "packed": packed,
        }  # fmt: skip
        self.claimed |= set(flow.glue)
        return reader.add(GraphPart("act", name, dict(flow.sources), facts))

    def _done_experts(self, flow: Flow) -> bool:
        """Whether second products of experts are in it, so that what follows adds them up."""
        return any(
            part.what == "product" and part.facts["experts"]
            and any(each.what == "act" for each in part.after)
            for part in flow.sources
        )  # fmt: skip

    def _combine(self, name: str, flow: Flow) -> GraphPart:
        width = self.reader.graph.width(name)
        self.claimed |= set(flow.glue)
        shared = [
            part for part in flow.sources
            if part.what == "product" and not part.facts["experts"]
            and any(each.what == "act" for each in part.after)
        ]  # fmt: skip
        facts = {"width": width, "shared": bool(shared)}
        return self.reader.add(GraphPart("combine", name, dict(flow.sources), facts))

    def routed(self, part: GraphPart, node: Any) -> None:
        """An expert's product: the router is what its weights are chosen by."""
        graph, reader = self.reader.graph, self.reader
        makers = [graph.maker[name] for name in node.input if name in graph.maker]
        for maker in makers:
            if not maker.op_type.startswith("Gather"):
                continue
            flow = reader.flow(*maker.input[1:])
            for router in flow.sources:
                if router.what == "product":
                    router.facts["router"] = True
                    part.facts["chosen"] = router
            self.claimed |= set(flow.glue)

    def turns(self, glue: dict[int, Any]) -> bool:
        """Whether vectors are turned by angles: a rotary node, or a product with what depends on
        positions alone."""
        for node in glue.values():
            if node.op_type == "RotaryEmbedding":
                return True
            if node.op_type == "Mul" and any(self._angles(name) for name in node.input):
                return True
        return False

    def _angles(self, name: str) -> bool:
        """Whether a value is a row of numbers for each position, whatever the tokens are. One row
        for all of them is a scale (of dynamic quantisation, by channel)."""
        reader = self.reader
        shape = reader.graph.shape(name)
        return (
            not reader.flow(name).sources and reader.graph.floating(name)
            and count_elements(shape) > max(shape[-1:], default=1)
            and reader.graph.stored(name) is None
        )  # fmt: skip

    def rope(self, name: str) -> Flow:
        """The flow of queries or keys: a part that turns them, where they are turned."""
        reader = self.reader
        flow = reader.flow(name)
        if not self.turns(flow.glue):
            self.claim_scales(flow)
            return Flow(flow.sources)
        width, halves = 0, False
        for node in flow.glue.values():
            if node.op_type == "RotaryEmbedding":
                tables = [reader.graph.width(each) for each in node.input[1:]
                          if each and reader.graph.stored(each) is not None]  # fmt: skip
                given = reader.graph.attributes(node).get("rotary_embedding_dim", 0)
                width = max(width, given or 2 * min(tables, default=0))
            elif node.op_type in ("Add", "Sub"):
                halves |= node.op_type == "Sub"
                width = max(width, reader.graph.width(node.output[0]))
        self.claimed |= set(flow.glue)
        part = GraphPart("rope", name, dict(flow.sources), {"width": width * (2 if halves else 1)})
        reader.add(part)
        return Flow({part: None})

    def leave(self, flow: Flow) -> None:
        """What the graph gives as a result: factors and caps of logits are free."""
        if all(part.what == "product" for part in flow.sources):
            self.claimed |= {
                at for at, node in flow.glue.items()
                if self._scales(node) or node.op_type in ("Tanh", "Softmax")
            }  # fmt: skip
