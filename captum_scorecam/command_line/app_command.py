"""The command ``app``."""

from __future__ import annotations

import time
from functools import partial
from typing import Annotated

import typer

from captum_scorecam.command_line.messages import plain_messages
from captum_scorecam.command_line.options import (
    DEFAULT_MODEL,
    ChosenDevice,
    ModelName,
    ScoreName,
    WeightsName,
    in_range,
    load_on_device,
)
from captum_scorecam.models import check_model_name

_THIS_MACHINE = ("127.0.0.1", "localhost", "::1")


def app(
    context: typer.Context,
    model: ModelName = DEFAULT_MODEL,
    weights: WeightsName = "DEFAULT",
    score: ScoreName = None,
    device: ChosenDevice = "auto",
    host: Annotated[
        str, typer.Option(help="The address to listen to; 0.0.0.0 lets other machines in.", metavar="ADDRESS")
    ] = "127.0.0.1",
    port: Annotated[
        int | None,
        typer.Option(
            help="The port. Default: a free one from 7860.",
            callback=in_range(1, 65535),
            metavar="N",
            show_default=False,
        ),
    ] = None,
    offered_only: Annotated[
        bool, typer.Option("--offered-only", help="Let nobody name other models, as behind a proxy on this machine.")
    ] = False,
) -> None:
    """Open a page in the browser to explore maps.

    Drop a picture, choose a model, classes, layers and methods, and see maps
    side by side, refined while they run. If other machines are let in, visitors
    choose among this model and the demo models; else any model can be named,
    except for modules. Pictures stay in memory.
    """
    with plain_messages(context, if_stopped="The page is closed; no picture is kept."):
        from captum_scorecam.app import Models, served
        from captum_scorecam.app.loaded_models import DEMO_MODELS

        check_model_name(model)
        given = {"weights": weights, "score": score}
        arguments = {name: value for name, value in given.items() if value not in (None, "DEFAULT")}
        offered = {model: arguments} | {name: {} for name in DEMO_MODELS if name != model}
        any_name = host in _THIS_MACHINE and not offered_only
        models = Models(partial(load_on_device, device=device), offered, any_name=any_name)
        typer.echo(f"Loading {model} …")
        with served(models, host, port) as address:
            typer.echo(f"The page is open at {address} (Ctrl-C closes it)")
            while True:
                time.sleep(1)  # a longer wait can't be interrupted on Windows
