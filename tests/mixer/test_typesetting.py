"""Names as they are drawn: shaped, ordered, cut, no box for a script that a font covers."""

from __future__ import annotations

import unicodedata

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calliope.media import Plane
from calliope.mixer.fonts import FontBook
from calliope.mixer.graphemes import clusters
from calliope.mixer.typesetting import Run, Typesetter

NAMES = {
    "Latin": "Zoë Ångström",
    "Cyrillic": "Ада Лавлейс",
    "Greek": "Άννα Ωμέγα",
    "Arabic": "عمر الخيّام",
    "Hebrew": "אָדָה לב",
    "Devanagari": "अदिति क्षत्रिय",
    "Japanese": "山田 さくら",
    "Chinese": "李小龙",
    "Korean": "김민수",
    "Thai": "สุชาดา",
}
SIZES = (14, 18, 24, 40)


@pytest.fixture(scope="module")
def setter() -> Typesetter:
    return Typesetter(FontBook())


def _ink(line: Plane) -> Plane:
    """The columns and rows that hold ink."""
    rows, columns = np.flatnonzero(line.max(axis=1)), np.flatnonzero(line.max(axis=0))
    return line[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


@pytest.mark.parametrize("script", NAMES)
@pytest.mark.parametrize("height_px", SIZES)
def test_every_script_is_drawn_without_missing_glyphs(
    setter: Typesetter, script: str, height_px: int
) -> None:
    fonts = FontBook()
    for run in setter.runs(clusters(NAMES[script]), 0):
        font = fonts.open(run.face, height_px)
        missing = bytes(font.getmask("\uffff"))
        for character in run.text:
            if unicodedata.category(character) in ("Lu", "Ll", "Lo"):
                assert bytes(font.getmask(character)) != missing, character
    line = setter.set_line(NAMES[script], height_px)
    assert line.shape[0] == height_px
    assert line.dtype == np.uint8
    assert line.max() > 150


def test_arabic_letters_join(setter: Typesetter) -> None:
    joined = setter.set_line("ععع", 40)
    isolated = setter.set_line("ع", 40)
    assert joined.shape[1] < 2.6 * isolated.shape[1]
    gaps = np.flatnonzero(_ink(joined).max(axis=0) == 0)
    assert not len(gaps)


def test_a_devanagari_conjunct_is_one_shape(setter: Typesetter) -> None:
    conjunct = setter.set_line("क्ष", 40)
    assert conjunct.shape[1] < 0.8 * setter.set_line("कष", 40).shape[1]


def test_a_vowel_sign_stands_before_the_consonant_it_follows(setter: Typesetter) -> None:
    sign_first = _ink(setter.set_line("कि", 40))
    consonant = _ink(setter.set_line("क", 40))
    wide = consonant.shape[1] - 2
    assert _correlation(sign_first[:, -wide:], consonant[:, -wide:]) > 0.6
    assert sign_first.shape[1] > consonant.shape[1]


def _correlation(one: Plane, other: Plane) -> float:
    h = min(one.shape[0], other.shape[0])
    a, b = one[-h:].astype(float).ravel(), other[-h:].astype(float).ravel()
    return float(np.corrcoef(a, b)[0, 1])


def _families(setter: Typesetter, name: str, base: int) -> list[tuple[str, str]]:
    return [(run.text, run.face.family) for run in setter.runs(clusters(name), base)]


def test_hebrew_after_latin_stands_on_the_right(setter: Typesetter) -> None:
    assert [text for text, _ in _families(setter, "Ada אבג", 0)] == ["Ada ", "אבג"]


def test_latin_after_arabic_stands_on_the_left(setter: Typesetter) -> None:
    assert [text for text, _ in _families(setter, "عمر Omar", 1)] == ["Omar", "عمر "]


def test_mixed_lines_are_the_two_halves_side_by_side(setter: Typesetter) -> None:
    mixed = setter.set_line("Ada אבג", 40)
    latin = setter.set_line("Ada", 40)
    hebrew = setter.set_line("אבג", 40)
    assert np.array_equal(mixed[:, : latin.shape[1]], latin)
    assert np.array_equal(_ink(mixed[:, -hebrew.shape[1] :]), _ink(hebrew))


@pytest.mark.parametrize("name", NAMES.values())
@pytest.mark.parametrize("max_width_px", [20, 45, 80])
def test_a_cut_name_fits_and_fills(setter: Typesetter, name: str, max_width_px: int) -> None:
    whole = setter.set_line(name * 3, 18)
    cut = setter.set_line(name * 3, 18, max_width_px)
    assert cut.shape[1] <= max_width_px < whole.shape[1]
    assert cut.max() > 150
    assert cut.shape[1] > max_width_px - 20


def test_the_ellipsis_of_a_latin_name_is_on_the_right(setter: Typesetter) -> None:
    dots = _ink(setter.set_line("…", 24))
    cut = _ink(setter.set_line("Adelheid Wilhelmine", 24, 100))
    assert np.array_equal(cut[-dots.shape[0] :, -dots.shape[1] :][-2:], dots[-2:])


def test_the_ellipsis_of_an_arabic_name_is_on_the_left(setter: Typesetter) -> None:
    (first, *_) = setter.runs([*clusters("عمر الخيام"), "…"], 1)
    assert first.text.endswith("…")
    cut = setter.set_line("عمر الخيام عمر الخيام", 24, 100)
    left = cut[:, :12]
    assert left.max() > 150
    assert not left[: 24 // 2].any()  # dots lie on the baseline, letters rise above it


def test_a_name_is_cut_between_clusters_and_not_after_a_blank(
    setter: Typesetter, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[list[str]] = []
    runs = setter.runs

    def watch(pieces: list[str], base: int) -> list[Run]:
        tried.append(pieces)
        return runs(pieces, base)

    monkeypatch.setattr(setter, "runs", watch)
    name = "क्षि त्रि न्दे क्षि त्रि न्दे"
    setter.set_line(name, 18, 40)
    whole = clusters(name)
    assert len(tried) > 2
    for pieces in tried[1:]:
        *kept, end = pieces
        assert end == "…"
        assert kept == whole[: len(kept)]
        assert not kept or not kept[-1].isspace()


@pytest.mark.parametrize("max_width_px", [-3, 0, 1, 4])
def test_where_no_ellipsis_fits_the_line_is_blank(setter: Typesetter, max_width_px: int) -> None:
    line = setter.set_line("Wilhelmine", 40, max_width_px)
    assert line.shape == (40, 1)
    assert not line.any()


@pytest.mark.parametrize("height_px", SIZES)
def test_all_names_of_a_size_share_a_baseline(setter: Typesetter, height_px: int) -> None:
    feet = {
        int(np.flatnonzero(setter.set_line(letter, height_px).max(axis=1) > 128)[-1])
        for letter in "HÉНΔא"  # letters that stand on the line
    }
    assert len(feet) == 1


def test_a_letter_is_kept_when_no_font_has_its_mark(setter: Typesetter) -> None:
    alone = setter.set_line("a", 24)
    marked = setter.set_line("a\U0001e2ec\U0001e944", 24)
    assert np.array_equal(alone, marked)


def test_what_no_font_has_is_left_out_and_never_a_box(setter: Typesetter) -> None:
    assert np.array_equal(setter.set_line("Ada\U000f1234", 24), setter.set_line("Ada", 24))
    assert np.array_equal(setter.set_line("\U000f1234", 24), setter.set_line("?", 24))


def test_a_face_that_freetype_refuses_is_replaced_by_the_next(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fonts = FontBook()
    first = fonts.face_for("ع", None, "zh")
    open_face = fonts.open

    def refuse(face: object, size_px: int) -> object:
        if face == first:
            raise OSError("broken file")
        return open_face(face, size_px)  # type: ignore[arg-type]

    monkeypatch.setattr(fonts, "open", refuse)
    assert Typesetter(fonts).set_line("عمر", 24).max() > 150
    assert fonts.face_for("ع", None, "zh") != first


def test_without_shaping_names_are_still_drawn_and_ordered() -> None:
    plain = Typesetter(FontBook(shaping=False))
    shaped = Typesetter(FontBook())
    for name in NAMES.values():
        assert plain.set_line(name, 24, 120).max() > 150
    hebrew = "אבג"  # needs no joining: turned by hand it is what shaping makes
    assert np.array_equal(_ink(plain.set_line(hebrew, 24)), _ink(shaped.set_line(hebrew, 24)))


_LETTERS = "aßЖΩعבקक्ष山さ김น้🎉1 (.-\u200d\u0301\u0303\U000f1234\n\t"


@settings(max_examples=60, deadline=None)
@given(
    st.text(_LETTERS, max_size=24) | st.text(max_size=12),
    st.integers(1, 60),
    st.none() | st.integers(1, 120),
)
def test_any_text_gives_a_line_of_the_asked_size(
    setter: Typesetter, text: str, height_px: int, max_width_px: int | None
) -> None:
    line = setter.set_line(text, height_px, max_width_px)
    assert line.shape[0] == height_px
    assert line.shape[1] >= 1
    if max_width_px is not None:
        assert line.shape[1] <= max_width_px
