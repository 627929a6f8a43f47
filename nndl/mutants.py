"""make mutants: small wrong versions of each exercise's solution, and which of them its checks notice.

The score of a check is noticed / made. Libraries for mutation testing (cosmic-ray, mutmut) work on files and test
commands, and know the operators of any program; here are also those that people get wrong in this field: a transposed
product, the wrong axis, a dropped term or call, arguments in the wrong order, doing nothing.
"""

import ast
import copy
import hashlib
import json
import os
import random
from dataclasses import dataclass

from nndl import rooms
from nndl.attempts import Attempt, Bench
from nndl.rooms import UsageError, chosen_rooms

MOST = 24  # of one exercise
LEAST_SHARE = 0.9
OPERATORS = {ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult,
             ast.Mod: ast.FloorDiv, ast.Pow: ast.Mult, ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd}  # fmt: skip
COMPARISONS = {ast.Lt: (ast.LtE, ast.Gt), ast.LtE: (ast.Lt, ast.Gt), ast.Gt: (ast.GtE, ast.Lt),
               ast.GtE: (ast.Gt, ast.Lt), ast.Eq: (ast.NotEq,), ast.NotEq: (ast.Eq,), ast.In: (ast.NotIn,),
               ast.NotIn: (ast.In,), ast.Is: (ast.IsNot,), ast.IsNot: (ast.Is,)}  # fmt: skip
CRASHES = ("NameError", "UnboundLocalError", "TypeError", "AttributeError", "SyntaxError")
AXES = {"dim", "axis", "keepdim", "keepdims"}
# dropping these crashes, or changes nothing on one device
SILENT = {"print", "tqdm", "isinstance", "len", "super", "range", "zip", "list", "tuple", "cpu", "detach", "contiguous",
          "to"}  # fmt: skip
SYMMETRIC = {"transpose", "swapaxes", "max", "min", "maximum", "minimum", "isclose", "allclose"}
ROOTS = {"self", "torch", "np", "nn", "F", "math", "cv2", "v2", "run", "lab", "files", "helper", "pd", "torchvision"}


@dataclass(frozen=True)
class Mutant:
    """A wrong version: `kind` of the change, the line as it was and as it is, the whole source."""

    kind: str
    old: str
    new: str
    source: str

    def __str__(self):
        return f"{self.kind}: {self.old}  ->  {self.new}"


# ---------------------------------------------------------------- what can be changed


def expressions(node):
    """(kind, replacement) pairs for one expression."""
    if isinstance(node, ast.BinOp):
        if type(node.op) in OPERATORS:
            yield "operator", ast.BinOp(node.left, OPERATORS[type(node.op)](), node.right)
        if isinstance(node.op, ast.MatMult):
            yield "transposed product", ast.BinOp(node.right, ast.MatMult(), node.left)
        yield "dropped term", node.left
        yield "dropped term", node.right
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub | ast.Not | ast.Invert):
        yield "sign", node.operand
    elif isinstance(node, ast.Compare) and len(node.ops) == 1:
        drawn = "rand" in ast.unparse(node)  # a random number never lies on the edge
        for other in COMPARISONS.get(type(node.ops[0]), ())[drawn:]:
            yield "comparison", ast.Compare(node.left, [other()], node.comparators)
    elif isinstance(node, ast.BoolOp):
        other = ast.Or if isinstance(node.op, ast.And) else ast.And
        yield "operator", ast.BoolOp(other(), node.values)
        for i in range(len(node.values)):
            rest = node.values[:i] + node.values[i + 1 :]
            yield "dropped term", rest[0] if len(rest) == 1 else ast.BoolOp(node.op, rest)
    elif isinstance(node, ast.IfExp):
        yield "comparison", ast.IfExp(node.test, node.orelse, node.body)
    elif isinstance(node, ast.Constant):
        yield from constants(node.value)
    elif isinstance(node, ast.Slice) and (node.lower or node.upper):
        yield "dropped term", ast.Slice(None, None, node.step)
    elif isinstance(node, ast.Call):
        yield from calls(node)


def constants(value):
    if isinstance(value, bool):
        yield "constant", ast.Constant(not value)
    elif isinstance(value, int):
        yield "constant", ast.Constant(value + 1)
        if value not in (0, 1):
            yield "constant", ast.Constant(value - 1)
    elif isinstance(value, float):
        yield "constant", ast.Constant(2 * value if value else 1.0)


def calls(node):
    plain = [arg for arg in node.args if not isinstance(arg, ast.Starred)]
    name = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
    if name not in SILENT:
        if isinstance(node.func, ast.Attribute) and root(node.func) not in ROOTS:  # a method: what it is called on
            yield "dropped call", node.func.value
        elif plain:
            yield "dropped call", plain[0]
    if len(plain) >= 2 and len(plain) == len(node.args) and name not in SYMMETRIC:
        swapped = [node.args[1], node.args[0], *node.args[2:]]
        if ast.dump(swapped[0]) != ast.dump(swapped[1]):
            yield "swapped arguments", ast.Call(node.func, swapped, node.keywords)
    for i, keyword in enumerate(node.keywords):
        if keyword.arg in AXES and isinstance(keyword.value, ast.Constant | ast.UnaryOp):
            other = ast.keyword(keyword.arg, other_axis(keyword.value))
            yield "wrong axis", ast.Call(node.func, node.args, [*node.keywords[:i], other, *node.keywords[i + 1 :]])
        elif keyword.arg and keyword.arg != "device" and name not in SILENT:
            yield "dropped argument", ast.Call(node.func, node.args, node.keywords[:i] + node.keywords[i + 1 :])


def root(node):
    """The first name of a chain `a.b.c`, or "" where it begins with something else."""
    while isinstance(node, ast.Attribute):
        node = node.value
    return node.id if isinstance(node, ast.Name) else ""


def other_axis(node):
    value = ast.literal_eval(node)
    return ast.Constant((not value) if isinstance(value, bool) else 1 if value == 0 else 0)


def statements(node):
    """(kind, replacement or None to leave it out) pairs for one statement."""
    if isinstance(node, ast.AugAssign):
        yield "dropped term", None
        if type(node.op) in OPERATORS:
            yield "sign", ast.AugAssign(node.target, OPERATORS[type(node.op)](), node.value)
    elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Call) and "super" not in ast.unparse(node.value):
        yield "dropped call", None
    elif isinstance(node, ast.If):
        yield "comparison", ast.If(ast.Constant(False), node.body, node.orelse)
        yield "comparison", ast.If(ast.Constant(True), node.body, node.orelse)
    elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Attribute | ast.Subscript):
        yield "dropped term", None
    elif isinstance(node, ast.Return) and node.value is not None and not isinstance(node.value, ast.Constant):
        yield "sign", ast.Return(ast.BinOp(ast.Constant(0), ast.Mult(), node.value))


def bodies(node):
    """(kind, body) pairs for one function: its first argument comes back, or nothing is done."""
    first = [argument.arg for argument in node.args.args if argument.arg not in ("self", "cls")]
    if first and any(isinstance(part, ast.Return) and part.value is not None for part in ast.walk(node)):
        yield "input returned", [ast.Return(ast.Name(first[0], ast.Load()))]


def left_alone(node):
    """Parts that a check has no business with: texts of errors, annotations, decorators, what is printed."""
    if isinstance(node, ast.Raise | ast.Assert | ast.JoinedStr):
        return True
    if isinstance(node, ast.FunctionDef) and node.name in ("extra_repr", "__repr__"):
        return True
    if isinstance(node, ast.Call):
        return ast.unparse(node.func) in ("print", "tqdm")
    return False


def places(tree):
    """(path, node) of all that may be changed; a path is a list of (field, index or None) from the root."""

    def walk(node, path):
        for name, value in ast.iter_fields(node):
            if name in ("decorator_list", "annotation", "returns", "bases", "ctx", "op", "ops", "type_comment"):
                continue
            for index, child in enumerate(value) if isinstance(value, list) else ((None, value),):
                if isinstance(child, ast.AST) and not left_alone(child):
                    yield [*path, (name, index)], child
                    yield from walk(child, [*path, (name, index)])

    yield from walk(tree, [])


def changed(tree, path, new):
    """A copy of a tree with the node at `path` replaced (None: left out)."""
    tree = copy.deepcopy(tree)
    node = tree
    for name, index in path[:-1]:
        node = getattr(node, name) if index is None else getattr(node, name)[index]
    name, index = path[-1]
    if index is None:
        setattr(node, name, new)
    elif new is None:
        getattr(node, name)[index : index + 1] = [] if len(getattr(node, name)) > 1 else [ast.Pass()]
    else:
        getattr(node, name)[index] = new
    return ast.fix_missing_locations(tree)


def all_mutants(source):
    """Every Mutant of a definition, in the order of its lines, no two alike."""
    tree = ast.parse(source)
    plain, found = ast.unparse(tree), {}
    for path, node in places(tree):
        options = []
        if isinstance(node, ast.FunctionDef):
            options = [("body", kind, body) for kind, body in bodies(node)]
        elif isinstance(node, ast.stmt):
            options = [(None, kind, new) for kind, new in statements(node)]
        elif isinstance(node, ast.expr):
            options = [(None, kind, new) for kind, new in expressions(node)]
        for part, kind, new in options:
            if part == "body":
                copied = copy.copy(node)
                copied.body = ([node.body[0]] if ast.get_docstring(node) else []) + new
                new = copied
            text = ast.unparse(changed(tree, path, new))
            if text != plain and text not in found:
                found[text] = Mutant(kind, *difference(plain, text), text)
    return list(found.values())


def difference(old, new):
    """The first line that differs, as it was and as it is."""
    old, new = old.splitlines(), new.splitlines()
    for i, line in enumerate(old):
        if i >= len(new) or line != new[i]:
            return line.strip(), new[i].strip() if i < len(new) and len(new) == len(old) else "(gone)"
    return old[-1].strip(), "(more)"


def mutants_of(name, source, most=MOST):
    """At most `most` mutants of an exercise: some of each kind, drawn by a seed that is its name."""
    found = all_mutants(source)
    draw, kinds = random.Random(name), {}
    for mutant in found:
        kinds.setdefault(mutant.kind, []).append(mutant)
    for some in kinds.values():
        draw.shuffle(some)
    chosen = set()
    while len(chosen) < min(most, len(found)):
        for some in kinds.values():
            if some and len(chosen) < most:
                chosen.add(some.pop())
    return [mutant for mutant in found if mutant in chosen]


# ---------------------------------------------------------------- the score


def equivalents_file(room):
    return rooms.ROOT / "tests" / "equivalent_mutants" / f"{room}.json"


def read_equivalents(room):
    """{exercise: {mutant as text: reason}} of mutants that are right solutions too."""
    file = equivalents_file(room)
    return json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}


def digest(room):
    """What a room's scores depend on: solutions, their checks, and the mutants that are made."""
    parts = [[e.name, [m.source for m in mutants_of(e.name, e.source)]] for e in room.exercises.values()]
    parts += [[check.source for check in room.checks], read_equivalents(room.name)]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:12]


def score(bench, names=None, most=MOST):
    """{exercise: {"made", "noticed", "crashed", "equivalent", "missed": [text]}} from a Bench that timed the reference.

    A version that no interpreter would run (a wrong type, a name that is not there) is crashed, not made: it would
    flatter the checks.
    """
    equivalents = read_equivalents(bench.room.name)
    found, jobs = {}, []
    for name, exercise in bench.room.exercises.items():
        if names and name not in names:
            continue
        known = equivalents.get(name, {})
        made = mutants_of(name, exercise.source, most)
        real = [mutant for mutant in made if str(mutant) not in known]
        found[name] = {"made": 0, "noticed": 0, "crashed": 0, "equivalent": len(made) - len(real), "missed": []}
        jobs += [((name, mutant), Attempt(name, mutant.source, guarded=False, stop=True)) for mutant in real]
    order = {key: i for i, (key, _) in enumerate(jobs)}
    outcomes = sorted(bench.run(jobs), key=lambda pair: order[pair[0]])
    for (name, mutant), outcome in outcomes:
        if outcome.message.startswith(CRASHES):
            found[name]["crashed"] += 1
            continue
        found[name]["made"] += 1
        if outcome.passed or not (outcome.checks or outcome.problem):
            found[name]["missed"].append(str(mutant))
        else:
            found[name]["noticed"] += 1
    return found


def share(scores):
    made = sum(entry["made"] for entry in scores.values())
    return sum(entry["noticed"] for entry in scores.values()) / made if made else 1.0


def mutants(chosen, names="", most=0):
    """Score the checks of a room, or of all; written to results/mutants.json unless only some are asked for."""
    for room in chosen_rooms(chosen):
        bench = Bench(room)
        unknown = set(names.split()) - set(bench.room.exercises)
        if unknown:
            raise UsageError(f"{room}: no exercise {', '.join(sorted(unknown))}")
        bench.reference()
        found = score(bench, names.split(), most or MOST)
        for name, entry in found.items():
            print(f"{room}  {name:28s} {entry['noticed']:3d} of {entry['made']}", flush=True)
            for text in entry["missed"]:
                print(f"      not noticed  {text}")
        print(f"{room}  {share(found):.0%}")
        if not names and not most:
            entry = {"digest": digest(bench.room), "exercises": found}
            file = rooms.ROOT / room / "results" / "mutants.json"
            file.parent.mkdir(exist_ok=True)
            part = file.with_suffix(".part")
            part.write_text(json.dumps(entry, indent=1, ensure_ascii=False) + "\n", encoding="utf-8", newline="\n")
            os.replace(part, file)
            print(f"written: {file.relative_to(rooms.ROOT)}; now: make readme", flush=True)
