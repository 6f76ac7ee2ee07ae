"""Run the Python code of Markdown files: every block that is marked ``python``.

The blocks of a file share one namespace, as they do for someone who types them in one
after the other. A block with a prompt in it is a doctest.
"""

import doctest
import re
import sys
from pathlib import Path
from typing import Any

BLOCK = re.compile(r"^```python\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def run(file: str) -> bool:
    """Run the blocks of a file; return whether there were any, and all was right."""
    text = Path(file).read_text(encoding="utf-8")
    namespace: dict[str, Any] = {"__name__": "__main__"}
    runner = doctest.DocTestRunner(
        optionflags=doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS
    )
    blocks = list(BLOCK.finditer(text))
    for block in blocks:
        code = block[1]
        line = text.count("\n", 0, block.start(1))
        if ">>> " in code:
            test = doctest.DocTestParser().get_doctest(
                code, namespace, file, file, line
            )
            runner.run(test, clear_globs=False)
            namespace = test.globs
        else:
            # Empty lines in front, so that a traceback names the line of the file.
            exec(compile("\n" * line + code, file, "exec"), namespace)
    print(f"{file}: ran {len(blocks)} blocks of Python code")
    return bool(blocks) and not runner.failures


if __name__ == "__main__":
    right = list(map(run, sys.argv[1:]))
    sys.exit(not all(right))
