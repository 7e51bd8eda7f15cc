"""Finds the fastest of a few chunk sizes, from the seconds that chunks take."""

from __future__ import annotations

TIMED_CHUNKS = 4
WORTHWHILE_GAIN = 1.08
CLEAR_DIFFERENCE = 1.25
WORK_PER_SETUP = 4
FREE_SETUP = 1.0  # seconds
FIRST_PAUSE = 16


class Tuner:
    """Chooses among chunk sizes while they run.

    The next larger size is tried as long as it promises to raise rows per second by a factor of at least
    `WORTHWHILE_GAIN`, since memory use grows too; the fastest size is then kept. What it promises is known from the
    sizes before: a chunk takes a time for each row, and one for itself. At each size, the first chunk is not counted
    (it compiles or selects kernels, and allocates memory), and the fastest of the next four is used, since other
    processes only slow chunks down. What the first chunk takes longer is the cost of trying a size: the next one is
    tried only if it fits into the rows known to follow, and these and the work at this size take at least
    `WORK_PER_SETUP` times as long. A cost below `FREE_SETUP` does not count, so that short calls of small models run
    the same chunks each time.

    Rates that were measured before a larger size was first tried are out of date: other processes come and go, and what
    larger chunks leave behind in the allocator can slow smaller ones down or speed them up. So before yet another size
    is tried, the second fastest is timed again. Once the search ends, and then after pauses that double, the fastest
    size is timed again, and with it each one that is out of date and slower by a factor of at most `WORTHWHILE_GAIN`.
    If a rate is higher than the last one of its size by more than a factor of `CLEAR_DIFFERENCE`, the machine was busy,
    or allocation slow, and all sizes that fit are timed again.

    Args:
        sizes (int): Rows per chunk, in ascending order. A single size is kept.
        setup_seconds (float): What trying a size costs at least. Default: 0.

    Attributes:
        rows (int): The size to use.
        timing (bool): Whether the chunks of this size are being timed.
        tried (set of int): The sizes that were begun.
    """

    def __init__(self, *sizes: int, setup_seconds: float = 0.0) -> None:
        self.rows = sizes[0]
        self.timing = False
        self.tried: set[int] = set()
        self._sizes = sizes
        self._larger: int | None = None
        self._rates: dict[int, float] = {}
        self._up_to_date: set[int] = set()
        self._worked: set[int] = set()
        self._seconds: list[float] = []
        self._setup_seconds = setup_seconds
        self._rows_run = 0
        self._left = 0
        self._pause = FIRST_PAUSE
        self._chunks_to_wait = 0
        self._all_doubtful = False
        self._start(self.rows)

    @property
    def largest_that_worked(self) -> int:
        """The largest number of rows that was added; 0 before any."""
        return max(self._worked, default=0)

    @property
    def rows_per_second(self) -> float:
        """The last rate measured at the size to use; 0 before it is known."""
        return self._rates.get(self.rows, 0.0)

    def next_chunk(self, left: int) -> int:
        """Returns the size of the next chunk.

        Args:
            left (int): The number of rows known to follow.
        """
        if not self.timing:
            if self._larger is not None and self._pays(self._larger, left):
                self._start(self._larger)
            elif self._chunks_to_wait <= 0 and len(self._sizes) > 1:
                self._up_to_date.clear()
                self._pause *= 2
                self._time()
        self._chunks_to_wait -= 1
        self._left = left
        self._rows_run += min(self.rows, left)
        return self.rows

    def add(self, rows: int, seconds: float) -> None:
        """Adds the time of a chunk; that of another size than `rows` does not count."""
        self._worked.add(rows)
        if not self.timing or rows != self.rows:
            return
        self._seconds.append(seconds)
        if len(self._seconds) > TIMED_CHUNKS:
            first, fastest = self._seconds[0], min(self._seconds[1:])
            if self.rows not in self._rates:
                self._setup_seconds = max(self._setup_seconds, first - fastest)
                self._up_to_date.clear()
            self._measured(self.rows / fastest)

    def measure_again(self) -> None:
        """Forgets the rates and starts from the smallest size."""
        self._rates = {}
        self._start(self._sizes[0])

    def stop(self, rows: int) -> None:
        """Keeps a size for good."""
        self._sizes = (rows,)
        self._rates = {size: rate for size, rate in self._rates.items() if size == rows}
        self._start(rows)

    def retreat(self, rows: int) -> bool:
        """Keeps the best of the smaller sizes for good if `rows` was tried in the hope of a gain, and never worked.

        Returns:
            bool: Whether there is one.
        """
        smaller = {size: rate for size, rate in self._rates.items() if size < rows}
        if not smaller or rows in self._worked or rows not in self.tried:
            return False
        if rows <= self.rows:  # no other thread was first
            self.stop(max(smaller, key=smaller.__getitem__))
        return True

    def _start(self, rows: int) -> None:
        self.rows = rows
        self.tried.add(rows)
        self._larger = None
        self._rows_run = 0
        self._time()

    def _time(self) -> None:
        self._seconds = []
        self.timing = len(self._sizes) > 1

    def _measured(self, rate: float) -> None:
        if rate > CLEAR_DIFFERENCE * self._rates.get(self.rows, rate) and not self._all_doubtful:
            self._all_doubtful = True
            self._up_to_date.clear()
        self._rates[self.rows] = rate
        self._up_to_date.add(self.rows)
        fastest, *others = sorted(self._rates, key=self._rates.__getitem__, reverse=True)
        larger = self._next_size(fastest, others)
        near = [size for size in others if WORTHWHILE_GAIN * self._rates[size] >= self._rates[fastest]]
        rivals = others if self._all_doubtful else near if larger is None else others[:1]
        doubtful = [size for size in (fastest, *rivals) if size not in self._up_to_date and size <= self._left]
        if doubtful:
            self.rows = doubtful[0]
            self._time()
        else:
            self.rows, self.timing = fastest, False
            self._all_doubtful = self._all_doubtful and not self._rates.keys() <= self._up_to_date
            self._larger = larger if fastest in self._up_to_date else None
            self._chunks_to_wait = self._pause

    def _next_size(self, fastest: int, others: list[int]) -> int | None:
        """Returns the size to try next, if the fastest is the largest so far and the others promise a gain from it."""
        larger = next((size for size in self._sizes if size > fastest), None)
        if larger is None or any(size > fastest for size in others):
            return None
        worthwhile = WORTHWHILE_GAIN * self._rates[fastest]
        return larger if all(self._promised(larger, size, fastest) >= worthwhile for size in others) else None

    def _promised(self, rows: int, smaller: int, fastest: int) -> float:
        """Returns the rate of a larger size if each row of a chunk takes as long as those added to a smaller one."""
        seconds = fastest / self._rates[fastest]
        seconds_per_row = (seconds - smaller / self._rates[smaller]) / (fastest - smaller)
        return rows / (seconds + max(seconds_per_row, 0.0) * (rows - fastest))

    def _pays(self, rows: int, left: int) -> bool:
        seconds_of_work = (self._rows_run + left) / self.rows_per_second
        is_free = rows in self.tried or self._setup_seconds < FREE_SETUP
        return rows <= left and (is_free or WORK_PER_SETUP * self._setup_seconds <= seconds_of_work)
