"""Images listed in a CSV file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from captum_scorecam.datasets import ImageDataset, open_data

BOXES = "file,label,xmin,ymin,xmax,ymax\n"


def opened(folder: Path, text: str | bytes) -> ImageDataset:
    path = folder / "labels.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return open_data(path)


def image(folder: Path, name: str = "a.png", size: tuple[int, int] = (6, 4), **options: Any) -> None:
    Image.new("RGB", size).save(folder / name, **options)


def white(region: Image.Image | None) -> list[str]:
    assert region is not None
    assert region.mode == "L"
    assert set(region.tobytes()) <= {0, 255}
    rows = [region.crop((0, row, region.width, row + 1)).tobytes() for row in range(region.height)]
    return ["".join(".#"[value == 255] for value in row) for row in rows]


def test_the_label_is_the_index_wnid_or_name_of_a_class(tmp_path: Path) -> None:
    image(tmp_path)
    data = opened(
        tmp_path, "file,class_index,wnid,class_name\na.png,281,n02123045,tabby\nb.png,,n1,\nc.png,,n1,cat\nd.png,,,\n"
    )
    assert [data.name(index) for index in range(4)] == ["a.png", "b.png", "c.png", "d.png"]
    assert [data.label(index) for index in range(4)] == [281, "n1", "cat", None]
    assert (data.has_labels, data.has_boxes, data.classes) == (True, False, None)
    assert (data[0].name, data[0].label, data[0].region) == ("a.png", 281, None)


def test_a_list_without_labels(tmp_path: Path) -> None:
    data = opened(tmp_path, "file\na.png\n")
    assert (data.label(0), data.has_labels) == (None, False)


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_separators_quotes_whitespace_and_byte_order_marks(separator: str, tmp_path: Path) -> None:
    rows = [["file", " label ", "note"], ['"a;b,c\t""d"".png"', " cat ", ""], ["é.png", "dog", "x"]]
    text = "\ufeff" + "\r\n".join(separator.join(row) for row in rows) + "\r\n\r\n"
    data = opened(tmp_path, text)
    assert [(data.name(i), data.label(i)) for i in range(len(data))] == [('a;b,c\t"d".png', "cat"), ("é.png", "dog")]


def test_paths_are_absolute_or_relative_to_the_csv_file(tmp_path: Path) -> None:
    (tmp_path / "lists" / "images").mkdir(parents=True)
    for name in ("lists/images/a.png", "b.png", "c.png"):
        image(tmp_path, name)
    data = opened(tmp_path / "lists", f"file\n./images//a.png\n../b.png\n{tmp_path}/c.png\n")
    assert [data.name(index) for index in range(3)] == ["images/a.png", "../b.png", f"{tmp_path}/c.png"]
    assert [data[index].image.size for index in range(3)] == [(6, 4)] * 3


def test_a_missing_image_raises_on_access(tmp_path: Path) -> None:
    data = opened(tmp_path, "file,label\nnone.png,cat\n")
    with pytest.raises(ValueError, match=r"there is no file .*none\.png"):
        data[0]


def test_a_region_is_the_pixels_whose_centre_is_in_a_box(tmp_path: Path) -> None:
    image(tmp_path)
    data = opened(tmp_path, f"{BOXES}a.png,cat,0.5,1,2.4,3\na.png,cat,4,-9,99,1.6\n")
    assert (len(data), data.has_boxes, data.label(0)) == (1, True, "cat")
    assert white(data[0].region) == ["....##", "##..##", "##....", "......"]


def test_the_label_with_the_largest_area_is_used(tmp_path: Path) -> None:
    image(tmp_path)
    text = f"{BOXES}a.png,cat,0,0,2,2\na.png,dog,0,0,1,1\na.png,dog,3,0,6,2\n"
    sample = opened(tmp_path, text)[0]
    assert sample.label == "dog"
    assert white(sample.region) == ["#..###", "...###", "......", "......"]


def test_boxes_refer_to_the_upright_image(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # stored lying; turned clockwise to see it upright
    image(tmp_path, size=(3, 2), exif=exif)
    sample = opened(tmp_path, f"{BOXES}a.png,cat,0,2,1,3\n")[0]
    assert sample.image.size == (2, 3)
    assert white(sample.region) == ["..", "..", "#."]


def test_a_box_outside_the_image_raises_on_access(tmp_path: Path) -> None:
    image(tmp_path)
    data = opened(tmp_path, f"{BOXES}a.png,cat,6,0,9,4\n")
    with pytest.raises(ValueError, match=r"Expected a box inside 'a.png', 6×4 pixels, but got \(6.0, 0.0, 9.0, 4.0\)"):
        data[0]


def test_a_row_without_a_box_has_no_region(tmp_path: Path) -> None:
    image(tmp_path)
    data = opened(tmp_path, f"{BOXES}a.png,cat,,,,\nb.png,cat,0,0,1,1\n")
    assert data.has_boxes
    assert data[0].region is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "Expected columns file, without duplicates, in .*, but got none"),
        ("name,label\na.png,cat\n", "Expected columns file, .* but got name, label"),
        ("file,label,label\na.png,cat,dog\n", "without duplicates, in .* but got file, label, label"),
        ("file,label\n", "Expected rows in .*, but found none"),
        ("file,label\na.png\n", "Expected 2 fields in line 2 of 'labels.csv', but got 1"),
        ("file,label\na.png,cat\nb.png,a,b\n", "Expected 2 fields in line 3 of 'labels.csv', but got 3"),
        ("file,label\n,cat\n", "Expected `file` in line 2 of 'labels.csv', but got nothing"),
        ("file,class_index\na.png,-1\n", "`class_index` to be a non-negative integer in line 2 .* but got '-1'"),
        ("file,class_index\na.png,2.0\n", "`class_index` to be a non-negative integer in line 2 .* but got '2.0'"),
        (f"{BOXES}a.png,cat,1,2,3,\n", "xmin < xmax and ymin < ymax in line 2 .* but got 1, 2, 3, nothing"),
        (f"{BOXES}a.png,cat,3,2,3,4\n", "xmin < xmax and ymin < ymax in line 2 .* but got 3, 2, 3, 4"),
        (f"{BOXES}a.png,cat,1,2,nan,4\n", "to be numbers .* but got 1, 2, nan, 4"),
        (f"{BOXES}a.png,cat,1,2,inf,4\n", "to be numbers .* but got 1, 2, inf, 4"),
        (f"{BOXES}a.png,cat,one,2,3,4\n", "to be numbers .* but got one, 2, 3, 4"),
        ("file,label\na.png,cat\n./a.png,dog\n", "a box in each of the 2 rows of 'a.png', but line 2 of .* has none"),
        (f"{BOXES}a.png,cat,1,2,3,4\na.png,cat,,,,\n", "of 'a.png', but line 3 of 'labels.csv' has none"),
        ('file,label\n"a.png,cat\n', "can't be read as one: unexpected end of data"),
        (b"file,label\n\xff\xfe.png,cat\n", "Expected a CSV file in UTF-8, but .*labels.csv' can't be read"),
    ],
)
def test_a_malformed_file_raises_with_the_line(text: str | bytes, message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        opened(tmp_path, text)


def test_a_folder_without_a_csv_file_raises(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"labels\.csv' can't be read as one: .*No such file"):
        open_data(tmp_path, "csv")
