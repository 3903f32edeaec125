"""libpolicygrad from Python: a thin layer over ctypes, nothing but the standard library.

    with Context() as context:
        model = Model.load(context, path)
        tokenizer = Tokenizer.load(context, path)
        policy_gradient(model, tokenizer, lambda text: -len(text), learning_rate=1e-5, epochs=10,
                        prompts=["Tell me about the sea."])

Keyword arguments of the constructors are the fields of the option struct by name (`describe` lists them), choices as
text (`estimator="rloo"`), arrays as sequences, paths as str or PathLike; None leaves the default, and `profile` gives
those of docs/profiles.md (`profile="trl-1.10"`).

Errors. A failing call raises `Error` with its status and message. An exception in a callback comes out of the call that
ran it. So does Ctrl-C, and any exception of a signal handler: long work stops, its handles stay usable.

Handles close themselves, in any order, also in the middle of a call and at the interpreter's end; `with` and close()
say when. What is closed is given back once nothing uses it: no call under way, no handle made from it, no view.

Arrays of a rollout are read-only views of its memory, without copies: numpy's arrays, or memoryviews where numpy is not
installed. A view keeps that memory and may be read after the rollout is closed. What stands there changes with the next
generate, as in any buffer that is used again: copy what is to stay.

Threads. Calls let go of the interpreter's lock; a handle is for one thread at a time but Context and Tokenizer.
Callbacks run in the thread that made the call. Ctrl-C reaches the main thread: others are stopped by Context.cancel.

The library is looked for at load(path), then in POLICYGRAD_LIBRARY, in ../../build/lib beside this file, and where the
system keeps its libraries."""
from __future__ import annotations

import array
import contextlib
import ctypes
import ctypes.util
import importlib
import inspect
import json
import logging
import math
import os
import pathlib
import signal
import threading
from ctypes import POINTER, byref, c_char_p, c_double, c_float, c_int32, c_size_t, c_uint32, c_uint64, c_void_p
from typing import (Annotated, Any, Callable, Dict, Iterable, Iterator, List, Mapping, NamedTuple, Optional, Sequence,
                    Tuple, Type, TypeVar, Union, get_type_hints)

numpy: Any = None  # arrays are memoryviews then
with contextlib.suppress(ImportError):
    numpy = importlib.import_module("numpy")

__all__ = ["Advantage", "Array", "Checkpoint", "CheckpointPart", "CheckpointView", "Context", "ContextInfo",
           "Decoder", "Error", "Handle", "MemoryReport", "Model", "ModelInfo", "Objective", "Optimizer", "Pick",
           "Report", "Reward", "Rollout", "RolloutInfo", "RolloutView", "Sampler", "Score", "SequenceInfo",
           "Tokenizer", "TrainReport", "describe", "load", "policy_gradient", "read_prompts", "train", "version",
           "version_info"]

Array = Any  # numpy.ndarray where numpy is installed, else memoryview; both have shape, len, indexing and tolist()
Path = Union[str, "os.PathLike[str]"]
Prompt = Union[str, Sequence[int]]
Score = Union[None, float, Sequence[float]]

# ---- constants: those of the headers, without PGRAD_ ----

OK = 0
E_INVALID, E_STATE, E_BUSY, E_BUFFER = -1, -2, -3, -4
E_FORMAT, E_UNSUPPORTED, E_MISMATCH, E_NUMERIC = -20, -21, -22, -23
E_NOMEM, E_LIMIT, E_IO = -40, -41, -42
E_CANCELLED, E_CALLBACK, E_DEADLINE = -60, -61, -62
E_INTERNAL = -80

LOG_ERROR, LOG_WARNING, LOG_INFO, LOG_DEBUG = range(4)
KERNELS_AUTO, KERNELS_GENERIC, KERNELS_HASWELL, KERNELS_SKX, KERNELS_ARMV8A = range(5)
STORAGE_F32, STORAGE_BF16, STORAGE_Q8_0 = range(3)
DTYPE_F32, DTYPE_BF16 = range(2)
LOGITS_ALL, LOGITS_LAST = range(2)
ENCODE_SPECIAL, ENCODE_ADD = 1, 2
DECODE_SKIP_SPECIAL = 1
TOKEN_BOS, TOKEN_EOS, TOKEN_PAD, TOKEN_UNK, TOKEN_END_OF_TURN = range(5)
CHAT_GENERATE, CHAT_CHATML, CHAT_PLAIN = 1, 2, 4
KV_F32, KV_F16, KV_BF16, KV_AUTO = range(4)
SPECULATE_OFF, SPECULATE_ON, SPECULATE_AUTO = range(3)
FINISH_NONE, FINISH_STOP, FINISH_STRING, FINISH_LENGTH = range(4)
EVENT_TOKEN, EVENT_FINISHED = 1, 2
LOGPROBS, LOGPROBS_SAMPLED, CURRENT, OLD, REFERENCE, ENTROPY, REWARDS, ADVANTAGES, MASK = range(9)
(ADVANTAGE_NONE, ADVANTAGE_EMA, ADVANTAGE_BATCH_MEAN, ADVANTAGE_RLOO, ADVANTAGE_GRPO, ADVANTAGE_DR_GRPO) = range(6)
LOSS_REINFORCE, LOSS_PPO_CLIP, LOSS_SUPERVISED = range(3)
(AGGREGATE_TOKEN_MEAN, AGGREGATE_SEQUENCE_MEAN_TOKEN_MEAN, AGGREGATE_SEQUENCE_MEAN_TOKEN_SUM, AGGREGATE_CONSTANT,
 AGGREGATE_PROMPT_MEAN, AGGREGATE_MICRO_TOKEN_MEAN) = range(6)
KL_NONE, KL_K3_RATIO, KL_K2 = range(3)
RECOMPUTE_OFF, RECOMPUTE_ON, RECOMPUTE_AUTO = range(3)
KEEP_OFF, KEEP_ON, KEEP_AUTO = range(3)
OPTIMIZER_SGD, OPTIMIZER_ADAM, OPTIMIZER_ADAMW = range(3)
MOMENTS_F32, MOMENTS_BF16, MOMENTS_Q8, MOMENTS_AUTO = range(4)
SCHEDULE_CONSTANT, SCHEDULE_LINEAR, SCHEDULE_COSINE = range(3)
(KIND_MODEL, KIND_OPTIMIZER, KIND_SAMPLER, KIND_ADVANTAGE, KIND_ROLLOUT, KIND_OBJECTIVE, KIND_TEXT,
 KIND_TRAIN) = range(8)
RESUME_OFF, RESUME_ON, RESUME_AUTO = range(3)
STOPPED_STEPS, STOPPED_SECONDS, STOPPED_TARGET, STOPPED_HOST, STOPPED_ERROR = range(5)

__all__ += [_name for _name in list(globals()) if _name.isupper() and _name[0] != "_" and _name != "POINTER"]
_STATUS_NAMES = {value: name for name, value in list(globals().items()) if name == "OK" or name.startswith("E_")}


class Error(Exception):
    """What a failing call becomes: its status (E_LIMIT ...), the status's name and the message."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(status, message)  # whole, so that it can be pickled
        self.status = status
        self.message = message

    @property
    def name(self) -> str:
        return _STATUS_NAMES.get(self.status, "E_UNKNOWN")

    def __str__(self) -> str:
        return self.message

    def __repr__(self) -> str:
        return f"Error({self.name}, {self.message!r})"


# ---- mirrors of the structs that are read, or that hold pointers: one field a line, as in the headers ----
#
# Option structs without pointers have none, their fields are set by name. A field is annotated with its type in Python,
# its type in C and, for pointers in options, what it points to: the field of an array's length, a class of handles,
# "path", or "" for what this module makes itself.

_U32 = Annotated[int, c_uint32]
_U64 = Annotated[int, c_uint64]
_I32 = Annotated[int, c_int32]
_F32 = Annotated[float, c_float]
_F64 = Annotated[float, c_double]
_Size = Annotated[int, c_size_t]
_Text = Annotated[str, c_char_p]
_Bytes = Annotated[Optional[bytes], c_char_p]
_Pointer = Annotated[Any, c_void_p, ""]
_PathField = Annotated[Any, c_void_p, "path"]


class _Structure(ctypes.Structure):
    _points: Dict[str, str]

    def __repr__(self) -> str:
        names = (name.lstrip("_") for name, *_ in self._fields_)
        values = (f"{name}={getattr(self, name)!r}" for name in names if name not in ("struct_size", "reserved"))
        return f"{type(self).__name__}({', '.join(values)})"


_S = TypeVar("_S", bound=_Structure)


def _decoded(name: str) -> property:
    return property(lambda self: getattr(self, name).decode())


def _mirror(cls: Type[_S]) -> Type[_S]:
    """Makes the fields of the annotations. Those of str are kept as bytes under _NAME and read as text."""
    fields: List[Any] = []
    cls._points = {}
    for name, hint in get_type_hints(cls, include_extras=True).items():
        if name == "_points":
            continue
        kind, *points = hint.__metadata__
        if points:
            cls._points[name] = points[0]
        if hint.__origin__ is str:
            setattr(cls, name, _decoded("_" + name))
            name = "_" + name
        fields.append((name, kind))
    cls._fields_ = fields
    return cls


@_mirror
class ContextInfo(_Structure):
    """Threads, kernel set (KERNELS_*) and bytes of memory."""

    struct_size: _Size
    n_threads: _U32
    kernel_set: _U32
    kernel_set_name: _Text
    memory_now: _U64
    memory_peak: _U64
    memory_limit: _U64
    n_allocations: _U64


@_mirror
class ModelInfo(_Structure):
    """Sizes of a model; storage is STORAGE_*, a token -1 where there is none."""

    struct_size: _Size
    architecture: _Text
    n_layers: _U32
    n_heads: _U32
    n_kv_heads: _U32
    head_dim: _U32
    n_embd: _U32
    n_ff: _U32
    n_vocab: _U32
    n_context: _U32
    tied_head: _U32
    n_tensors: _U32
    n_parameters: _U64
    weight_version: _U64
    eos_token: _I32
    bos_token: _I32
    weight_bytes: _U64
    storage: _U32
    reserved: _U32


@_mirror
class _SaveParams(_Structure):
    struct_size: _Size
    dtype: _U32
    reserved: _U32
    tokenizer: Annotated[Any, c_void_p, "Tokenizer"]
    max_shard_bytes: _U64


@_mirror
class _Message(_Structure):
    role: _Bytes
    text: _Bytes
    length: _Size


@_mirror
class _SamplerParams(_Structure):
    struct_size: _Size
    temperature: _F64
    top_p: _F64
    min_p: _F64
    repetition_penalty: _F64
    seed: _U64
    top_k: _U32
    min_new_tokens: _U32
    max_new_tokens: _U32
    ignore_eos: _U32
    stop_tokens: Annotated[Any, POINTER(c_int32), "n_stop_tokens"]
    n_stop_tokens: _Size
    stop_strings: Annotated[Any, POINTER(c_char_p), "n_stop_strings"]
    n_stop_strings: _Size
    forbidden_tokens: Annotated[Any, POINTER(c_int32), "n_forbidden_tokens"]
    n_forbidden_tokens: _Size
    bias_tokens: Annotated[Any, POINTER(c_int32), "n_bias_tokens"]
    logit_bias: Annotated[Any, POINTER(c_float), "n_bias_tokens"]
    n_bias_tokens: _Size


@_mirror
class _PromptParams(_Structure):
    struct_size: _Size
    tag: _U64
    prefix: Annotated[Any, POINTER(c_int32), "n_prefix"]
    n_prefix: _Size


@_mirror
class _GenerateParams(_Structure):
    struct_size: _Size
    event: _Pointer
    user: _Pointer
    max_seconds: _F64
    speculate: _U32
    reserved: _U32


@_mirror
class _Event(_Structure):
    struct_size: _Size
    kind: _U32
    sequence: _U32
    token: _I32
    logprob: _F32
    text: _Pointer
    length: _Size


@_mirror
class SequenceInfo(_Structure):
    """A completion. finish is FINISH_*; reward NaN: not scored, or not applicable; n_tokens counts the end token."""

    struct_size: _Size
    group: _U32
    finish: _U32
    n_prompt: _U32
    n_tokens: _U32
    tag: _U64
    sequence: _U64
    temperature: _F64
    reward: _F64
    sampled: _U32
    reserved: _U32


@_mirror
class RolloutInfo(_Structure):
    """What the last generate did, in tokens; accepted ones are drafts that came true."""

    struct_size: _Size
    prompt_tokens_computed: _U64
    prompt_tokens_reused: _U64
    drafted_tokens: _U64
    accepted_tokens: _U64
    kept_tokens: _U64
    cache_bytes: _U64
    activation_bytes: _U64


@_mirror
class _BackwardParams(_Structure):
    struct_size: _Size
    normalizer_total: _F64
    n_tokens_total: _F64
    optimizer: Annotated[Any, c_void_p, "Optimizer"]


@_mirror
class _Prompts(_Structure):
    struct_size: _Size
    n: _Size
    texts: Annotated[Any, POINTER(c_char_p)]
    ids: Annotated[Any, POINTER(POINTER(c_int32))]
    n_ids: Annotated[Any, POINTER(c_size_t)]
    chat: _U32
    n_columns: _U32
    system: _Bytes
    column_names: Annotated[Any, POINTER(c_char_p)]
    columns: Annotated[Any, POINTER(POINTER(c_char_p))]


@_mirror
class _TrainParams(_Structure):
    struct_size: _Size
    steps: _U64
    prompts_per_step: _U32
    group_size: _U32
    max_new_tokens: _U32
    epochs_per_step: _U32
    learning_rate: _F64
    max_seconds: _F64
    target_reward: _F64
    target_window: _U64
    seed: _U64
    sampler: Annotated[Any, c_void_p, "Sampler"]
    advantage: Annotated[Any, c_void_p, "Advantage"]
    objective: Annotated[Any, c_void_p, "Objective"]
    optimizer: Annotated[Any, c_void_p, "Optimizer"]
    reference: Annotated[Any, c_void_p, "Model"]
    report: _Pointer
    report_user: _Pointer
    on_advantages: _Pointer
    on_advantages_user: _Pointer
    metrics_path: _PathField
    save_path: _PathField
    save_every: _U64
    eval_prompts: _Pointer
    eval_every: _U64
    kv_storage: _U32
    moments: _U32
    micro_batch_tokens: _U32
    recompute: _U32
    checkpoint_path: _PathField
    checkpoint_every: _U64
    checkpoint_keep: _U32
    checkpoint_background: _U32
    resume: _U32
    keep_activations: _U32
    on_checkpoint: _Pointer
    on_checkpoint_user: _Pointer


@_mirror
class TrainReport(_Structure):
    """What a run came to. stopped is STOPPED_*; rewards are means, NaN where there are none."""

    struct_size: _Size
    steps: _U64
    seconds: _F64
    first_reward: _F64
    last_reward: _F64
    eval_before: _F64
    eval_after: _F64
    stopped: _U32
    n_skipped: _U32
    memory_planned: _U64
    steps_before: _U64


@_mirror
class _PlanParams(_Structure):
    struct_size: _Size
    rollout: _Pointer
    objective: _Pointer
    optimizer: _Pointer
    evaluation: _Pointer
    tokenizer: Annotated[Any, c_void_p, "Tokenizer"]
    prompt_tokens: _U32
    completion_tokens: _U32
    in_backward: _U32
    reference: _U32
    memory_limit: _U64
    other_bytes: _U64
    checkpoint: _U32
    updates_per_rollout: _U32


@_mirror
class MemoryReport(_Structure):
    """Bytes of a run by what they are for, and the choices that make it fit: KV_*, MOMENTS_*, RECOMPUTE_*."""

    struct_size: _Size
    weights: _U64
    gradients: _U64
    moments: _U64
    activations: _U64
    kv_cache: _U64
    scratch: _U64
    rollout: _U64
    reference: _U64
    other: _U64
    total: _U64
    peak_rollout: _U64
    memory_limit: _U64
    batch_size: _U32
    micro_batch_tokens: _U32
    recompute: _U32
    kv_storage: _U32
    moments_storage: _U32
    n_micro_batches: _U32
    checkpoint: _U64
    keep_activations: _U32
    reserved: _U32


@_mirror
class CheckpointPart(_Structure):
    """A part of a checkpoint: kind is KIND_*, size in bytes, stored_bytes of them in the file."""

    struct_size: _Size
    name: Annotated[str, ctypes.c_char * 64]
    kind: _U32
    reserved: _U32
    size: _U64
    stored_bytes: _U64


_STRUCTURES: Dict[str, Type[_Structure]] = {
    "context_info": ContextInfo,
    "model_info": ModelInfo,
    "save": _SaveParams,
    "sampler": _SamplerParams,
    "prompt": _PromptParams,
    "generate": _GenerateParams,
    "sequence_info": SequenceInfo,
    "rollout_info": RolloutInfo,
    "backward": _BackwardParams,
    "prompts": _Prompts,
    "train": _TrainParams,
    "train_report": TrainReport,
    "plan": _PlanParams,
    "memory_report": MemoryReport,
    "checkpoint_part": CheckpointPart,
}

# ---- the library ----

_RewardCallback = ctypes.CFUNCTYPE(c_int32, c_void_p, c_void_p, c_uint32, c_uint32, c_void_p)
_ProgressCallback = ctypes.CFUNCTYPE(c_int32, c_void_p, c_char_p, c_uint64, c_uint64)
_LogCallback = ctypes.CFUNCTYPE(None, c_void_p, c_int32, c_char_p)
_ReportCallback = ctypes.CFUNCTYPE(c_int32, c_void_p, c_void_p, c_void_p)
_AdvantageCallback = ctypes.CFUNCTYPE(c_int32, c_void_p, c_void_p)
_CheckpointCallback = ctypes.CFUNCTYPE(c_int32, c_void_p, c_void_p)
_EventCallback = ctypes.CFUNCTYPE(c_int32, c_void_p, c_void_p, c_void_p)

# Result types of what does not return a status; arguments are converted where they are made.
_RESULTS: Dict[str, Any] = {
    "pgrad_error_message": c_char_p,
    "pgrad_version": c_uint32,
    "pgrad_version_string": c_char_p,
    "pgrad_struct_size": c_size_t,
    "pgrad_tokenizer_special": c_int32,
    "pgrad_tokenizer_find": c_int32,
    "pgrad_tokenizer_has": c_uint32,
    "pgrad_tokenizer_count": c_uint32,
    "pgrad_model_tensor_name": c_char_p,
    "pgrad_sampler_next_sequence": c_uint64,
    "pgrad_rollout_retain": c_void_p,
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


def load(path: Optional[Path] = None) -> Any:
    """Loads the library, once, and returns it; path wins over every other place."""
    global _library
    if _library is not None:
        if path is not None and os.path.realpath(path) != os.path.realpath(_library._name):
            raise RuntimeError(f"libpolicygrad is loaded already, from {_library._name}")
        return _library
    beside = pathlib.Path(__file__).resolve().parent / "../../build/lib/libpolicygrad.so"
    found = (path or os.environ.get("POLICYGRAD_LIBRARY") or (str(beside) if beside.exists() else None)
             or ctypes.util.find_library("policygrad"))
    if not found:
        raise OSError("libpolicygrad was not found: build it, or set POLICYGRAD_LIBRARY")
    library = ctypes.CDLL(os.fspath(found))
    for name, result in _RESULTS.items():
        getattr(library, name).restype = result
    _library = library
    return library


def version() -> str:
    """The version of the loaded library, "0.1.0"."""
    text: bytes = load().pgrad_version_string()
    return text.decode()


def version_info() -> Tuple[int, int, int]:
    """The same as numbers."""
    number: int = load().pgrad_version()
    return number >> 16, number >> 8 & 255, number & 255


# ---- calls, and what callbacks throw ----


class _Pending(threading.local):
    """What waits on this thread: an exception of a callback, until the call that ran it is back."""

    thrown: Optional[BaseException] = None
    in_python = True  # False while C code runs: nothing may be raised there


_pending = _Pending()

# Signals whose handlers may throw: Ctrl-C, time limits, a job's end.
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGALRM, signal.SIGUSR1, signal.SIGUSR2)


def _guard(function: Callable[[], int], failed: int = 0) -> int:
    """Runs a callback's body. What it throws is kept for _call, and C gets `failed`: an exception must not leave a
    ctypes callback, the value C gets then is undefined."""
    if _pending.thrown is not None:
        return failed
    was = _pending.in_python
    try:
        _pending.in_python = True
        return function()
    except BaseException as thrown:  # Ctrl-C too
        _pending.thrown = thrown
        return failed
    finally:
        _pending.in_python = was


def _deferring(handler: Callable[..., Any]) -> Callable[..., None]:
    """A signal handler as it may run while C code does. Python would raise at the first instruction of a callback,
    before its `try`: the handler runs as ever, but what it throws waits in _pending."""
    def deferring(number: int, frame: Any) -> None:
        if _pending.in_python:
            handler(number, frame)
            return
        try:
            handler(number, frame)
        except BaseException as thrown:
            if _pending.thrown is None:
                _pending.thrown = thrown

    return deferring


def _call(name: str, *arguments: Any) -> None:
    """Calls what returns a status and may work for long or run callbacks."""
    function, was, replaced = getattr(_library, name), _pending.in_python, []
    _pending.thrown = None
    try:
        if threading.current_thread() is threading.main_thread():
            for number in _SIGNALS:
                handler = signal.getsignal(number)
                if callable(handler):
                    ours = _deferring(handler)
                    replaced.append((number, handler, ours))
                    signal.signal(number, ours)
        _pending.in_python = False
        status = function(*arguments)
    finally:
        _pending.in_python = was
        for number, handler, ours in replaced:
            if signal.getsignal(number) is ours:  # a callback may have set another
                signal.signal(number, handler)
        del arguments  # an exception's frames must not keep handles
    _check(status)


def _check(status: int) -> None:
    """Raises what a callback threw, or the failure."""
    thrown, _pending.thrown = _pending.thrown, None
    if thrown is not None:
        if status == E_CALLBACK:  # which reward, which completion; Python 3.11 and later show it below the traceback
            said = _library.pgrad_error_message().decode(errors="replace")
            if not isinstance(thrown, KeyboardInterrupt):  # which says all itself
                setattr(thrown, "__notes__", [*getattr(thrown, "__notes__", ()), said])
        try:
            raise thrown
        finally:
            del thrown  # its frames, and what they hold, would live until the collector finds the circle
    if status != OK:
        raise Error(status, _library.pgrad_error_message().decode(errors="replace"))


# ---- values to C and back ----


def _text_of(text: str, what: str) -> bytes:
    if not isinstance(text, str):
        raise TypeError(f"{what}: expected a text, found {type(text).__name__}")
    return text.encode()


def _bytes(text: str, what: str) -> bytes:
    """The same where C wants a NUL at the end."""
    raw = _text_of(text, what)
    if b"\0" in raw:
        raise ValueError(f"{what}: holds a NUL character")
    return raw


def _path(path: Path, what: str = "path") -> bytes:
    if not isinstance(path, (str, os.PathLike)):
        raise TypeError(f"{what}: expected a path, found {type(path).__name__}")
    raw = os.fsencode(path)
    if b"\0" in raw:
        raise ValueError(f"{what}: holds a NUL character")
    return raw


def _written(function: str, *arguments: Any) -> bytes:
    """What a call writes into a buffer of the length it asks for."""
    length = c_size_t()
    status = getattr(_library, function)(*arguments, None, c_size_t(0), byref(length))
    if status != E_BUFFER:
        _check(status)
    buffer = ctypes.create_string_buffer(length.value + 1)
    _check(getattr(_library, function)(*arguments, buffer, c_size_t(length.value + 1), byref(length)))
    return buffer.raw[:length.value]


def _filled(kind: Type[_S], function: str, *arguments: Any) -> _S:
    """A struct that a call fills."""
    out = kind(ctypes.sizeof(kind))
    _check(getattr(_library, function)(*arguments, byref(out)))
    return out


_CODES: Dict[Any, str] = {c_int32: "i", c_uint32: "I", c_float: "f"}


def _integer(kind: Any, value: int) -> Any:
    """A C integer; ctypes alone would wrap it around."""
    made = kind(value)
    if made.value != value:
        raise ValueError(f"{value} does not fit into {kind.__name__[2:]}")
    return made


def _vector(kind: Any, values: Any, what: str) -> Any:
    """A C array of numbers, from any sequence or buffer; flat. What is no number of the kind is refused."""
    if isinstance(values, (str, bytes, bytearray)):
        raise TypeError(f"{what}: expected a sequence of numbers, found {type(values).__name__}")
    if numpy is not None and kind is c_float and isinstance(values, numpy.ndarray):
        values = numpy.ascontiguousarray(values, dtype=numpy.float32)
    try:
        view = memoryview(values)
    except TypeError:
        view = memoryview(_packed(kind, values, what))
    if view.format != _CODES[kind] or not view.c_contiguous:
        view = memoryview(_packed(kind, values, what))
    return (kind * (view.nbytes // view.itemsize)).from_buffer_copy(view)


def _packed(kind: Any, values: Iterable[Any], what: str) -> Any:
    try:
        return array.array(_CODES[kind], values)
    except OverflowError:
        for i, value in enumerate(values):
            if kind(value).value != value:
                wanted = "a token id" if kind is c_int32 else "an index"
                raise ValueError(f"{what}[{i}]: expected {wanted}, found {value}") from None
        raise


def _array(values: Any, kind: Any, shape: Tuple[int, ...] = (), readonly: bool = False) -> Array:
    """A view of a C array: numpy's array, else a memoryview."""
    view: Any = memoryview(values if len(values) else array.array(_CODES[kind]))  # what is empty cannot be cast
    if len(values):
        view = view.cast("B").cast(_CODES[kind], shape or (len(values),))
    view = view.toreadonly() if readonly else view
    return numpy.asarray(view) if numpy is not None else view


def _option(value: Any) -> bytes:
    """An option's value as pgrad_params_set reads it."""
    value = value.item() if hasattr(value, "item") else value  # numpy's scalars
    if isinstance(value, float) and math.isinf(value):
        return b"infinity" if value > 0 else b"-infinity"
    return _bytes(str(int(value) if isinstance(value, bool) else value), "an option")


def _point(name: str, struct: _Structure, field: str, value: Any) -> Any:
    """Has a field of an option struct point to a value, and returns what must be kept alive meanwhile."""
    what = struct._points[field]
    if what.startswith("n_"):
        kinds: Dict[str, Any] = {name: kind for name, kind, *_ in struct._fields_}
        kind: Any = kinds[field]._type_
        made = _strings(value, f"{name}.{field}") if kind is c_char_p else _vector(kind, value, f"{name}.{field}")
        setattr(struct, field, ctypes.cast(made, POINTER(kind)))
        setattr(struct, what, len(made))
        return made
    if what == "path":
        made = c_char_p(_path(value, f"{name}.{field}"))
    elif what:
        if not isinstance(value, globals()[what]):
            raise TypeError(f"{name}.{field}: expected {what}, found {type(value).__name__}")
        made = value.live
    elif hasattr(value, "_b_base_"):  # of ctypes
        made = value
    else:
        raise TypeError(f"{name}.{field}: cannot be set")
    setattr(struct, field, ctypes.cast(made, c_void_p).value)
    return made


def _params(name: str, fields: Mapping[str, Any]) -> Any:
    """An option struct with the library's defaults, or those of a `profile`, and these fields: plain ones by text, so
    that the library checks them, pointers through the struct's mirror. Keeps alive what it points to."""
    fields = {field: value for field, value in fields.items() if value is not None}
    if isinstance(fields.get("logit_bias"), Mapping):
        bias = fields["logit_bias"]
        fields["bias_tokens"], fields["logit_bias"] = list(bias), list(bias.values())
    if len(fields.get("bias_tokens", ())) != len(fields.get("logit_bias", ())):
        raise ValueError(f"{name}: bias_tokens and logit_bias differ in length")
    mirror = _STRUCTURES.get(name)
    size = max(_library.pgrad_struct_size(name.encode()), ctypes.sizeof(mirror) if mirror else 0)
    params: Any = (c_uint64 * ((size + 7) // 8))()
    getattr(_library, f"pgrad_{name}_params_init")(params, c_size_t(size))
    if "profile" in fields:
        _check(_library.pgrad_params_profile(name.encode(), params, _option(fields.pop("profile"))))
    struct = mirror.from_buffer(params) if mirror else None
    params.kept = []
    for field, value in fields.items():
        if struct is not None and field in struct._points:
            params.kept.append(_point(name, struct, field, value))
        else:
            _check(_library.pgrad_params_set(name.encode(), params, field.encode(), _option(value)))
    return params


def describe(name: str, **fields: Any) -> Dict[str, Any]:
    """The options of "sampler", "rollout", "train" and so on by name, with their defaults, or what these fields make of
    them: describe("optimizer")["learning_rate"]. Pointers are left out."""
    load()
    if not hasattr(_library, f"pgrad_{name}_params_init"):
        raise ValueError(f"there are no options of the name {name!r}")
    found = json.loads(_written("pgrad_params_describe", name.encode(), _params(name, fields)))
    return {field: math.inf if value == "infinity" else value for field, value in found.items()}


def _required(function: Callable[..., Any]) -> List[str]:
    """Names of the positional parameters without a default; of any callable."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):  # some builtins do not tell
        return ["text"]
    return [p.name for p in parameters
            if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) and p.default is p.empty]


# ---- handles ----


class _Reference(c_void_p):
    """A reference on a C handle. It goes when nothing in Python uses it any more: neither the handle's object, nor a
    call under way, nor what was made from it, nor a view of its memory."""

    free: Any = None
    kept: Tuple[Any, ...] = ()  # references and callbacks that C code under this handle may use

    def __del__(self) -> None:
        if self.value and self.free is not None:
            self.free(self)


_H = TypeVar("_H", bound="Handle")


class Handle:
    """Owns a reference on a C handle until close(), which may be called often."""

    _free = ""

    def __init__(self, reference: _Reference) -> None:
        self._reference: Optional[_Reference] = reference

    @property
    def live(self) -> _Reference:
        """The C handle; ValueError after close()."""
        if self._reference is None:
            raise ValueError(f"{type(self).__name__} is closed")
        return self._reference

    @property
    def closed(self) -> bool:
        return getattr(self, "_reference", None) is None

    def close(self) -> None:
        self._reference = None

    def __enter__(self: _H) -> _H:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()

    def __repr__(self) -> str:
        what = "closed" if self.closed else self._what()
        return f"<{type(self).__name__}{' ' if what else ''}{what}>"

    def _what(self) -> str:
        return ""

    @classmethod
    def _make(cls, function: str, *arguments: Any, kept: Tuple[Any, ...] = ()) -> _Reference:
        out = _Reference()
        out.free = getattr(_library, cls._free)
        out.kept = tuple(argument for argument in arguments if isinstance(argument, _Reference)) + kept
        try:
            _call(function, *arguments, byref(out))
        except BaseException:  # Ctrl-C can come out of a call that succeeded
            del out
            raise
        return out

    @classmethod
    def _of(cls: Type[_H], reference: _Reference) -> _H:
        made = cls.__new__(cls)
        Handle.__init__(made, reference)
        return made


_logger = logging.getLogger("policygrad")


def _to_logging(level: int, line: str) -> None:
    _logger.log((logging.ERROR, logging.WARNING, logging.INFO, logging.DEBUG)[level], "%s", line)


class Context(Handle):
    """Threads, memory, log, progress, cancel: everything else hangs on one. params: n_threads, kernel_set,
    memory_limit. Lines of its log go to logging.getLogger("policygrad"), until on_log."""

    _free = "pgrad_context_free"

    def __init__(self, library: Optional[Path] = None, **params: Any) -> None:
        load(library)
        # Callbacks see the listeners, not self, so that nothing is circular.
        listeners: Dict[str, Any] = {"progress": None, "log": _to_logging}

        def progress(user: Any, what: bytes, done: int, total: int) -> int:
            function = listeners["progress"]  # None: only lets Ctrl-C in
            return _guard(lambda: 0 if function and function(what.decode(), done, total) is False else 1)

        def log(user: Any, level: int, line: bytes) -> None:
            def body() -> int:
                listeners["log"](level, line.decode(errors="replace"))
                return 0
            _guard(body)

        self._listeners, self._log = listeners, _LogCallback(log)
        callback = _ProgressCallback(progress)
        super().__init__(self._make("pgrad_context_create", _params("context", params), kept=(callback, self._log)))
        _check(_library.pgrad_context_set_progress(self.live, callback, None))
        _check(_library.pgrad_context_set_log(self.live, self._log, None, c_int32(LOG_INFO)))

    def _what(self) -> str:
        info = self.info()
        return f"{info.n_threads} threads, {info.kernel_set_name}"

    def info(self) -> ContextInfo:
        """Threads, kernel set and memory."""
        return _filled(ContextInfo, "pgrad_context_get_info", self.live)

    def on_progress(self, function: Optional[Callable[[str, int, int], Any]]) -> None:
        """function(what, done, total); returning False stops the work. None: no function."""
        self._listeners["progress"] = function

    def on_log(self, function: Optional[Callable[[int, str], Any]], level: int = LOG_INFO) -> None:
        """function(level, line) for lines up to level, LOG_ERROR to LOG_DEBUG. None: no function."""
        self._listeners["log"] = function or (lambda level, line: None)
        callback = self._log if function else _LogCallback()
        _check(_library.pgrad_context_set_log(self.live, callback, None, c_int32(level)))

    def cancel(self) -> None:
        """Has running calls, of other threads too, end with E_CANCELLED, until clear_cancel()."""
        _library.pgrad_context_cancel(self.live)

    def clear_cancel(self) -> None:
        _library.pgrad_context_clear_cancel(self.live)


def _estimate(function: str, arguments: Tuple[Any, ...], plan: Mapping[str, Any]) -> MemoryReport:
    parts = {"rollout": "rollout", "evaluation": "rollout", "objective": "objective", "optimizer": "optimizer"}
    fields = {field: _params(parts[field], value) if field in parts and value is not None else value
              for field, value in plan.items()}
    out = MemoryReport(ctypes.sizeof(MemoryReport))
    _call(function, *arguments, _params("plan", fields), byref(out))
    return out


class Model(Handle):
    """Weights, gradients, passes forward and backward. Made by load, create or snapshot; params: n_context, frozen,
    storage."""

    _free = "pgrad_model_free"

    def __init__(self, reference: _Reference, context: Context) -> None:
        super().__init__(reference)
        self.context = context
        self._shapes: Dict[str, Tuple[int, ...]] = {}

    def _what(self) -> str:
        info = self.info()
        storage = ("f32", "bf16", "q8_0")[info.storage]
        return f"{info.architecture}, {info.n_parameters / 1e6:.1f}M parameters, {storage}"

    @classmethod
    def load(cls, context: Context, path: Path, **params: Any) -> "Model":
        """path is a folder, a .safetensors file beside its config.json, or a .gguf file."""
        return cls(cls._make("pgrad_model_load", context.live, _path(path), _params("model", params)), context)

    @classmethod
    def create(cls, context: Context, config_json: str, seed: int = 0, **params: Any) -> "Model":
        """With random weights, from the text of a config.json."""
        return cls(cls._make("pgrad_model_create", context.live, _bytes(config_json, "config_json"),
                             _integer(c_uint64, seed), _params("model", params)), context)

    def snapshot(self) -> "Model":
        """A frozen copy of the weights as they are now."""
        return Model(self._make("pgrad_model_snapshot", self.live), self.context)

    def estimate(self, **plan: Any) -> MemoryReport:
        """What a run of this model takes, in bytes, by name, and the choices made under a memory limit; Error with
        status E_LIMIT says what would fit. rollout, evaluation, objective and optimizer are mappings of their options,
        the others the fields of the plan: tokenizer, prompt_tokens, memory_limit, ..."""
        return _estimate("pgrad_model_estimate", (self.live,), plan)

    @staticmethod
    def estimate_load(context: Context, path: Path, model: Mapping[str, Any] = {}, **plan: Any) -> MemoryReport:
        """The same before the model is loaded; model is a mapping of its options."""
        return _estimate("pgrad_model_estimate_load", (context.live, _path(path), _params("model", model)), plan)

    @staticmethod
    def estimate_create(context: Context, config_json: str, model: Mapping[str, Any] = {}, **plan: Any) -> MemoryReport:
        """The same before the model is created."""
        return _estimate("pgrad_model_estimate_create",
                         (context.live, _bytes(config_json, "config_json"), _params("model", model)), plan)

    def info(self) -> ModelInfo:
        """Sizes, special tokens, storage; weight_version rises with every change of the weights."""
        return _filled(ModelInfo, "pgrad_model_get_info", self.live)

    def shapes(self) -> Dict[str, Tuple[int, ...]]:
        """The shape of every tensor by its name, in the model's order."""
        if not self._shapes:
            n_dims, dims = c_uint32(), (c_uint64 * 4)()
            for i in range(self.info().n_tensors):
                name = _library.pgrad_model_tensor_name(self.live, c_uint32(i), byref(n_dims), dims)
                self._shapes[name.decode()] = tuple(dims[:n_dims.value])
        return dict(self._shapes)

    def tensor_names(self) -> List[str]:
        return list(self.shapes())

    def _read(self, function: str, name: str) -> Array:
        n, raw = c_size_t(), _bytes(name, "name")
        status = getattr(_library, function)(self.live, raw, None, c_size_t(0), byref(n))
        if status != E_BUFFER:
            _check(status)
        out = (c_float * n.value)()
        _check(getattr(_library, function)(self.live, raw, out, n, byref(n)))
        return _array(out, c_float, self.shapes()[name])

    def tensor(self, name: str) -> Array:
        """A copy of a weight, in its shape."""
        return self._read("pgrad_model_tensor_read", name)

    def grad(self, name: str) -> Array:
        """A copy of its gradient."""
        return self._read("pgrad_model_grad_read", name)

    def set_tensor(self, name: str, values: Union[Array, Sequence[float]]) -> None:
        """Sets a weight from as many values, in any shape."""
        vector = _vector(c_float, values, name)
        _check(_library.pgrad_model_tensor_write(self.live, _bytes(name, "name"), vector, c_size_t(len(vector))))

    def zero_grad(self) -> None:
        _call("pgrad_model_zero_grad", self.live)

    def logits(self, ids: Sequence[int], last: bool = False) -> Array:
        """Logits of the token behind each of ids, [len(ids), n_vocab], or behind the last alone, [n_vocab]."""
        tokens, n_vocab = _vector(c_int32, ids, "ids"), self.info().n_vocab
        shape = (n_vocab,) if last else (len(tokens), n_vocab)
        out = (c_float * math.prod(shape))()
        _call("pgrad_model_logits", self.live, tokens, c_size_t(len(tokens)),
              c_uint32(LOGITS_LAST if last else LOGITS_ALL), out, c_size_t(len(out)))
        return _array(out, c_float, shape)

    def save(self, path: Path, tokenizer: Optional["Tokenizer"] = None, **params: Any) -> None:
        """Writes a Hugging Face folder, in place of an old one once it is complete. params: dtype, max_shard_bytes."""
        _call("pgrad_model_save", self.live, _path(path), _params("save", dict(params, tokenizer=tokenizer)))


def _ids(function: str, capacity: int, *arguments: Any) -> List[int]:
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
    """Text to ids and back. len() is one more than the highest id; `id in tokenizer` tells whether one has a token."""

    _free = "pgrad_tokenizer_free"

    def _what(self) -> str:
        return f"{len(self)} ids"

    @classmethod
    def load(cls, context: Context, path: Path) -> "Tokenizer":
        """path is a folder, its tokenizer.json, or a .gguf file."""
        return cls(cls._make("pgrad_tokenizer_load", context.live, _path(path)))

    def encode(self, text: str, flags: int = 0) -> List[int]:
        """flags: ENCODE_SPECIAL, ENCODE_ADD."""
        data = _text_of(text, "text")
        return _ids("pgrad_tokenizer_encode", len(data) + 8, self.live, data, c_size_t(len(data)), c_uint32(flags))

    def chat(self, messages: Sequence[Tuple[str, str]], flags: int = CHAT_GENERATE) -> List[int]:
        """Ids of a conversation, messages as (role, text); flags are CHAT_*."""
        raw = [(_bytes(role, "role"), _text_of(text, "text")) for role, text in messages]
        messages_of = (_Message * len(raw))(*(_Message(role, text, len(text)) for role, text in raw))
        room = sum(len(text) + 16 for _, text in raw) + 16
        return _ids("pgrad_chat_format", room, self.live, messages_of, c_size_t(len(raw)), c_uint32(flags))

    def decode(self, ids: Sequence[int], flags: int = 0) -> str:
        """flags: DECODE_SKIP_SPECIAL. Bytes that are no UTF-8 become U+FFFD."""
        tokens = _vector(c_int32, ids, "ids")
        return _written("pgrad_tokenizer_decode", self.live, tokens, c_size_t(len(tokens)), c_uint32(flags)).decode()

    def special(self, which: int) -> Optional[int]:
        """The id of TOKEN_BOS, TOKEN_EOS, ..., None without."""
        found: int = _library.pgrad_tokenizer_special(self.live, c_int32(which))
        return None if found < 0 else found

    def find(self, content: str) -> Optional[int]:
        """The id of a token by its exact content, "<|im_end|>"; None without."""
        raw = _text_of(content, "content")
        found: int = _library.pgrad_tokenizer_find(self.live, raw, c_size_t(len(raw)))
        return None if found < 0 else found

    def __contains__(self, token: int) -> bool:
        return 0 <= token < 1 << 31 and bool(_library.pgrad_tokenizer_has(self.live, c_int32(token)))

    def __len__(self) -> int:
        count: int = _library.pgrad_tokenizer_count(self.live)
        return count


class Decoder(Handle):
    """Ids to text piece by piece: whole characters as they are complete."""

    _free = "pgrad_decoder_free"

    def __init__(self, tokenizer: Tokenizer, flags: int = 0) -> None:
        super().__init__(self._make("pgrad_decoder_create", tokenizer.live, c_uint32(flags)))

    def _piece(self, function: str, *arguments: Any) -> str:
        text, length = c_void_p(), c_size_t()
        _check(getattr(_library, function)(self.live, *arguments, byref(text), byref(length)))
        return ctypes.string_at(text, length.value).decode() if text else ""

    def push(self, token: int) -> str:
        """The text that this id completes, often none."""
        return self._piece("pgrad_decoder_push", _integer(c_int32, token))

    def finish(self) -> str:
        """What was held back; the decoder is ready for a new text then."""
        return self._piece("pgrad_decoder_finish")


class Pick(NamedTuple):
    """A token that was drawn, its log-probability, that under the distribution drawn from, and the entropy."""

    token: int
    logprob: float
    logprob_sampled: float
    entropy: float


class Sampler(Handle):
    """Logits to a token. params are the fields of its options; stop_tokens, stop_strings and forbidden_tokens are
    sequences, logit_bias a mapping from token to bias."""

    _free = "pgrad_sampler_free"

    def __init__(self, context: Context, **params: Any) -> None:
        super().__init__(self._make("pgrad_sampler_create", context.live, _params("sampler", params)))

    def _what(self) -> str:
        return f"next sequence {self.next_sequence}"

    @property
    def next_sequence(self) -> int:
        """The number of the next completion: what it draws depends on seed, this number and its position alone."""
        number: int = _library.pgrad_sampler_next_sequence(self.live)
        return number

    @next_sequence.setter
    def next_sequence(self, sequence: int) -> None:
        _check(_library.pgrad_sampler_set_next_sequence(self.live, _integer(c_uint64, sequence)))

    def pick(self, logits: Union[Array, Sequence[float]], sequence: int = 0, position: int = 0) -> Pick:
        """Draws one token from logits, without history: no repetition penalty, no stop rules. For a completion's number
        and, as position, the number of tokens before, the prompt's included, it is the draw of generate."""
        row, token, out = _vector(c_float, logits, "logits"), c_int32(), [c_float() for _ in range(3)]
        _check(_library.pgrad_sampler_pick(self.live, row, c_size_t(len(row)), _integer(c_uint64, sequence),
                                           _integer(c_uint64, position), byref(token), *map(byref, out)))
        return Pick(token.value, *(number.value for number in out))


# ---- rollouts ----


class RolloutView:
    """Reads prompts and completions. A callback gets one for the time of its call; arrays it took may be kept."""

    def __init__(self, pointer: int, kept: Tuple[Any, ...] = ()) -> None:
        self._pointer: Optional[c_void_p] = c_void_p(pointer)
        self._kept = kept
        self._own: Optional[_Reference] = None

    @property
    def live(self) -> c_void_p:
        """The C handle; ValueError when the call is over."""
        if self._pointer is None:
            raise ValueError("the rollout of a callback is valid during the call")
        return self._pointer

    def _owner(self) -> _Reference:
        """A reference for views, which may outlive all else."""
        if self._own is None:
            self._own = _Reference(_library.pgrad_rollout_retain(self.live))
            self._own.free, self._own.kept = _library.pgrad_rollout_free, self._kept
        return self._own

    def __repr__(self) -> str:
        if self._pointer is None:
            return f"<{type(self).__name__} of a call that is over>"
        return f"<{type(self).__name__} {self._what()}>"

    def _what(self) -> str:
        return f"{len(self)} completions of {self.n_groups} prompts"

    def __len__(self) -> int:
        """How many completions there are."""
        count: int = _library.pgrad_rollout_count(self.live)
        return count

    @property
    def n_groups(self) -> int:
        """How many prompts there are."""
        count: int = _library.pgrad_rollout_count_groups(self.live)
        return count

    def _string(self, function: str, *arguments: Any) -> Optional[str]:
        length = c_size_t()
        pointer = getattr(_library, function)(self.live, *arguments, byref(length))
        return ctypes.string_at(pointer, length.value).decode() if pointer else None

    def _view(self, function: str, kind: Any, *arguments: Any) -> Array:
        n = c_size_t()
        pointer = getattr(_library, function)(self.live, *arguments, byref(n))
        if not pointer:
            return None
        values = (kind * n.value).from_address(pointer)
        values.owner = self._owner()
        return _array(values, kind, readonly=True)

    def _index(self, i: int, n: int) -> c_uint32:
        if not 0 <= i < n:
            raise IndexError(f"expected an index below {n}, found {i}")
        return c_uint32(i)

    def text(self, i: int) -> str:
        """Completion i, without end token and stop string; empty where the rollout has no tokenizer."""
        return self._string("pgrad_rollout_text", self._index(i, len(self))) or ""

    def texts(self) -> List[str]:
        return [self.text(i) for i in range(len(self))]

    def data(self, group: int, key: str) -> Optional[str]:
        """The text kept with a prompt under a key."""
        return self._string("pgrad_rollout_data", self._index(group, self.n_groups), _bytes(key, "key"))

    def info(self) -> RolloutInfo:
        """What the last generate computed, took over and drafted."""
        return _filled(RolloutInfo, "pgrad_rollout_get_info", self.live)

    def sequence(self, i: int) -> SequenceInfo:
        """Of completion i: group, finish (FINISH_*), lengths, reward, ..."""
        return _filled(SequenceInfo, "pgrad_rollout_sequence", self.live, self._index(i, len(self)))

    def tokens(self, i: int) -> Array:
        """The ids of completion i, a view."""
        return self._view("pgrad_rollout_tokens", c_int32, self._index(i, len(self)))

    def prompt(self, group: int) -> List[int]:
        """The ids of a prompt."""
        n = c_size_t()
        pointer = _library.pgrad_rollout_prompt(self.live, self._index(group, self.n_groups), byref(n))
        return list((c_int32 * n.value).from_address(pointer)) if pointer else []

    def array(self, which: int, i: int) -> Array:
        """LOGPROBS, ADVANTAGES, ... of completion i, a view; None when it was not filled."""
        return self._view("pgrad_rollout_array", c_float, _integer(c_uint32, which), self._index(i, len(self)))

    def set_array(self, which: int, i: int, values: Union[float, Sequence[float]]) -> None:
        """REWARDS, ADVANTAGES, OLD, REFERENCE or MASK of completion i: one value per token, or one for all."""
        vector = _vector(c_float, values if hasattr(values, "__len__") else [values], "values")
        _check(_library.pgrad_rollout_set_array(self.live, _integer(c_uint32, which), self._index(i, len(self)),
                                                vector, c_size_t(len(vector))))


@contextlib.contextmanager
def _shown(pointer: int, kept: Tuple[Any, ...]) -> Iterator[RolloutView]:
    """A rollout as a callback sees it."""
    view = RolloutView(pointer, kept)
    try:
        yield view
    finally:
        view._pointer = view._own = None


class Rollout(RolloutView, Handle):
    """A batch of prompts and their completions. params: group_size, max_prompts, max_prompt_tokens, max_new_tokens,
    batch_size, ... Without a tokenizer there are ids alone."""

    _free = "pgrad_rollout_free"
    live = Handle.live
    __repr__ = Handle.__repr__

    def __init__(self, model: Model, tokenizer: Optional[Tokenizer] = None, **params: Any) -> None:
        Handle.__init__(self, self._make("pgrad_rollout_create", model.live, tokenizer.live if tokenizer else None,
                                         _params("rollout", params)))

    def _owner(self) -> _Reference:
        return self.live

    def clear(self) -> None:
        """Forgets prompts and completions, keeps the memory."""
        _library.pgrad_rollout_clear(self.live)

    def add_prompt(self, ids: Sequence[int], *, prefix: Sequence[int] = (), tag: int = 0, **data: str) -> int:
        """Returns the number of the prompt's group; data are texts for reward functions."""
        group, tokens = c_uint32(), _vector(c_int32, ids, "ids")
        raw = [(_bytes(key, "key"), _text_of(text, key)) for key, text in data.items()]
        _check(_library.pgrad_rollout_add_prompt(self.live, tokens, c_size_t(len(tokens)),
                                                 _params("prompt", {"prefix": prefix, "tag": tag}), byref(group)))
        for key, text in raw:
            self._set_data(group, key, text)
        return group.value

    def set_data(self, group: int, key: str, text: str) -> None:
        """Keeps a text with a prompt, or replaces the one of this key."""
        self._set_data(self._index(group, self.n_groups), _bytes(key, "key"), _text_of(text, key))

    def _set_data(self, group: c_uint32, key: bytes, text: bytes) -> None:
        _check(_library.pgrad_rollout_set_data(self.live, group, key, text, c_size_t(len(text))))

    def add_sequence(self, group: int, ids: Sequence[int], **params: Any) -> None:
        """Adds a completion that was not sampled here. params: temperature, finish."""
        tokens = _vector(c_int32, ids, "ids")
        _check(_library.pgrad_rollout_add_sequence(self.live, self._index(group, self.n_groups), tokens,
                                                   c_size_t(len(tokens)), _params("sequence", params)))

    def generate(self, sampler: Sampler, event: Optional[Callable[[int, int, Optional[int], str], Any]] = None,
                 **params: Any) -> None:
        """Completes every prompt that has no completions. event(kind, sequence, token, text) is told of every token
        (EVENT_TOKEN) and end (EVENT_FINISHED, token None); False stops. params: max_seconds, speculate."""
        def told(user: Any, rollout: Any, pointer: int) -> int:
            def body() -> int:
                seen, text = _Event.from_address(pointer), ""
                if seen.text:
                    text = ctypes.string_at(seen.text, seen.length).decode()
                token = seen.token if seen.kind == EVENT_TOKEN else None
                return 0 if event is not None and event(seen.kind, seen.sequence, token, text) is False else 1
            return _guard(body)

        callback = None if event is None else _EventCallback(told)
        _call("pgrad_rollout_generate", self.live, sampler.live, _params("generate", dict(params, event=callback)))

    def score(self, model: Model, which: int) -> None:
        """Log-probabilities under a model into CURRENT, OLD or REFERENCE."""
        _call("pgrad_rollout_score", self.live, model.live, _integer(c_uint32, which))


# ---- rewards ----


class Reward(Handle):
    """The host's scoring function, over one of
        "text":    function(text, column, ...) -> score
        "texts":   function(texts, columns, ...) -> scores, all completions of a batch at once
        "rollout": function(rollout, first, count) -> scores, with everything a RolloutView tells
    with `columns` naming the prompts' data; without, they are the names of the function's further parameters that have
    no default: Reward(context, lambda text, answer: answer in text). What a prompt does not have is None. A score is a
    number, a sequence with one number per token, or None: the reward does not apply."""

    _free = "pgrad_reward_free"
    _name = ""
    columns: Tuple[str, ...] = ()

    def __init__(self, context: Context, function: Callable[..., Any], name: str = "reward",
                 columns: Optional[Iterable[str]] = None, over: str = "text") -> None:
        if over not in ("text", "texts", "rollout"):
            raise ValueError(f"over: expected text, texts or rollout, found {over!r}")
        if not callable(function):
            raise TypeError(f"reward: expected a function, found {function!r}")
        if columns is None:
            columns = () if over == "rollout" else _required(function)[1:]
        names, kept = tuple(columns), (context.live,)

        def called(user: Any, pointer: int, first: int, count: int, raw_scores: int) -> int:
            at = [0xffffffff]  # the sequence at work
            scores = c_void_p(raw_scores)

            def put(i: int, score: Any) -> None:
                at[0] = first + i
                _put_score(scores, i, score)

            def body() -> int:
                with _shown(pointer, kept) as view:
                    try:
                        _score(view, function, names, over, first, count, at, put)
                        return count
                    except BaseException as thrown:
                        _library.pgrad_scores_fail(scores, c_uint32(at[0]), repr(thrown).encode(errors="replace")[:200])
                        raise
            return _guard(body, -1)

        callback = _RewardCallback(called)
        super().__init__(self._make("pgrad_reward_create", context.live, _bytes(name, "name"), callback, None, None,
                                    kept=(callback,)))
        self._name, self.columns = name, names

    def _what(self) -> str:
        return self._name

    @classmethod
    def combine(cls, context: Context, rewards: Sequence["Reward"],
                weights: Optional[Sequence[float]] = None) -> "Reward":
        """The weighted sum of rewards, each reported by its name; weights of 1 where none are given."""
        factors = [1.0] * len(rewards) if weights is None else [float(weight) for weight in weights]
        if len(rewards) != len(factors):
            raise ValueError("rewards and weights differ in length")
        parts = tuple(reward.live for reward in rewards)
        pointers = (c_void_p * len(parts))(*(part.value for part in parts))
        made = cls._of(cls._make("pgrad_reward_combine", context.live, pointers, (c_double * len(parts))(*factors),
                                 c_uint32(len(parts)), kept=parts))
        made._name = " + ".join(f"{weight:g} {reward._name}" for weight, reward in zip(factors, rewards))
        made.columns = tuple(dict.fromkeys(column for reward in rewards for column in reward.columns))
        return made

    @classmethod
    def builtin(cls, context: Context, kind: str, /, **arguments: Any) -> "Reward":
        """One of the library's own (docs/rewards.md): Reward.builtin(context, "regex", pattern="^[A-Z]")."""
        made = cls._of(cls._make("pgrad_reward_builtin", context.live, _bytes(kind, "kind"),
                                 json.dumps(arguments).encode()))
        made._name = str(arguments.get("name") or kind)
        return made

    @staticmethod
    def builtins() -> Dict[str, Dict[str, Any]]:
        """What each of them is and takes, by name."""
        load()
        found: Dict[str, Dict[str, Any]] = {}
        while (name := _library.pgrad_reward_builtin_name(c_uint32(len(found)))) is not None:
            found[name.decode()] = json.loads(_written("pgrad_reward_builtin_describe", name))
        return found

    def apply(self, rollout: Rollout) -> None:
        """Scores all finished completions."""
        _call("pgrad_reward_apply", self.live, rollout.live)


def _score(view: RolloutView, function: Callable[..., Any], columns: Sequence[str], over: str, first: int, count: int,
           at: List[int], put: Callable[[int, Any], None]) -> None:
    """Calls a reward function as it wants to be called and puts its scores; at[0] is the sequence at work."""
    if over == "rollout":
        found = function(view, first, count)
    else:
        rows: List[List[Optional[str]]] = []
        for i in range(first, first + count):
            group = view.sequence(i).group
            rows.append([view.text(i), *(view.data(group, key) for key in columns)])
        if over == "text":
            for i, row in enumerate(rows):
                at[0] = first + i
                put(i, function(*row))
            return
        found = function(*map(list, zip(*rows)))
    if not hasattr(found, "__len__"):
        raise TypeError(f"the reward function: expected {count} scores, found {found!r:.40}")
    if len(found) != count:
        raise ValueError(f"the reward function returned {len(found)} scores for {count} completions")
    for i, score in enumerate(found):
        put(i, score)


def _put_score(scores: c_void_p, i: int, score: Any) -> None:
    if score is None:
        _library.pgrad_scores_skip(scores, c_uint32(i))
    elif isinstance(score, (str, bytes)):
        raise TypeError(f"the reward function: expected a number, or one per token, found {score!r:.40}")
    elif getattr(score, "ndim", 1) and hasattr(score, "__len__"):  # numpy's scalars have no dimension
        values = _vector(c_float, score, "the reward function's scores")
        _check(_library.pgrad_scores_set_tokens(scores, c_uint32(i), values, c_size_t(len(values))))
    else:
        ctypes.cast(_library.pgrad_scores_data(scores), POINTER(c_float))[i] = float(score)


# ---- advantages, objective, optimizer ----


class Advantage(Handle):
    """Rewards to advantages; keeps running baselines. params: estimator, kl_beta, ..."""

    _free = "pgrad_advantage_free"

    def __init__(self, context: Context, **params: Any) -> None:
        super().__init__(self._make("pgrad_advantage_create", context.live, _params("advantage", params)))

    def apply(self, rollout: Rollout) -> None:
        """Fills ADVANTAGES of every finished completion."""
        _call("pgrad_advantage_apply", self.live, rollout.live)


class Report:
    """The numbers of a step: backward, step and add each fill their part."""

    def __init__(self) -> None:
        size = load().pgrad_struct_size(b"step_report")
        self.struct = (c_uint64 * (size // 8))()
        _library.pgrad_step_report_init(self.struct, c_size_t(size))

    def add(self, rollout: RolloutView) -> None:
        """Fills the part about completions and rewards."""
        _check(_library.pgrad_rollout_report(rollout.live, self.struct))

    def numbers(self) -> Dict[str, float]:
        """Those that are filled, by name: "reward", "kl", ..."""
        return _numbers(self.struct)

    def json(self) -> str:
        """The same as one line of JSON, as in a metrics file."""
        return _written("pgrad_metrics_json", self.struct).decode()

    def __repr__(self) -> str:
        return f"<Report {self.json()}>"


def _numbers(report: Any) -> Dict[str, float]:
    """Every number that is filled, and "step", the optimizer steps done: the struct's second field."""
    numbers: Dict[str, float] = {"step": ctypes.cast(report, POINTER(c_uint64))[1]}
    for i in map(c_uint32, range(_library.pgrad_metrics_count(report))):
        numbers[_library.pgrad_metrics_name(report, i).decode()] = _library.pgrad_metrics_value(report, i)
    return numbers


class Objective(Handle):
    """Advantages to a loss and its gradients. params: loss, aggregation, kl_beta, clip_low, ..."""

    _free = "pgrad_objective_free"

    def __init__(self, model: Model, **params: Any) -> None:
        super().__init__(self._make("pgrad_objective_create", model.live, _params("objective", params)))

    def normalizer(self, rollout: Rollout, indices: Optional[Sequence[int]] = None) -> float:
        """What the loss of these completions is divided by: the sum over the parts of a step is normalizer_total."""
        out = c_double()
        _call("pgrad_objective_normalizer", self.live, rollout.live, *_indices(indices), byref(out))
        return out.value

    def backward(self, rollout: Rollout, report: Optional[Report] = None, indices: Optional[Sequence[int]] = None,
                 **params: Any) -> None:
        """Adds the gradients of completions indices, without of all finished ones. With optimizer=... this call is its
        step too: each tensor is updated as soon as its gradient is complete, in less memory."""
        _call("pgrad_objective_backward", self.live, rollout.live, *_indices(indices), _params("backward", params),
              report.struct if report else None)


def _indices(indices: Optional[Sequence[int]]) -> Tuple[Any, c_uint32]:
    if indices is None:
        return None, c_uint32(0)
    vector = _vector(c_uint32, indices, "indices")
    return vector, c_uint32(len(vector))


class Optimizer(Handle):
    """Gradients to new weights. params: kind, learning_rate, schedule, max_grad_norm, ..."""

    _free = "pgrad_optimizer_free"

    def __init__(self, model: Model, **params: Any) -> None:
        super().__init__(self._make("pgrad_optimizer_create", model.live, _params("optimizer", params)))

    def set_lr(self, learning_rate: float) -> None:
        _check(_library.pgrad_optimizer_set_lr(self.live, c_double(learning_rate)))

    def step(self, report: Optional[Report] = None) -> None:
        """All or nothing: a step that is not finite raises E_NUMERIC and changes nothing."""
        _call("pgrad_optimizer_step", self.live, report.struct if report else None)


# ---- checkpoints ----


class Checkpoint(Handle):
    """The state of a run in one file. Checkpoint(context), add handles and texts, write; or Checkpoint.open(context,
    path), then restore handles that were made as before. len() is the number of parts."""

    _free = "pgrad_checkpoint_free"
    _KINDS: Dict[Type[Handle], int] = {Model: KIND_MODEL, Optimizer: KIND_OPTIMIZER, Sampler: KIND_SAMPLER,
                                       Advantage: KIND_ADVANTAGE, Rollout: KIND_ROLLOUT, Objective: KIND_OBJECTIVE}

    def __init__(self, context: Context) -> None:
        super().__init__(self._make("pgrad_checkpoint_create", context.live))

    def _what(self) -> str:
        return f"{len(self)} parts"

    @classmethod
    def open(cls, context: Context, path: Path) -> "Checkpoint":
        """Opens a file and checks it from end to end."""
        return cls._of(cls._make("pgrad_checkpoint_open", context.live, _path(path)))

    def _kind(self, handle: Handle) -> c_int32:
        for kind, number in self._KINDS.items():
            if isinstance(handle, kind):
                return c_int32(number)
        raise TypeError(f"a {type(handle).__name__} has no state for a checkpoint")

    def add(self, name: str, handle: Handle) -> None:
        """Adds a handle; each write writes its state of that moment."""
        _call("pgrad_checkpoint_add", self.live, _bytes(name, "name"), self._kind(handle), handle.live)

    def add_text(self, name: str, text: Union[str, bytes]) -> None:
        """Adds a text, or bytes, or replaces the one of this name."""
        raw = text.encode() if isinstance(text, str) else bytes(text)
        _call("pgrad_checkpoint_add_text", self.live, _bytes(name, "name"), raw, c_size_t(len(raw)))

    def write(self, path: Path, **params: Any) -> None:
        """Writes all of it. params are keep and background."""
        _call("pgrad_checkpoint_write", self.live, _path(path), _params("checkpoint", params))

    def wait(self) -> None:
        """Waits for a write in the background, and raises what it failed with."""
        _call("pgrad_checkpoint_wait", self.live)

    def parts(self) -> List[CheckpointPart]:
        """Of an opened checkpoint: name, kind (KIND_*), size, stored_bytes."""
        return [_filled(CheckpointPart, "pgrad_checkpoint_get_part", self.live, c_uint32(i)) for i in range(len(self))]

    def __len__(self) -> int:
        count: int = _library.pgrad_checkpoint_count(self.live)
        return count

    def text(self, name: str) -> bytes:
        """The bytes of a text; str's are UTF-8."""
        return _written("pgrad_checkpoint_get_text", self.live, _bytes(name, "name"))

    def restore(self, name: str, handle: Handle) -> None:
        """Gives a handle the state of the part of this name; a failure leaves it as it was."""
        _call("pgrad_checkpoint_restore", self.live, _bytes(name, "name"), self._kind(handle), handle.live)


class CheckpointView(Checkpoint):
    """What train's on_checkpoint gets: the run's own, valid during the call."""

    def __init__(self, pointer: int) -> None:
        Handle.__init__(self, _Reference(pointer))  # which frees nothing


# ---- training ----


def read_prompts(path: Path) -> Dict[str, List[Optional[str]]]:
    """A file of prompts as columns, {"prompt": [...], ...}: one prompt a line or, in a .jsonl file, one JSON object
    with "prompt" a line. What is no text there is written as JSON, what a line does not have is None."""
    lines = [line for line in pathlib.Path(path).read_text(encoding="utf-8").split("\n") if line.strip()]
    rows: List[Dict[str, Any]] = [{"prompt": line.rstrip("\r")} for line in lines]
    if os.fspath(path).endswith(".jsonl"):
        for i, line in enumerate(lines):
            try:
                rows[i] = json.loads(line)
            except ValueError as error:
                raise ValueError(f"{path}: {error}: {line!r:.60}") from None
            if not isinstance(rows[i], dict) or not isinstance(rows[i].get("prompt"), str):
                raise ValueError(f"{path}: expected an object with a text \"prompt\", found {line!r:.60}")
    if not rows:
        raise ValueError(f"{path}: no prompts")

    def text(value: Any) -> Optional[str]:
        return value if value is None or isinstance(value, str) else json.dumps(value)

    return {name: [text(row.get(name)) for row in rows] for name in {name: None for row in rows for name in row}}


def _strings(texts: Iterable[Optional[str]], what: str) -> Any:
    if isinstance(texts, (str, bytes)):
        raise TypeError(f"{what}: expected a sequence of texts, found one text")
    texts = list(texts)
    return (c_char_p * len(texts))(*(None if text is None else _bytes(text, f"{what}[{i}]")
                                     for i, text in enumerate(texts)))


def _prompts(prompts: Sequence[Prompt], columns: Mapping[str, Sequence[Optional[str]]], chat: bool,
             system: Optional[str]) -> _Prompts:
    if isinstance(prompts, (str, bytes)):
        raise TypeError("prompts: expected a sequence of texts or of ids, found one text")
    if not len(prompts):
        raise ValueError("prompts is empty")
    for name, column in columns.items():
        if isinstance(column, str) or len(column) != len(prompts):
            found = "one text" if isinstance(column, str) else len(column)
            raise ValueError(f"column {name}: expected {len(prompts)} texts, found {found}")
    out = _Prompts()
    _library.pgrad_prompts_init(byref(out), c_size_t(ctypes.sizeof(out)))
    out.n, out.chat, out.n_columns = len(prompts), chat, len(columns)
    out.system = None if system is None else _bytes(system, "system")
    if isinstance(prompts[0], str):
        out.texts = _strings(prompts, "prompts")  # type: ignore[arg-type]
    else:
        rows = [_vector(c_int32, ids, f"prompts[{i}]") for i, ids in enumerate(prompts)]
        out.ids = (POINTER(c_int32) * len(rows))(*(ctypes.cast(row, POINTER(c_int32)) for row in rows))
        out.n_ids = (c_size_t * len(rows))(*map(len, rows))
    if columns:
        out.column_names = _strings(list(columns), "columns")
        texts = [_strings(column, name) for name, column in columns.items()]
        out.columns = (POINTER(c_char_p) * len(texts))(*(ctypes.cast(text, POINTER(c_char_p)) for text in texts))
    return out


def _check_columns(reward: Reward, prompts: Sequence[Prompt], columns: Iterable[str]) -> None:
    known = {*columns, *(["prompt"] if isinstance(prompts[0], str) else [])}
    for name in reward.columns:
        if name not in known:
            raise ValueError(f"reward: {name!r} is none of the columns: {', '.join(sorted(known)) or 'there are none'}")


def train(model: Model, tokenizer: Tokenizer, reward: Union[Reward, str, Callable[..., Score]],
          prompts: Sequence[Prompt], *,
          columns: Mapping[str, Sequence[Optional[str]]] = {}, chat: bool = False, system: Optional[str] = None,
          eval_prompts: Optional[Sequence[Prompt]] = None,
          eval_columns: Mapping[str, Sequence[Optional[str]]] = {}, report: Optional[Callable[..., Any]] = None,
          on_advantages: Optional[Callable[[RolloutView], Any]] = None,
          on_checkpoint: Optional[Callable[[CheckpointView], Any]] = None, **params: Any) -> TrainReport:
    """pgrad_train: the whole loop.

    reward is a Reward, the name of one of the library's, or a function of a completion's text and columns, as Reward
    takes it: lambda text, answer: ...
    prompts are texts, or ids; columns are texts of each for the reward, None where there is none; the texts themselves
    are the column "prompt". With chat each text is a user's message, behind the system message if there is one.
    report(numbers), or report(numbers, rollout), gets each step's numbers as a dict and ends the run in order by
    returning False; on_advantages(rollout) may change them by set_array, False fails; on_checkpoint(checkpoint) may
    add_text before one is written.
    params are the fields of the options: steps, group_size, learning_rate, seed, save_path, checkpoint_path,
    checkpoint_every, resume ("off", "on", "auto"), ...; sampler, advantage, objective, optimizer and reference are
    handles."""
    kept = (model.live,)
    pairs = report is not None and len(_required(report)) > 1

    def asked(function: Callable[..., Any], *arguments: Any) -> int:
        return 0 if function(*arguments) is False else 1

    def reported(user: Any, step: int, rollout: int) -> int:
        def body() -> int:
            assert report is not None
            with _shown(rollout, kept) as view:
                return asked(report, _numbers(c_void_p(step)), *((view,) if pairs else ()))
        return _guard(body)

    def advanced(user: Any, rollout: int) -> int:
        def body() -> int:
            assert on_advantages is not None
            with _shown(rollout, kept) as view:
                return asked(on_advantages, view)
        return _guard(body)

    def checkpointed(user: Any, pointer: int) -> int:
        def body() -> int:
            assert on_checkpoint is not None
            with CheckpointView(pointer) as view:
                return asked(on_checkpoint, view)
        return _guard(body)

    data, out = _prompts(prompts, columns, chat, system), TrainReport(ctypes.sizeof(TrainReport))
    if isinstance(reward, str):
        reward = Reward.builtin(model.context, reward)
    scored = reward if isinstance(reward, Reward) else Reward(model.context, reward)
    _check_columns(scored, prompts, columns)
    if eval_prompts is not None:
        params["eval_prompts"] = ctypes.pointer(_prompts(eval_prompts, eval_columns, chat, system))
        _check_columns(scored, eval_prompts, eval_columns)
    params["report"] = _ReportCallback(reported) if report else None
    params["on_advantages"] = _AdvantageCallback(advanced) if on_advantages else None
    params["on_checkpoint"] = _CheckpointCallback(checkpointed) if on_checkpoint else None
    _call("pgrad_train", model.live, tokenizer.live, scored.live, byref(data), _params("train", params), byref(out))
    return out


def policy_gradient(model: Model, tokenizer: Tokenizer, reward_function: Callable[..., Score], learning_rate: float,
                    epochs: int, prompts: Sequence[str], group_size: int = 8, max_new_tokens: int = 64, seed: int = 0,
                    on_epoch: Optional[Callable[[int, Dict[str, float], Rollout], Any]] = None
                    ) -> List[Dict[str, float]]:
    """The textbook loop, a step call by call. The reward function gets a completion's text and its prompt when it
    requires two arguments, else the text. Returns the numbers of every epoch."""
    if not prompts:
        raise ValueError("prompts is empty")
    columns = ["prompt"] if len(_required(reward_function)) == 2 else []
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
