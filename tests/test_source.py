"""source: what a training reaches. An edit of any of it must be seen; comments, docstrings and other code must not."""

import linecache
import os
import subprocess
import sys
import textwrap
from types import ModuleType

import pytest
import torch

from nndl import source

# What a training may be made of, each with an edit that must be seen: (old, new, text of a notebook). `go` is called.
PIECES = {
    "function": ('- 1', '+ 1', """
        def loss(x): return x - 1
        def go():
            loss(1)
    """),
    "constant of a function": ('= 3', '= 4', """
        LIMIT = 3
        def loss(x): return x - LIMIT
        def go():
            loss(1)
    """),
    "table of functions": ('- 1', '+ 1', """
        def loss(x): return x - 1
        LOSSES = {"one": loss}
        def go():
            LOSSES["one"](1)
    """),
    "base class": ('- 1', '+ 1', """
        class Base:
            def f(self, x): return x - 1
        class Net(Base):
            def g(self): return 2
        def go(net=Net()):
            pass
    """),
    "one of two lambdas": ('- 1', '+ 1', """
        L = {
            'a': lambda p: p,
            'b': lambda p: p - 1,
        }
        def go():
            f = L['b']
    """),
    "order of layers": ('nn.ReLU(), nn.Sigmoid()', 'nn.Sigmoid(), nn.ReLU()', """
        def go(net=nn.Sequential(nn.ReLU(), nn.Sigmoid())):
            pass
    """),
    "partial": ('x - k', 'x + k', """
        def loss(x, k): return x - k
        f = partial(loss, k=1)
        def go():
            f(1)
    """),
    "argument of a partial": ('k=1', 'k=2', """
        def loss(x, k): return x - k
        f = partial(loss, k=1)
        def go():
            f(1)
    """),
    "bound method": ('- 1', '+ 1', """
        class O:
            def m(self, x): return x - 1
        f = O().m
        def go():
            f(1)
    """),
    "function in a closure": ('- 1', '+ 1', """
        def one(x): return x - 1
        def make(g):
            def inner(x): return g(x)
            return inner
        f = make(one)
        def go():
            f(1)
    """),
    "number in a closure": ('make(1)', 'make(2)', """
        def make(k):
            def inner(x): return x * k
            return inner
        f = make(1)
        def go():
            f(1)
    """),
    "decorated, without wraps": ('- 1', '+ 1', """
        def deco(g):
            def inner(x): return g(x)
            return inner
        @deco
        def f(x): return x - 1
        def go():
            f(1)
    """),
    "decorator": ('2 *', '3 *', """
        def deco(g):
            @wraps(g)
            def inner(x): return 2 * g(x)
            return inner
        @deco
        def f(x): return x
        def go():
            f(1)
    """),
    "global number": ('0.1', '0.2', """
        rate = 0.1
        def go():
            x = rate
    """),
    "setting of the run": ('epochs=1', 'epochs=2', """
        run = N(cfg=N(epochs=1))
        def go():
            x = run.cfg.epochs
    """),
    "settings handed over": ('epochs=1', 'epochs=2', """
        cfg = N(epochs=1)
        def go(settings=cfg):
            x = settings.epochs
    """),
    "list of functions": ('- 1', '+ 1', """
        def a(x): return x - 1
        def go(steps=[a]):
            pass
    """),
    "Subset of a data set": ('i - 1', 'i + 1', """
        class S(D.Dataset):
            def __len__(self): return 4
            def __getitem__(self, i): return i - 1
        loader = D.DataLoader(D.Subset(S(), [0]))
        def go(loader=loader):
            pass
    """),
    "collate_fn": ('- 1', '+ 1', """
        def col(b): return b[0] - 1
        loader = D.DataLoader([1, 2], collate_fn=col)
        def go(loader=loader):
            pass
    """),
    "transform of a data set": ('- 1', '+ 1', """
        def aug(x): return x - 1
        class S(D.Dataset):
            def __init__(self, t): self.t = t
            def __len__(self): return 4
            def __getitem__(self, i): return self.t(i)
        def go(loader=D.DataLoader(S(aug))):
            pass
    """),
    "activation that a layer holds": ('- 1', '+ 1', """
        def act(x): return x - 1
        class Net(nn.Module):
            def __init__(self, a):
                super().__init__()
                self.a = a
        def go(net=Net(act)):
            pass
    """),
    "base without own methods between": ('- 1', '+ 1', """
        class B(nn.Module):
            def forward(self, x): return x - 1
        class C(B): pass
        def go(net=C()):
            pass
    """),
    "static method": ('- 1', '+ 1', """
        class O:
            @staticmethod
            def f(x): return x - 1
        def go(o=O()):
            pass
    """),
    "decorated forward": ('- 1', '+ 1', """
        class Net(nn.Module):
            @torch.no_grad()
            def forward(self, x): return x - 1
        def go(net=Net()):
            pass
    """),
    "autograd function": ('- 1', '+ 1', """
        class F(torch.autograd.Function):
            @staticmethod
            def forward(ctx, x): return x - 1
        def go():
            f = F
    """),
    "CONSTANT tensor": ('0.5', '0.6', """
        MEAN = torch.tensor([0.5])
        def go():
            x = MEAN
    """),
    "CONSTANT set": ('{1, 2}', '{1, 3}', """
        SIZES = {1, 2}
        def go():
            x = SIZES
    """),
    "CONSTANT dataclass": ('0.1', '0.2', """
        @dataclass
        class C:
            lr: float
        RECIPE = C(0.1)
        def go():
            x = RECIPE.lr
    """),
}  # fmt: skip
HEAD = """
import inspect
from dataclasses import dataclass
from functools import partial, wraps
from types import SimpleNamespace as N

import torch
import torch.utils.data as D
from torch import nn

from nndl import source
"""


# Edits that must not cost a training.
HARMLESS = {
    "comment": ("# why", "# because", "def go():  # why\n    x = 1"),
    "docstring": ("Why", "Because", "def loss(x):\n    'Why.'\n    return x\ndef go():\n    loss(1)"),
    "function not reached": ("- 1", "+ 1", "def other(x): return x - 1\ndef go():\n    x = 1"),
    "place in the notebook": ("pass", "pass\n\n\n", "pass\ndef loss(x): return x\ndef go():\n    loss(1)"),
    "global with the name of what a closure holds": (
        "3.5",
        "4.5",
        "rate = 3.5\ndef go(rate=1):\n    def inner():\n        return rate\n    inner()",
    ),
    "variable of the training": ("3.5", "4.5", "def go():\n    begin = float(BEGIN[0])\nBEGIN = ['1']\nother = 3.5"),
}


def digest_of(text, name):
    """What `go` of a notebook of this text reaches."""
    lines = (HEAD + textwrap.dedent(text)).splitlines()
    last = max(i for i, line in enumerate(lines) if line.startswith("def go("))
    end = next((i for i in range(last + 1, len(lines)) if lines[i] and not lines[i].startswith(" ")), len(lines))
    lines.insert(end, "    return source.digest(source.reached(inspect.currentframe()))")
    text, module = "\n".join(lines) + "\n", ModuleType("a_notebook")
    sys.modules["a_notebook"] = module
    linecache.cache[name] = (len(text), None, text.splitlines(keepends=True), name)
    exec(compile(text, name, "exec"), vars(module))
    return module.go()


@pytest.mark.parametrize("name", PIECES | HARMLESS)
def test_edits(name):
    old, new, text = (PIECES | HARMLESS)[name]
    assert text.count(old) == 1
    first, again, edited = (digest_of(t, f"<{name} {i}>") for i, t in enumerate((text, text, text.replace(old, new))))
    assert first == again, "the same code must be the same"
    assert (first == edited) == (name in HARMLESS)


def test_digest_sees_all_of_an_array_and_refuses_what_it_cannot():
    x = torch.zeros(3000)
    y = x.clone()
    y[1500] = 9
    assert len({source.digest({"w": part}) for part in (x, y, x.numpy(), x.reshape(3, -1), x.double())}) == 4
    assert source.digest({1: {"b", "a"}}) == source.digest({1: {"a", "b"}})
    with pytest.raises(TypeError, match="a object does not say what it holds"):
        source.digest([object()])


CELLS = [
    "import inspect\nimport torch\nfrom dataclasses import dataclass\nfrom torch import nn",
    "from nndl import source\ndigests = []",
    "@dataclass\nclass Recipe:\n    epochs: int\n    lr: float = 0.1",
    "class Base(nn.Module):\n    @torch.no_grad()\n    def forward(self, x):\n        return 2 * x",
    "class Net(Base):\n    pass",
    "def train(model, recipe):\n    return source.reached(inspect.currentframe())",
    "digests.append(source.digest(train(Net(), Recipe(1))))",
]


def test_reached_in_a_notebook(tmp_path):
    """In a kernel, where inspect does not find the source of classes before Python 3.13: the same cells, run again,
    reach the same; a class edited there does not."""
    from nbclient import NotebookClient
    from nbformat import v4

    same = CELLS[2:]
    layer = [cell.replace("2 * x", "3 * x") for cell in same]
    default = [cell.replace("0.1", "0.2") for cell in same]
    cells = [*CELLS, *same, *layer, *default, *same, "print(*digests)"]
    notebook = v4.new_notebook(cells=[v4.new_code_cell(cell) for cell in cells])
    NotebookClient(notebook, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}).execute()
    first, again, layer, default, back = notebook.cells[-1].outputs[0].text.split()
    assert first == again == back and len({first, layer, default}) == 3


SHARED = """
import inspect

from nndl import source

HALVES = (0.5, 0.25)
TABLE = {"one": HALVES}
GRID = [HALVES, 3]


def first(x):
    return x * TABLE["one"][0] + GRID[1] * HALVES[0]


def second(x):
    return x * GRID[0][1] + HALVES[1]


def train(model=None):
    first(1), second(2), TABLE, GRID, HALVES
    return source.reached(inspect.currentframe())


print(source.digest(train()))
"""


def test_another_process_reaches_the_same(tmp_path):
    """Names lie in sets, whose order differs from process to process; one table may be met under several names."""
    (tmp_path / "go.py").write_text(SHARED, encoding="utf-8")
    found = set()
    for seed in range(3):
        environment = os.environ | {"PYTHONHASHSEED": str(seed)}
        command = [sys.executable, "go.py"]
        found.add(subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, check=True).stdout)
    assert len(found) == 1
