"""The source file of a bundle: the text of the class that was searched, and how to build this one network.

The text is taken from the very file the toolkit runs (``search_spaces/crnas/resnet.py``), so that what is
searched, trained and exported is one class. The result imports only torch and Python's standard library.
"""

import ast
import pprint
import sys

from search_spaces.architecture import Architecture
from search_spaces.catalog import family_of
from search_spaces.errors import ConfigError

_TAIL = '''

# --- this network ----------------------------------------------------------------------------------------

import json as _json
import math as _math

ARCHITECTURE = {architecture}
"""What was searched: family, settings, genes. Its digest is {digest}."""

_DTYPES = {{
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
    "I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8,
    "U8": torch.uint8, "BOOL": torch.bool,
}}


def build() -> torch.nn.Module:
    """The network with random weights; ``forward(images)`` gives level -> feature map, see ``levels``."""
    return {class_name}(
{arguments}    )


def load(weights_path: str) -> torch.nn.Module:
    """The network with the weights of a ``.safetensors`` file, in evaluation mode."""
    network = build()
    network.load_state_dict(read_safetensors(weights_path))
    return network.eval()


def read_safetensors(path: str) -> dict[str, torch.Tensor]:
    """Read a safetensors file without its library: 8 bytes length, a JSON header, then the raw tensors.

    Raises:
        ValueError: what the file says of itself is not so; nothing is taken for it before that is known.
    """

    def refuse(what: str) -> ValueError:
        return ValueError(f"{{path}}: {{what}}; it is damaged, cut short or no safetensors file")

    def once(pairs: list) -> dict:
        if len(dict(pairs)) != len(pairs):
            raise refuse("a key stands in its header twice")
        return dict(pairs)

    with open(path, "rb") as file:
        size = file.seek(0, 2) - 8
        file.seek(0)
        length = int.from_bytes(file.read(8), "little")
        if not 2 <= length <= min(size, 2**24):
            raise refuse(f"it states a header of {{length}} bytes")
        try:
            header = _json.loads(file.read(length), object_pairs_hook=once)
        except (RecursionError, UnicodeDecodeError, _json.JSONDecodeError) as error:
            raise refuse("its header is no JSON") from error
        if not isinstance(header, dict):
            raise refuse("its header is no object")
        header.pop("__metadata__", None)
        found, reached = {{}}, 0
        for name, entry in header.items():
            if not isinstance(entry, dict) or set(entry) != {{"dtype", "shape", "data_offsets"}}:
                raise refuse(f"tensor {{name!r}} is not described")
            dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
            if str(dtype) not in _DTYPES or not isinstance(shape, list) or not isinstance(offsets, list):
                raise refuse(f"tensor {{name!r}} is of a type {{dtype!r}} or has no shape")
            whole = all(type(one) is int and 0 <= one < 2**62 for one in (*shape, *offsets))
            if not whole or len(shape) > 16 or len(offsets) != 2:
                raise refuse(f"tensor {{name!r}} has a shape or place that is none")
            begin, end = offsets
            count = _math.prod(shape)
            if not begin <= end <= size - length or end - begin != count * _DTYPES[dtype].itemsize:
                raise refuse(f"tensor {{name!r}} does not fit the file")
            found[name] = (begin, end, _DTYPES[dtype], shape, count)
        for begin, end in sorted((begin, end) for begin, end, *_ in found.values()):
            if begin != reached:
                raise refuse("its tensors overlap or leave holes")
            reached = end
        if reached != size - length:
            raise refuse(f"its tensors are {{reached}} bytes, and it has {{size - length}} of them")
        data = bytearray(file.read())
    tensors = {{}}
    for name, (begin, _, dtype, shape, count) in found.items():
        flat = torch.empty(count, dtype=dtype)
        if count:
            flat.copy_(torch.frombuffer(data, dtype=dtype, count=count, offset=begin))
        tensors[name] = flat.reshape(shape)
    return tensors


if __name__ == "__main__":
    import sys as _sys

    _network = load(_sys.argv[1]) if len(_sys.argv) > 1 else build().eval()
    with torch.no_grad():
        for _level, _map in _network(torch.zeros(1, 3, 224, 224)).items():
            print(_level, tuple(_map.shape))
'''


def backbone_source(architecture: Architecture) -> str:
    """One Python file that builds this network with nothing but torch.

    Args:
        architecture: of a family of ``search_spaces.catalog.FAMILIES``.

    Returns:
        Source text with ``build()``, ``load(weights_path)``, ``ARCHITECTURE`` and the network's classes.

    Raises:
        InvalidArchitecture: an unknown family, or settings and genes that it does not allow.
        ConfigError: a network's file that imports more than torch.
    """
    family = family_of(architecture)
    family.validate(architecture)
    text = family.source.read_text(encoding="utf-8")
    if foreign := sorted(foreign_imports(text)):
        raise ConfigError(
            f"{family.source}: imports {', '.join(foreign)}; the file of a network may import only torch and the "
            "standard library, for its text is what an export consists of. Move what it needs into the file"
        )
    arguments = family.arguments(architecture)
    tail = _TAIL.format(
        architecture=pprint.pformat(architecture.to_dict(), sort_dicts=False, width=100),
        digest=architecture.digest,
        class_name=family.network,
        arguments="".join(f"        {name}={value!r},\n" for name, value in arguments.items()),
    )
    head = f"# Exported by vertebra: {architecture}\n# Needs Python 3.11 and torch, nothing else.\n\n"
    return head + text.rstrip() + "\n" + ("" if _imports_torch(text) else "\nimport torch\n") + tail


def foreign_imports(text: str) -> set[str]:
    """Top-level names a source text imports that are neither torch nor of the standard library."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            names.update(alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            names.add("." if node.level else (node.module or "").partition(".")[0])
    return {name for name in names if name != "torch" and name not in sys.stdlib_module_names}


def _imports_torch(text: str) -> bool:
    """Whether the name ``torch``, which the tail uses, is bound at the top of the file."""
    return any(
        isinstance(node, ast.Import)
        and any(alias.name.partition(".")[0] == "torch" and alias.asname is None for alias in node.names)
        for node in ast.parse(text).body
    )
