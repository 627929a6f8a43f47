"""Two processes: the same program under accelerate launch, as on several GPUs or machines.

`accelerate launch --cpu --num_processes 2` starts one process without a word. --multi_gpu is what starts several, and
ACCELERATE_USE_CPU=true keeps them on the CPU.
"""

import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from nndl import rooms

HERE = Path(__file__).parent


def launch(script):
    """Run a script in its folder with two processes on the CPU under tiny; returns the record that it leaves."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2"]
    command += ["--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no"]
    command += ["--main_process_port", str(port), script.name]
    environment = os.environ | {"ACCELERATE_USE_CPU": "true", "NNDL_PROFILE": "tiny", "MPLBACKEND": "agg"}
    done = subprocess.run(
        command, cwd=script.parent, env=environment, capture_output=True, encoding="utf-8", timeout=600
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads((script.parent / "runs" / "tiny" / "record.json").read_text(encoding="utf-8"))


def test_toy_training_on_two_processes(room):
    script = shutil.copy(HERE / "toy_training.py", room)
    record = launch(Path(script))
    assert record["machine"]["processes"] == 2
    assert record["metrics"]["loss"]["value"] < 0.6  # below ln 2: it has learnt
    assert len(list(room.rglob("record.json"))) == 1
    assert not list(room.rglob("*.part"))


@pytest.mark.parametrize("name", ["CA5_vit"])
def test_converted_notebook_on_two_processes(name, tmp_path):
    """The way that the README describes: notebook to script, script under accelerate launch."""
    if not (rooms.ROOT / name / "code.ipynb").exists():
        pytest.skip(f"{name}/code.ipynb is not there yet")
    room = tmp_path / name
    shutil.copytree(rooms.ROOT / name, room, ignore=shutil.ignore_patterns("results", "runs", "__pycache__"))
    # main, because a script called code.py would stand in the way of the standard library's module `code`
    convert = [sys.executable, "-m", "nbconvert", "--to", "script", "code.ipynb", "--output", "main"]
    subprocess.run(convert, cwd=room, check=True, capture_output=True)
    record = launch(room / "main.py")
    assert (record["assignment"], record["profile"]) == (name, "tiny")
    assert record["machine"]["processes"] == 2
