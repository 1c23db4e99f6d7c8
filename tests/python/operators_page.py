"""docs/operators.md, from what `per-inject operators` lists and what the tests of gradients counted.

    PER_INJECT=target/debug/per-inject .venv/bin/python tests/python/operators_page.py

writes it anew.
"""

from __future__ import annotations

import collections
import functools
import json
import os
import pathlib
import re
from concurrent.futures import ProcessPoolExecutor

import gradient_corpus as problems
from command import per_inject
from gradient_cases import CASES as GRADIENT_CASES
from lowering_cases import CASES
from test_differentiate_flow import CASES as FLOW_CASES

PAGE = pathlib.Path(__file__).resolve().parents[2] / "docs" / "operators.md"

HEAD = """\
# Operators that `differentiate` knows

Written by `tests/python/operators_page.py`; a test fails where it is out of date. `per-inject operators` prints the same list.

Every number is a count of tests that pass. *Node tests* are ONNX's own operator tests (those in the wheel of onnx 1.16.2, and what onnx 1.23.2
generates where the test or a version of an operator is new) whose graph holds the operator: each is brought to float64, all its
float inputs are trained, a random weighting of all its float outputs is the loss, and the gradients of the step graph are compared with
central differences, to 1e-6 of the largest. *Own cases* are in `lowering_cases.py` and `gradient_cases.py` of `tests/python` and run in float32
on ONNX Runtime, with a batch that is fixed and one that is open; those of If, Loop and Scan are in `test_differentiate_flow.py`.

{counted} node tests count, {passed} pass and {skipped} ({share}) are skipped, each with its reason in
`tests/python/test_differentiate_corpus.py`. Where an operator has no derivative the convention is PyTorch's, as far as PyTorch has one;
`tests/python/test_gradient_kinks.py` checks each.

Operators marked *spelt out* are written in operators that have rules before they are differentiated. Local functions are spelt out likewise.

| operator | operator sets | node tests | own cases | where it has no derivative | notes |
|---|---|---|---|---|---|
"""

TAIL = """
No gradient passes {constant}, nor any input or output that is an integer, a condition or a text. Differences over the same node tests say so
too.
"""


@functools.cache
def listing() -> dict:
    """What `per-inject operators` prints."""
    return json.loads(per_inject("operators", "--json").stdout)


def outcome(i: int) -> problems.Outcome:
    return problems.outcome(problems.node_tests()[i])


def outcomes() -> list[problems.Outcome]:
    """What became of each node test, in order."""
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(outcome, range(len(problems.node_tests())), chunksize=8))


def counted(all_of_them) -> list[problems.Outcome]:
    """Those that have to pass: all with something to differentiate, but for those of operators that are not registered, and of forms that are
    gone in the oldest operator set of any."""
    registered = {o["name"] for o in listing()["operators"]}
    named = lambda o: set(re.findall(r"there is no rule for (\w+)", o.detail))
    is_foreign = lambda o: o.kind == "refused" and (named(o) - registered or not registered & set(o.operators))
    oldest = min(o["since"] for o in listing()["operators"])
    is_gone = lambda o: o.kind == "refused" and o.opset < oldest
    return [o for o in all_of_them if o.kind in ("passed", "refused", "wrong") and not is_foreign(o) and not is_gone(o)]


def own_cases() -> collections.Counter:
    """Cases by the operators in them, and those of bodies by whose bodies they are."""
    found = [{n.op_type for n in case.nodes} for case in [*CASES, *GRADIENT_CASES] if case.opset >= 9]
    found += [_nodes_with_bodies(case.model().graph) for case in FLOW_CASES]
    return collections.Counter(op for operators in found for op in operators)


def _nodes_with_bodies(graph) -> set[str]:
    bodies = [(node.op_type, a.g) for node in graph.node for a in node.attribute if a.HasField("g")]
    return {op for op, _ in bodies}.union(*(_nodes_with_bodies(body) for _, body in bodies))


def tests_by_operator(all_of_them) -> collections.Counter:
    return collections.Counter(op for o in all_of_them if o.kind == "passed" for op in o.operators)


def page(all_of_them) -> str:
    of_nodes, own, those = tests_by_operator(all_of_them), own_cases(), counted(all_of_them)
    passed = sum(o.kind == "passed" for o in those)
    skipped = len(those) - passed
    text = HEAD.format(counted=len(those), passed=passed, skipped=skipped, share=f"{100 * skipped / len(those):.1f} %")
    for o in listing()["operators"]:
        opsets = f"{o['since']}–{o['until']}" if "until" in o else f"{o['since']}+"
        notes = "; ".join([*(["spelt out"] if o["how"] == "spelt-out" else []), *([o["notes"]] if "notes" in o else [])])
        cells = [o["name"], opsets, str(of_nodes[o["name"]]), str(own[o["name"]]), o.get("kinks", ""), notes]
        text += "| " + " | ".join(cells) + " |\n"
    return text + TAIL.format(constant=", ".join(listing()["constant"]))


if __name__ == "__main__":
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text(page(outcomes()))
