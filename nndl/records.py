"""Records of runs: the schema that they are held to, where they lie, and how a report shows whose run it is.

A person's own run lies in runs/<profile>/ and is never tracked; the kept ones lie in results/<profile>/.
"""

import functools
import json
import math
import os
from datetime import datetime
from pathlib import Path

import jsonschema
import pandas as pd
from IPython.display import Markdown

from nndl.intervals import digits_of, text

PROFILES = ("tiny", "demo", "full")


class LabError(Exception):
    """A setting, file or record that cannot be used; the message says which, and what to do."""


@functools.cache
def schema():
    return json.loads((Path(__file__).parent / "record.schema.json").read_text(encoding="utf-8"))


def fits(part, *way):
    """LabError where a part of a record does not fit the schema; way: the keys that lead to the part's own schema."""
    place = schema()
    for key in way:
        place = place[key]
    for error in jsonschema.Draft202012Validator(place | {"$defs": schema()["$defs"]}).iter_errors(part):
        raise LabError(f"record, {'.'.join(map(str, error.absolute_path)) or 'as a whole'}: {error.message}")


def check_record(record):
    """LabError where a record does not fit the schema, or contradicts itself."""
    fits(record)
    for name, metric in record["metrics"].items():
        if not -math.inf < metric["low"] <= metric["value"] <= metric["high"] < math.inf:
            raise LabError(f"metric {name}: value outside its interval, or not finite: {metric}")
        if metric["data"] not in record["data"]:
            raise LabError(f"metric {name}: data {metric['data']!r} is not in the record")
    if not any(metric["headline"] for metric in record["metrics"].values()):
        raise LabError("record: no metric is a headline, for the README")
    settings = record["settings"]
    if any(settings.get(name) != value or name not in settings for name, value in record["overrides"].items()):
        raise LabError(f"record: overrides {record['overrides']} are not what the settings say")
    if record["seed"] != settings.get("seed", record["seed"]):
        raise LabError(f"record: seed {record['seed']}, but {settings['seed']} in the settings")
    if "finished" in record:
        try:
            datetime.fromisoformat(record["finished"])
        except ValueError:
            raise LabError(f"record: finished {record['finished']!r} is no time") from None


def read_record(folder):
    """The record in the folder of a profile, or None where there is none; LabError when it is broken."""
    path = Path(folder) / "record.json"
    if not path.exists():
        return None
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        check_record(record)
        if record["profile"] != path.parent.name:
            raise LabError(f"it is of profile {record['profile']}")
    except (OSError, ValueError, LabError) as error:
        first = str(error).splitlines()[0]
        raise LabError(f"{path} is damaged ({first}): delete it, or run code.ipynb again") from None
    return record


def read_history(results):
    """The ledger in a results/ folder, oldest entry first; [] where there is none; LabError when it is broken."""
    path = Path(results) / "history.json"
    try:
        return json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
    except (OSError, ValueError) as error:
        raise LabError(f"{path} is damaged ({error}): take it back from git") from None


# ---------------------------------------------------------------- what a report reads


def load_record():
    """The record that a report shows, and the folder of its arrays.

    The person's own run in runs/: that of NNDL_PROFILE where there is one, else the last one (a tiny one only where it
    is asked for). Without an own run, or with NNDL_RUN=kept, the kept record in results/: full, else demo.
    """
    room, asked = Path.cwd(), os.environ.get("NNDL_PROFILE")
    if asked is not None and asked not in PROFILES:
        raise LabError(f"NNDL_PROFILE={asked}: unknown profile; known: {', '.join(PROFILES)}")
    if os.environ.get("NNDL_RUN") != "kept":
        own = {p: record for p in PROFILES if (record := read_record(room / "runs" / p))}
        if asked == "tiny" and asked not in own:
            raise LabError(f"no tiny run under {room.name}/runs: run code.ipynb first")
        large = [p for p in own if p != "tiny"]
        last = max(large, key=lambda p: own[p].get("finished", ""), default=None)
        if profile := asked if asked in own else last:
            return own[profile], room / "runs" / profile
    for profile in ("full", "demo"):
        if record := read_record(room / "results" / profile):
            return record, room / "results" / profile
    raise LabError(f"no record under {room.name}/runs or {room.name}/results: run code.ipynb first")


def run_words(record):
    """`full, reduced, epochs=3; cpu, AMD EPYC`: the profile, what was changed, the machine."""
    words = [record["profile"]] + ["reduced"] * record["reduced"]
    words += [f"{name}={value}" for name, value in record["overrides"].items()]
    machine = record["machine"]
    many = f"{machine['processes']} x " if machine["processes"] > 1 else ""
    return f"{', '.join(words)}; {many}{machine['device']}, {machine['name']}"


def show_run(record, folder):
    """Whose run a report shows, and when it was made; an own run has the kept figures beside it. For display."""
    when = record.get("finished")
    made = f", finished {datetime.fromisoformat(when).astimezone():%Y-%m-%d %H:%M}" if when else ""
    sources = ", ".join(f"{name} ({entry['source']})" for name, entry in record["data"].items())
    if Path(folder).parent.name != "runs":
        day = made[:-6] if made else ""  # the hour of a kept run says nothing, and would differ by time zone
        return Markdown(f"**The kept run** ({run_words(record)}{day}). Data: {sources}.")
    line = f"**Your own run** ({run_words(record)}{made}). Data: {sources}."
    if record["profile"] == "tiny":
        return Markdown(line + " It only shows that everything runs: its figures mean nothing.")
    kept = read_record(Path.cwd() / "results" / record["profile"])
    if kept is None:
        return Markdown(line)
    rows = []
    for name, metric in record["metrics"].items():
        if metric["headline"]:
            other, change = kept["metrics"].get(name), "not to be compared"
            if other and (other["unit"], other["data"]) == (metric["unit"], metric["data"]):
                digits = max(digits_of(metric), digits_of(other))
                change = f"{metric['value'] - other['value']:+.{digits}f}"
            rows.append((metric["label"], text(metric, None), text(other, None) if other else "not there", change))
    beside = pd.DataFrame(rows, columns=["result", "your run", f"kept run ({run_words(kept)})", "difference"])
    table = beside.to_html(index=False, border=0)
    return Markdown(f"{line} Beside the kept run of this profile (differences without an interval):\n\n{table}")


def show_looks(record):
    """The ledger: headline figures of earlier kept runs of this profile, and why they were made anew. For display."""
    parts = []
    for entry in read_history(Path.cwd() / "results"):
        if entry["profile"] == record["profile"]:
            rows = [(metric["label"], metric["data"], text(metric, None)) for metric in entry["metrics"].values()]
            table = pd.DataFrame(rows, columns=["result", "data", "figure then"]).to_html(index=False, border=0)
            parts.append(f"**Replaced on {entry['replaced']}.** {entry['why']}\n\n{table}")
    return Markdown("\n\n".join(parts) or f"No earlier {record['profile']} run was kept.")
