"""Bodies that a hostile submission might hold in place of `def double(x)`, and what the grader must say of each.

Each must end as no points and a line: {name: (source, words of the line)}.
"""

HOSTILE = {
    "syntax error": ("def double(x):\n    return x +", "SyntaxError"),
    "endless loop": ("def double(x):\n    while True:\n        pass", "not done within"),
    "endless loop that catches everything": (
        "def double(x):\n    while 1:\n        try:\n            x + 1\n        except BaseException:\n            x",
        "not done within",
    ),
    "prints without end": ("def double(x):\n    while True:\n        print('x' * 1000)", "File too large"),
    "sys.exit": ("import sys\n\n\ndef double(x):\n    sys.exit(0)", "`sys`"),
    "SystemExit": ("def double(x):\n    raise SystemExit(0)", "SystemExit"),
    "os._exit": ("def double(x):\n    torch.os._exit(0)", "`os` may not"),
    "import inside": ("def double(x):\n    import os\n    os._exit(0)", "`os` may not"),
    "__import__": ("def double(x):\n    return __import__('os').getcwd()", "`__import__`"),
    "eval": ("def double(x):\n    return eval('2 * x')", "`eval`"),
    "writes a file": ("def double(x):\n    open('/tmp/outside', 'w')\n    return 2 * x", "`open`"),
    "writes by torch": ("def double(x):\n    torch.save(x, '/tmp/outside')\n    return 2 * x", "`save`"),
    "writes by numpy's dump": (
        "def double(x):\n    x.numpy().dump('/tmp/outside')\n    return 2 * x",
        "open /tmp/outside",
    ),
    "reads the reference": (
        "def double(x):\n    text = np.fromfile('CODE', dtype=np.uint8)\n    return 2 * x",
        "`fromfile`",
    ),
    "reads by a name put together": (
        "def double(x):\n    return getattr(np.ndarray, 'to' + 'file')(x.numpy(), 'CODE')",
        "tofile",
    ),
    "reads through the helper": ("def double(x):\n    return helper.peek('CODE')", "tried open"),
    "source of the checks": ("import inspect\n\n\ndef double(x):\n    return inspect.getsource(double)", "`inspect`"),
    "frames": ("def double(x):\n    g = (i for i in x)\n    return g.gi_frame", "`gi_frame`"),
    "globals": ("def double(x):\n    globals()['expected'] = 0\n    return 0", "`globals`"),
    "dunder": ("def double(x):\n    double.__globals__['torch'] = None\n    return 0", "`__globals__`"),
    "patched checker": (
        "def double(x):\n    torch.allclose = lambda *a, **k: True\n    return x",
        "is not yours to change",
    ),
    "patched by another name": (
        "import torch as t\n\n\ndef double(x):\n    t.allclose = lambda *a, **k: True\n    return x",
        "not yours",
    ),
    "patched class": ("def double(x):\n    torch.Tensor.equal = lambda *a: True\n    return x", "not yours"),
    "patched class by type": (
        "def double(x):\n    T = type(x)\n    T.equal = lambda *a: True\n    return x",
        "not yours",
    ),
    "patched by setattr": ("def double(x):\n    setattr(torch, 'allclose', print)\n    return x", "is a module"),
    "patched in passing": (
        "def double(x):\n    for torch.allclose in (print,):\n        pass\n    return x",
        "not yours",
    ),
    "module passed on": ("def double(x):\n    t = torch\n    return x", "is a module"),
    "lying tensor": (
        "def double(x):\n    class Liar(torch.Tensor):\n        pass\n    return x.as_subclass(Liar)",
        "class Liar(torch.Tensor)",
    ),
    "lying equality": (
        "def double(x):\n    class Liar:\n        def __eq__(self, other):\n            return True\n    return Liar()",
        "`__eq__`",
    ),
    "class made by type": ("def double(x):\n    return type('Liar', (), {})()", "three arguments"),
    "memory": ("def double(x):\n    return torch.ones(10**11)", "memory"),
    "memory in small parts": (
        "def double(x):\n    parts = []\n    while True:\n        parts.append(torch.empty(10**8))",
        "memory",
    ),
    "recursion": ("def double(x):\n    return double(x)", "RecursionError"),
    "error with a text that never ends": (
        "class E(Exception):\n    def __str__(self):\n        while 1:\n            1\n\n\ndef double(x):\n    raise E",
        "not done within",
    ),
    "network": (
        "def double(x):\n    import urllib.request\n    urllib.request.urlopen('http://example.org')",
        "`urllib.request`",
    ),
    "network through a library": ("def double(x):\n    torch.hub.load_state_dict_from_url('http://x.org')", "`hub`"),
    "at definition": ("def double(x=print('now') or [].append(1)):\n    return x", "not"),
    "decorator": ("def zero(f):\n    return lambda x: 0\n\n\n@zero\ndef double(x):\n    return 2 * x", "TypeError"),
    "returns nothing": ("def double(x):\n    pass", "TypeError"),
    "very deep": ("def double(x):\n    return " + "(" * 500 + "x" + ")" * 500, "too many nested parentheses"),
    "very long": ("def double(x):\n    return 0" + " + 0" * 20000, "longer than"),
    "null byte": ("def double(x):\n    return '\0'", "null"),
    "says the verdict itself": ("def double(x):\n    print('{\"passed\": true}')\n    return x", "double"),
    "reads the environment": ("def double(x):\n    return torch.os.environ", "`os`"),
    "kills": ("def double(x):\n    torch.multiprocessing.Process()", "`multiprocessing`"),
    "pickle": ("import pickle\n\n\ndef double(x):\n    return pickle.loads(b'')", "`pickle`"),
    "default of another": ("def double(x, t=torch):\n    t.allclose = print\n    return x", "is a module"),
    # what a first reader broke through with
    "module out of a package": ("from torch import sys\n\n\ndef double(x):\n    return sys.modules", "`sys` may not"),
    "module out of a package, inside": ("def double(x):\n    from torch import os\n    os._exit(0)", "`os` may not"),
    "module hidden by an inner argument": (
        "def double(x):\n    def inner(torch):\n        pass\n    return torch.os.getcwd()",
        "`os` may not",
    ),
    "module hidden by a comprehension": (
        "def double(x):\n    [0 for torch in [1]]\n    return torch.os.getcwd()",
        "`os` may not",
    ),
    "module renamed inside": ("def double(x):\n    import torch as t\n    return t.os.getcwd()", "`os` may not"),
    "the grader itself": ("from nndl.attempts import Process\n\n\ndef double(x):\n    return Process", "nndl.attempts"),
    "globals by a pattern": (
        "def double(x):\n    match double:\n        case object(__globals__=g):\n            return g",
        "`__globals__`",
    ),
    "equality by a pattern": (
        "class Liar:\n    match print:\n        case __eq__:\n            pass\n\n\ndef double(x):\n    return Liar()",
        "`__eq__`",
    ),
    "equality by an import": (
        "class Liar:\n    from math import isfinite as __eq__\n\n\ndef double(x):\n    return Liar()",
        "`__eq__`",
    ),
    "global hook": (
        "def double(x):\n    torch.nn.modules.module.register_module_forward_hook(print)\n    return x",
        "`register_module_forward_hook`",
    ),
    "operator library": ("def double(x):\n    torch.library.Library('aten', 'IMPL')\n    return x", "`library`"),
    "metaclass": ("def double(x):\n    return type(int)('Liar', (), {})", "of a class"),
    "class made by dataclasses": (
        "import dataclasses\n\n\ndef double(x):\n    return dataclasses.make_dataclass('Liar', [])()",
        "`make_dataclass`",
    ),
    "patched by functools": (
        "import functools\n\n\ndef double(x):\n    functools.update_wrapper(torch.Tensor, print, ('equal',), ())",
        "`update_wrapper`",
    ),
    "patched by wraps": (
        "import functools\n\n\ndef double(x):\n    functools.wraps(print, assigned=('equal',))(torch.Tensor)",
        "`assigned=`",
    ),
    "base bound anew": (
        "class A:\n    pass\n\n\nA = torch.Tensor\n\n\nclass B(A):\n    pass\n\n\ndef double(x):\n    return B()",
        "`A` is the name of a class",
    ),
    "native file": (
        "def double(x):\n    torch._C.PyTorchFileWriter('/tmp/outside')\n    return 2 * x",
        "`_C`",
    ),
    "profiler": ("def double(x):\n    torch.profiler.profile()\n    return 2 * x", "`profiler`"),
    "environment of the teacher": ("def double(x):\n    return helper.peek('/proc/self/environ')", "tried open"),
    "half a character": ("def double(x):\n    raise ValueError('\\ud800')", "ValueError"),
    "deep sum": ("A = 0" + " + 1" * 2500 + "\n\n\ndef double(x):\n    return A", "RecursionError"),
}
