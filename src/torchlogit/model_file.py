"""Model files: one safetensors file, no pickle. Loading validates and runs no code.

Arrays are tensors; everything else is one JSON document in the file's metadata. A SHA-256 of both tells a damaged file
from a sound one. (It is no signature: who can write the file can write the digest.)
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import os
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save as serialised
from sklearn.pipeline import Pipeline
from sklearn.utils.validation import check_is_fitted

from torchlogit._version import __version__
from torchlogit.encode import TableEncoder
from torchlogit.encode.columns import ENCODINGS, MOST_LEVELS, Encoding, Text
from torchlogit.encode.encoder import Decision
from torchlogit.encode.notation import is_notation
from torchlogit.encode.parse import ISO, TIME_FORMATS
from torchlogit.encode.profile import KINDS
from torchlogit.encode.text import BUCKETS
from torchlogit.errors import InputError
from torchlogit.estimator import LogisticRegression
from torchlogit.files import replacing
from torchlogit.model_parts import described, known_parts
from torchlogit.plain import plain, restored
from torchlogit.plan import Plan
from torchlogit.prediction import Solution
from torchlogit.trace import Trace

FORMAT = "torchlogit model"
FORMAT_VERSION = 1
Arrays = dict[str, NDArray[Any]]
_RESULTS = {"converged_": bool, "kkt_": float, "excess_": float, "objective_": float, "status_": str}
_ADDED = {"notation": "", "hint": ""}  # what files of earlier versions lack
_CONFIRM = "fit the model again, or copy the file again from where it came from"
_LABEL_TYPE = re.compile(r"[<>|]([biuf]\d{1,2}|U\d{1,7}|O)")
_MOST_LABEL_BYTES = 1 << 24  # what a label's type may take, whatever a damaged file says of it


@dataclass(frozen=True)
class ModelFile:
    """What a model file holds.

    Parameters
    ----------
    model : LogisticRegression or Pipeline
        Fitted.
    notes : dict
        How it was fitted: what the command line records (target, threshold, options, held-out figures).
    version : str
        Version of torchlogit that wrote the file.
    """

    model: LogisticRegression | Pipeline
    notes: dict[str, Any]
    version: str


def save(model: Any, path: str | os.PathLike[str], *, notes: Mapping[str, Any] | None = None) -> None:
    """Write a fitted model to one file.

    Parameters
    ----------
    model : LogisticRegression, or Pipeline of TableEncoder and LogisticRegression
        Fitted.
    path : path-like
        Any name. The file is written whole or not at all.
    notes : mapping, default=None
        JSON values to keep with the model.

    Raises
    ------
    TypeError
        If it is another kind of model.
    sklearn.exceptions.NotFittedError
        If it is not fitted.

    Examples
    --------
    >>> import tempfile
    >>> from torchlogit import LogisticRegression, load, save
    >>> clf = LogisticRegression().fit([[0.0], [1.0], [2.0], [3.0]], ["no", "no", "yes", "yes"])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save(clf, f"{folder}/model.safetensors")
    ...     again = load(f"{folder}/model.safetensors")
    >>> bool((again.predict_proba([[1.5]]) == clf.predict_proba([[1.5]])).all())
    True
    """
    parts = known_parts(model)
    if parts is None:
        raise TypeError(
            "a model file holds a LogisticRegression, or a Pipeline of TableEncoder and LogisticRegression, not "
            + described(model)
        )
    encoder, classifier = parts
    for step in (encoder, classifier):
        if step is not None:
            check_is_fitted(step)
    arrays: Arrays = {}
    document: dict[str, Any] = {
        "steps": [name for name, _ in model.steps] if isinstance(model, Pipeline) else [],
        "classifier": _classifier_state(classifier, arrays),
        "encoder": None if encoder is None else encoder_state(encoder, arrays),
        "notes": dict(notes or {}),
    }
    text = json.dumps(plain(document), allow_nan=False, ensure_ascii=True, sort_keys=True)
    arrays = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    metadata = {
        "format": FORMAT,
        "format_version": str(FORMAT_VERSION),
        "torchlogit": __version__,
        "model": text,
    }
    metadata["sha256"] = _digest(metadata, arrays)
    content = serialised(arrays, metadata=metadata)
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def load(path: str | os.PathLike[str]) -> Any:
    """Read a model file: gives back what was saved.

    Parameters
    ----------
    path : path-like

    Returns
    -------
    LogisticRegression or Pipeline
        Fitted; every prediction has the same bits as before it was saved.

    Raises
    ------
    InputError
        If the file is missing, truncated, altered, of a newer format, or not a model file.

    See Also
    --------
    torchlogit.save : Writes it, with an example.

    Examples
    --------
    >>> from torchlogit import load
    >>> load("nowhere.safetensors")
    Traceback (most recent call last):
    ...
    torchlogit.errors.InputError: there is no model file nowhere.safetensors; check the name, or fit a model first
    """
    return read(path).model


def read(path: str | os.PathLike[str]) -> ModelFile:
    """Read a model file with its notes. Raises as `load` does."""
    where = Path(path)
    try:
        _check_regular(where)
        with safe_open(where, framework="np") as file:
            metadata = file.metadata() or {}
            # before its arrays: somebody else's safetensors file may be larger than memory
            _check_format(where, metadata)
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
    except InputError:
        raise
    except PermissionError:
        raise InputError(_forbidden(where)) from None
    except (SafetensorError, OSError, ValueError, TypeError, KeyError, OverflowError) as error:
        raise InputError(_unreadable(where, error)) from None
    if metadata.get("sha256") != _digest(metadata, arrays):
        raise InputError(f"{where} was altered or damaged after it was written (its checksum does not fit); {_CONFIRM}")
    try:
        document = restored(json.loads(metadata["model"]))
        model, notes = _model(document, arrays), _an(dict, document["notes"], "notes")
        return ModelFile(model, notes, metadata["torchlogit"])
    except (KeyError, TypeError, ValueError, IndexError, OverflowError, RecursionError) as error:
        raise InputError(f"{where} does not hold a valid model ({_short(error)}); {_CONFIRM}") from None


def _check_regular(where: Path) -> None:
    if where.is_dir():
        raise InputError(f"{where} is a directory, not a model file; name the file in it")
    if not where.exists():
        raise InputError(f"there is no model file {where}; check the name, or fit a model first")
    if not where.is_file():  # it is read by mapping it into memory, which a pipe does not allow
        raise InputError(f"{where} is not a regular file; copy the model to one first")
    if not where.stat().st_size:
        raise InputError(f"{where} is empty, not a model file; {_CONFIRM}")


def _check_format(where: Path, metadata: Mapping[str, str]) -> None:
    if metadata.get("format") != FORMAT:
        raise InputError(
            f"{where} is a safetensors file, but not a torchlogit model; name one that 'torchlogit fit' or "
            "torchlogit.save wrote"
        )
    version = metadata.get("format_version", "")
    if not (version.isascii() and version.isdigit() and len(version) < 10 and int(version) > 0):
        raise InputError(f"{where} does not hold a valid model (its format is {_short(version)!r}); {_CONFIRM}")
    if int(version) > FORMAT_VERSION:
        raise InputError(
            f"{where} was written by a newer torchlogit ({_short(metadata.get('torchlogit'))}, format {version}; "
            f"this is {__version__}, format {FORMAT_VERSION}): update torchlogit"
        )


def _unreadable(where: Path, error: Exception) -> str:
    """What to say of a file that safetensors cannot read. A safetensors file begins with a length, then JSON."""
    try:
        with where.open("rb") as file:
            begins = file.read(9)[8:] == b"{"
    except PermissionError:
        return _forbidden(where)
    except OSError as failure:
        return f"{where} cannot be read ({failure.strerror or failure}); check the file"
    if not begins:
        return (
            f"{where} is not a model file, or its beginning is damaged; name one that 'torchlogit fit' or "
            "torchlogit.save wrote"
        )
    return f"{where} is cut short or damaged ({_short(error)}); {_CONFIRM}"


def _forbidden(where: Path) -> str:
    return f"{where} may not be read by you (permission denied); change its permissions"


def _short(value: object) -> str:
    text = " ".join(str(value).split())
    return text if len(text) <= 120 else text[:117] + "..."


def _digest(metadata: Mapping[str, str], arrays: Arrays) -> str:
    digest = hashlib.sha256()
    for name in ("format", "format_version", "torchlogit", "model"):
        text = metadata.get(name, "")
        digest.update(f"{name} {len(text)} {text}".encode("utf-8", "surrogatepass"))
    for name in sorted(arrays):
        array = arrays[name]
        digest.update(f"{name} {array.dtype.str} {array.shape}".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


# -- JSON ---------------------------------------------------------------------------------------------------------


def _an(kind: type, value: Any, what: str) -> Any:
    """The value, if it is of this type. (An integer is a float here, True is not.)"""
    fits = isinstance(value, (int, float) if kind is float else kind)
    if not fits or (isinstance(value, bool) and kind is not bool):
        raise TypeError(f"{what} is {type(value).__name__}, not {kind.__name__}")
    return value


def _all(kind: type, values: Any, what: str) -> list[Any]:
    return [_an(kind, value, what) for value in _an(list, values, what)]


# -- the classifier -------------------------------------------------------------------------------------------------


def _classifier_state(model: LogisticRegression, arrays: Arrays) -> dict[str, Any]:
    solution = model._current_solution()
    arrays["coef"], arrays["intercept"] = solution.coef, solution.intercept
    if solution.centre is not None and solution.centred_intercept is not None:
        arrays["centre"], arrays["centred_intercept"] = solution.centre, solution.centred_intercept
    parameters = model.get_params()
    parameters["device"] = str(parameters["device"])
    if not isinstance(parameters["random_state"], (int, np.integer, type(None))):
        parameters["random_state"] = None  # a generator's state is no part of the model
    names = getattr(model, "feature_names_in_", None)
    return {
        "parameters": parameters,
        "classes": {"dtype": model.classes_.dtype.str, "values": model.classes_},
        "dtype": np.asarray(model.coef_ if isinstance(model.coef_, np.ndarray) else model.coef_.data).dtype.str,
        "features": int(model.n_features_in_),
        "feature_names": None if names is None else [str(name) for name in names],
        "uses_offset": bool(getattr(model, "_uses_offset", False)),
        "result": {name: getattr(model, name) for name in ("converged_", "kkt_", "excess_", "objective_", "status_")},
        "iterations": model.n_iter_,
        "plan": dataclasses.asdict(model.plan_),
        "trace": list(model.trace_),
    }


def _classifier(state: dict[str, Any], arrays: Arrays) -> LogisticRegression:
    model = LogisticRegression(**_parameters(state["parameters"]))
    model.classes_ = _classes(state["classes"])
    outputs = 1 if model.classes_.size == 2 else model.classes_.size
    features = _an(int, state["features"], "the number of columns")
    solution = Solution(
        _array(arrays, "coef", (outputs, features)),
        _array(arrays, "intercept", (outputs,)),
        _array(arrays, "centre", (features,)) if "centre" in arrays else None,
        _array(arrays, "centred_intercept", (outputs,)) if "centre" in arrays else None,
    )
    dtype = np.dtype(_an(str, state["dtype"], "the dtype"))
    if dtype not in (np.float32, np.float64):
        raise ValueError("an unknown dtype")
    model.n_features_in_ = features
    if state["feature_names"] is not None:
        names = _all(str, state["feature_names"], "a column's name")
        if len(names) != features:
            raise ValueError("too many or too few column names")
        model.feature_names_in_ = np.array(names, dtype=object)
    model._set_solution(solution, dtype)
    model._uses_offset = _an(bool, state["uses_offset"], "the use of an offset")
    model.n_iter_ = np.array(_all(int, state["iterations"], "the number of steps"), dtype=np.int32)
    for name, kind in _RESULTS.items():
        setattr(model, name, _an(kind, state["result"][name], name))
    for field in dataclasses.fields(Plan):
        _an(int if field.type == "int" else str, state["plan"][field.name], f"the plan's {field.name}")
    model.plan_ = Plan(**state["plan"])
    model.trace_ = Trace(_all(dict, state["trace"], "a record of the trace"))
    return model


def _parameters(given: Any) -> dict[str, Any]:
    for name, value in _an(dict, given, "the parameters").items():
        if not isinstance(value, (type(None), bool, int, float, str)) and name != "class_weight":
            raise TypeError(f"the parameter {name} is {type(value).__name__}")
    return dict(given)


def _classes(state: dict[str, Any]) -> NDArray[Any]:
    name, values = _an(str, state["dtype"], "the labels' type"), _an(list, state["values"], "the labels")
    scalars = all(isinstance(value, (bool, int, float, str)) for value in values)
    if not _LABEL_TYPE.fullmatch(name) or len(values) < 2 or not scalars or len(set(values)) < len(values):
        raise ValueError("its classes are not labels")
    dtype = np.dtype(name)
    if dtype.itemsize * len(values) > _MOST_LABEL_BYTES:
        raise ValueError("its classes are of an impossible type")
    classes: NDArray[Any] = np.array(values, dtype=dtype)
    if classes.tolist() != values:
        raise ValueError("its classes do not fit their type")
    return classes


def _array(arrays: Arrays, name: str, shape: tuple[int, ...]) -> NDArray[np.float64]:
    array = arrays[name]
    if array.shape != shape or array.dtype != np.float64:
        raise ValueError(f"{name} is {array.dtype} of shape {array.shape}, not float64 of shape {shape}")
    if not np.isfinite(array).all():
        raise ValueError(f"{name} is not finite")
    return array


# -- the encoder ----------------------------------------------------------------------------------------------------


def encoder_state(encoder: TableEncoder, arrays: Arrays) -> dict[str, Any]:
    """What an encoder has learned, as values for `plain`; what is long goes into ``arrays``."""
    columns = []
    for j, (encoding, decision) in enumerate(zip(encoder._encodings, encoder.decisions_, strict=True)):
        columns.append(
            {
                "decision": dataclasses.asdict(decision),
                "learned": None if encoding is None else _learned(encoding, f"column_{j}", arrays),
            }
        )
    return {
        "kinds": None if encoder.kinds is None else dict(encoder.kinds),
        "named": hasattr(encoder, "feature_names_in_"),
        "columns": columns,
    }


def _learned(encoding: Encoding, name: str, arrays: Arrays) -> dict[str, Any]:
    if isinstance(encoding, Text):  # too long for the header
        arrays[f"{name}.buckets"], arrays[f"{name}.idf"] = encoding.buckets, encoding.idf
        arrays[f"{name}.labels"] = np.frombuffer("\n".join(encoding.labels).encode(), dtype=np.uint8)
        return {"name": encoding.name}
    return {f.name: getattr(encoding, f.name) for f in dataclasses.fields(encoding) if f.init}  # type: ignore[arg-type]


def encoder_from(state: dict[str, Any], arrays: Arrays) -> TableEncoder:
    """The inverse of `encoder_state`; raises all kinds of errors where the state is not one."""
    kinds = state["kinds"]
    if kinds is not None and not set(_an(dict, kinds, "kinds").values()) <= set(KINDS):
        raise ValueError("unknown kinds of columns")
    encoder = TableEncoder(kinds=kinds)
    encodings: list[Encoding | None] = []
    decisions = []
    for j, column in enumerate(_all(dict, state["columns"], "a column")):
        decision = _decision(column["decision"])
        if (decision.kind == "drop") != (column["learned"] is None):
            raise ValueError(f"a column that is {decision.kind!r} and was learned, or was not")
        encoding = None if column["learned"] is None else _encoding(decision.kind, column["learned"], j, arrays)
        decisions.append(decision)
        encodings.append(encoding)
    encoder.n_features_in_ = len(decisions)
    if _an(bool, state["named"], "the use of names"):
        encoder.feature_names_in_ = np.array([decision.column for decision in decisions], dtype=object)
    encoder._set(encodings, decisions)
    if Counter(encoder.feature_columns_) != {d.column: d.features for d in decisions if d.features}:
        raise ValueError("columns that become more or fewer numbers than they say")
    return encoder


def _decision(state: dict[str, Any]) -> Decision:
    values = {}
    for field in dataclasses.fields(Decision):
        kind = int if field.type == "int" else str
        values[field.name] = _an(kind, _given(state, field.name), f"a decision's {field.name}")
    return Decision(**values)


def _given(values: dict[str, Any], name: str) -> Any:
    return _ADDED[name] if name in _ADDED and name not in values else values[name]


def _encoding(kind: str, learned: dict[str, Any], j: int, arrays: Arrays) -> Encoding:
    if kind == "text":
        return _text(_an(str, learned["name"], "a column's name"), f"column_{j}", arrays)
    encoding = ENCODINGS[kind]
    wanted = {field.name: str(field.type) for field in dataclasses.fields(encoding) if field.init}
    values = {}
    for name, annotation in wanted.items():
        value, what = _given(learned, name), f"{name} of a {kind} column"
        if annotation.startswith("tuple"):
            value = tuple(_all(str, value, what))
        else:
            _an({"str": str, "float": float, "int": int, "bool": bool}[annotation], value, what)
        if annotation in ("float", "int") and not math.isfinite(value):
            raise ValueError(f"{what} is not finite")
        values[name] = value
    if values.get("scale", 0) < 0 or not 0 <= values.get("share", 0) <= 1:
        raise ValueError(f"impossible numbers of a {kind} column")
    levels = values.get("levels", ())
    if not 0 <= values.get("buckets", 0) <= MOST_LEVELS or len(set(levels)) < len(levels):
        raise ValueError(f"impossible levels of a {kind} column")
    if values.get("form", "") not in ("", ISO, *TIME_FORMATS):
        raise ValueError("an unknown format of dates")
    if values.get("notation") and not is_notation(values["notation"]):
        raise ValueError("an unknown notation of numbers")
    return encoding(**values)


def _text(name: str, key: str, arrays: Arrays) -> Text:
    buckets, labels = arrays[f"{key}.buckets"], arrays[f"{key}.labels"]
    if buckets.dtype != np.int32 or buckets.ndim != 1 or labels.dtype != np.uint8:
        raise ValueError("words of an unknown type")
    if buckets.size and not (buckets[0] >= 0 and buckets[-1] < BUCKETS and (np.diff(buckets) > 0).all()):
        raise ValueError("impossible numbers of words")
    words = tuple(labels.tobytes().decode().split("\n")) if buckets.size else ()
    if len(words) != buckets.size:
        raise ValueError("words and weights of different number")
    return Text(name, buckets, words, _array(arrays, f"{key}.idf", (buckets.size,)))


def _model(document: dict[str, Any], arrays: Arrays) -> LogisticRegression | Pipeline:
    classifier = _classifier(document["classifier"], arrays)
    names = _all(str, document["steps"], "a step's name")
    if len(names) > 1 + (document["encoder"] is not None) or len(set(names)) < len(names):
        raise ValueError("impossible names of steps")
    if document["encoder"] is None:
        return Pipeline([(names[0], classifier)]) if names else classifier
    encoder = encoder_from(document["encoder"], arrays)
    if len(encoder.feature_columns_) != classifier.n_features_in_:
        raise ValueError("an encoder that does not fit the coefficients")
    return Pipeline([(names[0], encoder), (names[1], classifier)])
