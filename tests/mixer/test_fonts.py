"""Which face draws what, and what the font files are read to cover."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import ImageFont

from calliope.mixer.fonts import BUNDLED, FontBook, han_language, installed_font_files
from calliope.mixer.sfnt import Coverage, SfntError, read_faces

SCRIPTS = {
    "Latin": ("ß", "Noto Sans"),
    "Cyrillic": ("Ж", "Noto Sans"),
    "Greek": ("Ω", "Noto Sans"),
    "Arabic": ("ع", "Noto Sans Arabic"),
    "Hebrew": ("א", "Noto Sans Hebrew"),
    "Devanagari": ("क्ष", "Noto Sans Devanagari"),
    "Thai": ("น้", "Noto Sans Thai"),
    "Han": ("龍", "Noto Sans CJK SC"),
}


@pytest.fixture(scope="module")
def book() -> FontBook:
    return FontBook()


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_plain_sans_face_is_found_for_every_script(book: FontBook, script: str) -> None:
    cluster, family = SCRIPTS[script]
    face = book.face_for(cluster, None, "zh")
    assert face is not None
    assert (face.family, face.weight, face.italic) == (family, 400, False)


@pytest.mark.parametrize(
    ("name", "family"),
    [
        ("山田さくら", "Noto Sans CJK JP"),
        ("김民", "Noto Sans CJK KR"),
        ("李小龙", "Noto Sans CJK SC"),
    ],
)
def test_han_characters_take_the_shapes_of_the_name_they_stand_in(
    book: FontBook, name: str, family: str
) -> None:
    face = book.face_for("骨", None, han_language(name))
    assert face is not None
    assert face.family == family


def test_blanks_and_digits_stay_in_the_face_beside_them(book: FontBook) -> None:
    arabic = book.face_for("ع", None, "zh")
    assert book.face_for(" ", arabic, "zh") == arabic
    assert book.face_for("a", arabic, "zh") == book.primary


def test_a_character_that_no_font_has_gets_no_face(book: FontBook) -> None:
    assert book.face_for("\U000f1234", None, "zh") is None


def test_without_other_fonts_the_bundled_one_still_writes_three_scripts() -> None:
    alone = FontBook(lambda: [])
    assert all(alone.face_for(letter, None, "zh") == alone.primary for letter in "aßЖΩ")
    assert alone.face_for("א", None, "zh") is None


def test_a_discarded_face_is_not_chosen_again() -> None:
    book = FontBook()
    first = book.face_for("ع", None, "zh")
    assert first is not None
    book.discard(first)
    second = book.face_for("ع", None, "zh")
    assert second is not None
    assert second != first


def test_damaged_files_are_passed_over(tmp_path: Path) -> None:
    noise, cut, gone = tmp_path / "noise.ttf", tmp_path / "cut.ttf", tmp_path / "gone.ttf"
    noise.write_bytes(b"no font at all, though long enough")
    cut.write_bytes(BUNDLED.read_bytes()[:700])
    assert FontBook(lambda: [noise, cut, gone]).discover() == []


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=300), st.sampled_from([b"", b"ttcf", b"\0\1\0\0", b"OTTO"]))
def test_no_bytes_upset_the_reader(
    tmp_path_factory: pytest.TempPathFactory, data: bytes, tag: bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / "fuzz.ttf"
    path.write_bytes(tag + data)
    try:
        faces = read_faces(path)
    except SfntError:
        return
    assert all(len(face.coverage) >= 0 for face in faces)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 4000), st.binary(min_size=1, max_size=8)), max_size=6))
def test_no_damage_to_a_real_font_upsets_the_reader(
    tmp_path_factory: pytest.TempPathFactory, wounds: list[tuple[int, bytes]]
) -> None:
    data = bytearray(BUNDLED.read_bytes())
    for at, wound in wounds:
        data[at : at + len(wound)] = wound
    path = tmp_path_factory.getbasetemp() / "wounded.ttf"
    path.write_bytes(data)
    try:
        faces = read_faces(path)
    except SfntError:
        return
    assert all(len(face.coverage) >= 0 for face in faces)


def test_coverage_agrees_with_the_glyphs_that_are_drawn() -> None:
    """A character outside the coverage is drawn as the missing glyph, one inside is not."""
    face = read_faces(BUNDLED)[0]
    font = ImageFont.truetype(str(BUNDLED), 32, layout_engine=ImageFont.Layout.BASIC)
    missing = bytes(font.getmask("\uffff"))
    for code_point in [*range(0xA1, 0x600, 7), *range(0x1E00, 0x2200, 5), 0x4E00, 0xFFFD]:
        drawn = bytes(font.getmask(chr(code_point)))
        if code_point in face.coverage:
            assert drawn != missing, hex(code_point)
        else:
            assert drawn == missing, hex(code_point)


@given(st.lists(st.tuples(st.integers(0, 300), st.integers(0, 30)), max_size=30))
def test_coverage_is_the_set_of_its_ranges(spans: list[tuple[int, int]]) -> None:
    expected = {c for first, more in spans for c in range(first, first + more + 1)}
    coverage = Coverage([(first, first + more) for first, more in spans])
    assert len(coverage) == len(expected)
    assert all((c in coverage) == (c in expected) for c in range(340))


def test_a_group_map_covers_all_planes_and_leaves_out_the_missing_glyph(tmp_path: Path) -> None:
    groups = struct.pack(">LLL", 0x41, 0x42, 0) + struct.pack(">LLL", 0x1F600, 0x1F602, 7)
    subtable = struct.pack(">HHLLL", 12, 0, 16 + len(groups), 0, 2) + groups
    cmap = struct.pack(">HHHHL", 0, 1, 3, 10, 12) + subtable
    outlines = b"\0\0\0\0"
    head = struct.pack(">4sHHHH", b"\0\1\0\0", 2, 0, 0, 0)
    start = len(head) + 2 * 16
    tables = struct.pack(">4sLLL", b"cmap", 0, start, len(cmap)) + struct.pack(
        ">4sLLL", b"glyf", 0, start + len(cmap), len(outlines)
    )
    path = tmp_path / "groups.ttf"
    path.write_bytes(head + tables + cmap + outlines)
    (face,) = read_faces(path)
    assert [c for c in (0x41, 0x42, 0x1F600, 0x1F602, 0x1F603) if c in face.coverage] == [
        0x42, 0x1F600, 0x1F602,
    ]  # fmt: skip


def test_fonts_are_found_without_fontconfig(monkeypatch: pytest.MonkeyPatch) -> None:
    listed = {path.name for path in installed_font_files()}
    monkeypatch.setenv("PATH", "")
    walked = {path.name for path in installed_font_files()}
    assert "NotoSansArabic-Regular.ttf" in listed & walked
