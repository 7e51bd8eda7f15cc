"""A page in the browser that explains a picture: maps side by side, refined while they run."""

from importlib.util import find_spec

if find_spec("gradio") is None:
    raise ModuleNotFoundError('The app needs gradio: pip install "captum-scorecam[app]".', name="gradio")

from captum_scorecam.app.loaded_models import Models
from captum_scorecam.app.server import served

__all__ = ["Models", "served"]
