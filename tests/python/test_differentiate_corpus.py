"""Every gradient rule over ONNX's own operator tests, in float64 against central differences; gradient_corpus.py says how."""

import collections

import onnx
import pytest

import operators_page

EMPTY_ROWS = "a row of −∞ alone makes Softmax NaN before the expansion's Where drops it, and 0·NaN is NaN, in PyTorch too; Attention itself passes"
FLOAT_LENGTH = "the reference divides by scale·length − 1 where the specification and ONNX Runtime have the rounded length"

# Tests of registered operators that do not pass. All others have to.
SKIPPED = {
    "test_attention_4d_causal_padded_kv_bf16_expanded": EMPTY_ROWS,
    "test_attention_causal_boolmask_nan_robustness_expanded": EMPTY_ROWS,
    "test_attention_23_boolmask_fullymasked_row_nan_robustness_expanded": EMPTY_ROWS,
    "test_attention_4d_causal_nonpad_negative_offset_structural_empty_expanded": EMPTY_ROWS,
    "test_attention_23_fullymasked_qk_matmul_output_mode3_zero_expanded": EMPTY_ROWS,
    "test_attention_24_fullymasked_qk_matmul_output_mode3_zero_expanded": EMPTY_ROWS,
    "test_attention_24_qk_matmul_output_mode3_softmax_precision_expanded": EMPTY_ROWS,
    "test_attention_local_window_gqa_rank4_mask_expanded": EMPTY_ROWS,
    "test_resize_downsample_scales_cubic_align_corners": FLOAT_LENGTH,
    "test_resize_downsample_scales_linear_align_corners": FLOAT_LENGTH,
}

# Counted; a change is a change of behaviour.
PASSED = 1398


@pytest.fixture(scope="module")
def outcomes():
    """What became of each test."""
    return operators_page.outcomes()


def test_gradients_are_those_of_float64_differences(outcomes):
    those = operators_page.counted(outcomes)
    failed = [f"{o.name} ({o.opset}): {o.kind}: {o.detail}" for o in those if o.kind != "passed" and o.name not in SKIPPED]
    assert not failed, "\n".join(failed)
    assert sum(o.kind == "passed" for o in those) == PASSED


def test_operators_that_are_said_to_be_constant_are(outcomes):
    # No gradient was given, and differences are 0.
    constant = set(operators_page.listing()["constant"])
    found = {o.name for o in outcomes if o.kind == "constant"}
    assert {f"test_{name}" for name in ("ceil", "floor", "round", "sign", "hardmax_axis_0")} <= found
    assert {"Ceil", "Floor", "Round", "Sign", "Hardmax"} <= constant


def test_less_than_3_percent_are_skipped_and_none_of_these_passes(outcomes):
    those, kinds = operators_page.counted(outcomes), collections.defaultdict(set)
    for o in those:
        kinds[o.name].add(o.kind)
    assert sum(o.kind != "passed" for o in those) < 0.03 * len(those)
    stale = [name for name in SKIPPED if kinds[name] <= {"passed"}]
    assert not stale, f"these pass, or are gone: {stale}"


def test_every_operator_listed_is_tested(outcomes):
    tested, own = operators_page.tests_by_operator(outcomes), operators_page.own_cases()
    untested = [o["name"] for o in operators_page.listing()["operators"] if not tested[o["name"]] + own[o["name"]]]
    assert not untested


def test_the_page_of_operators_is_up_to_date(outcomes):
    assert operators_page.PAGE.read_text() == operators_page.page(outcomes), f"run {operators_page.__doc__.splitlines()[2].strip()}"


def test_operator_sets_are_those_of_onnx():
    history = [s for s in onnx.defs.get_all_schemas_with_history() if s.domain == ""]
    for o in operators_page.listing()["operators"]:
        versions = [s for s in history if s.name == o["name"]]
        # Gradients are written in operator sets 9 and later.
        assert o["since"] == max(9, min(s.since_version for s in versions)), o["name"]
        gone = [s.since_version for s in versions if s.deprecated and s is max(versions, key=lambda s: s.since_version)]
        assert o.get("until") == (gone[0] - 1 if gone else None), o["name"]
