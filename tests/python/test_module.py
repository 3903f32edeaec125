#!/usr/bin/env python3
"""The Python module as a module: what of the C interface it reaches, its constants, types, texts and syntax.
usage: test_module.py LIBRARY ROOT"""
import ast
import ctypes
import importlib.util
import inspect
import pickle
import re
import subprocess
import sys
import typing
import unittest

from support import Case, LIBRARY, PYTHON, ROOT, main, pg

HEADERS = [path.read_text() for path in sorted((ROOT / "include" / "policygrad").glob("*.h"))]
SOURCE = (PYTHON / "policygrad.py").read_text()
# Reached by a name that is put together: pgrad_X_params_init, by the options' name.
OPTIONS = ("advantage", "backward", "checkpoint", "context", "generate", "model", "objective", "optimizer", "plan",
           "prompt", "rollout", "sampler", "save", "sequence", "train")
# Not called on purpose: Error.name must work without a library.
LEFT_OUT = {"pgrad_status_name"}


def names_in_use():
    """Names of C functions in the code, the table of result types aside."""
    tree = ast.parse(SOURCE)
    tree.body = [node for node in tree.body
                 if not (isinstance(node, ast.AnnAssign) and getattr(node.target, "id", "") == "_RESULTS")]
    found = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    return found | {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)}


def members(owner):
    """Functions and properties of a class, or a module's, that a user sees. Structs have fields alone."""
    if inspect.isclass(owner) and issubclass(owner, ctypes.Structure):
        return
    for name, value in vars(owner).items():
        if name.startswith("_") and name not in ("__init__", "__len__", "__contains__"):
            continue
        value = value.__func__ if isinstance(value, (classmethod, staticmethod)) else value
        value = value.fget if isinstance(value, property) else value
        if inspect.isfunction(value) and value.__module__ == "policygrad":
            yield name, value


class Test(Case):
    def test_every_exported_function_is_reached(self):
        exported = set(re.findall(r"\bpgrad_\w+", (ROOT / "lib" / "policygrad.map").read_text()))
        options = {f"pgrad_{name}_params_init" for name in OPTIONS}
        for name in OPTIONS:
            pg._params(name, {})
        self.assertEqual(exported - set(map(str, names_in_use())) - options, LEFT_OUT)

    def test_every_constant_has_its_value(self):
        text = re.sub(r"/\*.*?\*/", "", "\n".join(HEADERS), flags=re.S)
        constants = {name: int(value) for body in re.findall(r"\benum\s*\{(.*?)\}", text, re.S)
                     for name, value in re.findall(r"PGRAD_(\w+)\s*=\s*(-?\d+)", body)}
        self.assertEqual(text.count("enum"), text.count("enum {"))
        self.assertGreater(len(constants), 100)
        ours = {name: getattr(pg, name) for name in pg.__all__ if name.isupper()}
        self.assertEqual(ours, constants)

    def test_struct_sizes(self):
        for name, structure in pg._STRUCTURES.items():
            self.assertEqual(ctypes.sizeof(structure), pg._library.pgrad_struct_size(name.encode()), name)

    def test_fields_stand_in_the_headers_order(self):
        text = re.sub(r"/\*.*?\*/", "", "\n".join(HEADERS), flags=re.S)
        structs = {**pg._STRUCTURES, "event": pg._Event, "message": pg._Message}
        for name, structure in structs.items():
            body = next(body for body, found in re.findall(r"typedef struct \w+ \{(.*?)\} (\w+);", text, re.S)
                        if found in (f"pgrad_{name}", f"pgrad_{name}_params"))
            fields = re.findall(r"(\w+)(?:\[\w+\])?;", body)
            self.assertEqual([field.lstrip("_") for field, *_ in structure._fields_], fields, name)

    def test_the_names_of_all(self):
        namespace = {}
        exec("from policygrad import *", namespace)
        self.assertLessEqual(set(pg.__all__), set(namespace))
        self.assertEqual(len(pg.__all__), len(set(pg.__all__)))
        public = {name for name, value in vars(pg).items() if not name.startswith("_")
                  and getattr(value, "__module__", None) == "policygrad" and (inspect.isclass(value)
                                                                              or inspect.isfunction(value))}
        self.assertLessEqual(public, set(pg.__all__))

    def test_type_hints_resolve_and_nothing_is_left_without(self):
        seen = 0
        owners = [pg] + [value for value in vars(pg).values() if inspect.isclass(value)
                         and value.__module__ == "policygrad"]
        for owner in owners:
            typing.get_type_hints(owner)
            for name, function in members(owner):
                hints = typing.get_type_hints(function)
                wanted = set(inspect.signature(function).parameters) - {"self", "cls"} | {"return"}
                self.assertEqual(set(hints) - {"self", "cls"}, wanted, f"{owner.__name__}.{name}")
                seen += 1
        self.assertGreater(seen, 90)

    def test_docstrings(self):
        plain = {"close", "closed", "clear_cancel", "tensor_names", "texts", "zero_grad", "set_lr", "name", "__init__",
                 "__len__", "__contains__"}  # whose name says all, or whose class does
        for owner in [pg] + [getattr(pg, name) for name in pg.__all__ if inspect.isclass(getattr(pg, name))]:
            for name, function in members(owner):
                if name not in plain:
                    self.assertTrue(function.__doc__, f"{owner.__name__}.{name}")
        for name in pg.__all__:
            value = getattr(pg, name)
            if inspect.isclass(value):
                self.assertTrue(value.__doc__, name)

    def test_syntax_of_python_3_9(self):
        for path in [*PYTHON.glob("*.py"), *(ROOT / "tests" / "python").glob("*.py")]:
            ast.parse(path.read_text(), str(path), feature_version=(3, 9))
            self.assertLessEqual(max(map(len, path.read_text().splitlines())), 120, path)

    @unittest.skipUnless(importlib.util.find_spec("mypy"), "mypy is not installed")
    def test_mypy(self):
        done = subprocess.run([sys.executable, "-m", "mypy", "--strict", "--cache-dir", "/dev/null", "policygrad.py",
                               "grpo.py", "policy_gradient.py"], cwd=PYTHON, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT)
        self.assertEqual(done.returncode, 0, done.stdout.decode())

    def test_errors(self):
        with self.assertRaises(pg.Error) as caught:
            pg.Model.load(self.context, "/nonexistent/model")
        error = caught.exception
        self.assertEqual((error.status, error.name), (pg.E_IO, "E_IO"))
        self.assertIn("/nonexistent/model", error.message)
        self.assertEqual(str(error), error.message)
        self.assertEqual(repr(error), f"Error(E_IO, {error.message!r})")
        again = pickle.loads(pickle.dumps(error))
        self.assertEqual((again.status, again.message), (error.status, error.message))
        pg._library.pgrad_status_name.restype = ctypes.c_char_p
        for status in [-99, *(getattr(pg, name) for name in pg.__all__ if name == "OK" or name.startswith("E_"))]:
            self.assertEqual(pg.Error(status, "").name, pg._library.pgrad_status_name(status).decode())

    def test_representations(self):
        rollout = self.generated()
        reward = pg.Reward.combine(self.context, [pg.Reward(self.context, len, "short"),
                                                  pg.Reward.builtin(self.context, "regex", pattern="x")], [2, 0.5])
        for value, wanted in ((self.context, r"<Context \d+ threads, \w+>"),
                              (self.model, r"<Model llama, \d\.\dM parameters, f32>"),
                              (self.tokenizer, r"<Tokenizer \d+ ids>"),
                              (rollout, r"<Rollout 4 completions of 1 prompts>"),
                              (pg.Sampler(self.context), r"<Sampler next sequence 0>"),
                              (reward, r"<Reward 2 short \+ 0.5 regex>"),
                              (pg.Advantage(self.context), r"<Advantage>"),
                              (pg.Checkpoint(self.context), r"<Checkpoint 0 parts>"),
                              (pg.Report(), r'<Report \{"step":0.*\}>'),
                              (rollout.sequence(0), r"SequenceInfo\(group=0, finish=\d, .*sampled=1\)"),
                              (self.context.info(), r"ContextInfo\(n_threads=\d+, .*kernel_set_name='\w+', .*\)")):
            self.assertRegex(repr(value), f"^{wanted}$")
        rollout.close()
        self.assertEqual(repr(rollout), "<Rollout closed>")

    def test_the_library(self):
        self.assertEqual(pg.version(), "%d.%d.%d" % pg.version_info())
        self.assertIs(pg.load(), pg._library)
        self.assertIs(pg.load(LIBRARY), pg._library)
        with self.assertRaisesRegex(RuntimeError, "loaded already"):
            pg.load("/another/libpolicygrad.so")


if __name__ == "__main__":
    main()
