"""make keep: a run becomes the room's kept one; what it replaces goes into the ledger, results/history.json."""

import json
import os
import shutil
from datetime import UTC, datetime

from nndl import rooms
from nndl.records import PROFILES, LabError, check_record, read_record
from nndl.rooms import CourseError, UsageError, one_room

FIGURES = ("label", "value", "low", "high", "n", "unit", "interval", "data")


def headlines(record):
    """{name: figures} of a record's headline metrics."""
    return {
        name: {key: metric[key] for key in FIGURES} for name, metric in record["metrics"].items() if metric["headline"]
    }


def keep(room, profile, why):
    """Copy runs/<profile>/ to results/<profile>/. The record that was there goes into the ledger, with the reason.

    A run with settings changed by hand is refused, as is demo on real data. Nothing is changed where one step fails.
    """
    room = one_room(room, "make keep A=CA5_vit PROFILE=full WHY='five seeds instead of one'")
    if profile not in PROFILES or profile == "tiny":
        raise UsageError(f"{profile}: only demo and full are kept")
    if not why.strip():
        raise UsageError("why is the run made anew? WHY='...' goes into the ledger of looks at the test part")
    own, results = rooms.ROOT / room / "runs" / profile, rooms.ROOT / room / "results"
    try:
        record, before = read_record(own), read_record(results / profile)
        if record is None:
            raise CourseError(f"{room}: no finished {profile} run; make run A={room} PROFILE={profile}")
        check_record(record)
    except LabError as error:
        raise CourseError(f"{room}: {error}") from None
    if record["overrides"]:
        raise CourseError(f"{room}: the run has settings changed by hand ({record['overrides']}): not kept")
    if profile == "demo" and any(data["source"] == "real" for data in record["data"].values()):
        raise CourseError(f"{room}: a demo run on real data: not kept")

    history = read_history(room)
    if before is not None and headlines(before) != headlines(record):
        made = before.get("finished", "")[:10]
        entry = {"profile": profile, "replaced": f"{datetime.now(UTC):%Y-%m-%d}", "why": why.strip()}
        history.append(entry | ({"made": made} if made else {}) | {"metrics": headlines(before)})
    new, old = results / f"{profile}.part", results / f"{profile}.old"
    for folder in (new, old):
        shutil.rmtree(folder, ignore_errors=True)
    files = ["record.json"] + [path.name for path in own.glob("*.npz")]
    new.mkdir(parents=True)
    for name in files:
        shutil.copy(own / name, new / name)
    if (results / profile).exists():
        os.replace(results / profile, old)
    os.replace(new, results / profile)
    shutil.rmtree(old, ignore_errors=True)
    write_history(room, history)
    print(f"kept: {room}/results/{profile} ({', '.join(files)}); {len(history)} entries in the ledger")
    print("now: make readme, and make execute so that the committed report shows it")


def history_file(room):
    return rooms.ROOT / room / "results" / "history.json"


def read_history(room):
    """The ledger of a room, oldest entry first; [] where there is none."""
    path = history_file(room)
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else []


def write_history(room, history):
    text = json.dumps(history, indent=1, ensure_ascii=False) + "\n"
    part = history_file(room).with_name("history.json.part")
    part.write_text(text, encoding="utf-8")
    os.replace(part, history_file(room))
