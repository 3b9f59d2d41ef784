"""Draws what was observed of the first round of training: sources, networks by depth, losses, optimisers, arrows."""

from dataclasses import dataclass, field
from functools import cached_property

from bowerbird.reading.explain.diagram import Arrow, Diagram, Node, Sort
from bowerbird.reading.explain.text import Ref, Text, name, shape, shapes
from bowerbird.reading.explain.writer import Writer
from bowerbird.reading.facts import Fact, first_shape

NOTHING = Text()


def draw(w: Writer) -> Diagram:
    drawing = Drawing(w)
    drawing.networks()
    drawing.losses()
    drawing.optimizers()
    known = [a for a in drawing.arrows.values() if a.source in drawing.nodes and a.target in drawing.nodes]
    return Diagram(tuple(drawing.nodes.values()), tuple(known))


@dataclass
class Drawing:
    w: Writer
    nodes: dict[str, Node] = field(default_factory=dict)
    arrows: dict[tuple[str, str], Arrow] = field(default_factory=dict)

    def _node(self, key: str, sort: Sort, label: Text, detail: Text, column: int) -> str:
        self.nodes.setdefault(key, Node(key, sort, label, detail, column))
        return key

    def _arrow(self, source: str, target: str, label: Text = NOTHING, *, back: bool = False) -> None:
        self.arrows.setdefault((source, target), Arrow(source, target, label, back))

    @cached_property
    def calls(self) -> dict[int, Fact]:
        return {f["call"]: f for f in self.w.study.facts.of("event.forward") if f["call"] is not None}

    @cached_property
    def backwards(self) -> dict[str, Fact]:
        """The first pass of each loss."""
        return {subject: facts[0] for subject, facts in self.w.study.passes().items()}

    def _through(self, backward: Fact) -> list[Fact]:
        return [self.calls[row["call"]] for row in backward["through"] or [] if row["call"] in self.calls]

    def _before(self, call: Fact) -> list[Fact]:
        """The calls of other networks whose output a call was given."""
        found = [self.calls[c] for c in call["from"] or [] if c in self.calls]
        return [before for before in found if before.subject != call.subject]

    # -------------------------------------------------------------------------------------------------- networks

    @cached_property
    def depth(self) -> dict[str, int]:
        """How many networks stand before each, of those that losses go through; of the first calls, without any."""
        depth = {call.subject: 0 for call in self._chosen()}
        for call in self._chosen():
            for before in self._before(call):
                if before.subject in depth:
                    depth[call.subject] = max(depth[call.subject], depth[before.subject] + 1)
        return depth

    def _chosen(self) -> list[Fact]:
        used = {call["call"]: call for f in self.backwards.values() for call in self._through(f)}
        used |= {c: self.calls[c] for call in list(used.values()) for c in call["from"] or [] if c in self.calls}
        return [used[number] for number in sorted(used)] or list(self.calls.values())[:4]

    @property
    def last(self) -> int:
        return 1 + max(self.depth.values(), default=0)

    def networks(self) -> None:
        trees = {f.subject: f for f in self.w.study.networks}
        for call in self._chosen():
            size = self.w.say("flow.size", trees[call.subject]) if call.subject in trees else Text()
            self._node(f"net {call.subject}", "network", Text((name(call),)), size, 1 + self.depth[call.subject])
            self._inputs(call)

    def _inputs(self, call: Fact) -> None:
        """Where a call's inputs come from: other networks, the data, or drawn noise."""
        target = f"net {call.subject}"
        for before in self._before(call):
            taken = Text((shape(call, "in", 0, "shape"),)) if first_shape(call["in"]) else Text()
            self._arrow(f"net {before.subject}", target, taken)
        for i, part in enumerate(call["in"] or []):
            if isinstance(part, dict) and part.get("shape") and not (call["from"] and i == 0):
                self._arrow(self._source(part["shape"]), target, Text((shape(call, "in", i, "shape"),)))

    def _source(self, wanted: list[int]) -> str:
        """The node of the data or of the draw that has this shape."""
        facts, w = self.w.study.facts, self.w
        for batch in facts.of("data.batch"):
            if wanted in [part.get("shape") for part in batch["parts"] or [] if isinstance(part, dict)]:
                return self._node(f"data {batch.subject}", "data", Text((name(batch),)), w.say("flow.data"), 0)
        for drawn in facts.of("random.draw"):
            if drawn["shape"] == wanted and not drawn.subject.endswith("_"):
                at = Text((w.line(drawn),))
                return self._node(f"noise {drawn.subject} {drawn.line}", "noise", Text((name(drawn),)), at, 0)
        return self._node("input", "data", w.say("flow.input"), Text(), 0)

    # ---------------------------------------------------------------------------------------- losses, optimisers

    def losses(self) -> None:
        for subject, backward in sorted(self.backwards.items(), key=lambda pair: pair[1]["seq"] or 0):
            found = self.w.study.facts.first("loss.identified", subject)
            written = found is not None and found["expression"]
            label = Text((name(found, "expression"),)) if found and written else self.w.say("flow.loss")
            at = Text((self.w.line(backward),)) if backward.line else Text()
            key = self._node(f"loss {subject}", "loss", label, at, self.last + 1)
            through = self._through(backward)
            feeding = {number for call in through for number in call["from"] or []}
            for call in [call for call in through if call["call"] not in feeding]:
                self._arrow(f"net {call.subject}", key, Text(tuple(shapes(call, "out")[:1])))

    def optimizers(self) -> None:
        """Fed by the losses between their last step and this one, leading to what they own."""
        log = [f for f in self.w.study.events if f.topic in ("event.backward", "event.step")]
        subjects = {f.id: subject for subject, f in self.backwards.items()}
        for optimizer in self.w.study.optimizers:
            label, kind = Text((name(optimizer),)), Text((name(optimizer, "class"),))
            key = self._node(f"opt {optimizer.subject}", "optimizer", label, kind, self.last + 2)
            step = next((f for f in log if f.topic == "event.step" and f.subject == optimizer.subject), None)
            for backward in _feeding(log, step) if step is not None else ():
                self._arrow(f"loss {subjects.get(backward.id, '')}", key)
            for owner in optimizer["moves"] or []:
                moved = self.w.say("flow.updates", owner=Ref(owner, optimizer.id, "name", owner))
                for node in [n for n in self.nodes if n == f"net {owner}" or n.startswith(f"net {owner}.")]:
                    self._arrow(key, node, moved, back=True)


def _feeding(log: list[Fact], step: Fact) -> list[Fact]:
    """The backward passes of the first round before a step that reach what it owns."""
    earlier = [f for f in log if (f["seq"] or 0) < (step["seq"] or 0)]
    before = [f for f in earlier if f.topic == "event.backward"]
    since = max((f["seq"] for f in earlier if f.topic == "event.step"), default=0)
    near = [f for f in before if f["seq"] > since]
    return [f for f in (near or before[-1:]) if set(step["owners"] or {}) & set(f["grads"] or {})] or near
