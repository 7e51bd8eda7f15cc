"""Rows of a CSV file, and errors that name the line."""

from __future__ import annotations

from pathlib import Path

import pytest

from captum_scorecam.datasets.csv_rows import Row, read_rows


def rows_of(folder: Path, text: str | bytes) -> list[Row]:
    path = folder / "labels.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_rows(path, ["file"])


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_separators_quotes_whitespace_and_byte_order_marks(separator: str, tmp_path: Path) -> None:
    lines = [["file", " label ", "note"], ['"a;b,c\t""d"".png"', " cat ", ""], ["é.png", "dog", "x"]]
    text = "\ufeff" + "\r\n".join(separator.join(line) for line in lines) + "\r\n\r\n"
    assert rows_of(tmp_path, text) == [
        Row("line 2 of 'labels.csv'", {"file": 'a;b,c\t"d".png', "label": "cat", "note": ""}),
        Row("line 3 of 'labels.csv'", {"file": "é.png", "label": "dog", "note": "x"}),
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"Expected a column 'file' in the first line of .*labels\.csv', but got nothing"),
        ("image,label\na.png,cat\n", r"Expected a column 'file' in .*, but got \['image', 'label'\]"),
        ("a.png,cat\nb.png,dog\n", r"Expected a column 'file' in .*, but got \['a\.png', 'cat'\]"),
        ("file,label,label\na.png,cat,dog\n", "Expected each column once in .*, but got 'label' more than once"),
        ("file,label\n", "Expected rows in .*, but found none"),
        ("file,label\na.png\n", "Expected 2 fields in line 2 of 'labels.csv', but got 1"),
        ("file,label\na.png,cat\nb.png,a,b\n", "Expected 2 fields in line 3 of 'labels.csv', but got 3"),
        ('file,label\n"a.png,cat\n', r"line 2 of .*labels\.csv' can't be read as one: unexpected end of data"),
        ("file,label\na.png,café\n".encode("latin-1"), r"in UTF-8, but line 2 of .*labels\.csv' has another encoding"),
        ("file,label\na.png,cat\n".encode("utf-16"), r"in UTF-8, but line 1 of .*labels\.csv' has another encoding"),
    ],
)
def test_a_malformed_file_raises_with_the_line(text: str | bytes, message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        rows_of(tmp_path, text)


def test_an_empty_field_has_no_text(tmp_path: Path) -> None:
    (row,) = rows_of(tmp_path, "file,label\n,cat\n")
    assert row.text("label") == "cat"
    with pytest.raises(ValueError, match=r"Expected `file` in line 2 of 'labels\.csv', but got nothing"):
        row.text("file")


def test_empty_columns_and_rows_of_a_spreadsheet_are_skipped(tmp_path: Path) -> None:
    (row,) = rows_of(tmp_path, "file,label,,\na.png,cat,,\n,,,\n")
    assert (row.text("file"), row.text("label")) == ("a.png", "cat")


def test_a_number_of_5000_digits_raises_with_the_line(tmp_path: Path) -> None:
    (row,) = rows_of(tmp_path, f"file,class_index\na.png,{'1' * 5000}\n")
    with pytest.raises(ValueError, match=r"in line 2 of 'labels\.csv', but got '1+\.\.\.1+'\.$"):
        row.whole_number("class_index")


@pytest.mark.parametrize("text", ["-1", "2.0"])
def test_a_whole_number_has_digits_only(text: str, tmp_path: Path) -> None:
    row, other = rows_of(tmp_path, f"file,class_index\na.png,{text}\nb.png,281\n")
    message = f"`class_index` to be a non-negative integer in line 2 .* but got '{text}'"
    with pytest.raises(ValueError, match=message):
        row.whole_number("class_index")
    assert other.whole_number("class_index") == 281


def test_separators_inside_of_quotes_do_not_count(tmp_path: Path) -> None:
    (row,) = rows_of(tmp_path, '"file","label, of it; a; b; c"\n"a.png","cat"\n')
    assert row.fields == {"file": "a.png", "label, of it; a; b; c": "cat"}
