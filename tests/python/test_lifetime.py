#!/usr/bin/env python3
"""Who lives how long in the Python module: handles, views, callbacks, what they throw, signals, the interpreter's end.
usage: test_lifetime.py LIBRARY ROOT"""
import copy
import ctypes
import functools
import gc
import os
import pathlib
import random
import signal
import tempfile
import threading
import traceback
import unittest.mock
import weakref

from support import Boom, Case, MODEL, PROMPTS, main, pg, run_text


def for_every_kind_of_array(test):
    """With numpy, where it is installed, and without."""
    @functools.wraps(test)
    def twice(self):
        for module in {pg.numpy, None}:
            name = "numpy" if module else "memoryview"
            with self.subTest(arrays=name), unittest.mock.patch.object(pg, "numpy", module):
                self.setUp()
                test(self)

    return twice


class Test(Case):
    def held(self):
        return self.context.info().memory_now

    # Views.

    @for_every_kind_of_array
    def test_views_without_copies(self):
        rollout = self.generated()
        for view, name, which in ((rollout.array(pg.LOGPROBS, 1), "pgrad_rollout_array", [ctypes.c_uint32(0)]),
                                  (rollout.tokens(1), "pgrad_rollout_tokens", [])):
            address = getattr(pg._library, name)(rollout.live, *which, ctypes.c_uint32(1), None)
            if pg.numpy:
                self.assertEqual(view.ctypes.data, address)
            else:
                self.assertIs(type(view), memoryview)
                self.assertEqual(ctypes.addressof(view.obj), address)
            self.assertEqual((view.shape, view.itemsize), ((rollout.sequence(1).n_tokens,), 4))
            with self.assertRaises((ValueError, TypeError)):
                view[0] = 1
        self.assertIsNone(rollout.array(pg.REWARDS, 0))
        self.assertEqual(rollout.prompt(0), self.tokenizer.encode(PROMPTS[0]))

    @for_every_kind_of_array
    def test_a_view_outlives_its_rollout(self):
        before = self.held()
        rollout = self.generated()
        held = self.held()
        views = [rollout.array(pg.LOGPROBS, 0), rollout.tokens(3)]
        values = [view.tolist() for view in views]
        rollout.close()
        with self.assertRaisesRegex(ValueError, "Rollout is closed"):
            rollout.array(pg.LOGPROBS, 0)
        del rollout
        gc.collect()
        self.assertEqual(self.held(), held)  # not freed
        self.assertEqual([view.tolist() for view in views], values)
        part = views.pop()[1:]  # a view of a view keeps it as well
        views.clear()
        self.assertEqual((self.held(), part.tolist()), (held, values[1][1:]))
        del part
        self.assertEqual(self.held(), before)

    @for_every_kind_of_array
    def test_a_view_shows_what_the_next_generate_writes(self):
        rollout = self.generated(max_new_tokens=6)
        view = rollout.array(pg.LOGPROBS, 0)
        first = view.tolist()
        with pg.Sampler(self.context, seed=4, ignore_eos=True) as sampler:
            for _ in range(3):
                rollout.clear()
                self.assertEqual(len(rollout), 0)
                rollout.add_prompt(self.tokenizer.encode("paint it blue:"))
                rollout.generate(sampler)
        self.assertNotEqual(view.tolist(), first)
        self.assertEqual(view.tolist(), rollout.array(pg.LOGPROBS, 0).tolist()[:len(first)])

    @for_every_kind_of_array
    def test_an_empty_view(self):
        values = pg._array((ctypes.c_float * 0)(), ctypes.c_float, readonly=True)
        self.assertEqual((len(values), values.tolist()), (0, []))

    @for_every_kind_of_array
    def test_a_view_outlives_the_callback_and_the_run(self):
        def reward(view, first, count):
            if keeping:
                kept.append((view, view.tokens(first), view.tokens(first).tolist()))
            return [0.0] * count

        def run():
            pg.train(self.model, self.tokenizer, pg.Reward(self.context, reward, over="rollout"), PROMPTS, steps=3,
                     prompts_per_step=1, group_size=2, max_new_tokens=6)
            gc.collect()
            return self.held()

        kept, keeping = [], False
        before = run()
        keeping = True
        self.assertGreater(run(), before)
        self.assertEqual(len(kept), 3)
        self.assertEqual(kept[-1][1].tolist(), kept[-1][2])
        n = min(len(kept[0][1]), len(kept[-1][2]))
        self.assertEqual(kept[0][1].tolist()[:n], kept[-1][2][:n])  # the same memory, used again
        for view, _, _ in kept:
            with self.assertRaisesRegex(ValueError, "during the call"):
                view.texts()
            self.assertIn("over", repr(view))
        kept.clear()
        self.assertEqual(self.held(), before)

    @for_every_kind_of_array
    def test_copies_have_the_tensors_shape(self):
        name, shape = next((name, shape) for name, shape in self.model.shapes().items() if len(shape) == 2)
        weight = self.model.tensor(name)
        self.assertEqual(tuple(weight.shape), shape)
        self.assertIs(type(weight), pg.numpy.ndarray if pg.numpy else memoryview)
        weight[0, 1] = 0.5
        self.assertNotEqual(self.model.tensor(name)[0, 1], 0.5)
        self.model.set_tensor(name, weight)
        self.assertEqual(self.model.tensor(name)[0, 1], 0.5)
        self.assertEqual(self.model.tensor(name).tobytes(), weight.tobytes())
        self.assertEqual(tuple(self.model.logits([1, 2, 3]).shape), (3, self.model.info().n_vocab))

    # Handles.

    def test_any_order_of_closing(self):
        order = random.Random(0)
        for _ in range(40):
            context = pg.Context(n_threads=2)
            probe, empty = copy.copy(context), context.info().memory_now
            model, tokenizer = pg.Model.load(context, MODEL), pg.Tokenizer.load(context, MODEL)
            rollout = pg.Rollout(model, tokenizer, group_size=2, max_new_tokens=4)
            rollout.add_prompt([1, 2])
            parts = [pg.Reward(context, lambda text: 1.0), pg.Reward.builtin(context, "length", target=3)]
            handles = [context, model, tokenizer, rollout, *parts, pg.Reward.combine(context, parts),
                       pg.Sampler(context), pg.Advantage(context), pg.Objective(model), pg.Optimizer(model),
                       model.snapshot(), pg.Decoder(tokenizer), pg.Checkpoint(context)]
            handles[-1].add("rollout", rollout)
            rollout.generate(handles[7])
            views = [rollout.tokens(0), rollout.array(pg.LOGPROBS, 1)]
            del context, model, tokenizer, rollout, parts
            order.shuffle(handles)
            while handles:
                handle = handles.pop()
                if order.random() < 0.5:
                    handle.close()
                    handle.close()
                    self.assertTrue(handle.closed)
                    self.assertEqual(repr(handle), f"<{type(handle).__name__} closed>")
                del handle
                if order.random() < 0.2:
                    views[:] = views[1:]
            views.clear()
            self.assertEqual(probe.info().memory_now, empty)

    def test_circles_are_collected(self):
        gone = []
        for _ in range(5):
            context = pg.Context(n_threads=1)
            model = pg.Model.load(context, MODEL)
            reward = pg.Reward(context, lambda text, everything=(context, model): 0.0)
            context.on_progress(lambda what, done, total, everything=(context, model, reward): True)
            gone += [weakref.ref(handle) for handle in (context, model, reward)]
            del context, model, reward
        gc.collect()
        self.assertEqual([ref() for ref in gone], [None] * 15)

    def test_closing_what_a_call_works_on(self):
        def close_all(*_):
            for handle in handles:
                handle.close()

        for _ in range(2):
            handles = [self.generated(), pg.Sampler(self.context), self.model, self.tokenizer, self.context]
            rollout = handles[0]
            rollout.clear()
            rollout.add_prompt(self.tokenizer.encode("paint it red:"))
            rollout.generate(handles[1], event=close_all)
            self.assertTrue(all(handle.closed for handle in handles))
            self.setUp()
        for named in ({"report": close_all}, {"on_advantages": close_all}):
            handles = [pg.Reward(self.context, lambda text: close_all() or 1.0), self.model, self.tokenizer,
                       self.context, pg.Sampler(self.context), pg.Optimizer(self.model), pg.Objective(self.model)]
            out = pg.train(self.model, self.tokenizer, handles[0], PROMPTS, steps=2, prompts_per_step=1,
                           max_new_tokens=4, sampler=handles[4], optimizer=handles[5], objective=handles[6], **named)
            self.assertEqual(out.steps, 2)
            self.assertTrue(all(handle.closed for handle in handles))
            self.setUp()

    def test_a_kept_exception_keeps_no_handle(self):
        before = self.held()
        try:
            with self.generated() as rollout:
                rollout.score(self.model, 99)
        except pg.Error as error:
            kept = error
        del rollout
        self.assertEqual((kept.name, self.held()), ("E_INVALID", before))

    # What callbacks throw.

    def test_tracebacks_lead_from_the_call_to_the_callback(self):
        def score(text):
            raise Boom("deep")

        def called():
            pg.train(self.model, self.tokenizer, score, PROMPTS, steps=1, prompts_per_step=1, max_new_tokens=4)

        try:
            called()
        except Boom as thrown:
            names = [frame.name for frame in traceback.extract_tb(thrown.__traceback__)]
        self.assertEqual(names[:2], ["test_tracebacks_lead_from_the_call_to_the_callback", "called"])
        self.assertEqual(names[-1], "score")

    def test_rw09_whatever_is_thrown_comes_out(self):
        for kind in (SystemExit, KeyboardInterrupt, GeneratorExit, StopIteration, MemoryError, RecursionError):
            def thrown(*_):
                raise kind("here")

            for call in (lambda: self.generated(event=thrown),
                         lambda: pg.Reward(self.context, thrown, over="texts").apply(self.generated()),
                         lambda: pg.Reward(self.context, thrown, over="rollout").apply(self.generated())):
                with self.assertRaisesRegex(kind, "here"):
                    call()

    def test_the_log_may_throw(self):
        def log(level, line):
            raise Boom(line)

        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder) / "config.json"
            config = (MODEL / "config.json").read_text().replace('"rms_norm_eps"', '"not_rms_norm_eps"')
            path.write_text(config)
            lines = []
            self.context.on_log(lambda level, line: lines.append((level, line)))
            pg.Model.create(self.context, config).close()
            self.assertEqual(len(lines), 1)
            self.assertEqual(lines[0][0], pg.LOG_WARNING)
            self.context.on_log(log)
            with self.assertRaisesRegex(Boom, "rms_norm_eps"):
                pg.Model.create(self.context, config)
            self.context.on_log(None)
            pg.Model.create(self.context, config).close()

    def test_nothing_is_left_for_the_next_call(self):
        pg._pending.thrown = Boom("of another life")
        self.model.zero_grad()
        self.assertIsNone(pg._pending.thrown)

    def test_calls_inside_callbacks(self):
        """Exceptions come out of the inner call, and only there."""
        def inner(text):
            with self.assertRaisesRegex(Boom, "inner"):
                pg.Reward(self.context, bad).apply(other)
            with self.assertRaises(pg.Error):
                pg.Sampler(self.context, top_p=2)
            return 1.0

        def bad(text):
            raise Boom("inner")

        rollout, other = self.generated(), self.generated()
        pg.Reward(self.context, inner).apply(rollout)
        self.assertEqual(rollout.sequence(0).reward, 1.0)

    # Signals and threads.

    def test_handlers_that_throw(self):
        for number in (signal.SIGALRM, signal.SIGTERM, signal.SIGUSR1):
            def handler(number, frame):
                raise TimeoutError(number)

            old = signal.signal(number, handler)
            timer = threading.Timer(0.1, os.kill, (os.getpid(), number))
            try:
                with self.assertRaises(TimeoutError):
                    timer.start()
                    pg.train(self.model, self.tokenizer, lambda text: float(len(text)), PROMPTS, steps=100000,
                             prompts_per_step=2, max_new_tokens=16)
                self.assertIs(signal.getsignal(number), handler)
            finally:
                timer.join()
                signal.signal(number, old)
        self.assertEqual(self.generated().sequence(0).group, 0)

    def test_handlers_that_do_not_throw(self):
        """The run goes on; a handler that a callback sets stays."""
        seen = []

        def handler(number, frame):
            seen.append(number)

        def report(numbers):
            if len(seen) == 0:
                os.kill(os.getpid(), signal.SIGINT)
            else:
                signal.signal(signal.SIGINT, late)

        def late(number, frame):
            pass

        old = signal.signal(signal.SIGINT, handler)
        try:
            out = pg.train(self.model, self.tokenizer, lambda text: 1.0, PROMPTS, steps=3, prompts_per_step=1,
                           max_new_tokens=4, report=report)
            self.assertEqual((out.steps, seen), (3, [signal.SIGINT]))
            self.assertIs(signal.getsignal(signal.SIGINT), late)
        finally:
            signal.signal(signal.SIGINT, old)

    def test_other_threads(self):
        """Exceptions come out in the thread that called, cancel() stops it."""
        def work(**named):
            try:
                pg.train(self.model, self.tokenizer, lambda text: 1.0, PROMPTS, steps=100000, prompts_per_step=1,
                         max_new_tokens=8, **named)
            except BaseException as thrown:
                caught.append(thrown)

        def boom(numbers):
            raise Boom("there")

        started = threading.Event()
        for named in ({"report": boom}, {"report": lambda numbers: started.set()}):
            caught = []
            thread = threading.Thread(target=work, kwargs=named)
            thread.start()
            if named["report"] is boom:
                thread.join()
                self.assertEqual(str(caught[0]), "there")
            else:
                self.assertTrue(started.wait(60))
                self.context.cancel()
                thread.join()
                self.context.clear_cancel()
                self.assertEqual(caught[0].status, pg.E_CANCELLED)

    # The end.

    def test_the_interpreters_end(self):
        everything = """
context = pg.Context()
model, tokenizer = pg.Model.load(context, MODEL), pg.Tokenizer.load(context, MODEL)
rollout = pg.Rollout(model, tokenizer, group_size=2, max_new_tokens=4)
rollout.add_prompt([1, 2])
sampler = pg.Sampler(context)
rollout.generate(sampler)
reward = pg.Reward(context, lambda text: 0.0)
"""
        for program in (
            "view = rollout.tokens(0)",
            "import sys; views = [rollout.tokens(0)]; del sys.modules['policygrad'], pg, model, rollout",
            "context.on_progress(lambda *_: (context, model, reward)); circle = [context]; circle.append(circle)",
            "import builtins; builtins.kept = (rollout.tokens(0), model, reward, context)",
            "class Late:\n    def __del__(self):\n        self.model.zero_grad()\n        self.model.close()\n"
            "late = Late()\nlate.model = model",
            "import atexit; atexit.register(lambda: rollout.close())",
            "import threading\nthreading.Thread(target=pg.train, daemon=True, args=(model, tokenizer, len, PROMPTS),"
            "kwargs=dict(steps=10000, prompts_per_step=1, max_new_tokens=4)).start()\nimport time; time.sleep(0.2)",
        ):
            with self.subTest(program):
                self.assertEqual(run_text(everything + program), (0, ""))
        self.assertEqual(run_text(everything + "import sys\nreward = pg.Reward(context, lambda text: sys.exit(3))\n"
                                               "reward.apply(rollout)"), (3, ""))
        with tempfile.TemporaryDirectory() as folder:  # what is being written is written
            path = pathlib.Path(folder) / "run.pgrad"
            self.assertEqual(run_text(f"{everything}checkpoint = pg.Checkpoint(context)\ncheckpoint.add('m', model)\n"
                                      f"checkpoint.write({str(path)!r}, background=True)"), (0, ""))
            with pg.Checkpoint.open(self.context, path) as opened:
                self.assertEqual(len(opened), 1)

    def test_a_forked_child(self):
        status, text = run_text("""
import os, gc, warnings
warnings.simplefilter("ignore")  # of fork() with threads
context = pg.Context(n_threads=2)
model = pg.Model.load(context, MODEL)
rollout = pg.Rollout(model, group_size=1, max_new_tokens=2)
child = os.fork()
if child == 0:
    try:
        rollout.score(model, pg.OLD)
    except pg.Error as error:
        print(error.name)
    rollout.close(), model.close(), context.close()
    del rollout, model, context
    gc.collect()
    with pg.Context() as context:
        pg.Model.load(context, MODEL).close()
else:
    _, status = os.waitpid(child, 0)
    assert status == 0, status
    model.zero_grad()
""")
        self.assertEqual((status, text), (0, "E_STATE\n"))


if __name__ == "__main__":
    main()
