"""Gradients of random graphs against central differences in float64."""

import os

import numpy as np
import pytest

import gradient_corpus as problems
from random_graphs import random_graph

# How many graphs; nightly runs ask for more.
GRAPHS = int(os.environ.get("RANDOM_GRAPHS", 120))
PARTS = 8


@pytest.mark.parametrize("part", range(PARTS))
def test_gradients_of_random_graphs_are_those_of_differences(part):
    for seed in range(part, GRAPHS, PARTS):
        model, parameters = random_graph(seed)
        test = problems.NodeTest(f"seed {seed}", model, {}, {})
        one = problems.Problem(test, model, parameters, {})
        step = problems.step_graph(one)
        assert not isinstance(step, str), f"seed {seed}: {step}"
        error, where = problems.worst_error(one, problems.gradients(step, {}))
        # That of the node tests: a dozen smooth operators multiply what rounding does, by less than 100.
        assert error <= problems.TOLERANCE, f"seed {seed}: {where}"


def test_random_graphs_have_what_they_are_for():
    graphs = [random_graph(seed)[0].graph for seed in range(GRAPHS)]
    reads = [[name for node in graph.node for name in node.input] for graph in graphs]
    shared = sum(any(names.count(name) > 1 for name in names if name[0] in "pv") for names in reads)
    assert shared > GRAPHS // 2
    assert {node.op_type for graph in graphs for node in graph.node} >= {"MatMul", "Softmax", "Concat", "Div", "Transpose", "Mean", "ReduceMean"}
    assert np.mean([len(graph.node) for graph in graphs]) > 8
