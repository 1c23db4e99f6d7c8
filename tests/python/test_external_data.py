"""Weights in files of their own stay where the model finds them, whatever folder the output goes to, and never leave it.

No tolerance: data files are compared by their bytes, weights by theirs.
"""

import os
import subprocess

import numpy as np
import onnx
import onnx.external_data_helper
import onnxruntime
import pytest
from onnx import helper, numpy_helper

import models
import taps
from command import per_inject

LOSS = ["--layers", "relu", "--coef", "3e-5", "--estimator", "exact"]


@pytest.fixture
def folders(tmp_path):
    """The model's folder and another one."""
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    there.mkdir()
    return here, there


def save(folder, location="weights.bin", **options):
    """The reference MLP with its weights in `location`, which may lie in a sub-folder."""
    model = onnx.load(models.reference("mlp_relu.ts17").path)
    (folder / location).parent.mkdir(parents=True, exist_ok=True)
    path = folder / "model.onnx"
    settings = {"size_threshold": 0, "location": location, **options}
    onnx.save_model(model, path, save_as_external_data=True, **settings)
    assert any(t.data_location == onnx.TensorProto.EXTERNAL for t in onnx.load(path, load_external_data=False).graph.initializer)
    return path


def relocated(path, location):
    """The same model with another location for every tensor, whatever lies there."""
    model = onnx.load(path, load_external_data=False)
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = location
    path.write_bytes(model.SerializeToString())
    return path


def weights(model):
    return {t.name: numpy_helper.to_array(t).tobytes() for t in model.graph.initializer if not t.name.startswith("per_inject/")}


WEIGHTS = weights(models.reference("mlp_relu.ts17").model)


def files(folder):
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


def snapshot(folder):
    return {name: ((folder / name).read_bytes(), (folder / name).stat().st_mtime_ns) for name in files(folder)}


def assert_loads_and_runs(path):
    assert weights(onnx.load(path)) == WEIGHTS
    reference = models.reference("mlp_relu.ts17")
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    [loss] = session.run(["loss"], reference.feeds)
    assert loss > reference.gradients().task_loss * 0.99


def strips_back(injected, original):
    """Strips beside the injected file and compares with the original."""
    back = injected.with_name("back.onnx")
    assert "byte for byte" in taps.said("strip", injected, "-o", back)
    assert back.read_bytes() == original.read_bytes()
    assert weights(onnx.load(back)) == WEIGHTS
    back.unlink()


def test_in_the_same_folder_the_data_stays_untouched(folders):
    here, _ = folders
    model = save(here)
    before = snapshot(here)
    said = taps.said(model, *LOSS, "-o", here / "per.onnx")
    assert "external data" not in said
    assert {name: snapshot(here)[name] for name in before} == before
    assert files(here) == ["model.onnx", "per.onnx", "weights.bin"]
    assert_loads_and_runs(here / "per.onnx")
    strips_back(here / "per.onnx", model)


def test_over_the_model_itself_the_data_stays_untouched(folders):
    here, _ = folders
    model = save(here)
    original, data = model.read_bytes(), (here / "weights.bin").read_bytes()
    per_inject(model, *LOSS, "-o", model)
    assert_loads_and_runs(model)
    per_inject("strip", model, "-o", model)
    assert (model.read_bytes(), (here / "weights.bin").read_bytes()) == (original, data)


def test_to_another_folder_the_data_is_copied_and_told(folders):
    here, there = folders
    model = save(here)
    before = snapshot(here)
    said = taps.said(model, *LOSS, "-o", there / "per.onnx")
    assert 'external data "weights.bin": copied' in said
    assert snapshot(here) == before
    assert files(there) == ["per.onnx", "weights.bin"]
    assert (there / "weights.bin").read_bytes() == (here / "weights.bin").read_bytes()
    assert (there / "weights.bin").stat().st_nlink == 1
    assert_loads_and_runs(there / "per.onnx")
    strips_back(there / "per.onnx", model)
    assert 'external data "weights.bin": was there already' in taps.said(model, *LOSS, "-o", there / "again.onnx")


def test_strip_to_another_folder_copies_the_data_too(folders):
    here, there = folders
    model = save(here)
    per_inject(model, *LOSS, "-o", here / "per.onnx")
    said = taps.said("strip", here / "per.onnx", "-o", there / "model.onnx")
    assert 'external data "weights.bin": copied' in said and "byte for byte" in said
    assert (there / "model.onnx").read_bytes() == model.read_bytes()
    assert weights(onnx.load(there / "model.onnx")) == WEIGHTS


def test_a_link_takes_no_space_and_the_report_says_who_refuses_it(folders):
    """onnx 1.23 takes hard links for an attack; ONNX Runtime loads them."""
    here, there = folders
    model = save(here)
    said = taps.said(model, *LOSS, "--external", "link", "-o", there / "per.onnx")
    assert "onnx 1.23 refuses to load data with two names; --external copy makes a copy" in said
    assert (there / "weights.bin").samefile(here / "weights.bin")
    for path in (there / "per.onnx", model):
        with pytest.raises(onnx.checker.ValidationError, match="hard"):
            onnx.load(path)
        onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])


def test_kept_data_is_missing_until_somebody_brings_it(folders):
    here, there = folders
    model = save(here)
    per_inject(model, *LOSS, "--external", "keep", "-o", there / "per.onnx")
    assert files(there) == ["per.onnx"]
    with pytest.raises(onnx.checker.ValidationError, match="weights.bin"):
        onnx.load(there / "per.onnx")
    (there / "weights.bin").write_bytes((here / "weights.bin").read_bytes())
    assert_loads_and_runs(there / "per.onnx")


def test_sub_folders_are_made_as_the_model_names_them(folders):
    here, there = folders
    model = save(here, "data/deep/weights.bin")
    per_inject(model, *LOSS, "-o", there / "per.onnx")
    assert files(there) == ["data/deep/weights.bin", "per.onnx"]
    assert_loads_and_runs(there / "per.onnx")
    strips_back(there / "per.onnx", model)


def test_every_tensor_may_have_a_file_of_its_own(folders):
    here, there = folders
    model = save_apart(here)
    per_inject(model, *LOSS, "-o", there / "per.onnx")
    assert files(there) == sorted([f for f in files(here) if f != "model.onnx"] + ["per.onnx"])
    assert len(files(there)) == 1 + len(WEIGHTS)
    assert_loads_and_runs(there / "per.onnx")


def save_apart(folder):
    path = folder / "model.onnx"
    model = onnx.load(models.reference("mlp_relu.ts17").path)
    onnx.save_model(model, path, save_as_external_data=True, all_tensors_to_one_file=False, size_threshold=0)
    return path


def test_the_data_of_constants_is_brought_along(folders):
    here, there = folders
    value = numpy_helper.from_array(np.arange(12, dtype=np.float32).reshape(4, 3) - 5, "")
    nodes = [
        helper.make_node("Constant", [], ["c"], value=value),
        helper.make_node("Add", ["x", "c"], ["s"]),
        helper.make_node("Relu", ["s"], ["y"]),
    ]
    x, y = (helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, [4, 3]) for n in "xy")
    model = helper.make_model(helper.make_graph(nodes, "g", [x], [y]), opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save_model(model, here / "model.onnx", save_as_external_data=True, location="c.bin", size_threshold=0, convert_attribute=True)
    assert files(here) == ["c.bin", "model.onnx"]
    per_inject(here / "model.onnx", "--layers", "relu", "--as-output", "-o", there / "per.onnx")
    assert files(there) == ["c.bin", "per.onnx"]
    loaded = onnx.load(there / "per.onnx")
    assert numpy_helper.to_array(loaded.graph.node[0].attribute[0].t).tobytes() == numpy_helper.to_array(value).tobytes()
    per_inject("strip", there / "per.onnx", "-o", there / "back.onnx")
    assert (there / "back.onnx").read_bytes() == (here / "model.onnx").read_bytes()


def refused(*args):
    run = per_inject(*args, check=False)
    assert run.stdout == ""
    return taps.refusal(run)


@pytest.mark.parametrize("policy", ["copy", "link", "keep"])
def test_locations_that_leave_the_folder_are_refused_as_onnx_refuses_them(folders, policy):
    here, there = folders
    outside = there / "weights.bin"
    model = save(here)
    outside.write_bytes((here / "weights.bin").read_bytes())
    (here / "weights.bin").unlink()
    (here / "out").symlink_to(there)
    (here / "file").symlink_to(outside)
    for location, reason in [
        (str(outside), "an absolute path"),
        ("../there/weights.bin", 'a path that climbs out of its folder with ".."'),
        ("out/weights.bin", "leads out of the model's folder through a symbolic link"),
        ("file", "leads out of the model's folder through a symbolic link"),
    ]:
        relocated(model, location)
        with pytest.raises(onnx.checker.ValidationError):
            onnx.load(model)
        before = snapshot(here), snapshot(there)
        for output in (here / "per.onnx", there / "per.onnx", model):
            said = refused(model, *LOSS, "--external", policy, "-o", output)
            assert reason in said and location in said
            assert "external data must be a regular file in the model's folder or below, as onnx demands" in said
        assert (snapshot(here), snapshot(there)) == before


def test_a_location_that_leaves_through_a_link_in_an_injected_file_is_refused_by_strip_too(folders):
    here, there = folders
    model = save(here)
    per_inject(model, *LOSS, "-o", model)
    relocated(model, "../weights.bin")
    before = snapshot(here)
    assert "climbs out of its folder" in refused("strip", model, "-o", there / "back.onnx")
    assert snapshot(here) == before and files(there) == []


def test_a_missing_data_file_is_told_where_it_need_not_move_and_refused_where_it_must(folders):
    here, there = folders
    model = save(here)
    (here / "weights.bin").unlink()
    said = taps.said(model, *LOSS, "-o", here / "per.onnx")
    assert '"weights.bin"' in said and "is not there" in said
    said = refused(model, *LOSS, "-o", there / "per.onnx")
    assert "weights.bin is not there" in said and "--external keep" in said
    assert files(there) == []
    said = taps.said(model, *LOSS, "--external", "keep", "-o", there / "per.onnx")
    assert "is not there" in said
    assert files(there) == ["per.onnx"]


def test_a_data_file_that_is_cut_off_is_not_carried(folders):
    here, there = folders
    model = save(here)
    data = (here / "weights.bin").read_bytes()
    (here / "weights.bin").write_bytes(data[:-1])
    said = refused(model, *LOSS, "-o", there / "per.onnx")
    assert "weights.bin is 1 byte shorter than that tensor says" in said
    assert files(there) == []


@pytest.mark.parametrize("name", ["weights.bin", "./weights.bin", "alias.bin"])
def test_the_data_file_is_never_the_output(folders, name):
    here, _ = folders
    model = save(here)
    (here / "alias.bin").symlink_to(here / "weights.bin")
    before = snapshot(here)
    said = refused(model, *LOSS, "-o", f"{here}/{name}")
    assert "it holds the model's own data" in said and "choose another name" in said
    assert snapshot(here) == before


def test_another_file_of_the_same_name_is_never_overwritten(folders):
    here, there = folders
    model = save(here)
    (there / "weights.bin").write_bytes(b"somebody else's")
    said = refused(model, *LOSS, "-o", there / "per.onnx")
    assert "is there already and another file" in said
    assert (there / "weights.bin").read_bytes() == b"somebody else's"
    assert files(there) == ["weights.bin"]


def test_a_model_from_a_pipe_must_say_that_its_data_stays(folders):
    here, there = folders
    model = save(here)
    run = lambda *args: subprocess.run(
        [os.environ["PER_INJECT"], "-", *LOSS, *map(str, args)], input=model.read_bytes(), capture_output=True
    )
    refusal = run("-o", there / "per.onnx")
    assert refusal.returncode == 1 and b"--external keep" in refusal.stderr
    assert files(there) == []
    kept = run("--external", "keep", "-o", here / "per.onnx")
    assert kept.returncode == 0, kept.stderr
    assert_loads_and_runs(here / "per.onnx")
    piped = run("-o", "-")
    assert piped.returncode == 0, piped.stderr
    assert piped.stdout == (here / "per.onnx").read_bytes()
