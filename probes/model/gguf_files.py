"""GGUF files as checkpoints: their weights in float32, made once and kept in the state folder.

Contract: `gguf_of(path)` is the file that a name means, `ensure(gguf, ...)` the folder of what transformers makes of
it, for every architecture that it reads. A file in several parts (`NAME-00001-of-00003.gguf`) is put together first.
What is made is named by the file's digest; a half-written copy is never used. Raises ModelError.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from probes.errors import ModelError
from probes.hashing import sha256_lines
from probes.model.digests import file_sha256
from probes.model.partial import check_read
from probes.progress import Progress

_PART = re.compile(r"^(.*)-(\d{5})-of-(\d{5})\.gguf$", re.IGNORECASE)
# Of a model that takes images: its tower is in a file of its own, which texts do not need.
_TOWER = "mmproj"


def gguf_of(path: Path) -> Path | None:
    """The GGUF file that a path is, or the only one in a folder that has no checkpoint of another kind; of several
    parts the first."""
    if path.suffix.lower() == ".gguf":
        if not path.is_file():
            raise ModelError(f"model: {path} is not there")
        return path
    if not path.is_dir() or (path / "config.json").is_file():
        return None
    found = [p for p in sorted(path.glob("*.gguf")) if not p.name.lower().startswith(_TOWER) and _number(p) == 1]
    if len(found) > 1:
        raise ModelError(f"model: {path} holds {len(found)} GGUF files ({found[0].name}, ...); give one of them")
    return found[0] if found else None


def name_of(gguf: Path) -> str:
    """What a file's model is called."""
    part = _PART.match(gguf.name)
    return part[1] if part else gguf.stem


def ensure(gguf: Path, models: Path, cache: Path, progress: Progress) -> Path:
    """The folder of a GGUF file's weights below `models`, made where it is not there. `cache` is of `digests`."""
    parts = _parts(gguf)
    digests = [file_sha256(part, cache) for part in parts]
    digest = digests[0] if len(parts) == 1 else sha256_lines(digests)
    target = models / f"{name_of(gguf)}-{digest[:12]}"
    if not (target / "config.json").is_file():
        progress(f"dequantising {gguf.name} to {target} (once; its weights in float32)")
        with building(target) as folder:
            dequantise(parts, folder)
            origin = {"source": f"GGUF file {gguf.name}, dequantised to fp32", "gguf_sha256": digest}
            (folder / "origin.json").write_text(json.dumps(origin, indent=2) + "\n")
    return target


def dequantise(parts: Sequence[Path], folder: Path, chat_template: str | None = None) -> None:
    """Write the checkpoint that a GGUF file holds; `chat_template` where the file has none."""
    try:
        if len(parts) == 1:
            _dequantise(parts[0], folder, chat_template)
        else:
            with tempfile.TemporaryDirectory(dir=folder) as scratch:
                _dequantise(_joined(parts, Path(scratch)), folder, chat_template)
    except Exception as error:  # whatever a file of others makes its reader raise
        if isinstance(error, ModelError) or (isinstance(error, OSError) and error.errno is not None):
            raise  # of the disk
        first = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        raise ModelError(
            f"model: {parts[0].name} cannot be read as GGUF ({type(error).__name__}: {first}); give the folder of the "
            "safetensors checkpoint that it was made of"
        ) from None


def _dequantise(gguf: Path, folder: Path, chat_template: str | None) -> None:
    os.environ.setdefault("TQDM_DISABLE", "1")
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, logging

    logging.disable_progress_bar()
    source = str(gguf.parent)
    tokenizer = AutoTokenizer.from_pretrained(source, gguf_file=gguf.name)
    quantised, info = AutoModelForCausalLM.from_pretrained(
        source, gguf_file=gguf.name, dtype=torch.float32, output_loading_info=True
    )
    check_read(quantised, info)
    # save_pretrained refuses an object that came from GGUF, so the weights move into a fresh one.
    settings = quantised.config.to_dict()
    settings.pop("quantization_config", None)
    model = type(quantised)(type(quantised.config)(**settings))
    model.load_state_dict(quantised.state_dict())
    model.tie_weights()
    model.save_pretrained(folder)
    tokenizer.chat_template = tokenizer.chat_template or chat_template
    tokenizer.save_pretrained(folder)


def _number(gguf: Path) -> int:
    part = _PART.match(gguf.name)
    return int(part[2]) if part else 1


def _parts(gguf: Path) -> list[Path]:
    """The file, or all of its parts in their order."""
    part = _PART.match(gguf.name)
    if part is None:
        return [gguf]
    parts = [gguf.with_name(f"{part[1]}-{n:05}-of-{part[3]}.gguf") for n in range(1, int(part[3]) + 1)]
    missing = [path.name for path in parts if not path.is_file()]
    if missing:
        raise ModelError(f"model: {gguf.name} is one of {len(parts)} parts; {missing[0]} is not beside it")
    return parts


def _joined(parts: Sequence[Path], folder: Path) -> Path:
    """One file of several parts, as llama.cpp's own tool joins them: the first one's fields, the tensors of all."""
    from gguf import GGUFReader, GGUFValueType, GGUFWriter

    whole = folder / "whole.gguf"
    readers: list[Any] = [GGUFReader(part) for part in parts]
    first = readers[0]
    writer = GGUFWriter(str(whole), first.fields["general.architecture"].contents(), endianess=first.endianess)
    for field in first.fields.values():
        if field.name == "general.architecture" or field.name.startswith(("GGUF.", "split.")):
            continue
        kind = field.types[0]
        sub = field.types[-1] if kind == GGUFValueType.ARRAY else None
        writer.add_key_value(field.name, field.contents(), kind, sub_type=sub)
    for reader in readers:
        for t in reader.tensors:
            writer.add_tensor_info(t.name, t.data.shape, t.data.dtype, t.data.nbytes, t.tensor_type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for reader in readers:
        for t in reader.tensors:
            writer.write_tensor_data(t.data, tensor_endianess=reader.endianess)
    writer.close()
    return whole


@contextmanager
def building(target: Path) -> Iterator[Path]:
    """A scratch folder beside `target` that becomes it on success; two builders at once end with one copy."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    except OSError as error:
        raise ModelError(
            f"state folder: cannot write to {target.parent} ({error.strerror}); "
            "set AWRY_STATE_DIR to a folder with room for it in float32"
        ) from error
    try:
        yield scratch
        scratch.chmod(0o755)
        try:
            scratch.rename(target)
        except OSError:
            if not (target / "config.json").is_file():
                raise
    except OSError as error:
        raise ModelError(
            f"state folder: writing the model to {target.parent} failed ({error.strerror}); "
            "set AWRY_STATE_DIR to a folder with room for it in float32"
        ) from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
