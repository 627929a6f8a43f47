"""The commands of the course; the Makefile calls `python -m nndl.cli <command>`, each is a function elsewhere."""

import argparse
import os
import subprocess
import sys


def run(room, profile):
    from nndl import pages

    pages.run(room, profile)


def execute(room):
    from nndl import execution

    execution.execute(room)


def keep(room, profile, why):
    from nndl import keep

    keep.keep(room, profile, why)


def export(room, out):
    from nndl import export

    export.export(room, out)


def readme(check):
    from nndl import tables

    tables.readme(check)


def mutants(room, names, most):
    without_gpu()
    from nndl import mutants

    mutants.mutants(room, names, most)


def student(room, out, solutions, nbgrader):
    from nndl import student

    student.student(room, out, solutions, nbgrader)


def without_gpu():
    """For what forks: a process that has a GPU cannot."""
    os.environ |= {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


def grade(room, submissions, out, seconds):
    without_gpu()
    from nndl import grade

    grade.grade(room, submissions, out, seconds)


def checks(room):
    without_gpu()
    from nndl import checks

    checks.checks(room)


def lab(profile):
    """JupyterLab, with the profile for its notebooks; as root (in a container) Jupyter wants to be told."""
    root = ["--allow-root"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []
    environment = os.environ | ({"NNDL_PROFILE": profile} if profile else {})
    return subprocess.call([sys.executable, "-m", "jupyter", "lab", *root], env=environment)


def main(arguments=None):
    parser = argparse.ArgumentParser(prog="nndl", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)

    part = commands.add_parser("run", help="execute the notebooks of one assignment, or of all; pages in _build/")
    part.add_argument("room", nargs="?")
    part.add_argument("--profile", default="demo")
    part = commands.add_parser("execute", help="execute the committed notebooks in place (demo), clean their bytes")
    part.add_argument("room", nargs="?")
    part = commands.add_parser("keep", help="make a run the kept one; what it replaces goes into the ledger")
    part.add_argument("room", nargs="?")
    part.add_argument("--profile", default="full")
    part.add_argument("--why", default=os.environ.get("NNDL_WHY", ""))
    part = commands.add_parser("export", help="one assignment as a folder that needs only public packages")
    part.add_argument("room", nargs="?")
    part.add_argument("--out", default="")
    part = commands.add_parser("readme", help="write (or only compare) the tables of the READMEs")
    part.add_argument("--check", action="store_true")
    part = commands.add_parser("student", help="the student's edition: exercises without their bodies")
    part.add_argument("room", nargs="?")
    part.add_argument("--out", default="student")
    part.add_argument("--solutions", default="later")
    part.add_argument("--nbgrader", action="store_true", help="source notebooks for nbgrader instead")
    part = commands.add_parser("grade", help="grade one submission, or a folder of them")
    part.add_argument("room", nargs="?")
    part.add_argument("--submissions", default="")
    part.add_argument("--out", default="grades")
    part.add_argument(
        "--seconds", type=float, default=None, help="limit for one exercise; by default 10 times the reference's"
    )
    part = commands.add_parser("checks", help="whether the exercises of a room can be graded fairly")
    part.add_argument("room", nargs="?")
    part = commands.add_parser("mutants", help="small wrong solutions, and which of them the checks notice")
    part.add_argument("room", nargs="?")
    part.add_argument("--names", default="", help="only these exercises; nothing is written")
    part.add_argument("--most", type=int, default=0, help="so many of each exercise; nothing is written")
    part = commands.add_parser("lab", help="JupyterLab")
    part.add_argument("--profile", default="", choices=("", "tiny", "demo", "full"))

    options = vars(parser.parse_args(arguments))
    command = globals()[options.pop("command")]
    from nndl.records import LabError
    from nndl.rooms import UsageError

    try:
        return command(**options) or 0
    except LabError as error:
        print(error, file=sys.stderr)
        return 2 if isinstance(error, UsageError) else 1
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
