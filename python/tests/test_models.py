"""Every function takes each kind of model and gives what the program gives, byte for byte."""

import json
import pathlib

import numpy as np
import onnx
import pytest

import per_inject
from conftest import MODELS, program

MLP = MODELS / "mlp_relu.ts17.onnx"
ELU = MODELS / "cnn11_elu.ts17.onnx"

# Keyword arguments and the same on the command line.
INJECTIONS = [
    (MLP, {"layers": "relu", "coef": 3e-5}, ["--layers", "relu", "--coef", "3e-5"]),
    (MLP, {"layers": "all,!#1", "coef": 1 / 3, "estimator": "exact"}, ["--layers", "all,!#1", "--coef", "0.3333333333333333", "--estimator", "exact"]),
    (
        MLP,
        {"layers": "relu", "coef": {None: 1e-4, "#1": np.float64(3e-5)}, "seed": 7, "outputs": ["task", "layers"], "coef_input": True},
        ["--layers", "relu", "--coef", "1e-4", "--coef", "#1=3e-5", "--seed", "7", "--outputs", "task,layers", "--coef-input"],
    ),
    (
        MLP,
        {"layers": "relu", "as_output": True, "view": "flatten", "reduction": "sum", "at": "pre", "slices": 64, "share_slices": True},
        ["--layers", "relu", "--as-output", "--view", "flatten", "--reduction", "sum", "--at", "pre", "--slices", "64", "--share-slices"],
    ),
    (
        ELU,
        {"layers": "elu", "coef": 1e-3, "for_": "ort-training", "estimator": "exact", "strict": True},
        ["--layers", "elu", "--coef", "1e-3", "--for", "ort-training", "--estimator", "exact", "--strict"],
    ),
    (ELU, {"layers": "none", "for_": "ort-training"}, ["--layers", "none", "--for", "ort-training"]),
]

pytestmark = pytest.mark.filterwarnings("ignore::per_inject.PerInjectWarning")


def test_what_is_tested_is_the_installed_wheel():
    package = pathlib.Path(per_inject.__file__)
    assert "site-packages" in package.parts, package
    assert (package.parent / "py.typed").exists()


@pytest.mark.parametrize("model, options, arguments", INJECTIONS)
def test_inject_gives_the_bytes_that_the_program_writes(kind, tmp_path, model, options, arguments):
    program(model, *arguments, "-o", tmp_path / "program.onnx")
    expected = (tmp_path / "program.onnx").read_bytes()
    assert expected != model.read_bytes()
    given = kind.give(model)
    assert kind.take(per_inject.inject(given, **options, **kind.options())) == kind.same(expected)


@pytest.mark.parametrize("model, options, arguments", INJECTIONS)
def test_plan_gives_the_report_of_a_dry_run(model, options, arguments):
    expected = json.loads(program(model, *arguments, "--dry-run", "--json").stdout)
    assert per_inject.plan(model, **options) == expected
    in_memory = per_inject.plan(model.read_bytes(), **options)
    assert in_memory.pop("model") != expected.pop("model"), "a model in memory has no path"
    assert in_memory == expected


def test_strip_gives_the_original_back(kind, tmp_path):
    injected = tmp_path / "injected.onnx"
    program(MLP, "--layers", "relu", "--coef", "3e-5", "-o", injected)
    program(injected, "--layers", "relu", "--coef", "1e-4", "-o", injected)
    once = kind.take(per_inject.strip(kind.give(injected), **kind.options()))
    assert once not in (kind.same(MLP.read_bytes()), kind.same(injected.read_bytes()))
    assert kind.take(per_inject.strip(kind.give(injected), all=True, **kind.options())) == kind.same(MLP.read_bytes())


@pytest.mark.parametrize(
    "options, arguments",
    [
        ({}, []),
        (
            {"optimizer": "adamw", "beta1": 0.8, "weight_decay": 1e-2, "group": "name:*bias=lr:0.1", "clip_norm": 0.25},
            ["--optimizer", "adamw", "--beta1", "0.8", "--weight-decay", "0.01", "--group", "name:*bias=lr:0.1", "--clip-norm", "0.25"],
        ),
        (
            {"optimizer": "momentum", "momentum": 0.5, "accumulate": True, "gradient_norm": True, "loss_scale": 2},
            ["--optimizer", "momentum", "--momentum", "0.5", "--accumulate", "--gradient-norm", "--loss-scale", "2"],
        ),
    ],
)
def test_differentiate_gives_the_bytes_that_the_program_writes(kind, tmp_path, options, arguments):
    program("differentiate", MLP, *arguments, "-o", tmp_path / "program.onnx")
    expected = (tmp_path / "program.onnx").read_bytes()
    assert kind.take(per_inject.differentiate(kind.give(MLP), **options, **kind.options())) == kind.same(expected)


def without_path(report):
    return {key: value for key, value in report["model"].items() if key not in ("path", "bytes")}


def test_inspect_gives_the_programs_report(kind):
    options, arguments = {"freeze": "re:.*bias"}, ["--freeze", "re:.*bias"]
    expected = json.loads(program("inspect", ELU, "--json", *arguments).stdout)
    found = per_inject.inspect(kind.give(ELU), **options)
    if kind.name in ("str", "path"):
        assert found == expected
    else:
        assert {**found, "model": without_path(found)} == {**expected, "model": without_path(expected)}


def test_diff_gives_the_programs_report(kind, tmp_path):
    program(MLP, "--layers", "relu", "--coef", "3e-5", "-o", tmp_path / "injected.onnx")
    expected = json.loads(program("diff", MLP, tmp_path / "injected.onnx", "--ignore", "docs,shapes", "--format", "json").stdout)
    found = per_inject.diff(kind.give(MLP), kind.give(tmp_path / "injected.onnx"), ignore=["docs", "shapes"])
    assert not found["equal"]
    for side in ("a", "b"):
        found[side], expected[side] = without_path({"model": found[side]}), without_path({"model": expected[side]})
    assert found == expected
    assert per_inject.diff(kind.give(MLP), MLP)["equal"]


def test_a_message_of_any_class_comes_back_as_one():
    class Mine:
        def __init__(self, data):
            self.data = data

        def SerializeToString(self):
            return self.data

        @classmethod
        def FromString(cls, data):
            return cls(data)

    result = per_inject.inject(Mine(MLP.read_bytes()), "relu", 3e-5)
    assert type(result) is Mine
    assert result.data == per_inject.inject(MLP.read_bytes(), "relu", 3e-5)


def test_the_package_imports_neither_onnx_nor_onnxruntime_nor_numpy():
    import subprocess
    import sys

    script = (
        "import sys, per_inject\n"
        f"data = open({str(MLP)!r}, 'rb').read()\n"
        "per_inject.strip(per_inject.inject(data, 'relu', 3e-5, estimator='exact'))\n"
        "print([name for name in ('onnx', 'onnxruntime', 'numpy') if name in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert run.stdout == "[]\n", run.stdout + run.stderr


def test_external_data_goes_with_a_file(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    model = onnx.load(MLP)
    onnx.save(model, tmp_path / "a" / "m.onnx", save_as_external_data=True, location="m.data", size_threshold=0)
    per_inject.inject(tmp_path / "a" / "m.onnx", "relu", 3e-5, output=tmp_path / "b" / "m.onnx")
    assert (tmp_path / "b" / "m.data").read_bytes() == (tmp_path / "a" / "m.data").read_bytes()


def test_the_output_may_be_the_model_itself(tmp_path):
    path = tmp_path / "m.onnx"
    path.write_bytes(MLP.read_bytes())
    assert per_inject.inject(path, "relu", 3e-5, output=path) == path
    assert path.read_bytes() == per_inject.inject(MLP.read_bytes(), "relu", 3e-5)


def test_variables_for_people_count_for_nothing(monkeypatch):
    expected = per_inject.inject(MLP.read_bytes(), "relu", 3e-5)
    monkeypatch.setenv("PER_INJECT_ESTIMATOR", "exact")
    monkeypatch.setenv("PER_INJECT_SEED", "7")
    assert per_inject.inject(MLP.read_bytes(), "relu", 3e-5) == expected
    monkeypatch.setenv("PER_INJECT_LAYERS", "relu")
    with pytest.raises(per_inject.UsageError, match="which layers"):
        per_inject.inject(MLP.read_bytes(), coef=3e-5)
