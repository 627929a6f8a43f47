"""make keep: a run becomes the room's kept one; what it replaces goes into the ledger, results/history.json."""

import json
import os
import shutil
from datetime import UTC, datetime

from nndl import rooms
from nndl.records import PROFILES, read_history, read_record
from nndl.rooms import CourseError, UsageError, one_room

FIGURES = ("label", "value", "low", "high", "n", "unit", "interval", "data")


def headlines(record):
    """{name: figures} of a record's headline metrics."""
    return {
        name: {key: metric[key] for key in FIGURES} for name, metric in record["metrics"].items() if metric["headline"]
    }


def keep(room, profile, why):
    """Copy runs/<profile>/ to results/<profile>/. The record that was there goes into the ledger, with the reason.

    Refused are a run with settings changed by hand, demo on real data, and a reduced run in place of a whole one. Where
    a step fails the kept record stays.
    """
    room = one_room(room, "make keep A=CA5_vit PROFILE=full WHY='five seeds instead of one'")
    if profile not in PROFILES or profile == "tiny":
        raise UsageError(f"{profile}: only demo and full are kept")
    if not why.strip():
        raise UsageError("why is the run made anew? WHY='...' goes into the ledger of looks at the test part")
    own, results = rooms.ROOT / room / "runs" / profile, rooms.ROOT / room / "results"
    place, new, old = (results / f"{profile}{ending}" for ending in ("", ".part", ".old"))
    if old.exists():  # an earlier call was interrupted before its line stood in the ledger: as if it had not been
        shutil.rmtree(place, ignore_errors=True)
        os.replace(old, place)
    record, before = read_record(own), read_record(place)
    if record is None:
        raise CourseError(f"{room}: no finished {profile} run; make run A={room} PROFILE={profile}")
    if record["overrides"]:
        raise CourseError(f"{room}: the run has settings changed by hand ({record['overrides']}): not kept")
    if profile == "demo" and any(data["source"] == "real" for data in record["data"].values()):
        raise CourseError(f"{room}: a demo run on real data: not kept")
    if before is not None and record["reduced"] and not before["reduced"]:
        raise CourseError(f"{room}: the kept run is not reduced, this one is: not kept")

    history = read_history(results)
    if before is not None and headlines(before) != headlines(record):
        made = before.get("finished", "")[:10]
        entry = {"profile": profile, "replaced": f"{datetime.now(UTC):%Y-%m-%d}", "why": why.strip()}
        history.append(entry | ({"made": made} if made else {}) | {"metrics": headlines(before)})
    files = ["record.json"] + [path.name for path in own.glob("*.npz")]
    part = results / "history.json.part"
    try:  # what can fail for want of room comes first; then only names change
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir(parents=True)
        for name in files:
            shutil.copy(own / name, new / name)
        part.write_text(json.dumps(history, indent=1, ensure_ascii=False) + "\n", encoding="utf-8", newline="\n")
        if place.exists():
            os.replace(place, old)
        os.replace(new, place)
        os.replace(part, results / "history.json")
    except OSError as error:
        if old.exists():
            shutil.rmtree(place, ignore_errors=True)
            os.replace(old, place)
        shutil.rmtree(new, ignore_errors=True)
        part.unlink(missing_ok=True)
        raise CourseError(f"{room}: not kept ({error.strerror}: {error.filename}); the kept run is as it was") from None
    shutil.rmtree(old, ignore_errors=True)
    print(f"kept: {room}/results/{profile} ({', '.join(files)}); {len(history)} entries in the ledger")
    print("now: make readme, and make execute so that the committed report shows it")
