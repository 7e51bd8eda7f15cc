"""A visitor's run: maps of several methods at several layers, in a thread that reports and can be stopped."""

from __future__ import annotations

import threading
import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_pre_hook

from captum_scorecam import ChannelScores
from captum_scorecam._threads import hooks
from captum_scorecam.app.loaded_models import Prepared
from captum_scorecam.app.messages import noted_warnings, text_of
from captum_scorecam.evaluation import METHODS, ExplanationRequest, MethodOptions, run_method
from captum_scorecam.evaluation.methods import SCORE_CAM, upsampled, weighting_of
from captum_scorecam.evaluation.presentation import error_text, method_title
from captum_scorecam.evaluation.shared_scores import channel_scores_of, score_cam_of
from captum_scorecam.models import Classifier, ExplainedLayer, Prediction
from captum_scorecam.weighting import ChannelWeighting

OPTIONS = MethodOptions(n_masks=1000, mask_iterations=100)
FAST, SLOW = ("grad_cam", "grad_cam_plus_plus"), ("rise", "mask")
OFFERED = (SCORE_CAM, *FAST, *SLOW)
MOST_CLASSES, MOST_COLUMNS = 5, 12


@dataclass(frozen=True)
class Choices:
    """What a visitor wants to see.

    Attributes:
        classes (tuple of int): The classes to explain.
        layers (tuple of str): The layers to explain.
        methods (tuple of str): Names in `METHODS`.
        max_forwards (int): Masks of Score-CAM's first map.
        exact (bool): Whether all masks are run then.
    """

    classes: tuple[int, ...]
    layers: tuple[str, ...]
    methods: tuple[str, ...]
    max_forwards: int = 32
    exact: bool = True

    def check(self) -> None:
        """Checks that there is something to do, and not too much.

        Raises:
            ValueError: If there is nothing, or too much.
        """
        if not 1 <= len(self.classes) <= MOST_CLASSES:
            raise ValueError(f"Choose 1 to {MOST_CLASSES} classes: {len(self.classes)} are chosen.")
        if not self.methods:
            raise ValueError("Choose a method.")
        if not self.layers and any(METHODS[method].of_layer for method in self.methods):
            raise ValueError("Choose a layer.")
        if len(self.columns()) > MOST_COLUMNS:
            raise ValueError(f"Choose fewer methods or layers: {len(self.columns())} maps, at most {MOST_COLUMNS}.")

    def columns(self) -> list[Column]:
        """Returns a column for each method and layer, and one for each method without a layer."""
        return [
            Column(method, layer)
            for method in self.methods
            for layer in (self.layers if METHODS[method].of_layer else ("",))
        ]


@dataclass(frozen=True, eq=False)
class Column:
    """The maps of one method at one layer, as far as they are known.

    Attributes:
        method (str): The method.
        layer (str): The layer; "" if the method explains none.
        captions (tuple of str): For each class, how its map was made. Default: none.
        maps (Tensor, optional): T×H×W. Default: None, not known yet.
        errors (tuple of float): For each class, the largest standard error, a share of the map's largest value.
            Default: none.
        max_forwards (int, optional): The masks of a map that is not exact. Default: None.
        scores (ChannelScores, optional): Of Score-CAM's channels. Default: None.
        weighting (str): Score-CAM's weighting. Default: "softmax".
        failure (str): Why there is no map. Default: there is one, or will be.
    """

    method: str
    layer: str
    captions: tuple[str, ...] = ()
    maps: Tensor | None = None
    errors: tuple[float, ...] = ()
    max_forwards: int | None = None
    scores: ChannelScores | None = None
    weighting: ChannelWeighting = "softmax"
    failure: str = ""

    @property
    def title(self) -> str:
        """The method's title."""
        return method_title(self.method)


@dataclass(frozen=True)
class Progress:
    """How far the current step is."""

    text: str = "Waiting for another run to end"
    done: int = 0
    total: int = 0


class _StoppedError(BaseException):
    """Ends a run between two forward passes; no Exception, so that nothing takes it for a failure of the model."""


class Run:
    """Explains one image.

    Args:
        classifier (Classifier): The model.
        prepared (Prepared): Its layers and its engine.
        inputs (Tensor): The preprocessed image, 1×C×H×W.
        prediction (Prediction): The model's prediction.
        choices (Choices): What to explain.
        running (Lock): Held while the model runs.
        closing (Event, optional): Stops the run once it is set. Default: None.

    Attributes:
        columns (tuple of Column): The maps so far; a new tuple with each new map.
        notes (list of str): Warnings, once the run has ended.
        failure (str): What ended the run. Default: nothing did.
    """

    def __init__(
        self,
        classifier: Classifier,
        prepared: Prepared,
        inputs: Tensor,
        prediction: Prediction,
        choices: Choices,
        running: threading.Lock,
        closing: threading.Event | None = None,
    ) -> None:
        choices.check()
        self.columns = tuple(choices.columns())
        self.notes: list[str] = []
        self.failure = ""
        self._classifier, self._prepared, self._inputs = classifier, prepared, inputs
        self._prediction, self._choices, self._running = prediction, choices, running
        self._layers = {layer.name: layer for layer in prepared.layers}
        self._step, self._rows = Progress(), 0
        self._stop, self._ended = threading.Event(), threading.Event()
        self._closing = closing or self._stop
        self._thread = threading.Thread(target=self._work, daemon=True)

    def updates(self, seconds: float = 0.2) -> Generator[Progress, None, None]:
        """Starts the run and reports its progress until it has ended; stops it if the iterator is closed.

        Args:
            seconds (float): Between reports; each new map is reported at once. Default: 0.2.
        """
        self._thread.start()
        try:
            shown = self.columns
            while not self._ended.is_set():
                deadline = time.monotonic() + seconds
                while not self._ended.wait(0.02) and self.columns is shown and time.monotonic() < deadline:
                    pass
                shown, step = self.columns, self._step
                yield replace(step, done=min(self._rows, step.total))
        finally:
            self._stop.set()

    def _work(self) -> None:
        try:
            with self._running, noted_warnings() as self.notes, self._counted():
                self._fill()
        except _StoppedError:
            self.failure = "Cancelled."
        except Exception as error:  # of the user's model
            self.failure = text_of(error)
        finally:
            self._ended.set()

    @contextmanager
    def _counted(self) -> Iterator[None]:
        """Counts the rows that the model and its twin run, and stops them."""
        counted = (self._classifier.model, self._prepared.twin)

        def before(module: nn.Module, args: tuple[Any, ...]) -> None:
            if module not in counted or threading.current_thread() is not self._thread:
                return
            self._check_not_stopped()
            self._rows += len(args[0]) if args else 0

        with hooks(partial(register_module_forward_pre_hook, before)):
            yield

    def _fill(self) -> None:
        """Makes the maps in the order of what they cost; Score-CAM's first ones come before its exact ones."""
        for number in self._of(FAST):
            self._explain(number)
        for number in self._of([SCORE_CAM]):
            self._score_channels(number, self._choices.max_forwards)
        if self._choices.exact:
            for number in self._of([SCORE_CAM]):
                self._complete(number)
        for number in self._of(SLOW):
            self._explain(number)

    def _of(self, methods: Sequence[str]) -> list[int]:
        """The numbers of the columns of these methods."""
        return [number for number, column in enumerate(self.columns) if column.method in methods]

    def _request(self, layer_name: str) -> ExplanationRequest:
        classifier, prediction = self._classifier, self._prediction
        layer = self._layers[layer_name] if layer_name else ExplainedLayer("none", classifier.model)
        return ExplanationRequest(
            classifier.model,
            layer,
            self._inputs,
            list(self._choices.classes),
            prediction.score,
            OPTIONS,
            unbounded=not prediction.has_probabilities,
            masked_forward_func=self._prepared.twin,
        )

    def _begin(self, column: Column, what: str, total: int = 0) -> None:
        place = f" at {column.layer}" if column.layer else ""
        self._step, self._rows = Progress(f"{column.title}{place}: {what}", total=total), 0
        self._check_not_stopped()

    def _check_not_stopped(self) -> None:
        if self._stop.is_set() or self._closing.is_set():
            raise _StoppedError

    def _set(self, number: int, **changes: Any) -> None:
        columns = list(self.columns)
        columns[number] = replace(columns[number], **changes)
        self.columns = tuple(columns)

    def _explain(self, number: int) -> None:
        column = self.columns[number]
        totals = {"rise": OPTIONS.n_masks, "mask": OPTIONS.mask_iterations * len(self._choices.classes)}
        total = totals.get(column.method, 0)
        self._begin(column, f"{total} forwards" if total else "one forward", total)
        try:
            maps, run = run_method(column.method, self._request(column.layer))
            if not maps.isfinite().all():
                raise ValueError("The map has values that are NaN or infinite.")
        except Exception as error:  # of the user's model
            self._set(number, failure=text_of(error))
            return
        forwards = "1 forward" if run.forwards == 1 else f"{run.forwards} forwards"
        self._set(number, maps=maps, captions=(f"{forwards} · {run.seconds:.1f} s",) * len(maps))

    def _complete(self, number: int) -> None:
        """Runs all masks, unless the first map is exact or has failed."""
        scores = self.columns[number].scores
        if scores is not None and scores.prediction is not None:
            self._score_channels(number, max_forwards=None, total=len(scores.masks))

    def _score_channels(self, number: int, max_forwards: int | None, total: int = 0) -> None:
        column = self.columns[number]
        self._begin(column, "all masks" if total else "a first map", total or max_forwards or 0)
        start = time.perf_counter()
        try:
            request = self._request(column.layer)
            score_cam = score_cam_of(request, channel_weighting=weighting_of(request), max_forwards=max_forwards)
            scores = channel_scores_of(request, score_cam)
        except Exception as error:  # of the user's model
            self._set(number, failure=text_of(error))
            return
        seconds, n_masks = time.perf_counter() - start, len(scores.masks)
        is_exact = scores.prediction is None
        errors = score_cam.last_run.errors if score_cam.last_run and not is_exact else ()
        self._set(
            number,
            maps=upsampled(scores.maps(score_cam.channel_weighting), request),
            captions=tuple(
                f"{error_text(error)} · {scores.n_forwards} of {n_masks} masks · {seconds:.1f} s"
                for error in errors or (0.0,) * len(request.targets)
            ),
            errors=tuple(errors),
            max_forwards=None if is_exact else max_forwards,
            scores=scores,
            weighting=score_cam.channel_weighting,
        )
