"""`palate data import`: turn what other people collected into a data set."""

from __future__ import annotations

from palate.cli.importing import discord as discord
from palate.cli.importing import own as own
from palate.cli.importing import prompts as prompts
from palate.cli.importing import sets as sets
from palate.cli.importing.app import import_app as import_app
