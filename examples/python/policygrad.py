"""libpolicygrad from Python: a thin layer over ctypes, nothing but the standard library.

    with Context() as context:
        model = Model.load(context, path)
        tokenizer = Tokenizer.load(context, path)
        policy_gradient(model, tokenizer, lambda text: -len(text), learning_rate=1e-5, epochs=10,
                        prompts=["Tell me about the sea."])

Handles close themselves, in any order. A failing call raises `Error` with its status and message. An
exception in a reward function comes out of the call that ran it; Ctrl-C stops long work cleanly.

The library is looked for at load(path), then in POLICYGRAD_LIBRARY, in ../../build/lib beside this file, and where the
system keeps its libraries."""
from __future__ import annotations

import ctypes
import ctypes.util
import math
import os
import pathlib
from ctypes import POINTER, byref, c_char_p, c_double, c_float, c_int32, c_size_t, c_uint32, c_uint64, c_void_p
from typing import Any, Callable, Iterable, Optional, Sequence

try:
    import numpy
except ImportError:  # arrays are lists then
    numpy = None

OK, E_BUFFER, E_CALLBACK, E_INVALID, E_NUMERIC = 0, -4, -61, -1, -23
LOGPROBS, LOGPROBS_SAMPLED, CURRENT, OLD, REFERENCE, ENTROPY, REWARDS, ADVANTAGES, MASK = range(9)
NONE, EMA, BATCH_MEAN, RLOO, GRPO, DR_GRPO = range(6)

RewardFunction = ctypes.CFUNCTYPE(c_int32, c_void_p, c_void_p, c_uint32, c_uint32, c_void_p)
ProgressFunction = ctypes.CFUNCTYPE(c_int32, c_void_p, c_char_p, c_uint64, c_uint64)
ReportFunction = ctypes.CFUNCTYPE(c_int32, c_void_p, c_void_p, c_void_p)


class Error(Exception):
    """What a failing call becomes."""

    def __init__(self, status: int, message: str):
        super().__init__(message)
        self.status = status
        self.name = _library.pgrad_status_name(status).decode()


class ContextInfo(ctypes.Structure):
    _fields_ = [("struct_size", c_size_t), ("n_threads", c_uint32), ("kernel_set", c_uint32),
                ("kernel_set_name", c_char_p), ("memory_now", c_uint64), ("memory_peak", c_uint64),
                ("memory_limit", c_uint64), ("n_allocations", c_uint64)]


class ModelInfo(ctypes.Structure):
    _fields_ = [("struct_size", c_size_t), ("architecture", c_char_p)] + [
        (name, c_uint32) for name in ("n_layers", "n_heads", "n_kv_heads", "head_dim", "n_embd", "n_ff", "n_vocab",
                                      "n_context", "tied_head", "n_tensors")] + [
        ("n_parameters", c_uint64), ("weight_version", c_uint64), ("eos_token", c_int32), ("bos_token", c_int32),
        ("weight_bytes", c_uint64)]


class SequenceInfo(ctypes.Structure):
    _fields_ = [("struct_size", c_size_t), ("group", c_uint32), ("finish", c_uint32), ("n_prompt", c_uint32),
                ("n_tokens", c_uint32), ("tag", c_uint64), ("sequence", c_uint64), ("temperature", c_double),
                ("reward", c_double), ("sampled", c_uint32), ("reserved", c_uint32)]


class Prompts(ctypes.Structure):
    _fields_ = [("struct_size", c_size_t), ("n", c_size_t), ("texts", POINTER(c_char_p)), ("ids", c_void_p),
                ("n_ids", c_void_p), ("chat", c_uint32), ("n_columns", c_uint32), ("system", c_char_p),
                ("column_names", POINTER(c_char_p)), ("columns", POINTER(POINTER(c_char_p)))]


class TrainReport(ctypes.Structure):
    _fields_ = [("struct_size", c_size_t), ("steps", c_uint64), ("seconds", c_double), ("first_reward", c_double),
                ("last_reward", c_double), ("eval_before", c_double), ("eval_after", c_double),
                ("stopped", c_uint32), ("n_skipped", c_uint32)]


STRUCTURES = {"context_info": ContextInfo, "model_info": ModelInfo, "sequence_info": SequenceInfo,
              "prompts": Prompts, "train_report": TrainReport}

# Result types of what does not return a status; arguments are converted where they are made.
_RESULTS = {
    "pgrad_status_name": c_char_p, "pgrad_error_message": c_char_p, "pgrad_version_string": c_char_p,
    "pgrad_struct_size": c_size_t, "pgrad_tokenizer_special": c_int32, "pgrad_tokenizer_count": c_uint32,
    "pgrad_model_tensor_name": c_char_p, "pgrad_rollout_count": c_uint32, "pgrad_rollout_text": c_void_p,
    "pgrad_rollout_data": c_void_p, "pgrad_rollout_tokens": c_void_p, "pgrad_rollout_array": c_void_p,
    "pgrad_scores_data": c_void_p, "pgrad_metrics_count": c_uint32, "pgrad_metrics_name": c_char_p,
    "pgrad_metrics_value": c_double,
}
_library: Any = None


def load(path: Optional[str] = None) -> Any:
    """Loads the library, once; path wins over every other place."""
    global _library
    if _library is not None:
        return _library
    beside = pathlib.Path(__file__).resolve().parents[2] / "build" / "lib" / "libpolicygrad.so"
    found = (path or os.environ.get("POLICYGRAD_LIBRARY") or (str(beside) if beside.exists() else None)
             or ctypes.util.find_library("policygrad"))
    if not found:
        raise OSError("libpolicygrad was not found: build it, or set POLICYGRAD_LIBRARY")
    _library = ctypes.CDLL(found)
    for name, result in _RESULTS.items():
        getattr(_library, name).restype = result
    return _library


def _check(status: int) -> None:
    if status != OK:
        raise Error(status, _library.pgrad_error_message().decode(errors="replace"))


def _params(name: str, fields: dict) -> ctypes.Array:
    """An option struct with the library's defaults and these fields, set by text."""
    size = _library.pgrad_struct_size(name.encode())
    params = (c_uint64 * ((size + 7) // 8))()
    getattr(_library, f"pgrad_{name}_params_init")(params, c_size_t(size))
    for field, value in fields.items():
        text = "infinity" if value == math.inf else str(int(value) if isinstance(value, bool) else value)
        _check(_library.pgrad_params_set(name.encode(), params, field.encode(), text.encode()))
    return params


class Handle:
    """Owns a C handle. close() may be called often; the collector calls it too."""

    _free = ""

    def __init__(self, pointer: c_void_p):
        self.pointer = pointer

    def close(self) -> None:
        pointer, self.pointer = self.pointer, None
        if pointer:
            getattr(_library, self._free)(pointer)

    def __enter__(self):
        return self

    def __exit__(self, *ignored) -> None:
        self.close()

    def __del__(self):
        if getattr(self, "pointer", None) and _library is not None:
            self.close()

    @classmethod
    def _make(cls, function: str, *arguments):
        out = c_void_p()
        _check(getattr(_library, function)(*arguments, byref(out)))
        return out


class Context(Handle):
    _free = "pgrad_context_free"

    def __init__(self, library: Optional[str] = None, **params):
        load(library)
        super().__init__(self._make("pgrad_context_create", _params("context", params)))
        self._progress = ProgressFunction(lambda user, what, done, total: 1)  # lets Ctrl-C in
        _check(_library.pgrad_context_set_progress(self.pointer, self._progress, None))

    def info(self) -> ContextInfo:
        out = ContextInfo(ctypes.sizeof(ContextInfo))
        _check(_library.pgrad_context_get_info(self.pointer, byref(out)))
        return out

    def on_progress(self, function: Callable[[str, int, int], Any]) -> None:
        """function(what, done, total); returning False stops the work."""
        self._progress = ProgressFunction(
            lambda user, what, done, total: 0 if function(what.decode(), done, total) is False else 1)
        _check(_library.pgrad_context_set_progress(self.pointer, self._progress, None))


class Model(Handle):
    _free = "pgrad_model_free"

    def __init__(self, pointer, context: Context):
        super().__init__(pointer)
        self.context = context

    @classmethod
    def load(cls, context: Context, path, **params) -> "Model":
        return cls(cls._make("pgrad_model_load", context.pointer, os.fsencode(path), _params("model", params)), context)

    @classmethod
    def create(cls, context: Context, config_json: str, seed: int = 0) -> "Model":
        return cls(cls._make("pgrad_model_create", context.pointer, config_json.encode(), c_uint64(seed), None), context)

    def snapshot(self) -> "Model":
        return Model(self._make("pgrad_model_snapshot", self.pointer), self.context)

    def info(self) -> ModelInfo:
        out = ModelInfo(ctypes.sizeof(ModelInfo))
        _check(_library.pgrad_model_get_info(self.pointer, byref(out)))
        return out

    def tensor(self, name: str):
        """A copy of a weight, flat."""
        n = c_size_t()
        _library.pgrad_model_tensor_read(self.pointer, name.encode(), None, c_size_t(0), byref(n))
        out = (c_float * n.value)()
        _check(_library.pgrad_model_tensor_read(self.pointer, name.encode(), out, n, byref(n)))
        return numpy.frombuffer(out, dtype=numpy.float32) if numpy else list(out)

    def tensor_names(self) -> list:
        names = (_library.pgrad_model_tensor_name(self.pointer, c_uint32(i), None, None) for i in range(1 << 20))
        return [name.decode() for name in iter(lambda: next(names), None)]

    def zero_grad(self) -> None:
        _check(_library.pgrad_model_zero_grad(self.pointer))

    def save(self, path, tokenizer: Optional["Tokenizer"] = None, **params) -> None:
        struct = _params("save", params)
        if tokenizer is not None:  # struct_size, dtype and reserved, then the pointer
            struct[2] = tokenizer.pointer.value
        _check(_library.pgrad_model_save(self.pointer, os.fsencode(path), struct))


class Tokenizer(Handle):
    _free = "pgrad_tokenizer_free"

    @classmethod
    def load(cls, context: Context, path) -> "Tokenizer":
        return cls(cls._make("pgrad_tokenizer_load", context.pointer, os.fsencode(path)))

    def encode(self, text: str, flags: int = 0) -> list:
        data, n = text.encode(), c_size_t()
        ids = (c_int32 * (len(data) + 8))()
        _check(_library.pgrad_tokenizer_encode(self.pointer, data, c_size_t(len(data)), c_uint32(flags), ids,
                                               c_size_t(len(ids)), byref(n)))
        return ids[:n.value]

    def decode(self, ids: Sequence[int], flags: int = 0) -> str:
        array, length = (c_int32 * len(ids))(*ids), c_size_t()
        _library.pgrad_tokenizer_decode(self.pointer, array, c_size_t(len(ids)), c_uint32(flags), None, c_size_t(0),
                                        byref(length))
        text = ctypes.create_string_buffer(length.value + 1)
        _check(_library.pgrad_tokenizer_decode(self.pointer, array, c_size_t(len(ids)), c_uint32(flags), text,
                                               c_size_t(len(text)), byref(length)))
        return text.raw[:length.value].decode()

    def special(self, which: int) -> int:
        return _library.pgrad_tokenizer_special(self.pointer, c_int32(which))


class Sampler(Handle):
    _free = "pgrad_sampler_free"

    def __init__(self, context: Context, **params):
        super().__init__(self._make("pgrad_sampler_create", context.pointer, _params("sampler", params)))


class Rollout(Handle):
    """Prompts and completions. Views of its arrays are valid until the next call that changes it."""

    _free = "pgrad_rollout_free"

    def __init__(self, model: Model, tokenizer: Optional[Tokenizer] = None, **params):
        super().__init__(self._make("pgrad_rollout_create", model.pointer,
                                    tokenizer.pointer if tokenizer else None, _params("rollout", params)))

    def clear(self) -> None:
        _library.pgrad_rollout_clear(self.pointer)

    def add_prompt(self, ids: Sequence[int], **data: str) -> int:
        group = c_uint32()
        _check(_library.pgrad_rollout_add_prompt(self.pointer, (c_int32 * len(ids))(*ids), c_size_t(len(ids)), None,
                                                 byref(group)))
        for key, text in data.items():
            raw = text.encode()
            _check(_library.pgrad_rollout_set_data(self.pointer, group, key.encode(), raw, c_size_t(len(raw))))
        return group.value

    def generate(self, sampler: Sampler) -> None:
        _check(_library.pgrad_rollout_generate(self.pointer, sampler.pointer, None))

    def score(self, model: Model, which: int) -> None:
        _check(_library.pgrad_rollout_score(self.pointer, model.pointer, c_uint32(which)))

    def __len__(self) -> int:
        return _library.pgrad_rollout_count(self.pointer)

    def text(self, i: int) -> str:
        return _text_of(self.pointer, i)

    def texts(self) -> list:
        return [self.text(i) for i in range(len(self))]

    def sequence(self, i: int) -> SequenceInfo:
        out = SequenceInfo(ctypes.sizeof(SequenceInfo))
        _check(_library.pgrad_rollout_sequence(self.pointer, c_uint32(i), byref(out)))
        return out

    def tokens(self, i: int):
        return _view(_library.pgrad_rollout_tokens, c_int32, self.pointer, c_uint32(i))

    def array(self, which: int, i: int):
        return _view(_library.pgrad_rollout_array, c_float, self.pointer, c_uint32(which), c_uint32(i))


def _text_of(rollout, i: int) -> str:
    length = c_size_t()
    pointer = _library.pgrad_rollout_text(rollout, c_uint32(i), byref(length))
    return ctypes.string_at(pointer, length.value).decode() if pointer else ""


def _data_of(rollout, group: int, key: str) -> Optional[str]:
    length = c_size_t()
    pointer = _library.pgrad_rollout_data(rollout, c_uint32(group), key.encode(), byref(length))
    return ctypes.string_at(pointer, length.value).decode() if pointer else None


def _view(function, kind, *arguments):
    n = c_size_t()
    pointer = function(*arguments, byref(n))
    if not pointer:
        return None
    array = ctypes.cast(pointer, POINTER(kind * n.value)).contents
    return numpy.frombuffer(array, dtype=kind) if numpy else list(array)


class Reward(Handle):
    """function(text) -> float, or function(text, column, ...) with `columns` naming the prompts' data. A result of
    None says that the reward does not apply."""

    _free = "pgrad_reward_free"

    def __init__(self, context: Context, function: Callable, name: str = "reward", columns: Iterable[str] = ()):
        load()
        self.function, self.columns, self.thrown = function, tuple(columns), None
        self._callback = RewardFunction(self._call)  # kept alive as long as the handle
        super().__init__(self._make("pgrad_reward_create", context.pointer, name.encode(), self._callback, None, None))

    def _call(self, user, rollout, first, count, scores) -> int:
        i = 0
        try:
            out = ctypes.cast(_library.pgrad_scores_data(c_void_p(scores)), POINTER(c_float))
            for i in range(count):
                info = SequenceInfo(ctypes.sizeof(SequenceInfo))
                _check(_library.pgrad_rollout_sequence(c_void_p(rollout), c_uint32(first + i), byref(info)))
                data = [_data_of(c_void_p(rollout), info.group, key) for key in self.columns]
                score = self.function(_text_of(c_void_p(rollout), first + i), *data)
                if score is None:
                    _library.pgrad_scores_skip(c_void_p(scores), c_uint32(i))
                else:
                    out[i] = score
            return count
        except BaseException as thrown:  # Ctrl-C too: it must not be lost in C
            self.thrown = thrown
            _library.pgrad_scores_fail(c_void_p(scores), c_uint32(first + i), repr(thrown).encode()[:200])
            return -1

    def check(self, status: int) -> None:
        thrown, self.thrown = self.thrown, None
        if thrown is not None:
            raise thrown
        _check(status)

    def apply(self, rollout: Rollout) -> None:
        self.check(_library.pgrad_reward_apply(self.pointer, rollout.pointer))


class Advantage(Handle):
    _free = "pgrad_advantage_free"

    def __init__(self, context: Context, **params):
        super().__init__(self._make("pgrad_advantage_create", context.pointer, _params("advantage", params)))

    def apply(self, rollout: Rollout) -> None:
        _check(_library.pgrad_advantage_apply(self.pointer, rollout.pointer))


class Report:
    """The numbers of a step by name."""

    def __init__(self):
        size = _library.pgrad_struct_size(b"step_report")
        self.struct = (c_uint64 * (size // 8))()
        _library.pgrad_step_report_init(self.struct, c_size_t(size))

    def numbers(self) -> dict:
        return _numbers(self.struct)


def _numbers(report) -> dict:
    return {_library.pgrad_metrics_name(report, c_uint32(i)).decode(): _library.pgrad_metrics_value(report, c_uint32(i))
            for i in range(_library.pgrad_metrics_count(report))}


class Objective(Handle):
    _free = "pgrad_objective_free"

    def __init__(self, model: Model, **params):
        super().__init__(self._make("pgrad_objective_create", model.pointer, _params("objective", params)))

    def backward(self, rollout: Rollout, report: Optional[Report] = None) -> None:
        _check(_library.pgrad_objective_backward(self.pointer, rollout.pointer, None, c_uint32(0), None,
                                                 report.struct if report else None))


class Optimizer(Handle):
    _free = "pgrad_optimizer_free"

    def __init__(self, model: Model, **params):
        super().__init__(self._make("pgrad_optimizer_create", model.pointer, _params("optimizer", params)))

    def step(self, report: Optional[Report] = None) -> None:
        _check(_library.pgrad_optimizer_step(self.pointer, report.struct if report else None))


def policy_gradient(model: Model, tokenizer: Tokenizer, reward_function: Callable, learning_rate: float, epochs: int,
                    prompts: Sequence[str], group_size: int = 8, max_new_tokens: int = 64, seed: int = 0,
                    on_epoch: Optional[Callable[[int, dict, Rollout], Any]] = None) -> list:
    """The textbook loop, a step call by call. The reward function gets a completion's text and its prompt when it
    takes two arguments, else the text. Returns the numbers of every epoch."""
    two = reward_function.__code__.co_argcount == 2 if hasattr(reward_function, "__code__") else False
    context, history = model.context, []
    ids = [tokenizer.encode(prompt, 2) for prompt in prompts]
    with Rollout(model, tokenizer, group_size=group_size, max_prompts=len(prompts), max_new_tokens=max_new_tokens,
                 max_prompt_tokens=max(map(len, ids))) as rollout, \
            Sampler(context, seed=seed) as sampler, Advantage(context) as advantage, Objective(model) as objective, \
            Optimizer(model, learning_rate=learning_rate) as optimizer, \
            Reward(context, reward_function, columns=("prompt",) if two else ()) as reward:
        for epoch in range(epochs):
            report = Report()
            rollout.clear()
            for prompt, tokens in zip(prompts, ids):
                rollout.add_prompt(tokens, prompt=prompt)
            rollout.generate(sampler)
            reward.apply(rollout)
            advantage.apply(rollout)
            model.zero_grad()
            objective.backward(rollout, report)
            optimizer.step(report)
            _check(_library.pgrad_rollout_report(rollout.pointer, report.struct))
            history.append(report.numbers())
            if on_epoch is not None:
                on_epoch(epoch, history[-1], rollout)
    return history
