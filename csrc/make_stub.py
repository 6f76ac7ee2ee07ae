"""Write the stub of the extension module with nanobind's stub generator.

The module is loaded from its file, under the name that it will have once it is
installed. Nothing else of the package is imported: at this point of a build its
dependencies need not be there, and an older copy of it may be.
"""

import importlib.util
import sys
from pathlib import Path

from nanobind.stubgen import StubGen, load_pattern_file

# What a class is to a type checker and its object cannot tell.
HEADERS = {
    "class Dispatcher:": "@final\nclass Dispatcher(Generic[_P, _R]):",
    "class Skeleton:": "@final\nclass Skeleton:",
    "class Result:": "@final\nclass Result:",
    "class Structure:": "@final\nclass Structure:",
    "class Leaves:": "@final\nclass Leaves:",
    "class Tree:": "@final\nclass Tree(Generic[_T_co]):",
}


def main(module_file: str, pattern_file: str, stub_file: str, strict: str) -> None:
    """Write the stub of a module.

    Parameters
    ----------
    module_file : str
        The extension module.
    pattern_file : str
        What replaces the generated text of some of its members.
    stub_file : str
        Where the stub goes.
    strict : str
        Whether to fail, if "ON", when the module and `pattern_file` don't agree.
    """
    spec = importlib.util.spec_from_file_location("autojit._core", module_file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    patterns = load_pattern_file(pattern_file)
    generator = StubGen(module, patterns=patterns)
    generator.put(module)
    stub = generator.get()
    unused = [pattern.query.pattern for pattern in patterns if pattern.matches == 0]
    for plain, header in HEADERS.items():
        if plain not in stub:
            unused.append(plain)
        stub = stub.replace(plain, header)
    for pattern in unused:
        print(f"{pattern_file}: the module has no {pattern}", file=sys.stderr)
    if unused and strict == "ON":
        sys.exit(1)
    Path(stub_file).write_text(stub, encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
