"""Tables on wide and narrow terminals."""

from __future__ import annotations

import io

from rich.console import Console
from rich.text import Text

from captum_scorecam.command_line.tables import plain_table

ROWS = [
    ("Grad-CAM", "0.200\n[0.193, 0.207]", "−12.5*", "ILSVRC2012_val_00000293.JPEG"),
    ("Score-CAM", "0.502\n[0.487, 0.515]", "100.0", ""),
]


def printed(width: int) -> str:
    table = plain_table()
    table.add_column("Method", no_wrap=True)
    table.add_column("Insertion, AUC ↑\nn 4", justify="right")
    table.add_column("Average drop, % ↓", justify="right")
    table.add_column("Image", overflow="fold")
    for row in ROWS:
        table.add_row(*map(Text, row))
    console = Console(width=width, file=io.StringIO(), highlight=False)
    with console.capture() as capture:
        console.print(table)
    return capture.get()


def test_no_number_and_no_name_is_cut_at_any_width() -> None:
    words = [word for row in ROWS for cell in row[:3] for word in cell.split()]
    for width in range(14, 100):
        text = printed(width)
        assert [word for word in words if word not in text.split()] == []
        assert "…" not in text
        assert max(map(len, text.splitlines())) <= width


def test_a_wide_table_is_as_wide_as_its_content() -> None:
    assert printed(200).splitlines()[1:4] == [
        "Method                  n 4  Average drop, % ↓  Image                        ",
        "─" * 77,
        "Grad-CAM              0.200             −12.5*  ILSVRC2012_val_00000293.JPEG ",
    ]


def test_long_names_are_folded_before_the_table_becomes_a_list() -> None:
    assert [line[-19:].strip() for line in printed(52).splitlines()][4:6] == ["ILSVRC2012_val_000", "00293.JPEG"]


def test_a_list_replaces_the_table_on_a_narrow_terminal() -> None:
    assert printed(30).splitlines() == [
        "Method: Grad-CAM",
        "Insertion, AUC ↑ n 4: 0.200 ",
        "[0.193, 0.207]",
        "Average drop, % ↓: −12.5*",
        "Image: ",
        "ILSVRC2012_val_00000293.JPEG",
        "",
        "Method: Score-CAM",
        "Insertion, AUC ↑ n 4: 0.502 ",
        "[0.487, 0.515]",
        "Average drop, % ↓: 100.0",
        "",
    ]
