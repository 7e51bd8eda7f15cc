"""Marks for tests that only run on some operating systems."""

from __future__ import annotations

import os
import sys

import pytest

needs_posix = pytest.mark.skipif(os.name != "posix", reason="needs limits, links and file names of a POSIX system")
needs_linux = pytest.mark.skipif(sys.platform != "linux", reason="file names that are not text exist on Linux only")
