"""Code blocks of docs/*.md and README.md. `python tests/support/doc_blocks.py OUT` writes the C++ blocks as one file each."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import NamedTuple, Optional

REPOSITORY = Path(__file__).resolve().parents[2]
PAGES = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").glob("*.md"))]
MARK = re.compile(r"<!-- (run|not run): (.+) -->")

# What a block that is no whole program stands in.
CPP_FRAME = """#include <torch/torch.h>
#include "hydrofoil/engine/torch_nn.h"
void block(std::vector<std::pair<at::Tensor, at::Tensor>> batches) {{
{code}}}
"""


class Block(NamedTuple):
    page: str
    line: int
    language: str
    code: str
    ranks: int  # of a Python block
    not_run: Optional[str]  # the reason

    @property
    def name(self) -> str:
        return f"{self.page}:{self.line}"


def blocks_of(page: Path) -> list[Block]:
    """Every fenced block; a comment on the line before may say `run: 2 ranks` or `not run: why`."""
    lines = page.read_text().splitlines()
    blocks, start = [], None
    for number, line in enumerate(lines):
        if not line.startswith("```"):
            continue
        if start is None:
            start = number
            continue
        mark = MARK.fullmatch(lines[start - 1].strip()) if start else None
        ranks = int(mark[2].split()[0]) if mark and mark[1] == "run" else 1
        blocks.append(Block(page.name, start + 1, lines[start][3:].strip(), "\n".join(lines[start + 1 : number]) + "\n", ranks,
                            mark[2] if mark and mark[1] == "not run" else None))
        start = None
    if start is not None:
        raise ValueError(f"{page}:{start + 1}: this block has no end")
    return blocks


def all_blocks() -> list[Block]:
    return [block for page in PAGES for block in blocks_of(page)]


def cpp_source(block: Block) -> str:
    """A file that compiles if the block is right; `#line` makes the compiler name the page."""
    position = f'#line {block.line + 1} "{block.page}"\n'
    if "int main(" in block.code:
        return position + block.code
    return CPP_FRAME.format(code=position + block.code)


def write_cpp(folder: Path) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for block in all_blocks():
        if block.language != "cpp":
            continue
        path = folder / f"{block.page.removesuffix('.md')}_{sum(p.name.startswith(block.page.removesuffix('.md')) for p in written)}.cpp"
        text = cpp_source(block)
        if not path.exists() or path.read_text() != text:
            path.write_text(text)
        written.append(path)
    return written


if __name__ == "__main__":
    print(";".join(map(str, write_cpp(Path(sys.argv[1])))))
