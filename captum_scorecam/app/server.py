"""Serves the page, on this machine unless told otherwise."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from tempfile import TemporaryDirectory
from typing import Any

import gradio as gr
from gradio import routes

from captum_scorecam.app.loaded_models import Models
from captum_scorecam.app.page import CSS, build_page
from captum_scorecam.app.pictures import MOST_BYTES, SAMPLES, Picture

MOST_WAITING = 32  # runs in the queue; further ones are refused
_MOST_SESSIONS = 100  # whose pictures and maps are kept
_CLEANED_EVERY = 60  # seconds; an upload that was never read is as old before it is removed
_SETTINGS = {"GRADIO_ANALYTICS_ENABLED": "False", "GRADIO_SHARE": "False", "ORT_DISABLE_TELEMETRY": "1"}


@contextmanager
def served(models: Models, host: str = "127.0.0.1", port: int | None = None) -> Iterator[str]:
    """Prepares the first model, and serves the page while the body runs.

    Args:
        models (Models): The models to choose among.
        host (str): The address to listen to. Default: this machine only.
        port (int, optional): The port. Default: None, a free one from 7860.

    Yields:
        str: The address of the page.

    Raises:
        ValueError: If the address or the port can't be listened to, or the first model does not exist.
        ModuleNotFoundError, OSError: If the first model can't be loaded.
    """
    _check_free(host, port)
    models.closing.clear()  # of an earlier page
    with (
        TemporaryDirectory(prefix="captum-scorecam-") as uploads,
        _environment(GRADIO_TEMP_DIR=uploads, **_SETTINGS),
        _temporary_files_in(uploads),
    ):
        model = models.get(next(iter(models.offered)))
        if SAMPLES:
            model.prepared(model.classifier.inputs(Picture(next(iter(SAMPLES))).image()))
        with ThreadPoolExecutor(1) as pool:  # in case this thread has an event loop, as in a notebook
            page = pool.submit(asyncio.run, _built(models)).result()
        try:
            app, address, _ = page.launch(
                server_name=host,
                server_port=port,
                prevent_thread_lock=True,
                quiet=True,
                share=False,
                inbrowser=False,
                max_file_size=MOST_BYTES,
                state_session_capacity=_MOST_SESSIONS,
                css=CSS,
                theme=gr.themes.Default(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]),
                footer_links=[],
                run_history=False,
                enable_monitoring=False,
                ssr_mode=False,
                mcp_server=False,
            )
            app.iterators = _Iterators(app.iterators)
            yield address
        finally:
            models.closing.set()
            page.close(verbose=False)
            with models.running:  # the process would end with an error in the middle of a forward pass
                pass


class _Iterators(dict[str, Any]):
    """Gradio's runs. The queue and the request that cancels a run both remove it; the later one must not fail."""

    def __delitem__(self, key: str) -> None:
        self.pop(key, None)


def _check_free(host: str, port: int | None) -> None:
    try:
        socket.create_server((host, port or 0), family=socket.AF_INET6 if ":" in host else socket.AF_INET).close()
    except OSError as error:
        given = "`host` to be an address of this machine" if port is None else "`host` and `port` to be free"
        address = host if port is None else f"{host}:{port}"
        raise ValueError(f"Expected {given}, but {address} can't be listened to: {error.strerror}.") from error


async def _built(models: Models) -> gr.Blocks:
    """Builds the page in an event loop, without which Gradio opens several and closes none."""
    page = build_page(models)
    page.delete_cache = (_CLEANED_EVERY, _CLEANED_EVERY)
    page.queue(max_size=MOST_WAITING, default_concurrency_limit=1, api_open=False)
    return page


@contextmanager
def _environment(**values: str) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextmanager
def _temporary_files_in(folder: str) -> Iterator[None]:
    """Makes Gradio use a folder also for what it placed when it was imported."""
    settings = vars(routes)
    before, settings["DEFAULT_TEMP_DIR"] = settings["DEFAULT_TEMP_DIR"], folder
    try:
        yield
    finally:
        settings["DEFAULT_TEMP_DIR"] = before
