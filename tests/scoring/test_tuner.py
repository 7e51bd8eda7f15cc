"""The fastest chunk size, found from given seconds: no clock runs."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Mapping

import pytest

from captum_scorecam.scoring.tuner import FIRST_PAUSE, TIMED_CHUNKS, WORK_PER_SETUP, Tuner

GROUP = 1 + TIMED_CHUNKS  # chunks until the rate of a size is known
RISING = {2: 2.0, 4: 3.0, 8: 4.0, 16: 3.5, 32: 2.0}  # rows per second


def run(
    tuner: Tuner,
    rates: Mapping[int, float],
    chunks: int,
    setup_seconds: float = 0.0,
    left: int = 10**9,
    busy: Callable[[int], float] = lambda _: 1.0,
) -> list[int]:
    """Runs chunks and returns the rows of each.

    Args:
        rates: The rows per second at each size.
        setup_seconds: What the first chunk of a size takes in addition.
        left: The rows known to follow each chunk.
        busy: How many times as long a chunk takes, by its number.
    """
    ran: list[int] = []
    for number in range(chunks):
        is_new = {*tuner.tried}
        rows = tuner.next_chunk(left)
        is_first = rows not in is_new or number == 0
        tuner.add(rows, rows / rates[rows] * busy(number) + setup_seconds * is_first)
        ran.append(rows)
    return ran


def test_sizes_grow_while_rows_per_second_rise_and_the_best_is_kept() -> None:
    tuner = Tuner(2, 4, 8, 16, 32)
    ran = run(tuner, RISING, 8 * GROUP)
    assert ran == [rows for rows in (2, 4, 2, 8, 4, 16, 8, 8) for _ in range(GROUP)]
    assert (tuner.rows, tuner.rows_per_second, tuner.timing) == (8, 4.0, False)


def test_a_single_size_is_kept_and_not_timed() -> None:
    tuner = Tuner(7)
    assert {*run(tuner, {7: 1.0}, 100)} == {7}
    assert not tuner.timing


def test_a_small_gain_is_kept_and_no_larger_size_tried() -> None:
    tuner = Tuner(2, 4, 8)
    assert {*run(tuner, {2: 1.0, 4: 1.05}, 30)} == {2, 4}
    assert tuner.rows == 4


@pytest.mark.parametrize(
    ("seconds_per_chunk", "tried"),
    [(0.0, {2, 4}), (0.6, {2, 4}), (0.8, {2, 4, 8}), (1.6, {2, 4, 8, 16}), (3.0, {2, 4, 8, 16, 32})],
)
def test_a_larger_size_is_tried_if_the_smaller_ones_promise_a_gain(seconds_per_chunk: float, tried: set[int]) -> None:
    tuner = Tuner(2, 4, 8, 16, 32)
    rates = {rows: rows / (seconds_per_chunk + rows) for rows in (2, 4, 8, 16, 32)}  # a second for each row
    assert {*run(tuner, rates, 12 * GROUP)} == tried
    assert tuner.rows == max(tried) or seconds_per_chunk == 0.0


def test_the_largest_size_ends_the_search() -> None:
    tuner = Tuner(2, 4, 6)
    run(tuner, {2: 1.0, 4: 2.0, 6: 3.0}, 30)
    assert (tuner.rows, tuner.timing) == (6, False)


def test_what_the_first_chunk_of_a_size_takes_longer_does_not_count() -> None:
    tuner = Tuner(2, 4, 8, 16, 32)
    run(tuner, RISING, 5 * GROUP, setup_seconds=1000.0)
    assert tuner.rows_per_second == 4.0


def test_one_fast_chunk_in_a_busy_time_is_enough() -> None:
    tuner = Tuner(2, 4, 8, 16, 32)
    run(tuner, RISING, 6 * GROUP, busy=lambda number: 1.0 if number % GROUP == 3 else 9.0)
    assert tuner.rows == 8


def test_a_chunk_of_another_size_is_not_counted() -> None:
    tuner = Tuner(4, 8)
    for _ in range(20):
        assert tuner.next_chunk(100) == 4
        tuner.add(3, 1.0)
    assert tuner.timing


# --- Few rows, and sizes that cost something -------------------------------------------------------------------------


def test_a_size_larger_than_the_rows_left_is_not_tried() -> None:
    tuner = Tuner(2, 4, 8, 16, 32)
    assert {*run(tuner, RISING, 50, left=7)} == {2, 4}
    assert run(tuner, RISING, 1, left=8) == [8]


def test_a_size_is_set_up_once_the_work_takes_several_times_as_long() -> None:
    tuner, setup = Tuner(2, 4, 8), 10.0
    work = WORK_PER_SETUP * setup * RISING[2]  # rows
    ran = run(tuner, RISING, 200, setup_seconds=setup, left=8)
    assert {*ran[: int((work - 8) / 2)]} == {2}
    assert ran[1 + int((work - 8) / 2)] == 4


def test_a_size_is_set_up_at_once_if_enough_rows_are_left() -> None:
    rows = int(WORK_PER_SETUP * 10.0 * RISING[2])
    for left, expected in ((rows, 4), (rows - 2 * GROUP - 1, 2)):
        tuner = Tuner(2, 4)
        assert run(tuner, RISING, GROUP + 1, setup_seconds=10.0, left=left)[-1] == expected


@pytest.mark.parametrize(("setup_seconds", "expected"), [(0.9, {2, 4}), (1.0, {2})])
def test_a_first_chunk_that_takes_little_longer_is_no_reason_to_wait(setup_seconds: float, expected: set[int]) -> None:
    tuner = Tuner(2, 4)
    assert {*run(tuner, {2: 100.0, 4: 100.0}, 2 * GROUP, setup_seconds, left=4)} == expected


def test_a_size_that_was_set_up_costs_nothing_when_sizes_are_measured_again() -> None:
    tuner = Tuner(2, 4)
    run(tuner, {2: 1.0, 4: 2.0}, GROUP * 4, setup_seconds=10.0)
    assert tuner.rows == 4
    ran = run(tuner, {2: 2.0, 4: 4.0}, FIRST_PAUSE * 2, left=4)
    assert ran[-GROUP:] == [4] * GROUP
    assert 2 in ran


# --- Busy machines ---------------------------------------------------------------------------------------------------


def test_a_machine_that_gets_busy_while_a_size_is_measured_is_noticed() -> None:
    tuner = Tuner(2, 4, 8, 16, 32)
    ran = run(tuner, RISING, 9 * GROUP, busy=lambda number: 3.0 if GROUP <= number < 3 * GROUP else 1.0)
    assert ran[::GROUP] == [2, 4, 2, 8, 4, 8, 2, 16, 8]  # 4 is faster than it was, so the others may be, too
    assert tuner.rows == 8


def test_a_size_that_is_faster_than_it_was_is_measured_again_with_the_others() -> None:
    tuner = Tuner(2, 4, 8)
    busy = {2: 1.0, 4: 0.9}
    run(tuner, busy, 3 * GROUP)
    assert tuner.rows == 2
    ran = run(tuner, {2: 4.0, 4: 5.0, 8: 6.0}, 2 * FIRST_PAUSE + 4 * GROUP)
    assert tuner.rows == 8
    assert ran.count(4) == GROUP


def test_a_size_that_is_slower_than_another_one_was_is_compared_with_it_again() -> None:
    tuner = Tuner(2, 4, 8)
    run(tuner, {2: 2.0, 4: 3.0, 8: 2.9}, 5 * GROUP)
    assert tuner.rows == 4
    ran = run(tuner, {2: 2.0, 4: 1.5, 8: 1.0}, 2 * FIRST_PAUSE + 2 * GROUP)
    assert tuner.rows == 2
    assert ran.count(8) == GROUP


def test_a_size_that_larger_ones_left_behind_slower_is_given_up() -> None:
    tuner = Tuner(2, 4, 8)
    assert run(tuner, {2: 8.0, 4: 9.5, 8: 5.0}, 4 * GROUP)[-1] == 8
    ran = run(tuner, {2: 8.0, 4: 7.0, 8: 5.0}, 100)
    assert ran[: 2 * GROUP] == [4] * GROUP + [2] * GROUP
    assert {*ran[2 * GROUP :]} == {2}


def test_a_size_that_a_larger_one_left_behind_much_faster_is_compared_with_it_once_more() -> None:
    tuner = Tuner(2, 4, 8)
    run(tuner, {2: 54.0, 4: 76.0}, 2 * GROUP)
    ran = run(tuner, {2: 90.0, 4: 76.0}, 3 * GROUP)
    assert ran == [2] * GROUP + [4] * GROUP + [2] * GROUP
    assert tuner.rows == 2


def test_a_size_that_was_measured_in_a_busy_time_just_before_is_timed_again() -> None:
    tuner = Tuner(2, 4, 8, 16, 32)
    run(tuner, RISING, 12 * GROUP, busy=lambda number: 3.0 if GROUP <= number < 4 * GROUP else 1.0)
    assert tuner.rows == 8


def test_a_size_that_a_larger_one_left_behind_faster_is_noticed_before_a_third_is_tried() -> None:
    tuner = Tuner(2, 4, 8)
    run(tuner, {2: 2.0, 4: 2.6}, 2 * GROUP)
    assert {*run(tuner, {2: 2.45, 4: 2.6}, 100)} == {2, 4}
    assert tuner.rows == 4


def test_a_size_that_was_nearly_as_fast_is_tried_again_and_so_are_larger_ones_then() -> None:
    tuner = Tuner(2, 4, 8)
    assert {*run(tuner, {2: 8.0, 4: 7.9}, 3 * GROUP)} == {2, 4}
    assert tuner.rows == 2
    run(tuner, {2: 8.0, 4: 9.5, 8: 12.0}, FIRST_PAUSE + 3 * GROUP)
    assert tuner.rows == 8


def test_a_doubt_is_kept_until_more_rows_are_left() -> None:
    tuner = Tuner(2, 4, 8)
    run(tuner, {2: 2.0, 4: 3.0, 8: 1.0}, 6 * GROUP)  # 8 in a busy time
    assert tuner.rows == 4
    free = {2: 4.0, 4: 6.0, 8: 9.0}
    assert 8 not in run(tuner, free, 4 * FIRST_PAUSE, left=7)
    run(tuner, free, 16 * FIRST_PAUSE)
    assert tuner.rows == 8


@pytest.mark.parametrize("factor", [0.85, 1.2])
def test_small_changes_of_speed_are_no_reason_to_measure_again(factor: float) -> None:
    tuner = Tuner(2, 4, 8)
    run(tuner, {2: 2.0, 4: 3.0, 8: 2.3}, 4 * GROUP)
    changed = {2: 9.0, 4: 3.0 * factor, 8: 9.0}
    assert {*run(tuner, changed, 500)} == {4}


def test_a_gain_that_shows_only_later_is_followed_up() -> None:
    tuner = Tuner(2, 4, 8)
    run(tuner, {2: 10.0, 4: 10.5}, 2 * GROUP)
    ran = run(tuner, {2: 9.0, 4: 10.5, 8: 12.0}, 2 * GROUP)
    assert ran == [2] * GROUP + [8] * GROUP


def test_a_size_larger_than_the_rows_left_is_not_timed_again() -> None:
    tuner = Tuner(2, 4, 8)
    rates = {2: 2.0, 4: 3.0, 8: 2.9}
    assert {*run(tuner, rates, 4 * GROUP)} == {2, 4, 8}
    assert {*run(tuner, rates, 500, left=7)} == {4}
    assert not tuner.timing
    assert 8 in run(tuner, rates, 2000)


@pytest.mark.parametrize("sizes", [(7,), (2, 7)])
def test_a_size_that_is_kept_for_good_leaves_nothing_behind(sizes: tuple[int, ...]) -> None:
    tuner = Tuner(*sizes)
    tuner.stop(7)
    before = len(pickle.dumps(tuner))
    run(tuner, {7: 1.0}, 5000)
    assert len(pickle.dumps(tuner)) < before + 50


def test_pauses_between_timed_chunks_double() -> None:
    tuner, timed = Tuner(2, 4), []
    for _ in range(500):
        rows = tuner.next_chunk(100)
        timed.append(tuner.timing)
        tuner.add(rows, 1.0)
    pauses = [len(pause) for pause in "".join("x" if one else " " for one in timed).split("x") if pause]
    assert pauses[:4] == [FIRST_PAUSE, 2 * FIRST_PAUSE, 4 * FIRST_PAUSE, 8 * FIRST_PAUSE]


def test_a_machine_whose_speed_keeps_changing_costs_ever_fewer_timed_chunks() -> None:
    tuner, timed = Tuner(2, 4, 8), 0
    for number in range(20_000):
        rows = tuner.next_chunk(100)
        timed += tuner.timing
        tuner.add(rows, rows / RISING[rows] * (1 + number // 50 % 7))
    assert timed < 400


def test_a_stopped_search_keeps_its_size() -> None:
    tuner = Tuner(2, 4, 8, 16, 32)
    run(tuner, RISING, 2 * GROUP)
    tuner.stop(4)
    assert {*run(tuner, {4: 1.0}, 300)} == {4}
    assert not tuner.timing


def test_a_size_that_fails_at_once_is_left_for_the_best_of_the_smaller_ones() -> None:
    tuner = Tuner(2, 4, 8, 16, 32)
    run(tuner, RISING, 5 * GROUP)
    assert tuner.next_chunk(100) == 16
    assert tuner.retreat(16)
    assert {*run(tuner, RISING, 300)} == {8}
    assert tuner.retreat(16)  # another thread's chunk
    assert tuner.rows == 8
    for never_tried_or_worked in (32, 11, 8, 2):
        assert not tuner.retreat(never_tried_or_worked)


def test_a_size_that_has_worked_is_not_left() -> None:
    tuner = Tuner(2, 4, 8)
    run(tuner, RISING, GROUP + 1)
    assert not tuner.retreat(4)
    assert tuner.rows == 4


@pytest.mark.parametrize("period", [30, 45, 60, 75])
def test_a_machine_that_gets_ever_faster_costs_few_timed_chunks(period: int) -> None:
    tuner, timed = Tuner(2, 4, 8, 16, 32), []
    for number in range(5000):
        rows = tuner.next_chunk(10**9)
        timed.append(tuner.timing)
        tuner.add(rows, rows / RISING[rows] * 2.0 ** -(number // period))
    assert sum(timed[:1000]) <= 8 * 5 * GROUP
    assert sum(timed[1000:]) <= 3 * 5 * GROUP  # as many pauses end, since they double
