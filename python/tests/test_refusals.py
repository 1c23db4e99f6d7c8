"""A refusal is an exception with the sentence of the program, of a class that Python's own handlers catch; nothing panics."""

import errno
import pickle
import re

import pytest

import per_inject
from conftest import MODELS, program
from per_inject._keywords import in_python

MLP = MODELS / "mlp_relu.ts17.onnx"


def sentence(*arguments):
    """What the program prints when it refuses, on one line, in the words of Python; and its exit code."""
    run = program(*arguments, check=False)
    text = run.stderr.decode()
    text = re.split(r"\n\nUsage:|\n\nFor more information", text)[0]
    return in_python(re.sub(r"^(error:|×)\s*", "", text.strip())), run.returncode


@pytest.mark.parametrize(
    "options, arguments",
    [
        ({"layers": "rellu", "coef": 1}, ["--layers", "rellu", "--coef", "1"]),
        ({"layers": "relu"}, ["--layers", "relu"]),
        ({"layers": "relu", "coef": -1}, ["--layers", "relu", "--coef", "-1"]),
        ({"layers": "relu", "coef": float("nan")}, ["--layers", "relu", "--coef", "nan"]),
        ({"layers": "relu", "coef": 3e5}, ["--layers", "relu", "--coef", "3e5"]),
        ({"layers": "relu", "coef": {"tanh": 1}}, ["--layers", "relu", "--coef", "tanh=1.0"]),
        ({"layers": "relu", "coef": 1, "estimator": "exakt"}, ["--layers", "relu", "--coef", "1", "--estimator", "exakt"]),
        ({"layers": "relu", "coef": 1, "slices": 0}, ["--layers", "relu", "--coef", "1", "--slices", "0"]),
        ({"layers": "relu", "coef": 1, "slices": -1}, ["--layers", "relu", "--coef", "1", "--slices", "-1"]),
        ({"layers": "relu", "coef": 1, "loss": "logitz"}, ["--layers", "relu", "--coef", "1", "--loss", "logitz"]),
        ({"layers": "relu", "coef": 1, "form": "gradient"}, ["--layers", "relu", "--coef", "1", "--form", "gradient"]),
        ({"coef": 1}, ["--coef", "1"]),
    ],
)
def test_inject_refuses_in_the_programs_words(tmp_path, options, arguments):
    said, code = sentence(MLP, *arguments, "-o", tmp_path / "out.onnx")
    with pytest.raises(per_inject.PerInjectError) as caught:
        per_inject.inject(MLP, **options, output=tmp_path / "out.onnx")
    assert str(caught.value) == said
    assert type(caught.value) is {1: per_inject.RefusedError, 2: per_inject.UsageError}[code]
    assert isinstance(caught.value, ValueError)
    assert not (tmp_path / "out.onnx").exists()


def test_other_commands_refuse_in_the_programs_words(tmp_path):
    out = tmp_path / "out.onnx"
    calls = [
        (lambda: per_inject.strip(MLP, output=out), ["strip", MLP, "-o", out]),
        (lambda: per_inject.inspect(MLP, wrt="nix"), ["inspect", MLP, "--wrt", "nix"]),
        (lambda: per_inject.differentiate(MLP, output=out, group="nix"), ["differentiate", MLP, "-o", out, "--group", "nix"]),
        (lambda: per_inject.differentiate(MLP, output=out, opset=3), ["differentiate", MLP, "-o", out, "--opset", "3"]),
        (lambda: per_inject.diff(MLP, MLP, seed=1), ["diff", MLP, MLP, "--seed", "1"]),
        (lambda: per_inject.diff(MLP, MLP, ignore="everything"), ["diff", MLP, MLP, "--ignore", "everything"]),
    ]
    for call, arguments in calls:
        said, _ = sentence(*arguments)
        with pytest.raises(ValueError) as caught:
            call()
        assert str(caught.value) == said


def test_what_the_system_refuses_is_an_os_error(tmp_path):
    missing = tmp_path / "missing.onnx"
    said, _ = sentence("inspect", missing)
    with pytest.raises(OSError) as caught:
        per_inject.inspect(missing)
    assert isinstance(caught.value, per_inject.AccessError)
    assert isinstance(caught.value, FileNotFoundError)
    assert caught.value.errno == errno.ENOENT
    assert caught.value.filename == str(missing)
    assert str(caught.value) == said
    for output in (tmp_path / "no" / "such" / "folder.onnx", tmp_path):
        said, _ = sentence(MLP, "--layers", "relu", "--coef", "1", "-o", output)
        with pytest.raises(OSError) as caught:
            per_inject.inject(MLP, "relu", 1, output=output)
        assert str(caught.value) == said
        assert caught.value.filename == str(output)
    with pytest.raises(OSError, match="which ort names") as caught:
        per_inject.diff(MLP, MLP, run=True, ort=tmp_path)
    assert caught.value.filename == str(tmp_path)


def test_an_exception_goes_to_another_process_and_back(tmp_path):
    with pytest.raises(OSError) as caught:
        per_inject.inspect(tmp_path / "missing.onnx")
    before, after = caught.value, pickle.loads(pickle.dumps(caught.value))
    assert type(after) is type(before) is per_inject.MissingFileError
    assert (str(after), after.errno, after.filename) == (str(before), before.errno, before.filename)


def test_numbers_beyond_floats_are_refused():
    for coef in (10**400, {None: -(10**400)}):
        with pytest.raises(per_inject.UsageError, match="coef is"):
            per_inject.inject(MLP.read_bytes(), "relu", coef)
    with pytest.raises(per_inject.UsageError, match="momentum is"):
        per_inject.differentiate(MLP.read_bytes(), optimizer="momentum", momentum=10**400)


@pytest.mark.parametrize("data", [b"", b"nothing", b"\x08", b"\x08\x08\x3a\xff\xff\xff\xff\x0f", bytes(64), b"\x80\x04pickle"])
def test_bytes_that_are_no_model_are_refused(data):
    calls = [
        lambda: per_inject.inject(data, "relu", 1),
        lambda: per_inject.plan(data, "relu", 1),
        lambda: per_inject.strip(data),
        lambda: per_inject.differentiate(data),
        lambda: per_inject.inspect(data),
        lambda: per_inject.diff(data, data),
    ]
    refused = 0
    for call in calls:
        try:
            call()
        except per_inject.RefusedError as error:
            assert str(error)
            refused += 1
    # An empty graph can be looked at.
    assert refused >= 4


def test_damaged_models_are_refused_or_taken_and_never_panic():
    whole = MLP.read_bytes()
    for at in range(0, len(whole), max(1, len(whole) // 150)):
        for data in (whole[:at], whole[:at] + b"\xff" + whole[at + 1 :]):
            for call in (lambda: per_inject.inject(data, "relu", 1e-5, estimator="exact"), lambda: per_inject.inspect(data)):
                try:
                    call()
                except per_inject.PerInjectError:
                    pass


@pytest.mark.filterwarnings("ignore::per_inject.PerInjectWarning")
def test_arguments_of_wrong_types_are_type_errors():
    data = MLP.read_bytes()
    wrong = [
        lambda: per_inject.inject(3, "relu", 1),
        lambda: per_inject.inject(None, "relu", 1),
        lambda: per_inject.inject([data], "relu", 1),
        lambda: per_inject.inject(data, 3, 1),
        lambda: per_inject.inject(data, ["relu"], 1),
        lambda: per_inject.inject(data, "relu", "3e-5"),
        lambda: per_inject.inject(data, "relu", True),
        lambda: per_inject.inject(data, "relu", {3: 1.0}),
        lambda: per_inject.inject(data, "relu", 1, slices=2.5),
        lambda: per_inject.inject(data, "relu", 1, seed="1"),
        lambda: per_inject.inject(data, "relu", 1, strict="yes"),
        lambda: per_inject.inject(data, "relu", 1, outputs=[1]),
        lambda: per_inject.inject(MLP, "relu", 1, output=b"out.onnx"),
        lambda: per_inject.inject(data, "relu", 1, colour="red"),
        lambda: per_inject.differentiate(data, momentum="0.9"),
        lambda: per_inject.diff(data, MLP, run=True, dim=[("N", 1)]),
        lambda: per_inject.diff(data),
        lambda: per_inject.inspect(type(data)),
    ]
    for call in wrong:
        with pytest.raises(TypeError):
            call()


def test_a_place_for_the_result_and_the_kind_of_model_go_together(tmp_path):
    for edit in (lambda **o: per_inject.inject(MLP, "relu", 1, **o), lambda **o: per_inject.strip(MLP, **o), lambda **o: per_inject.differentiate(MLP, **o)):
        with pytest.raises(per_inject.UsageError, match="output=PATH"):
            edit()
    with pytest.raises(per_inject.UsageError, match="comes back"):
        per_inject.inject(MLP.read_bytes(), "relu", 1, output=tmp_path / "out.onnx")


def test_what_deserves_a_second_look_is_a_warning_at_the_callers_line():
    with pytest.warns(per_inject.PerInjectWarning, match="forward pass") as caught:
        per_inject.inject(MLP.read_bytes(), "relu", 3e-5)
    assert caught[0].filename == __file__
