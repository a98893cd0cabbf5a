from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sccello_tools.ontology.text import bag_of, bare_markers_positive, content_of, words_of


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("T cells", "t cell"),
        ("T.cells", "t cell"),
        ("T_cell", "t cell"),
        ("Tcells", "t cell"),
        ("B-lymphocytes", "b cell"),
        ("lymphocytes", "lymphocyte"),
        ("NK cells", "natural killer cell"),
        ("γδ T cells", "gamma delta t cell"),
        ("αβ T cell", "alpha beta t cell"),
        ("CD4-positive, alpha-beta T cell", "cd4+ alpha beta t cell"),
        ("CD14+CD16+ monocyte", "cd14+ cd16+ monocyte"),
        ("CD14++CD16- monocyte", "cd14++ cd16- monocyte"),
        ("CD27-.B.cell", "cd27- b cell"),
        ("CD27⁻ B cell", "cd27- b cell"),
        ("CD1C-CD141- DC", "cd1c- cd141- dendritic cell"),
        ("MARCOneg.macrophage", "marco- macrophage"),
        ("MARCOpos macrophage", "marco+ macrophage"),
        ("CD56bright NK", "cd56~bright natural killer"),
        ("CD56-bright natural killer cell", "cd56~bright natural killer cell"),
        ("CD14-low, CD16-positive monocyte", "cd14~low cd16+ monocyte"),
        ("CD16-mDC", "cd16 mdc"),  # a hyphen, not a sign
        ("T-helper 1 cell", "t helper 1 cell"),
        ("type II pneumocytes", "type 2 pneumocyte"),
        ("alveolar type I cell", "alveolar type 1 cell"),
        ("class I", "class i"),
        ("Müller glia", "mueller glial cell"),
        ("glia cell", "glial cell"),
        ("lens fibres", "len fiber"),
        ("Wharton's jelly", "wharton jelly"),
        ("bodies", "body"),
        ("process", "process"),
        ("islets of Langerhans", "islet of langerhan"),
        ("Ｔ cell", "t cell"),
        ("", ""),
        ("+ -", ""),
    ],
)
def test_words(text, words):
    assert " ".join(words_of(text)) == words


@given(st.text(max_size=40))
@settings(deadline=None)
def test_any_text_has_words_and_case_and_space_do_not_count(text):
    words = words_of(text)
    assert all(words)
    assert words_of(f"  {text} ") == words
    assert "cell" not in content_of(words)
    assert sorted(bag_of(words)) == list(bag_of(words))


def test_bags_forget_order_and_small_words():
    assert bag_of(words_of("fibroblast of lung")) == bag_of(words_of("Lung fibroblasts"))
    assert content_of(words_of("naive B cell")) == ("naive", "b")


def test_bare_markers():
    assert bare_markers_positive(words_of("CD4 T cell")) == ("cd4+", "t", "cell")
    assert bare_markers_positive(words_of("CD4- T cell")) == ("cd4-", "t", "cell")
