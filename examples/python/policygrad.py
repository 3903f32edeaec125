"""libpolicygrad from Python: a thin layer over ctypes, nothing but the standard library.

    with Context() as context:
        model = Model.load(context, path)
        tokenizer = Tokenizer.load(context, path)
        policy_gradient(model, tokenizer, lambda text: -len(text), learning_rate=1e-5, epochs=10,
                        prompts=["Tell me about the sea."])

Handles close themselves, in any order. A failing call raises `Error` with its status and message. An exception in a
callback comes out of the call that ran it; Ctrl-C stops long work cleanly. Keyword arguments of the constructors are
the fields of the option struct by name, choices as text (`estimator="rloo"`), arrays as sequences.

The library is looked for at load(path), then in POLICYGRAD_LIBRARY, in ../../build/lib beside this file, and where the
system keeps its libraries."""
from __future__ import annotations

import ctypes
import ctypes.util
import inspect
import json
import math
import operator
import os
import pathlib
import signal
import threading
from ctypes import POINTER, byref, c_char_p, c_double, c_float, c_int32, c_size_t, c_uint32, c_uint64, c_void_p
from typing import Any, Callable, Dict, Iterable, List, Mapping, Optional, Sequence, Tuple, Union

try:
    import numpy
except ImportError:  # views of arrays are memoryviews then
    numpy = None

OK, E_INVALID, E_STATE, E_BUFFER, E_LIMIT, E_NUMERIC, E_IO, E_CANCELLED, E_CALLBACK = 0, -1, -2, -4, -41, -23, -42, -60, -61
LOGPROBS, LOGPROBS_SAMPLED, CURRENT, OLD, REFERENCE, ENTROPY, REWARDS, ADVANTAGES, MASK = range(9)
NONE, EMA, BATCH_MEAN, RLOO, GRPO, DR_GRPO = range(6)
ENCODE_SPECIAL, ENCODE_ADD, DECODE_SKIP_SPECIAL = 1, 2, 1
BOS, EOS, PAD, UNK, END_OF_TURN = range(5)
CHAT_GENERATE, CHAT_CHATML, CHAT_PLAIN = 1, 2, 4
LOGITS_ALL, LOGITS_LAST = range(2)
FINISH_NONE, FINISH_STOP, FINISH_STRING, FINISH_LENGTH = range(4)
KIND_MODEL, KIND_OPTIMIZER, KIND_SAMPLER, KIND_ADVANTAGE, KIND_ROLLOUT, KIND_OBJECTIVE, KIND_TEXT, KIND_TRAIN = range(8)
STOPPED_STEPS, STOPPED_SECONDS, STOPPED_TARGET, STOPPED_HOST, STOPPED_ERROR = range(5)

RewardFunction = ctypes.CFUNCTYPE(c_int32, c_void_p, c_void_p, c_uint32, c_uint32, c_void_p)
ProgressFunction = ctypes.CFUNCTYPE(c_int32, c_void_p, c_char_p, c_uint64, c_uint64)
LogFunction = ctypes.CFUNCTYPE(None, c_void_p, c_int32, c_char_p)
ReportFunction = ctypes.CFUNCTYPE(c_int32, c_void_p, c_void_p, c_void_p)
AdvantageFunction = ctypes.CFUNCTYPE(c_int32, c_void_p, c_void_p)
CheckpointFunction = ctypes.CFUNCTYPE(c_int32, c_void_p, c_void_p)
EventFunction = ctypes.CFUNCTYPE(c_int32, c_void_p, c_void_p, c_void_p)


class Error(Exception):
    """What a failing call becomes: its status, the status's name and the message."""

    def __init__(self, status: int, message: str):
        super().__init__(message)
        self.status = status
        self.name = _library.pgrad_status_name(status).decode()


# Mirrors of the structs that are read, or that hold pointers: one field a line, as in the headers. Option structs
# without pointers have none, their fields are set by name. A struct is made in the library's size, not the mirror's.


class ContextInfo(ctypes.Structure):
    _fields_ = [
        ("struct_size", c_size_t),
        ("n_threads", c_uint32),
        ("kernel_set", c_uint32),
        ("kernel_set_name", c_char_p),
        ("memory_now", c_uint64),
        ("memory_peak", c_uint64),
        ("memory_limit", c_uint64),
        ("n_allocations", c_uint64),
    ]


class ModelInfo(ctypes.Structure):
    _fields_ = [
        ("struct_size", c_size_t),
        ("architecture", c_char_p),
        ("n_layers", c_uint32),
        ("n_heads", c_uint32),
        ("n_kv_heads", c_uint32),
        ("head_dim", c_uint32),
        ("n_embd", c_uint32),
        ("n_ff", c_uint32),
        ("n_vocab", c_uint32),
        ("n_context", c_uint32),
        ("tied_head", c_uint32),
        ("n_tensors", c_uint32),
        ("n_parameters", c_uint64),
        ("weight_version", c_uint64),
        ("eos_token", c_int32),
        ("bos_token", c_int32),
        ("weight_bytes", c_uint64),
        ("storage", c_uint32),
        ("reserved", c_uint32),
    ]


class SaveParams(ctypes.Structure):
    _fields_ = [
        ("struct_size", c_size_t),
        ("dtype", c_uint32),
        ("reserved", c_uint32),
        ("tokenizer", c_void_p),
        ("max_shard_bytes", c_uint64),
    ]


class Message(ctypes.Structure):
    _fields_ = [
        ("role", c_char_p),
        ("text", c_char_p),
        ("length", c_size_t),
    ]


class SamplerParams(ctypes.Structure):
    _fields_ = [
        ("struct_size", c_size_t),
        ("temperature", c_double),
        ("top_p", c_double),
        ("min_p", c_double),
        ("repetition_penalty", c_double),
        ("seed", c_uint64),
        ("top_k", c_uint32),
        ("min_new_tokens", c_uint32),
        ("max_new_tokens", c_uint32),
        ("ignore_eos", c_uint32),
        ("stop_tokens", POINTER(c_int32)),
        ("n_stop_tokens", c_size_t),
        ("stop_strings", POINTER(c_char_p)),
        ("n_stop_strings", c_size_t),
        ("forbidden_tokens", POINTER(c_int32)),
        ("n_forbidden_tokens", c_size_t),
        ("bias_tokens", POINTER(c_int32)),
        ("logit_bias", POINTER(c_float)),
        ("n_bias_tokens", c_size_t),
    ]


class PromptParams(ctypes.Structure):
    _fields_ = [
        ("struct_size", c_size_t),
        ("tag", c_uint64),
        ("prefix", POINTER(c_int32)),
        ("n_prefix", c_size_t),
    ]


class GenerateParams(ctypes.Structure):
    _fields_ = [
        ("struct_size", c_size_t),
        ("event", c_void_p),
        ("user", c_void_p),
        ("max_seconds", c_double),
        ("speculate", c_uint32),
        ("reserved", c_uint32),
    ]


class Event(ctypes.Structure):
    _fields_ = [
        ("struct_size", c_size_t),
        ("kind", c_uint32),
        ("sequence", c_uint32),
        ("token", c_int32),
        ("logprob", c_float),
        ("text", c_void_p),
        ("length", c_size_t),
    ]


class SequenceInfo(ctypes.Structure):
    _fields_ = [
        ("struct_size", c_size_t),
        ("group", c_uint32),
        ("finish", c_uint32),
        ("n_prompt", c_uint32),
        ("n_tokens", c_uint32),
        ("tag", c_uint64),
        ("sequence", c_uint64),
        ("temperature", c_double),
        ("reward", c_double),
        ("sampled", c_uint32),
        ("reserved", c_uint32),
    ]


class RolloutInfo(ctypes.Structure):
    _fields_ = [
        ("struct_size", c_size_t),
        ("prompt_tokens_computed", c_uint64),
        ("prompt_tokens_reused", c_uint64),
        ("drafted_tokens", c_uint64),
        ("accepted_tokens", c_uint64),
        ("kept_tokens", c_uint64),
        ("cache_bytes", c_uint64),
    ]


class BackwardParams(ctypes.Structure):
    _fields_ = [
        ("struct_size", c_size_t),
        ("normalizer_total", c_double),
        ("n_tokens_total", c_double),
        ("optimizer", c_void_p),
    ]


class Prompts(ctypes.Structure):
    _fields_ = [
        ("struct_size", c_size_t),
        ("n", c_size_t),
        ("texts", POINTER(c_char_p)),
        ("ids", POINTER(POINTER(c_int32))),
        ("n_ids", POINTER(c_size_t)),
        ("chat", c_uint32),
        ("n_columns", c_uint32),
        ("system", c_char_p),
        ("column_names", POINTER(c_char_p)),
        ("columns", POINTER(POINTER(c_char_p))),
    ]


class TrainParams(ctypes.Structure):
    _fields_ = [
        ("struct_size", c_size_t),
        ("steps", c_uint64),
        ("prompts_per_step", c_uint32),
        ("group_size", c_uint32),
        ("max_new_tokens", c_uint32),
        ("epochs_per_step", c_uint32),
        ("learning_rate", c_double),
        ("max_seconds", c_double),
        ("target_reward", c_double),
        ("target_window", c_uint64),
        ("seed", c_uint64),
        ("sampler", c_void_p),
        ("advantage", c_void_p),
        ("objective", c_void_p),
        ("optimizer", c_void_p),
        ("reference", c_void_p),
        ("report", c_void_p),
        ("report_user", c_void_p),
        ("on_advantages", c_void_p),
        ("on_advantages_user", c_void_p),
        ("metrics_path", c_void_p),
        ("save_path", c_void_p),
        ("save_every", c_uint64),
        ("eval_prompts", c_void_p),
        ("eval_every", c_uint64),
        ("kv_storage", c_uint32),
        ("moments", c_uint32),
        ("micro_batch_tokens", c_uint32),
        ("recompute", c_uint32),
        ("checkpoint_path", c_void_p),
        ("checkpoint_every", c_uint64),
        ("checkpoint_keep", c_uint32),
        ("checkpoint_background", c_uint32),
        ("resume", c_uint32),
        ("reserved", c_uint32),
        ("on_checkpoint", c_void_p),
        ("on_checkpoint_user", c_void_p),
    ]


class TrainReport(ctypes.Structure):
    _fields_ = [
        ("struct_size", c_size_t),
        ("steps", c_uint64),
        ("seconds", c_double),
        ("first_reward", c_double),
        ("last_reward", c_double),
        ("eval_before", c_double),
        ("eval_after", c_double),
        ("stopped", c_uint32),
        ("n_skipped", c_uint32),
        ("memory_planned", c_uint64),
        ("steps_before", c_uint64),
    ]

    def __repr__(self) -> str:
        return "TrainReport(" + ", ".join(f"{name}={getattr(self, name)!r}" for name, _ in self._fields_[1:]) + ")"


class PlanParams(ctypes.Structure):
    _fields_ = [
        ("struct_size", c_size_t),
        ("rollout", c_void_p),
        ("objective", c_void_p),
        ("optimizer", c_void_p),
        ("evaluation", c_void_p),
        ("tokenizer", c_void_p),
        ("prompt_tokens", c_uint32),
        ("completion_tokens", c_uint32),
        ("in_backward", c_uint32),
        ("reference", c_uint32),
        ("memory_limit", c_uint64),
        ("other_bytes", c_uint64),
    ]


class MemoryReport(ctypes.Structure):
    _fields_ = [
        ("struct_size", c_size_t),
        ("weights", c_uint64),
        ("gradients", c_uint64),
        ("moments", c_uint64),
        ("activations", c_uint64),
        ("kv_cache", c_uint64),
        ("scratch", c_uint64),
        ("rollout", c_uint64),
        ("reference", c_uint64),
        ("other", c_uint64),
        ("total", c_uint64),
        ("peak_rollout", c_uint64),
        ("memory_limit", c_uint64),
        ("batch_size", c_uint32),
        ("micro_batch_tokens", c_uint32),
        ("recompute", c_uint32),
        ("kv_storage", c_uint32),
        ("moments_storage", c_uint32),
        ("n_micro_batches", c_uint32),
    ]


class CheckpointPart(ctypes.Structure):
    _fields_ = [
        ("struct_size", c_size_t),
        ("name", ctypes.c_char * 64),
        ("kind", c_uint32),
        ("reserved", c_uint32),
        ("size", c_uint64),
        ("stored_bytes", c_uint64),
    ]


STRUCTURES = {
    "context_info": ContextInfo,
    "model_info": ModelInfo,
    "save": SaveParams,
    "sampler": SamplerParams,
    "prompt": PromptParams,
    "generate": GenerateParams,
    "sequence_info": SequenceInfo,
    "rollout_info": RolloutInfo,
    "backward": BackwardParams,
    "prompts": Prompts,
    "train": TrainParams,
    "train_report": TrainReport,
    "plan": PlanParams,
    "memory_report": MemoryReport,
    "checkpoint_part": CheckpointPart,
}

# Fields that are arrays: the type of an element and the field of their length.
_ARRAYS = {
    "stop_tokens": (c_int32, "n_stop_tokens"),
    "stop_strings": (c_char_p, "n_stop_strings"),
    "forbidden_tokens": (c_int32, "n_forbidden_tokens"),
    "bias_tokens": (c_int32, "n_bias_tokens"),
    "logit_bias": (c_float, "n_bias_tokens"),
    "prefix": (c_int32, "n_prefix"),
}

# Fields that are handles, and the class of each.
_HANDLES = {"train.sampler": "Sampler", "train.advantage": "Advantage", "train.objective": "Objective",
            "train.optimizer": "Optimizer", "train.reference": "Model", "backward.optimizer": "Optimizer",
            "save.tokenizer": "Tokenizer", "plan.tokenizer": "Tokenizer"}

# Result types of what does not return a status; arguments are converted where they are made.
_RESULTS = {
    "pgrad_status_name": c_char_p,
    "pgrad_error_message": c_char_p,
    "pgrad_version_string": c_char_p,
    "pgrad_struct_size": c_size_t,
    "pgrad_tokenizer_special": c_int32,
    "pgrad_tokenizer_count": c_uint32,
    "pgrad_model_tensor_name": c_char_p,
    "pgrad_sampler_next_sequence": c_uint64,
    "pgrad_rollout_count": c_uint32,
    "pgrad_rollout_count_groups": c_uint32,
    "pgrad_rollout_text": c_void_p,
    "pgrad_rollout_data": c_void_p,
    "pgrad_rollout_tokens": c_void_p,
    "pgrad_rollout_prompt": c_void_p,
    "pgrad_rollout_array": c_void_p,
    "pgrad_checkpoint_count": c_uint32,
    "pgrad_scores_data": c_void_p,
    "pgrad_reward_builtin_name": c_char_p,
    "pgrad_metrics_count": c_uint32,
    "pgrad_metrics_name": c_char_p,
    "pgrad_metrics_value": c_double,
}
_library: Any = None


def load(path: Optional[str] = None) -> Any:
    """Loads the library, once; path wins over every other place."""
    global _library
    if _library is not None:
        return _library
    beside = pathlib.Path(__file__).resolve().parent / "../../build/lib/libpolicygrad.so"
    found = (path or os.environ.get("POLICYGRAD_LIBRARY") or (str(beside) if beside.exists() else None)
             or ctypes.util.find_library("policygrad"))
    if not found:
        raise OSError("libpolicygrad was not found: build it, or set POLICYGRAD_LIBRARY")
    _library = ctypes.CDLL(found)
    for name, result in _RESULTS.items():
        getattr(_library, name).restype = result
    return _library


class _Pending(threading.local):
    """What waits on this thread: an exception of a callback, until the call that ran it is back."""

    thrown: Optional[BaseException] = None
    in_python = True  # False while C code runs: nothing may be raised there


_pending = _Pending()


def _guard(function: Callable[[], int], failed: int = 0) -> int:
    """Runs a callback's body. What it throws is kept for _call, and C gets `failed`: an exception must not leave a
    ctypes callback, the value C gets then is undefined."""
    if _pending.thrown is not None:
        return failed
    try:
        _pending.in_python = True
        return function()
    except BaseException as thrown:  # Ctrl-C too
        _pending.thrown = thrown
        return failed
    finally:
        _pending.in_python = False


def _call(name: str, *arguments) -> None:
    """Calls what returns a status, and raises a callback's exception or the failure."""
    function, restore, was = getattr(_library, name), None, _pending.in_python

    # Python would raise KeyboardInterrupt at the first instruction of a callback, before its `try`: the handler runs
    # as ever, but what it raises waits in _pending.
    if threading.current_thread() is threading.main_thread():
        handler = signal.getsignal(signal.SIGINT)
        if callable(handler):
            def interrupted(number, frame):
                if _pending.in_python:
                    return handler(number, frame)
                try:
                    handler(number, frame)
                except BaseException as thrown:
                    _pending.thrown = thrown

            restore = handler
            signal.signal(signal.SIGINT, interrupted)
    try:
        _pending.in_python = False
        status = function(*arguments)
    finally:
        if restore is not None:
            signal.signal(signal.SIGINT, restore)
        _pending.in_python = was
    thrown, _pending.thrown = _pending.thrown, None
    if thrown is not None:
        if status == E_CALLBACK:  # which reward, which completion; Python 3.11 and later show it below the traceback
            thrown.__notes__ = [*getattr(thrown, "__notes__", ()), _library.pgrad_error_message().decode(errors="replace")]
        raise thrown
    _check(status)


def _check(status: int) -> None:
    if status != OK:
        raise Error(status, _library.pgrad_error_message().decode(errors="replace"))


def _encoded(text: Union[str, bytes, os.PathLike], what: str) -> bytes:
    raw = text.encode() if isinstance(text, str) else os.fsencode(text)
    if b"\0" in raw:
        raise ValueError(f"{what}: holds a NUL character")
    return raw


def _id_array(values: Sequence[int], what: str) -> Any:
    """An array of token ids; ctypes alone would take 2**32 + 5 for 5."""
    values = [operator.index(value) for value in values]
    for i in range(len(values)) if values and not -2**31 <= min(values) <= max(values) < 2**31 else ():
        if not -2**31 <= values[i] < 2**31:
            raise ValueError(f"{what}[{i}]: expected a token id, found {values[i]}")
    return (c_int32 * len(values))(*values)


def _text(value: Any) -> bytes:
    if isinstance(value, float) and math.isinf(value):
        return b"infinity" if value > 0 else b"-infinity"
    return _encoded(str(int(value) if isinstance(value, bool) else value), "an option")


def _params(name: str, fields: Mapping[str, Any]) -> Any:
    """An option struct with the library's defaults, or those of a `profile`, and these fields: plain ones by text, so
    that the library checks them, arrays, handles, callbacks and paths through the struct's mirror. Keeps alive what it
    points to."""
    size = _library.pgrad_struct_size(name.encode())
    params = (c_uint64 * ((size + 7) // 8))()
    getattr(_library, f"pgrad_{name}_params_init")(params, c_size_t(size))
    fields = dict(fields)
    if "profile" in fields:
        _check(_library.pgrad_params_profile(name.encode(), params, _text(fields.pop("profile"))))
    if isinstance(fields.get("logit_bias"), Mapping):
        bias = fields["logit_bias"]
        fields["bias_tokens"], fields["logit_bias"] = list(bias), list(bias.values())
    if len(fields.get("bias_tokens", ())) != len(fields.get("logit_bias", ())):
        raise ValueError(f"{name}: bias_tokens and logit_bias differ in length")
    mirror = STRUCTURES[name].from_buffer(params) if name in STRUCTURES else None
    params.kept = []
    for field, value in fields.items():
        pointer = hasattr(mirror, field) and dict(mirror._fields_)[field] is c_void_p
        if mirror is not None and hasattr(mirror, field) and field in _ARRAYS:
            kind, count = _ARRAYS[field]
            values = [_encoded(text, field) for text in value] if kind is c_char_p else list(value)
            array = _id_array(values, f"{name}.{field}") if kind is c_int32 else (kind * len(values))(*values)
            setattr(mirror, field, ctypes.cast(array, POINTER(kind)))
            setattr(mirror, count, len(values))
            params.kept.append(array)
        elif pointer:
            if value is None:
                continue
            kind = _HANDLES.get(f"{name}.{field}")
            if kind is not None or isinstance(value, Handle):
                if kind is None or not isinstance(value, globals()[kind]):
                    raise TypeError(f"{name}.{field}: expected {kind or 'no handle'}, found {type(value).__name__}")
                made = value.live
            elif isinstance(value, (str, os.PathLike)):
                made = ctypes.cast(c_char_p(_encoded(value, field)), c_void_p)
            else:
                made = ctypes.cast(value, c_void_p)
            setattr(mirror, field, made.value)
            params.kept += [value, made]
        else:
            _check(_library.pgrad_params_set(name.encode(), params, field.encode(), _text(value)))
    return params


def _view(pointer: Optional[int], kind: Any, n: int, owner: Any) -> Any:
    """A read-only view of C memory that keeps its owner: numpy's array, else a memoryview."""
    if not pointer:
        return None
    array = (kind * n).from_address(pointer)
    array.owner = owner
    view = memoryview(array).cast("B").cast("i" if kind is c_int32 else "f").toreadonly()
    return numpy.asarray(view) if numpy else view


def _required(function: Callable) -> List[str]:
    """Names of the positional parameters without a default; of any callable."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):  # some builtins do not tell
        return ["text"]
    return [p.name for p in parameters
            if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) and p.default is p.empty]


class Handle:
    """Owns a C handle and keeps its parents. close() may be called often; the collector calls it too."""

    _free = ""

    def __init__(self, pointer: c_void_p, *parents: Any):
        self.pointer: Optional[c_void_p] = pointer
        self.parents = parents

    @property
    def live(self) -> c_void_p:
        """The C handle; ValueError after close()."""
        if not self.pointer:
            raise ValueError(f"{type(self).__name__} is closed")
        return self.pointer

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
    def _make(cls, function: str, *arguments) -> c_void_p:
        out = c_void_p()
        try:
            _call(function, *arguments, byref(out))
        except BaseException:  # Ctrl-C can come out of a call that succeeded
            if out:
                getattr(_library, cls._free)(out)
            raise
        return out


class Context(Handle):
    _free = "pgrad_context_free"

    def __init__(self, library: Optional[str] = None, **params):
        load(library)
        super().__init__(self._make("pgrad_context_create", _params("context", params)))
        # The C context, and these callbacks with it, live as long as any handle that hangs on it. They see the
        # listeners, not self, so that nothing is circular.
        listeners = self._listeners = {"progress": None, "log": None}

        def progress(user, what, done, total):
            function = listeners["progress"]  # None: only lets Ctrl-C in
            return _guard(lambda: 0 if function and function(what.decode(), done, total) is False else 1)

        def log(user, level, line):
            def body():
                listeners["log"](level, line.decode(errors="replace"))
                return 0
            _guard(body)

        self._progress, self._log = ProgressFunction(progress), LogFunction(log)
        _check(_library.pgrad_context_set_progress(self.live, self._progress, None))

    def info(self) -> ContextInfo:
        out = ContextInfo(ctypes.sizeof(ContextInfo))
        _check(_library.pgrad_context_get_info(self.live, byref(out)))
        return out

    def on_progress(self, function: Optional[Callable[[str, int, int], Any]]) -> None:
        """function(what, done, total); returning False stops the work. None: no function."""
        self._listeners["progress"] = function

    def on_log(self, function: Optional[Callable[[int, str], Any]], level: int = 2) -> None:
        """function(level, line) for lines up to level (0 errors .. 3 debugging)."""
        self._listeners["log"] = function or (lambda level, line: None)
        callback = self._log if function else ctypes.cast(None, LogFunction)
        _check(_library.pgrad_context_set_log(self.live, callback, None, c_int32(level)))

    def cancel(self) -> None:
        """Has running calls, of other threads too, end with E_CANCELLED, until clear_cancel()."""
        _library.pgrad_context_cancel(self.live)

    def clear_cancel(self) -> None:
        _library.pgrad_context_clear_cancel(self.live)


def _estimate(function: str, arguments: Tuple, plan: Mapping[str, Any]) -> MemoryReport:
    parts = {"rollout": "rollout", "evaluation": "rollout", "objective": "objective", "optimizer": "optimizer"}
    fields = {field: _params(parts[field], value) if field in parts and value is not None else value
              for field, value in plan.items()}
    out = MemoryReport(ctypes.sizeof(MemoryReport))
    _call(function, *arguments, _params("plan", fields), byref(out))
    return out


class Model(Handle):
    _free = "pgrad_model_free"

    def __init__(self, pointer: c_void_p, context: Context):
        super().__init__(pointer, context)
        self.context = context

    @classmethod
    def load(cls, context: Context, path: Union[str, os.PathLike], **params) -> "Model":
        return cls(cls._make("pgrad_model_load", context.live, _encoded(path, "path"), _params("model", params)),
                   context)

    @classmethod
    def create(cls, context: Context, config_json: str, seed: int = 0, **params) -> "Model":
        return cls(cls._make("pgrad_model_create", context.live, _encoded(config_json, "config_json"), c_uint64(seed),
                             _params("model", params)), context)

    def snapshot(self) -> "Model":
        return Model(self._make("pgrad_model_snapshot", self.live), self.context)

    def estimate(self, **plan) -> MemoryReport:
        """What a run of this model takes, in bytes, by name, and the choices made under a memory limit; Error with
        status E_LIMIT says what would fit. rollout, evaluation, objective and optimizer are mappings of their options,
        the others the fields of the plan: tokenizer, prompt_tokens, memory_limit, ..."""
        return _estimate("pgrad_model_estimate", (self.live,), plan)

    @staticmethod
    def estimate_load(context: Context, path: Union[str, os.PathLike], model: Mapping[str, Any] = {},
                      **plan) -> MemoryReport:
        """The same before the model is loaded; model is a mapping of its options."""
        return _estimate("pgrad_model_estimate_load",
                         (context.live, _encoded(path, "path"), _params("model", model)), plan)

    @staticmethod
    def estimate_create(context: Context, config_json: str, model: Mapping[str, Any] = {}, **plan) -> MemoryReport:
        """The same before the model is created."""
        return _estimate("pgrad_model_estimate_create",
                         (context.live, _encoded(config_json, "config_json"), _params("model", model)), plan)

    def info(self) -> ModelInfo:
        out = ModelInfo(ctypes.sizeof(ModelInfo))
        _check(_library.pgrad_model_get_info(self.live, byref(out)))
        return out

    def _read(self, function: str, name: str) -> Any:
        n = c_size_t()
        status = getattr(_library, function)(self.live, name.encode(), None, c_size_t(0), byref(n))
        if status != E_BUFFER:
            _check(status)
        out = (c_float * n.value)()
        _check(getattr(_library, function)(self.live, name.encode(), out, n, byref(n)))
        return numpy.frombuffer(out, dtype=numpy.float32) if numpy else list(out)

    def tensor(self, name: str) -> Any:
        """A copy of a weight, flat."""
        return self._read("pgrad_model_tensor_read", name)

    def grad(self, name: str) -> Any:
        """A copy of its gradient, flat."""
        return self._read("pgrad_model_grad_read", name)

    def set_tensor(self, name: str, values: Sequence[float]) -> None:
        _call("pgrad_model_tensor_write", self.live, name.encode(), (c_float * len(values))(*values),
              c_size_t(len(values)))

    def tensor_names(self) -> List[str]:
        names = (_library.pgrad_model_tensor_name(self.live, c_uint32(i), None, None) for i in range(1 << 20))
        return [name.decode() for name in iter(lambda: next(names), None)]

    def zero_grad(self) -> None:
        _call("pgrad_model_zero_grad", self.live)

    def logits(self, ids: Sequence[int], last: bool = False) -> Any:
        """Logits of the tokens behind each of ids, [len(ids), n_vocab], or of the last alone, [n_vocab]; flat without
        numpy."""
        n = self.info().n_vocab * (1 if last else len(ids))
        out = (c_float * n)()
        _call("pgrad_model_logits", self.live, _id_array(ids, "ids"), c_size_t(len(ids)),
              c_uint32(LOGITS_LAST if last else LOGITS_ALL), out, c_size_t(n))
        if numpy is None:
            return list(out)
        values = numpy.frombuffer(out, dtype=numpy.float32)
        return values if last else values.reshape(len(ids), -1)

    def save(self, path: Union[str, os.PathLike], tokenizer: Optional["Tokenizer"] = None, **params) -> None:
        _call("pgrad_model_save", self.live, _encoded(path, "path"), _params("save", dict(params, tokenizer=tokenizer)))


def _ids(function: str, capacity: int, *arguments) -> List[int]:
    """The ids that an encoding call writes: again with the room it asks for."""
    n = c_size_t()
    for _ in range(2):
        ids = (c_int32 * capacity)()
        status = getattr(_library, function)(*arguments, ids, c_size_t(capacity), byref(n))
        if status != E_BUFFER:
            break
        capacity = n.value
    _check(status)
    return ids[:n.value]


class Tokenizer(Handle):
    _free = "pgrad_tokenizer_free"

    @classmethod
    def load(cls, context: Context, path: Union[str, os.PathLike]) -> "Tokenizer":
        return cls(cls._make("pgrad_tokenizer_load", context.live, _encoded(path, "path")), context)

    def encode(self, text: str, flags: int = 0) -> List[int]:
        data = text.encode()
        return _ids("pgrad_tokenizer_encode", len(data) + 8, self.live, data, c_size_t(len(data)), c_uint32(flags))

    def chat(self, messages: Sequence[Tuple[str, str]], flags: int = CHAT_GENERATE) -> List[int]:
        """Ids of a conversation, messages as (role, text); flags are CHAT_*."""
        raw = [(_encoded(role, "role"), text.encode()) for role, text in messages]
        array = (Message * len(raw))(*(Message(role, text, len(text)) for role, text in raw))
        room = sum(len(text) + 16 for _, text in raw) + 16
        return _ids("pgrad_chat_format", room, self.live, array, c_size_t(len(raw)), c_uint32(flags))

    def decode(self, ids: Sequence[int], flags: int = 0) -> str:
        array, length = _id_array(ids, "ids"), c_size_t()
        _library.pgrad_tokenizer_decode(self.live, array, c_size_t(len(ids)), c_uint32(flags), None, c_size_t(0),
                                        byref(length))
        text = ctypes.create_string_buffer(length.value + 1)
        _check(_library.pgrad_tokenizer_decode(self.live, array, c_size_t(len(ids)), c_uint32(flags), text,
                                               c_size_t(len(text)), byref(length)))
        return text.raw[:length.value].decode()

    def special(self, which: int) -> int:
        """The id of BOS, EOS, ..., -1 without."""
        return _library.pgrad_tokenizer_special(self.live, c_int32(which))

    def __len__(self) -> int:
        return _library.pgrad_tokenizer_count(self.live)


class Sampler(Handle):
    """Fields of the sampler's options; stop_tokens, stop_strings and forbidden_tokens are sequences, logit_bias a
    mapping from token to bias."""

    _free = "pgrad_sampler_free"

    def __init__(self, context: Context, **params):
        super().__init__(self._make("pgrad_sampler_create", context.live, _params("sampler", params)), context)

    @property
    def next_sequence(self) -> int:
        return _library.pgrad_sampler_next_sequence(self.live)

    @next_sequence.setter
    def next_sequence(self, sequence: int) -> None:
        _check(_library.pgrad_sampler_set_next_sequence(self.live, c_uint64(sequence)))


class RolloutView:
    """Reads prompts and completions. A callback gets one for the time of its call. Arrays are views, without copies,
    valid until the next call that changes or closes the rollout."""

    def __init__(self, pointer: int):
        self.pointer: Any = c_void_p(pointer)

    @property
    def live(self) -> c_void_p:
        if not self.pointer:
            raise ValueError("the rollout of a callback is valid during the call")
        return self.pointer

    def __len__(self) -> int:
        return _library.pgrad_rollout_count(self.live)

    def _string(self, function: str, *arguments) -> Optional[str]:
        length = c_size_t()
        pointer = getattr(_library, function)(self.live, *arguments, byref(length))
        return ctypes.string_at(pointer, length.value).decode() if pointer else None

    def _array(self, function: str, kind: Any, *arguments) -> Any:
        n = c_size_t()
        pointer = getattr(_library, function)(self.live, *arguments, byref(n))
        return _view(pointer, kind, n.value, self)

    def text(self, i: int) -> str:
        return self._string("pgrad_rollout_text", c_uint32(i)) or ""

    def texts(self) -> List[str]:
        return [self.text(i) for i in range(len(self))]

    def data(self, group: int, key: str) -> Optional[str]:
        """The text kept with a prompt under a key."""
        return self._string("pgrad_rollout_data", c_uint32(group), key.encode())

    def info(self) -> RolloutInfo:
        """What the last generate computed, took over and drafted."""
        out = RolloutInfo(ctypes.sizeof(RolloutInfo))
        _check(_library.pgrad_rollout_get_info(self.live, byref(out)))
        return out

    def sequence(self, i: int) -> SequenceInfo:
        out = SequenceInfo(ctypes.sizeof(SequenceInfo))
        _check(_library.pgrad_rollout_sequence(self.live, c_uint32(i), byref(out)))
        return out

    def tokens(self, i: int) -> Any:
        return self._array("pgrad_rollout_tokens", c_int32, c_uint32(i))

    def prompt(self, group: int) -> Any:
        return self._array("pgrad_rollout_prompt", c_int32, c_uint32(group))

    def array(self, which: int, i: int) -> Any:
        """LOGPROBS, ADVANTAGES, ... of completion i, None when it was not filled."""
        return self._array("pgrad_rollout_array", c_float, c_uint32(which), c_uint32(i))

    def set_array(self, which: int, i: int, values: Union[float, Sequence[float]]) -> None:
        """One value per token, or one for all."""
        values = values if hasattr(values, "__len__") else [values]
        _call("pgrad_rollout_set_array", self.live, c_uint32(which), c_uint32(i), (c_float * len(values))(*values),
              c_size_t(len(values)))


class Rollout(RolloutView, Handle):
    _free = "pgrad_rollout_free"
    live = Handle.live

    def __init__(self, model: Model, tokenizer: Optional[Tokenizer] = None, **params):
        pointer = self._make("pgrad_rollout_create", model.live, tokenizer.live if tokenizer else None,
                             _params("rollout", params))
        Handle.__init__(self, pointer, model, tokenizer)

    def clear(self) -> None:
        _library.pgrad_rollout_clear(self.live)

    def add_prompt(self, ids: Sequence[int], *, prefix: Sequence[int] = (), tag: int = 0, **data: str) -> int:
        """Returns the number of the prompt's group; data are texts for reward functions."""
        group = c_uint32()
        _call("pgrad_rollout_add_prompt", self.live, _id_array(ids, "ids"), c_size_t(len(ids)),
              _params("prompt", {"prefix": prefix, "tag": tag}), byref(group))
        for key, text in data.items():
            raw = text.encode()
            _call("pgrad_rollout_set_data", self.live, group, key.encode(), raw, c_size_t(len(raw)))
        return group.value

    def add_sequence(self, group: int, ids: Sequence[int], **params) -> None:
        """Adds a completion that was not sampled here."""
        _call("pgrad_rollout_add_sequence", self.live, c_uint32(group), _id_array(ids, "ids"), c_size_t(len(ids)),
              _params("sequence", params))

    def generate(self, sampler: Sampler, event: Optional[Callable[[int, int, Optional[int], str], Any]] = None,
                 **params) -> None:
        """event(kind, sequence, token, text) is told of every token (kind 1) and end (kind 2); False stops."""
        def told(user, rollout, pointer):
            def body():
                seen = Event.from_address(pointer)
                text = ctypes.string_at(seen.text, seen.length).decode() if seen.text else ""
                return 0 if event(seen.kind, seen.sequence, seen.token, text) is False else 1
            return _guard(body)

        params["event"] = EventFunction(told) if event else None
        _call("pgrad_rollout_generate", self.live, sampler.live, _params("generate", params))

    def score(self, model: Model, which: int) -> None:
        _call("pgrad_rollout_score", self.live, model.live, c_uint32(which))


Score = Union[None, float, Sequence[float]]


class Reward(Handle):
    """The host's scoring function, over one of
        "text":    function(text, column, ...) -> score
        "texts":   function(texts, columns, ...) -> scores, all completions of a batch at once
        "rollout": function(rollout, first, count) -> scores, with everything a RolloutView tells
    with `columns` naming the prompts' data. A score is a number, a sequence with one number per token, or None: the
    reward does not apply."""

    _free = "pgrad_reward_free"

    def __init__(self, context: Context, function: Callable, name: str = "reward", columns: Iterable[str] = (),
                 over: str = "text"):
        if over not in ("text", "texts", "rollout"):
            raise ValueError(f"over: expected text, texts or rollout, found {over!r}")
        columns = tuple(columns)

        def called(user, pointer, first, count, scores):
            at = [0xffffffff]  # the sequence at work
            scores = c_void_p(scores)

            def body():
                view = RolloutView(pointer)
                try:
                    for i, score in enumerate(_scores(view, function, columns, over, first, count, at)):
                        at[0] = first + i
                        _put_score(scores, i, score)
                    return count
                except BaseException as thrown:
                    _library.pgrad_scores_fail(scores, c_uint32(at[0]), repr(thrown).encode()[:200])
                    raise
                finally:
                    view.pointer = None
            return _guard(body, -1)

        self.callback = RewardFunction(called)  # kept alive as long as the handle
        super().__init__(self._make("pgrad_reward_create", context.live, _encoded(name, "name"), self.callback, None,
                                    None), context)

    @classmethod
    def combine(cls, context: Context, rewards: Sequence["Reward"], weights: Sequence[float]) -> "Reward":
        """The weighted sum of rewards, each reported by its name."""
        if len(rewards) != len(weights):
            raise ValueError("rewards and weights differ in length")
        made = cls.__new__(cls)
        pointers = (c_void_p * len(rewards))(*(reward.live.value for reward in rewards))
        Handle.__init__(made, cls._make("pgrad_reward_combine", context.live, pointers,
                                        (c_double * len(weights))(*weights), c_uint32(len(rewards))), context, *rewards)
        return made

    @classmethod
    def builtin(cls, context: Context, kind: str, /, **arguments) -> "Reward":
        """One of the library's own (docs/rewards.md): Reward.builtin(context, "regex", pattern="^[A-Z]")."""
        made = cls.__new__(cls)
        Handle.__init__(made, cls._make("pgrad_reward_builtin", context.live, _encoded(kind, "kind"),
                                        json.dumps(arguments).encode()), context)
        return made

    @staticmethod
    def builtins() -> Dict[str, Dict[str, Any]]:
        """What each of them is and takes, by name."""
        load()
        found: Dict[str, Dict[str, Any]] = {}
        while (name := _library.pgrad_reward_builtin_name(c_uint32(len(found)))) is not None:
            length = c_size_t()
            _library.pgrad_reward_builtin_describe(name, None, c_size_t(0), byref(length))
            text = ctypes.create_string_buffer(length.value + 1)
            _call("pgrad_reward_builtin_describe", name, text, c_size_t(len(text)), byref(length))
            found[name.decode()] = json.loads(text.value)
        return found

    def apply(self, rollout: Rollout) -> None:
        _call("pgrad_reward_apply", self.live, rollout.live)


def _scores(view: RolloutView, function: Callable, columns: Sequence[str], over: str, first: int, count: int,
            at: List[int]) -> Iterable[Score]:
    if over == "rollout":
        found = function(view, first, count)
    else:
        rows = []
        for i in range(first, first + count):
            group = view.sequence(i).group
            rows.append([view.text(i)] + [view.data(group, key) for key in columns])
        if over == "text":
            for i, row in enumerate(rows):
                at[0] = first + i
                yield function(*row)
            return
        found = function(*map(list, zip(*rows)))
    if len(found) != count:
        raise ValueError(f"the reward function returned {len(found)} scores for {count} completions")
    yield from found


def _put_score(scores: c_void_p, i: int, score: Score) -> None:
    if score is None:
        _library.pgrad_scores_skip(scores, c_uint32(i))
    elif isinstance(score, (str, bytes)):
        raise TypeError(f"the reward function: expected a number, or one per token, found {score!r:.40}")
    elif getattr(score, "ndim", 1) and hasattr(score, "__len__"):  # numpy's scalars have no dimension
        values = (c_float * len(score))(*score)
        _check(_library.pgrad_scores_set_tokens(scores, c_uint32(i), values, c_size_t(len(values))))
    else:
        ctypes.cast(_library.pgrad_scores_data(scores), POINTER(c_float))[i] = float(score)


class Advantage(Handle):
    _free = "pgrad_advantage_free"

    def __init__(self, context: Context, **params):
        super().__init__(self._make("pgrad_advantage_create", context.live, _params("advantage", params)), context)

    def apply(self, rollout: Rollout) -> None:
        _call("pgrad_advantage_apply", self.live, rollout.live)


class Report:
    """The numbers of a step by name."""

    def __init__(self):
        size = _library.pgrad_struct_size(b"step_report")
        self.struct = (c_uint64 * (size // 8))()
        _library.pgrad_step_report_init(self.struct, c_size_t(size))

    def add(self, rollout: Rollout) -> None:
        """Fills the part about completions and rewards."""
        _call("pgrad_rollout_report", rollout.live, self.struct)

    def numbers(self) -> Dict[str, float]:
        return _numbers(self.struct)


def _numbers(report: Any) -> Dict[str, float]:
    """Every number that is filled, and "step", the optimizer steps done: the struct's second field."""
    count = _library.pgrad_metrics_count(report)
    return dict({"step": ctypes.cast(report, POINTER(c_uint64))[1]},
                **{_library.pgrad_metrics_name(report, c_uint32(i)).decode():
                   _library.pgrad_metrics_value(report, c_uint32(i)) for i in range(count)})


class Objective(Handle):
    _free = "pgrad_objective_free"

    def __init__(self, model: Model, **params):
        super().__init__(self._make("pgrad_objective_create", model.live, _params("objective", params)), model)

    def normalizer(self, rollout: Rollout, indices: Optional[Sequence[int]] = None) -> float:
        out = c_double()
        _call("pgrad_objective_normalizer", self.live, rollout.live, *_indices(indices), byref(out))
        return out.value

    def backward(self, rollout: Rollout, report: Optional[Report] = None, indices: Optional[Sequence[int]] = None,
                 **params) -> None:
        """Over completions indices, all finished ones without. With optimizer=... this call is its step too: each tensor
        is updated as soon as its gradient is complete, in less memory."""
        _call("pgrad_objective_backward", self.live, rollout.live, *_indices(indices), _params("backward", params),
              report.struct if report else None)


def _indices(indices: Optional[Sequence[int]]) -> Tuple[Any, c_uint32]:
    if indices is None:
        return None, c_uint32(0)
    return (c_uint32 * max(len(indices), 1))(*indices), c_uint32(len(indices))


class Optimizer(Handle):
    _free = "pgrad_optimizer_free"

    def __init__(self, model: Model, **params):
        super().__init__(self._make("pgrad_optimizer_create", model.live, _params("optimizer", params)), model)

    def set_lr(self, learning_rate: float) -> None:
        _call("pgrad_optimizer_set_lr", self.live, c_double(learning_rate))

    def step(self, report: Optional[Report] = None) -> None:
        _call("pgrad_optimizer_step", self.live, report.struct if report else None)


class Checkpoint(Handle):
    """The state of a run in one file. Checkpoint(context), add handles and texts, write; or Checkpoint.open(context,
    path), then restore handles that were made as before."""

    _free = "pgrad_checkpoint_free"
    _KINDS = {Model: KIND_MODEL, Optimizer: KIND_OPTIMIZER, Sampler: KIND_SAMPLER, Advantage: KIND_ADVANTAGE,
              Rollout: KIND_ROLLOUT, Objective: KIND_OBJECTIVE}

    def __init__(self, context: Context):
        super().__init__(self._make("pgrad_checkpoint_create", context.live), context)

    @classmethod
    def open(cls, context: Context, path: Union[str, os.PathLike]) -> "Checkpoint":
        """Opens a file and checks it from end to end."""
        opened = cls.__new__(cls)
        Handle.__init__(opened, cls._make("pgrad_checkpoint_open", context.live, _encoded(path, "path")), context)
        return opened

    def _kind(self, handle: Handle) -> c_int32:
        for kind, number in self._KINDS.items():
            if isinstance(handle, kind):
                return c_int32(number)
        raise TypeError(f"a {type(handle).__name__} has no state for a checkpoint")

    def add(self, name: str, handle: Handle) -> None:
        _call("pgrad_checkpoint_add", self.live, _encoded(name, "name"), self._kind(handle), handle.live)

    def add_text(self, name: str, text: Union[str, bytes]) -> None:
        """Adds a text, or bytes, or replaces the one of this name."""
        raw = text.encode() if isinstance(text, str) else bytes(text)
        _call("pgrad_checkpoint_add_text", self.live, _encoded(name, "name"), raw, c_size_t(len(raw)))

    def write(self, path: Union[str, os.PathLike], **params) -> None:
        """Writes all of it. params are keep and background."""
        _call("pgrad_checkpoint_write", self.live, _encoded(path, "path"), _params("checkpoint", params))

    def wait(self) -> None:
        """Waits for a write in the background, and raises what it failed with."""
        _call("pgrad_checkpoint_wait", self.live)

    def parts(self) -> List[CheckpointPart]:
        """Of an opened checkpoint: name, kind, size, stored_bytes."""
        parts = [CheckpointPart(ctypes.sizeof(CheckpointPart)) for _ in range(len(self))]
        for i, part in enumerate(parts):
            _check(_library.pgrad_checkpoint_get_part(self.live, c_uint32(i), byref(part)))
        return parts

    def __len__(self) -> int:
        return _library.pgrad_checkpoint_count(self.live)

    def text(self, name: str) -> bytes:
        """The bytes of a text; str's are UTF-8."""
        length, raw = c_size_t(), _encoded(name, "name")
        status = _library.pgrad_checkpoint_get_text(self.live, raw, None, c_size_t(0), byref(length))
        if status != E_BUFFER:
            _check(status)
        buffer = ctypes.create_string_buffer(length.value + 1)
        _call("pgrad_checkpoint_get_text", self.live, raw, buffer, c_size_t(length.value + 1), byref(length))
        return buffer.raw[:length.value]

    def restore(self, name: str, handle: Handle) -> None:
        _call("pgrad_checkpoint_restore", self.live, _encoded(name, "name"), self._kind(handle), handle.live)


class CheckpointView(Checkpoint):
    """What train's on_checkpoint gets: the run's own, valid during the call."""

    def __init__(self, pointer: int):  # noqa: it owns nothing
        Handle.__init__(self, c_void_p(pointer))

    def close(self) -> None:
        self.pointer = None


def _strings(texts: Sequence[str], what: str) -> Any:
    return (c_char_p * len(texts))(*(_encoded(text, f"{what}[{i}]") for i, text in enumerate(texts)))


def _prompts(prompts: Sequence[Union[str, Sequence[int]]], columns: Mapping[str, Sequence[str]], chat: bool,
             system: Optional[str]) -> Prompts:
    if isinstance(prompts, (str, bytes)):
        raise TypeError("prompts: expected a sequence of texts or of ids, found one text")
    if not len(prompts):
        raise ValueError("prompts is empty")
    for name, column in columns.items():
        if len(column) != len(prompts):
            raise ValueError(f"column {name}: expected {len(prompts)} texts, found {len(column)}")
    out = Prompts()
    _library.pgrad_prompts_init(byref(out), c_size_t(ctypes.sizeof(out)))
    out.n, out.chat, out.n_columns = len(prompts), chat, len(columns)
    out.system = None if system is None else _encoded(system, "system")
    if isinstance(prompts[0], str):
        out.texts = _strings(prompts, "prompts")
    else:
        rows = [_id_array(ids, f"prompts[{i}]") for i, ids in enumerate(prompts)]
        out.ids = (POINTER(c_int32) * len(rows))(*(ctypes.cast(row, POINTER(c_int32)) for row in rows))
        out.n_ids = (c_size_t * len(rows))(*map(len, rows))
    if columns:
        out.column_names = _strings(list(columns), "columns")
        texts = [_strings(column, name) for name, column in columns.items()]
        out.columns = (POINTER(c_char_p) * len(texts))(*(ctypes.cast(text, POINTER(c_char_p)) for text in texts))
    return out


def train(model: Model, tokenizer: Tokenizer, reward: Union[Reward, Callable[[str], Score]],
          prompts: Sequence[Union[str, Sequence[int]]], *, columns: Mapping[str, Sequence[str]] = {},
          chat: bool = False, system: Optional[str] = None,
          eval_prompts: Optional[Sequence[Union[str, Sequence[int]]]] = None,
          eval_columns: Mapping[str, Sequence[str]] = {}, report: Optional[Callable] = None,
          on_advantages: Optional[Callable[[RolloutView], Any]] = None,
          on_checkpoint: Optional[Callable[[CheckpointView], Any]] = None, **params) -> TrainReport:
    """pgrad_train. prompts are texts, or ids; columns are texts of each for the reward. report(numbers), or
    report(numbers, rollout), gets each step's numbers as a dict and ends the run in order by returning False;
    on_advantages(rollout) may change them by set_array, False fails; on_checkpoint(checkpoint) may add_text before one
    is written. params are the fields of the options: steps, group_size, learning_rate, seed, save_path,
    checkpoint_path, checkpoint_every, resume ("off", "on", "auto"), ...; sampler, advantage, objective, optimizer and reference are
    handles."""
    pairs = report is not None and len(_required(report)) > 1

    def seen(pointer, function):
        view = RolloutView(pointer)
        try:
            return 0 if function(view) is False else 1
        finally:
            view.pointer = None

    def reported(user, step, rollout):
        return _guard(lambda: seen(rollout, lambda view: report(
            *((_numbers(c_void_p(step)), view) if pairs else (_numbers(c_void_p(step)),)))))

    def advanced(user, rollout):
        return _guard(lambda: seen(rollout, on_advantages))

    def checkpointed(user, pointer):
        view = CheckpointView(pointer)
        try:
            return _guard(lambda: 0 if on_checkpoint(view) is False else 1)
        finally:
            view.close()

    data, out = _prompts(prompts, columns, chat, system), TrainReport(ctypes.sizeof(TrainReport))
    if eval_prompts is not None:
        params["eval_prompts"] = ctypes.pointer(_prompts(eval_prompts, eval_columns, chat, system))
    params["report"] = ReportFunction(reported) if report else None
    params["on_advantages"] = AdvantageFunction(advanced) if on_advantages else None
    params["on_checkpoint"] = CheckpointFunction(checkpointed) if on_checkpoint else None
    made = None if isinstance(reward, Reward) else Reward(model.context, reward)
    try:
        _call("pgrad_train", model.live, tokenizer.live, (made or reward).live, byref(data), _params("train", params),
              byref(out))
    finally:
        if made is not None:
            made.close()
    return out


def policy_gradient(model: Model, tokenizer: Tokenizer, reward_function: Callable, learning_rate: float, epochs: int,
                    prompts: Sequence[str], group_size: int = 8, max_new_tokens: int = 64, seed: int = 0,
                    on_epoch: Optional[Callable[[int, Dict[str, float], Rollout], Any]] = None
                    ) -> List[Dict[str, float]]:
    """The textbook loop, a step call by call. The reward function gets a completion's text and its prompt when it
    requires two arguments, else the text. Returns the numbers of every epoch."""
    if not prompts:
        raise ValueError("prompts is empty")
    columns = ("prompt",) if len(_required(reward_function)) == 2 else ()
    context, history = model.context, []
    ids = [tokenizer.encode(prompt, ENCODE_ADD) for prompt in prompts]
    with Rollout(model, tokenizer, group_size=group_size, max_prompts=len(prompts), max_new_tokens=max_new_tokens,
                 max_prompt_tokens=max(map(len, ids))) as rollout, \
            Sampler(context, seed=seed) as sampler, Advantage(context) as advantage, Objective(model) as objective, \
            Optimizer(model, learning_rate=learning_rate) as optimizer, \
            Reward(context, reward_function, columns=columns) as reward:
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
            report.add(rollout)
            history.append(report.numbers())
            if on_epoch is not None:
                on_epoch(epoch, history[-1], rollout)
    return history
