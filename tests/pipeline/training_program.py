"""Runs the command line over and over with what a training needs loaded already; see `kill_program`."""

from __future__ import annotations

import os

import timm

import stages.train.regimes
from tests.pipeline.kill_program import main

PRELOADED = (stages.train.regimes, timm)

if __name__ == "__main__":
    os._exit(main())  # leaving torch in order takes seconds
