"""Profiles and settings: which column of a notebook's table counts, and what NNDL_SET changes in it."""

import ast
import json
import math
import os
from contextlib import suppress

import pandas as pd
import torch
from accelerate.utils import LoggerType, PrecisionType

from nndl.records import PROFILES, LabError, fits

PRECISIONS = tuple(str(kind) for kind in PrecisionType)
TRACKERS = tuple(str(kind) for kind in LoggerType if kind != LoggerType.ALL)


def split_settings(text):
    """Split at the commas that stand outside brackets and quotes."""
    parts, depth, quote = [""], 0, ""
    for sign in text:
        if quote:
            quote = "" if sign == quote else quote
        elif sign in "'\"":
            quote = sign
        else:
            depth += (sign in "([{") - (sign in ")]}")
        if sign == "," and depth == 0 and not quote:
            parts.append("")
        else:
            parts[-1] += sign
    if quote or depth:
        raise LabError(f"NNDL_SET={text}: a bracket or quote is not closed")
    return parts


def fitted(value, default):
    """The value in the type that the default has, tuples inside tuples too; ValueError where it does not fit."""
    if isinstance(default, tuple | list) and isinstance(value, tuple | list):
        kinds = {type(part) for part in default}
        if len(kinds) <= 1:
            return type(default)(fitted(part, default[0] if default else None) for part in value)
        if len(value) != len(default):  # a record such as ("conv", 3)
            raise ValueError(f"has {len(value)} parts, not {len(default)}")
        with suppress(ValueError):
            return type(default)(fitted(part, like) for part, like in zip(value, default))
        likes = [0.0] * len(value) if kinds == {int, float} else default  # (0.5, 1): the 1 may become 0.25
        return type(default)(fitted(part, like) for part, like in zip(value, likes))
    if type(default) is float and type(value) is int:
        value = float(value)
    if default is not None and type(value) is not type(default):
        raise ValueError(f"is not of type {type(default).__name__}")
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError("is not finite")
    return value


def parse_settings(text, known):
    """Read "epochs=3,seeds=(0,1),name='a,b'" into values of the types that `known` has; LabError where one can't be."""
    values, name, open_text = {}, None, False  # open_text: the value so far is a text without quotes
    for piece in split_settings(text):
        before, equals, raw = piece.partition("=")
        if not piece.strip():
            continue
        if not equals and open_text:  # the comma was part of the text
            values[name] += "," + piece
            continue
        name, raw = before.strip(), raw.strip()
        if name not in known:
            raise LabError(f"NNDL_SET: unknown setting {name!r}; known: {', '.join(known)}")
        if name in values:
            raise LabError(f"NNDL_SET: {name} is given twice")
        default = known[name]
        open_text = isinstance(default, str) and raw[:1] not in ("'", '"')
        if open_text:
            values[name] = raw
            continue
        try:
            values[name] = fitted(ast.literal_eval(raw), default)
            storable(values[name])
        except (ValueError, SyntaxError, TypeError, OverflowError) as error:
            words = str(error) if isinstance(error, ValueError) and str(error)[:3] in ("is ", "has") else ""
            why = words or ("is too large" if isinstance(error, OverflowError) else "")
            why = why or f"is not of type {type(default).__name__}"
            raise LabError(f"NNDL_SET: {name}={raw} {why}; its default is {default!r}") from None
    return values


def storable(value):
    """ValueError for what no record can hold: infinity and NaN, and kinds that JSON does not have."""
    try:
        fits({"value": json.loads(json.dumps(value, allow_nan=False))}, "$defs", "settings")
    except (TypeError, ValueError, LabError):
        raise ValueError("is not a number, text, truth value, or tuple of these") from None


def columns(values):
    """The four values of a setting; a fourth that is not given is the third."""
    return (*values, values[-1])[:4]


def choose(settings, profile=None, overrides=None):
    """(profile, reduced, cfg, overrides): the column of the settings table that counts, with what was changed by hand.

    profile, overrides: by default from NNDL_PROFILE and NNDL_SET. LabError for one that cannot be.
    """
    profile = profile or os.environ.get("NNDL_PROFILE", "demo")
    if profile not in PROFILES:
        raise LabError(f"NNDL_PROFILE={profile}: unknown profile; known: {', '.join(PROFILES)}")
    reduced = profile == "full" and not torch.cuda.is_available()
    column = 3 if reduced else PROFILES.index(profile)
    cfg = {}
    for name, values in settings.items():
        if not isinstance(values, tuple) or len(values) not in (3, 4):
            raise LabError(f"SETTINGS, {name}: a tuple of three or four values is needed, one a profile: {values!r}")
        cfg[name] = columns(values)[column]
        try:
            storable(cfg[name])
        except ValueError as error:
            raise LabError(f"SETTINGS, {name}: {cfg[name]!r} {error}") from None
    overrides = parse_settings(os.environ.get("NNDL_SET", "") if overrides is None else overrides, cfg)
    cfg |= overrides
    if not 0 <= cfg.get("seed", 0) < 2**32:
        raise LabError(f"setting seed={cfg['seed']}: from 0 to 2**32 - 1")
    if cfg.get("precision", "no") not in PRECISIONS:
        raise LabError(f"setting precision={cfg['precision']}: known are {', '.join(PRECISIONS)}")
    if (tracker := os.environ.get("NNDL_TRACK", TRACKERS[0])) not in TRACKERS:
        raise LabError(f"NNDL_TRACK={tracker}: known are {', '.join(TRACKERS)}")
    return profile, reduced, cfg, overrides


def settings_table(settings):
    """The settings of all profiles as a table, one row each."""
    heads = ["tiny", "demo", "full", "full without a GPU (reduced)"]
    rows = {name: columns(values) for name, values in settings.items()}
    return pd.DataFrame.from_dict(rows, orient="index", columns=heads)
