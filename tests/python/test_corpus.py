"""Every model of two onnx wheels, tapped and restored: 1,580 files of all operators, opsets 1 to 26, and every odd shape of a graph.

No numeric tolerance: what is compared are bytes and verdicts.
"""

import collections
import hashlib

import onnx
import pytest

import taps

# Of the 1,580 files; a change of any of these numbers is a change of behaviour.
FILES = 1580
TAPPED = 1368
NO_FLOAT_TENSOR = 201
NO_ONNX_OPERATORS = 11
# Two of the files are refused by the checker as they ship.
ACCEPTED_BEFORE = TAPPED - 2
SAMPLED = 1114


@pytest.fixture(scope="module")
def chosen(corpus):
    """A tap for every model that has a floating-point tensor."""
    found = [taps.choose(path) for path in corpus()]
    assert len(found) == FILES
    assert found.count(None) == NO_FLOAT_TENSOR
    return [tap for tap in found if tap]


@pytest.fixture(scope="module")
def tappable(chosen):
    return [tap for tap in chosen if tap.opset is not None]


def round_trip(folder, options):
    """Injects, checks and strips one model, as written and as onnx saves it.

    Returns what went wrong, and the verdicts of the checker before and after.
    """

    def of(tap):
        name = hashlib.sha256(str(tap.path).encode()).hexdigest()[:24]
        injected, stripped = folder / f"{name}.onnx", folder / f"{name}.stripped.onnx"
        run = taps.inject(tap, injected, *options, check=False)
        if run.returncode != 0:
            return f"{tap.path}: {taps.refusal(run)}", None, None
        said = taps.said("strip", injected, "-o", stripped)
        problem = None
        if stripped.read_bytes() != tap.path.read_bytes():
            problem = f"{tap.path}: strip gave back other bytes"
        elif "byte for byte" not in said:
            problem = f"{tap.path}: strip did not recognise the original: {said}"
        loaded = onnx.load(injected, load_external_data=False)
        verdicts = verdict(tap.model), verdict(loaded)
        injected.write_bytes(loaded.SerializeToString())
        taps.per_inject("strip", injected, "-o", stripped)
        if stripped.read_bytes() != tap.path.read_bytes():
            problem = problem or f"{tap.path}: other bytes after onnx saved the file"
        injected.unlink()
        stripped.unlink()
        return problem, *verdicts

    return of


def verdict(model):
    """What `onnx.checker` has against a model, shape inference being strict; empty when nothing."""
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        return str(error)
    return ""


def test_every_model_is_tapped_checked_and_restored_bit_for_bit_with_the_exact_estimator(tappable, tmp_path):
    assert len(tappable) == TAPPED >= 1300
    results = taps.in_parallel(round_trip(tmp_path, ["--estimator", "exact"]), tappable)
    problems = [problem for problem, _, _ in results if problem]
    assert not problems, "\n".join(problems[:20])
    accepted = [(tap, after) for tap, (_, before, after) in zip(tappable, results) if not before]
    assert len(accepted) == ACCEPTED_BEFORE
    worse = [f"{tap.path}: {after}" for tap, after in accepted if after]
    assert not worse, "\n".join(worse[:20])


def test_every_model_from_operator_set_nine_on_is_tapped_checked_and_restored_with_the_sampled_estimator(tappable, tmp_path):
    modern = [tap for tap in tappable if tap.opset >= 9]
    assert len(modern) == SAMPLED
    results = taps.in_parallel(round_trip(tmp_path, ["--slices", "16", "--seed", "7"]), modern)
    problems = [problem for problem, _, _ in results if problem]
    assert not problems, "\n".join(problems[:20])
    worse = [f"{tap.path}: {after}" for tap, (_, before, after) in zip(modern, results) if after and not before]
    assert not worse, "\n".join(worse[:20])


def test_before_operator_set_nine_the_sampled_estimator_says_what_it_lacks(tappable, tmp_path):
    old = [tap for tap in tappable if tap.opset < 9]
    assert len(old) == TAPPED - SAMPLED
    run = lambda tap: taps.refusal(taps.inject(tap, tmp_path / "out.onnx", check=False))
    for tap, sentence in zip(old, taps.in_parallel(run, old)):
        assert f"needs Erf, which ONNX has from operator set 9 on, and the model imports {tap.opset}" in sentence
        assert "--estimator exact does without" in sentence
    assert not (tmp_path / "out.onnx").exists()


def test_models_without_onnx_operators_are_refused_by_name_of_what_they_import(chosen, tmp_path):
    without = [tap for tap in chosen if tap.opset is None]
    found = collections.Counter()
    for tap in without:
        sentence = taps.refusal(taps.inject(tap, tmp_path / "out.onnx", "--estimator", "exact", check=False))
        assert "imports no version of ONNX's own operator set" in sentence
        [domain] = [o.domain for o in tap.model.opset_import]
        assert f'"{domain}"' in sentence
        found[domain] += 1
    assert found == {"ai.onnx.preview.training": 7, "ai.onnx.ml": 4}
    assert found.total() == NO_ONNX_OPERATORS
    assert not (tmp_path / "out.onnx").exists()


def test_models_without_a_floating_point_tensor_say_what_the_tensor_is_instead(corpus, tmp_path):
    """The first tensor of each of the 201 models is refused, for its type or because it is none."""
    known = ["only floating point can be regularised", "is no tensor", "imports no version of ONNX's own operator set"]
    reasons = collections.Counter()
    for path in [path for path in corpus() if taps.choose(path) is None]:
        model = onnx.load(path, load_external_data=False)
        tensor = next(name for node in model.graph.node for name in node.output if name)
        tap = taps.Tap(path, model, tensor)
        sentence = taps.refusal(taps.inject(tap, tmp_path / "out.onnx", "--estimator", "exact", check=False))
        [reason] = [reason for reason in known if reason in sentence]
        reasons[reason] += 1
    assert reasons == dict(zip(known, [183, 14, 4]))
    assert not (tmp_path / "out.onnx").exists()
