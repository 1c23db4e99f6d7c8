"""Findings of a review, each as a test."""

import os
import subprocess

import numpy as np
import onnx

import command
import models
import nets


def test_strip_to_a_device_judges_the_bytes_that_it_sent(per_inject, tmp_path):
    plain, injected = tmp_path / "plain.onnx", tmp_path / "injected.onnx"
    plain.write_bytes(nets.trained(np.ones((1, 1), np.float32)).SerializeToString())
    per_inject(plain, "--layers", "tensor:h", "--as-output", "-o", injected)
    assert "byte for byte" in per_inject("strip", injected, "-o", "/dev/null").stdout


def test_strip_to_standard_output_reads_no_file_named_like_it(tmp_path, monkeypatch):
    plain, injected = tmp_path / "plain.onnx", tmp_path / "injected.onnx"
    plain.write_bytes(nets.trained(np.ones((1, 1), np.float32)).SerializeToString())
    command.per_inject(plain, "--layers", "tensor:h", "--as-output", "-o", injected)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "-").write_bytes(injected.read_bytes())
    run = subprocess.run([os.environ["PER_INJECT"], "strip", injected, "-o", "-"], capture_output=True, check=True)
    assert run.stdout == plain.read_bytes()
    assert b"byte for byte" in run.stderr


def test_an_integer_output_is_none_that_the_term_reaches(inject):
    node = onnx.helper.make_node
    nodes = [
        node("MatMul", ["x", "w"], ["z"]), node("Relu", ["z"], ["h"]), node("ReduceMean", ["h"], ["m"], keepdims=0),
        node("Identity", ["m"], ["y"]), node("Exp", ["m"], ["e"]), node("Cast", ["m"], ["count"], to=7),
    ]  # fmt: skip
    told = {}
    for more in [("e", nets.FLOAT, []), ("count", 7, [])]:
        made = nets.model(nodes, [("x", nets.FLOAT, [3, 2])], [("y", nets.FLOAT, []), more], {"w": np.ones((2, 2), np.float32)})
        report = inject(made, "--layers", "relu", "--coef", "1e-4", "--loss", "m").report
        told[more[0]] = any("the term reaches 2 outputs" in w for w in report["warnings"])
    assert told == {"e": True, "count": False}


def test_standard_input_is_the_model_whether_it_is_a_file_a_part_of_one_or_a_pipe(per_inject, tmp_path):
    model = models.reference("mlp_relu.ts17").path
    arguments = ["--layers", "relu", "--coef", "3e-5"]
    per_inject(model, *arguments, "-o", tmp_path / "expected.onnx")
    (tmp_path / "junk_first").write_bytes(b"junk" * 1000 + model.read_bytes())
    command = [os.environ["PER_INJECT"], "-", *arguments, "-o", "-"]
    given = {}
    for name, offset in [(model, 0), (tmp_path / "junk_first", 4000)]:
        with open(name, "rb", buffering=0) as file:
            file.seek(offset)
            given[offset] = subprocess.run(command, stdin=file, capture_output=True, check=True).stdout
    given["pipe"] = subprocess.run(command, input=model.read_bytes(), capture_output=True, check=True).stdout
    for how, data in given.items():
        assert data == (tmp_path / "expected.onnx").read_bytes(), how
    with open(os.devnull, "rb") as nothing:
        assert "it is empty" in subprocess.run(command, stdin=nothing, capture_output=True, text=True).stderr
    folder = os.open(tmp_path, os.O_RDONLY)
    assert "it is a folder" in subprocess.run(command, stdin=folder, capture_output=True, text=True).stderr
    os.close(folder)


def test_nothing_complains_when_nobody_reads_what_it_prints():
    model = models.reference("mlp_relu.ts17").path
    for arguments in [["completions", "bash"], ["man"], ["inspect", model], ["--help"], [model, "--layers", "relu", "--coef", "1e-5", "--dry-run"]]:
        reader, writer = os.pipe()
        os.close(reader)
        run = subprocess.run([os.environ["PER_INJECT"], *arguments], stdout=writer, stderr=subprocess.PIPE, text=True)
        os.close(writer)
        assert not run.stderr, arguments
