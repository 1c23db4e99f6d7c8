"""A child that fork made, as multiprocessing makes children on Linux up to CPython 3.13, has none of its parent's threads and works all the
same."""

import multiprocessing
import pickle
import signal
import time

import numpy as np
import pytest

import per_inject
from conftest import MODELS

MLP = MODELS / "mlp_relu.ts17.onnx"

pytestmark = [
    pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="this system has no fork"),
    pytest.mark.filterwarnings("ignore::per_inject.PerInjectWarning", "ignore::DeprecationWarning"),
]

#: Seconds after which a child hangs. Each of them is done within one or two on an idle machine.
LONG = 90


def in_child(work):
    """What `work` gives or raises in a child that fork makes."""
    context = multiprocessing.get_context("fork")
    here, there = context.Pipe(duplex=False)

    def send():
        try:
            there.send((True, work()))
        except BaseException as error:
            there.send((False, error))

    child = context.Process(target=send)
    child.start()
    there.close()
    try:
        assert here.poll(LONG), "the child hangs"
        is_done, result = here.recv()
    finally:
        child.kill()
        child.join()
    if is_done:
        return result
    raise result


@pytest.fixture(scope="module", autouse=True)
def used_by_the_parent():
    """The parent has used the package, and its threads run."""
    per_inject.inject(MLP.read_bytes(), "relu", 1e-3)


def inject(path):
    return per_inject.inject(MLP, "relu", 3e-5, seed=1, output=path)


@pytest.mark.parametrize(
    "work",
    [
        lambda: per_inject.inspect(MLP),
        lambda: per_inject.inject(MLP.read_bytes(), "relu", 3e-5, seed=1),
        lambda: per_inject.plan(MLP, "relu", 3e-5, seed=1),
        lambda: per_inject.differentiate(MLP.read_bytes(), optimizer="adam"),
        lambda: per_inject.strip(per_inject.inject(MLP.read_bytes(), "relu", 3e-5)),
        lambda: per_inject.diff(MLP, MODELS / "mlp_relu.dyn.onnx"),
    ],
    ids=["inspect", "inject", "plan", "differentiate", "strip", "diff"],
)
def test_functions_give_in_a_child_what_they_give_in_the_parent(work):
    expected = work()
    assert in_child(work) == expected
    # In a child of a child, and in the parent afterwards.
    assert in_child(lambda: in_child(work)) == expected
    assert work() == expected


def test_a_file_is_written_in_a_child(tmp_path):
    in_child(lambda: inject(tmp_path / "child.onnx"))
    inject(tmp_path / "parent.onnx")
    assert (tmp_path / "child.onnx").read_bytes() == (tmp_path / "parent.onnx").read_bytes()


def weights(data, **options):
    trainer = per_inject.Trainer(MLP.read_bytes(), "relu", 1e-3, batch_size=32, seed=1, threads=1, **options)
    trainer.fit(data, epochs=2)
    return trainer.weights


@pytest.fixture(scope="module")
def mlp_arrays():
    given = np.load(MODELS / "mlp_relu.inputs.npz")
    generator = np.random.default_rng(0)
    return {
        "x": generator.standard_normal((96, *given["x"].shape[1:])).astype(np.float32),
        "y": generator.integers(0, 10, 96),
    }


def test_a_child_trains_to_the_bits_of_its_parent(mlp_arrays):
    """ONNX Runtime has an environment in the parent, and makes sessions with threads of their own in the child."""
    expected = weights(mlp_arrays)
    for found in (in_child(lambda: weights(mlp_arrays)), in_child(lambda: weights(mlp_arrays, ahead=3))):
        assert found.keys() == expected.keys()
        for name, values in expected.items():
            np.testing.assert_array_equal(found[name], values)


def test_models_run_in_a_child(mlp_arrays):
    feeds = {name: array[:8] for name, array in mlp_arrays.items()}

    def work():
        return per_inject.diff(MLP, MLP, run=True, inputs=feeds, threads=2)["run"]["agree"]

    assert work() is True
    assert in_child(work) is True


def test_ctrl_c_stops_a_run_in_a_child(mlp_arrays):
    def work():
        signal.setitimer(signal.ITIMER_REAL, 1.0)
        signal.signal(signal.SIGALRM, signal.default_int_handler)
        trainer = per_inject.Trainer(MLP.read_bytes(), batch_size=32, threads=1)
        started = time.perf_counter()
        with pytest.raises(KeyboardInterrupt):
            trainer.fit(mlp_arrays, epochs=1_000_000)
        return time.perf_counter() - started, sorted(trainer.weights)

    seconds, names = in_child(work)
    assert seconds < LONG / 2 and names == sorted(weights(mlp_arrays))


def test_a_refusal_comes_back_from_a_child(tmp_path):
    missing = tmp_path / "missing.onnx"
    with pytest.raises(per_inject.MissingFileError, match="missing.onnx") as caught:
        in_child(lambda: per_inject.inspect(missing))
    assert caught.value.filename == str(missing)
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


def test_a_pool_of_children_works(mlp_arrays):
    with multiprocessing.get_context("fork").Pool(3) as pool:
        results = pool.map_async(per_inject.inspect, [str(MLP)] * 12).get(timeout=LONG)
    assert results == [per_inject.inspect(str(MLP))] * 12
