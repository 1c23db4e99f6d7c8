"""Fixtures: each gives the function of the same name from a module beside this file."""

import pytest

import command
import corpus as wheels
import injection
import models
import ort


@pytest.fixture(scope="session")
def per_inject():
    """`per_inject(*args, check=True)` runs the binary."""
    return command.per_inject


@pytest.fixture(scope="session")
def inject():
    """`inject(model, *args)` is the injected model, checked by onnx, with its report."""
    return injection.inject


@pytest.fixture(scope="session")
def reference():
    """`reference("bn_resnet8.ts17")` is a model of models/ with its inputs and PyTorch's gradients."""
    return models.reference


@pytest.fixture(scope="session")
def feeds():
    """`feeds("bn_resnet8.ts17")` are the inputs x and y of a model of models/."""
    return lambda name: models.reference(name).feeds


@pytest.fixture(scope="session")
def session():
    """`session(path_or_bytes, optimisation="all")` is a stock ONNX Runtime session on one thread."""
    return ort.session


@pytest.fixture(scope="session")
def gradients():
    """`gradients(model, feeds, parameters=None)` is one step of ONNX Runtime's training API."""
    return ort.gradients


@pytest.fixture(scope="session")
def corpus():
    """`corpus()` are the paths of every model of both onnx wheels."""
    return wheels.corpus


@pytest.fixture(scope="session")
def node_test_data():
    """`node_test_data(path)` are the data sets of one of ONNX's operator tests."""
    return wheels.node_test_data
