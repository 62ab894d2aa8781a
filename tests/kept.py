"""Runs that are kept to be opened by later versions, without what the package holds anyway.

python tests/kept.py RUN tests/kept_runs/NAME.zip

A kept run trained the head alone, so its backbone is that of the built-in weights: those bytes are left out
of the archive, and put back where it is unpacked. Pages for people are left out.
"""

import json
import struct
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
GLYPHS = ROOT / "finetune" / "data" / "builtin" / "glyphs.safetensors"
FOLDER = Path(__file__).parent / "kept_runs"
_LEFT_OUT, _PLACES = (".html", ".lock"), "left_out.json"


def tensors_of(content):
    """Return where the bytes of each tensor of a safetensors file begin and end, by name."""
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    header.pop("__metadata__", None)
    return {
        name: tuple(8 + length + offset for offset in one["data_offsets"]) for name, one in header.items()
    }


def pack(run, archive):
    """Write a run into an archive."""
    known = GLYPHS.read_bytes()
    own = {known[begin:end]: name for name, (begin, end) in tensors_of(known).items() if end - begin > 64}
    places = {}
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_LZMA) as packed:
        for path in sorted(run.rglob("*")):
            if path.is_dir() or path.name.endswith(_LEFT_OUT):
                continue
            name, content = path.relative_to(run).as_posix(), bytearray(path.read_bytes())
            if path.suffix == ".safetensors":
                for begin, end in tensors_of(content).values():
                    if (tensor := own.get(bytes(content[begin:end]))) is not None:
                        places.setdefault(name, []).append((begin, tensor))
                        content[begin:end] = bytes(end - begin)
            packed.writestr(name, bytes(content))
        packed.writestr(_PLACES, json.dumps(places))


def unpack(name, run):
    """Write a kept run into a folder, byte for byte as it was."""
    known = GLYPHS.read_bytes()
    own = tensors_of(known)
    with zipfile.ZipFile(FOLDER / f"{name}.zip") as packed:
        places = json.loads(packed.read(_PLACES))
        for file in packed.namelist():
            content = bytearray(packed.read(file))
            for begin, tensor in places.get(file, ()):
                first, last = own[tensor]
                content[begin : begin + last - first] = known[first:last]
            if file != _PLACES:
                (run / file).parent.mkdir(parents=True, exist_ok=True)
                (run / file).write_bytes(content)
    return run


if __name__ == "__main__":
    pack(Path(sys.argv[1]), Path(sys.argv[2]))
