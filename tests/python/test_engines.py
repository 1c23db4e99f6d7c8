"""Engines × models × losses: every step is PyTorch's, or the engine says which operator it does not run. docs/engines.md is the table."""

import pytest

import engines_page
from engines_page import ENGINES, KINDS, MODELS, PAGE


@pytest.mark.xdist_group("engines")
def test_the_table_of_engines_is_up_to_date_and_nothing_in_it_differs_from_pytorch():
    text = PAGE.read_text()
    assert engines_page.page(text) == text
    cells = {}
    for engine in ENGINES:
        try:
            cells |= {(engine, family, kind): engines_page.cell(engine, family, kind) for family in MODELS for kind in KINDS}
        except engines_page.NotBuiltIn:
            continue
    for key, cell in cells.items():
        print(*key, f"loss {cell.loss:.1e}, gradients {cell.gradient:.1e} {cell.refusal}")
        assert cell.agrees or cell.refusal, (key, cell)
    # The engine that everybody has runs all of them.
    assert all(cell.agrees for (engine, *_), cell in cells.items() if engine == "ort")
    assert "DIFFERS" not in text
