"""Profiles and settings: which column of a notebook's table counts, and what NNDL_SET changes in it."""

import ast
import json
import math
import os
from contextlib import suppress

import pandas as pd
import torch

from nndl.records import PROFILES, LabError, fits


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
        parts = []
        for part in value:
            for like in default:
                with suppress(ValueError):
                    parts.append(fitted(part, like))
                    break
            else:
                if default:
                    raise ValueError(f"{part!r} is not like {default[0]!r}")
                parts.append(part)
        return type(default)(parts)
    if type(default) is float and type(value) is int:
        value = float(value)
    if default is not None and type(value) is not type(default):
        raise ValueError(f"is not of type {type(default).__name__}")
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError("is not finite")
    return value


def parse_settings(text, known):
    """Read "epochs=3,seeds=(0,1),name='a,b'" into values of the types that `known` has; LabError where one can't be."""
    values, name = {}, None
    for piece in split_settings(text):
        before, equals, raw = piece.partition("=")
        if not equals and isinstance(known.get(name), str):  # the comma was part of a string
            values[name] += "," + piece
            continue
        if not piece.strip():
            continue
        name, raw = before.strip(), raw.strip()
        if name not in known:
            raise LabError(f"NNDL_SET: unknown setting {name!r}; known: {', '.join(known)}")
        if name in values:
            raise LabError(f"NNDL_SET: {name} is given twice")
        default = known[name]
        if isinstance(default, str) and raw[:1] not in ("'", '"'):
            values[name] = raw
            continue
        try:
            values[name] = fitted(ast.literal_eval(raw), default)
        except (ValueError, SyntaxError, TypeError) as error:
            words = str(error) if isinstance(error, ValueError) and str(error).startswith("is not") else ""
            why = words or f"is not of type {type(default).__name__}"
            raise LabError(f"NNDL_SET: {name}={raw} {why}; its default is {default!r}") from None
    return values


def choose(settings, profile=None, overrides=None):
    """(profile, reduced, cfg, overrides): the column of the settings table that counts, with what was changed by hand.

    profile, overrides: by default from NNDL_PROFILE and NNDL_SET. LabError for one that cannot be.
    """
    profile = profile or os.environ.get("NNDL_PROFILE", "demo")
    if profile not in PROFILES:
        raise LabError(f"NNDL_PROFILE={profile}: unknown profile; known: {', '.join(PROFILES)}")
    reduced = profile == "full" and not torch.cuda.is_available()
    column = 3 if reduced else PROFILES.index(profile)
    cfg = {name: (*values, values[-1])[column] for name, values in settings.items()}
    try:
        fits(json.loads(json.dumps(cfg, allow_nan=False)), "$defs", "settings")
    except (TypeError, ValueError) as error:
        raise LabError(f"the settings table holds what no record can: {error}") from None
    overrides = parse_settings(os.environ.get("NNDL_SET", "") if overrides is None else overrides, cfg)
    return profile, reduced, cfg | overrides, overrides


def settings_table(settings):
    """The settings of all profiles as a table, one row each."""
    columns = ["tiny", "demo", "full", "full without a GPU (reduced)"]
    rows = {name: (*values, values[-1])[:4] for name, values in settings.items()}
    return pd.DataFrame.from_dict(rows, orient="index", columns=columns)
