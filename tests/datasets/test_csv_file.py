"""Images listed in a CSV file."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from PIL import Image

from captum_scorecam.datasets import ImageDataset, open_data
from tests.support.images import white
from tests.support.systems import needs_posix

BOXES = "file,label,xmin,ymin,xmax,ymax\n"


def opened(folder: Path, text: str) -> ImageDataset:
    path = folder / "labels.csv"
    path.write_text(text)
    return open_data(path)


def image(folder: Path, name: str = "a.png") -> None:
    Image.new("RGB", (6, 4)).save(folder / name)


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


def test_paths_are_absolute_or_relative_to_the_csv_file(tmp_path: Path) -> None:
    (tmp_path / "lists" / "images").mkdir(parents=True)
    for name in ("lists/images/a.png", "b.png", "c.png"):
        image(tmp_path, name)
    data = opened(tmp_path / "lists", f"file\n./images//a.png\n../b.png\n{tmp_path}/c.png\n")
    assert [data.name(index) for index in range(3)] == ["images/a.png", "../b.png", f"{tmp_path}/c.png"]
    assert [data[index].image.size for index in range(3)] == [(6, 4)] * 3


def test_the_label_with_the_largest_area_is_used(tmp_path: Path) -> None:
    image(tmp_path)
    text = f"{BOXES}a.png,cat,0,0,2,2\na.png,dog,0,0,1,1\na.png,dog,3,0,6,2\n"
    sample = opened(tmp_path, text)[0]
    assert sample.label == "dog"
    assert white(sample.region) == ["#..###", "...###", "......", "......"]


def test_a_row_without_a_box_has_no_region(tmp_path: Path) -> None:
    image(tmp_path)
    data = opened(tmp_path, f"{BOXES}a.png,cat,,,,\nb.png,cat,0,0,1,1\n")
    assert data.has_boxes
    assert data[0].region is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file,label\n,cat\n", "Expected `file` in line 2 of 'labels.csv', but got nothing"),
        ("file,class_index\na.png,-1\n", "`class_index` to be a non-negative integer in line 2 .* but got '-1'"),
        (f"{BOXES}a.png,cat,1,2,3,\n", "xmin < xmax and ymin < ymax, but got 1, 2, 3, nothing in line 2 of"),
        (f"{BOXES}a.png,cat,1,2,nan,4\n", "numbers with .*, but got 1, 2, nan, 4 in line 2"),
        (f"{BOXES}a.png,cat,1,2,inf,4\n", "numbers with .*, but got 1, 2, inf, 4 in line 2"),
        (f"{BOXES}a.png,cat,one,2,3,4\n", "numbers with .*, but got one, 2, 3, 4 in line 2"),
        (f"{BOXES}a.png,cat,0,0,9,9\nb.png,cat,300,200,50,40\n", "300, 200, 50, 40 in line 3 .* xmax is x [+] width"),
        ("file,label\na.png,cat\n./a.png,dog\n", "one row for 'a.png', or a box in each of its 2 rows, but line 2 "),
        (f"{BOXES}a.png,cat,1,2,3,4\na.png,cat,,,,\n", "one row for 'a.png', .* but line 3 of 'labels.csv' has none"),
        ("file,label\na.png,cat\nb.png,cat\na.png,cat\n", "line 4 of 'labels.csv' repeats line 2 .* for 'a.png'"),
        (f"{BOXES}i/a.png,cat,1,2,3,4\ni\\a.png,cat,1,2,3.0,4\n", "line 3 .* repeats line 2 .* for 'i/a.png'"),
    ],
)
def test_a_malformed_file_raises_with_the_line(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        opened(tmp_path, text)


@pytest.mark.parametrize(
    "columns",
    [
        *("x,y,w,h", "X,Y,Width,Height", "x1,y1,x2,y2", "XMin,YMin,XMax,YMax", "left,top,width,height", "xmin,ymin"),
        *("x_min,y_min,x_max,y_max", "x0,y0,x1,y1", "bbox_x,bbox_y,bbox_w,bbox_h", "left,upper,right,lower"),
        *("cx,cy,w,h", "x_center,y_center,width,height", "XMin,XMax,YMin,YMax", "bboxX1,bboxY1,bboxX2,bboxY2"),
        *("BBox X (px),BBox Y (px),BBox W (px),BBox H (px)", "bbox-0,bbox-1,bbox-2,bbox-3", "xtl,ytl,xbr,ybr"),
        *("minrow,mincol,maxrow,maxcol", "startX,startY,endX,endY", "l,t,r,b", "xmin,ymin,width,height"),
    ],
)
def test_boxes_in_other_columns_are_not_ignored(columns: str, tmp_path: Path) -> None:
    numbers = ",".join("1234"[: columns.count(",") + 1])
    found = columns.replace(",", ", ")
    message = f"boxes in columns xmin, ymin, xmax, ymax of .* in pixels, but got {re.escape(found)}. Convert and rename"
    with pytest.raises(ValueError, match=message):
        opened(tmp_path, f"file,{columns}\na.png,{numbers}\n")


@pytest.mark.parametrize(
    ("column", "text"),
    [
        ("box", "[1, 2, 3, 4]"),
        ("bbox", "1 2 30.5 40"),
        ("Boxes", "[[1,2,3,4],[5,6,7,8]]"),
        ("bounding box", "{'x': 1, 'y': 2, 'w': 3, 'h': 4}"),
        ("roi", "0.1;0.2;0.3;.4"),
    ],
)
def test_boxes_in_one_column_are_not_ignored(column: str, text: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"boxes in columns xmin, .* in pixels, but got {column}. Convert"):
        opened(tmp_path, f'file,label,{column}\na.png,cat,\nb.png,dog,"{text}"\n')


@pytest.mark.parametrize(
    ("columns", "fields"),
    [
        ("width,height", "6,4"),
        ("x,y", "3,2"),
        ("w,h,c", "6,4,3"),
        ("lat,lon", "3,2"),
        ("r,g,b", "1,2,3"),
        ("left,top", "1,2"),
        ("x0,x1,x2,x3", "1,2,3,4"),
        ("umap_x,umap_y,tsne_x,tsne_y", "1,2,3,4"),
        ("left_eye_x,left_eye_y,right_eye_x,right_eye_y", "1,2,3,4"),
        ("row,col,width,height", "1,2,6,4"),
        ("left,right,top,bottom", "yes,no,no,yes"),
        ("x,y,w,h", ",,,"),
        ("box", "12"),
        ("box", "shelf 1 2 3 4"),
        ("box_id,box_count", "1,2"),
    ],
)
def test_columns_that_are_no_boxes_are_ignored(columns: str, fields: str, tmp_path: Path) -> None:
    assert not opened(tmp_path, f"file,label,{columns}\na.png,cat,{fields}\n").has_boxes


@pytest.mark.parametrize(
    ("column", "name"), [("Label", "label"), ("Class Index", "class_index"), ("className", "class_name")]
)
def test_a_label_whose_column_is_spelled_otherwise_is_not_ignored(column: str, name: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=rf"labels in a column '{name}' of '.*labels\.csv', but got '{column}'\."):
        opened(tmp_path, f"file,{column}\na.png,3\n")
    assert opened(tmp_path, f"file,wnid,{column}\na.png,n1,3\n").label(0) == "n1"


def test_an_image_is_the_same_by_any_path(tmp_path: Path) -> None:
    (tmp_path / "img").mkdir()
    image(tmp_path, "img/a.png")
    rows = "img/a.png,cat,0,0,2,1\nimg/../img/a.png,cat,4,0,6,1\n"
    data = opened(tmp_path, f"{BOXES}{rows}")
    assert [data.name(index) for index in range(len(data))] == ["img/a.png"]
    assert white(data[0].region) == ["##..##", "......", "......", "......"]
    path = str(tmp_path / "img" / "a.png")
    with pytest.raises(ValueError, match=f"'img/a.png' is listed more than once, also as {re.escape(repr(path))}"):
        opened(tmp_path, f"file\nimg/a.png\n{path}\n")


@needs_posix
def test_a_folder_that_is_a_link_is_not_left_out_of_a_path(tmp_path: Path) -> None:
    for folder in ("far/away", "img"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "far" / "away")
    image(tmp_path, "far/a.png")
    image(tmp_path, "a.png")
    data = opened(tmp_path, f"file\na.png\nlink/../a.png\n{tmp_path}/img/../b.png\n")
    assert [data.name(index) for index in range(3)] == ["a.png", "link/../a.png", f"{tmp_path}/b.png"]


def test_columns_besides_the_box_are_ignored(tmp_path: Path) -> None:
    image(tmp_path)
    data = opened(tmp_path, "file,xmin,ymin,xmax,ymax,x,y,w,h\na.png,0,0,2,1,9,9,9,9\n")
    assert white(data[0].region) == ["##....", "......", "......", "......"]
    assert not opened(tmp_path, "file,width,height\na.png,6,4\n").has_boxes


@pytest.mark.parametrize(("box", "hint"), [("0.1,0.25,0.5,1", "Multiply boxes"), ("3,1,640,480", "reaches outside")])
def test_boxes_that_are_no_pixels_of_the_image_raise_with_the_line(box: str, hint: str, tmp_path: Path) -> None:
    image(tmp_path)
    found = box.replace(",", ", ")
    message = rf"pixels of 'a\.png', 6×4, but got {found} in line 2 of 'labels\.csv', .*{hint}"
    with pytest.raises(ValueError, match=message):
        opened(tmp_path, f"{BOXES}a.png,cat,{box}\n")
    image(tmp_path, "b.png")
    for rows in (f"b.png,dog,0,0,2,2\na.png,cat,{box}\n", f"none.png,dog,{box}\na.png,cat,{box}\nb.png,dog,0,0,2,2\n"):
        data = opened(tmp_path, f"{BOXES}{rows}")  # a single mistake, which is recorded later
        with pytest.raises(ValueError, match=message.replace("line 2", "line 3")):
            data[1]


def test_boxes_of_an_image_stored_lying_are_checked_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (9, 200)).save(tmp_path / "a.png", exif=exif)
    assert opened(tmp_path, f"{BOXES}a.png,cat,100,0,200,9\n")[0].region is not None
    with pytest.raises(ValueError, match=r"pixels of 'a\.png', 200×9, but got 0, 100, 9, 200 .* outside the image"):
        opened(tmp_path, f"{BOXES}a.png,cat,0,100,9,200\n")


def test_the_paths_of_windows(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    image(tmp_path, "images/a.png")
    data = opened(tmp_path, "file\n.\\images\\a.png\n")
    assert (data.name(0), data[0].image.size) == ("images/a.png", (6, 4))


def test_a_folder_without_a_csv_file_raises(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"labels\.csv' can't be read as one: .*No such file"):
        open_data(tmp_path, "csv")
