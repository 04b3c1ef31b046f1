#!/usr/bin/env python3
"""Checks the structure of the crates: no files that depend on each other in a cycle, and a core of limited size.

A file depends on the files that its `use` items and its paths lead to: paths from `crate`, `super` or `self`, and those from
a child of the module. Unit tests, `mod` items and imports for documentation do not count. A `pub use` of an item of a child
is an alias: a file that uses the alias depends on the child. The module itself depends on the child only if it uses the name.

Ends with 1 if a crate has a cycle or the core exceeds a limit.
"""

import argparse
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CORE = "wgpu-optim"
CRATES = [CORE, "wgpu-optim-burn", "wgpu-optim-cache", "wgpu-optim-cli", "wgpu-optim-web", "wgpu-optim-train", "wgpu-optim-lab"]
FILE_LINES, CODE_LINES, SHADER_LINES = 600, 10500, 4000

SKIPPED = re.compile(r"""//[^\n]*|/\*|\b[bc]?r(\#*)".*?"\1|"(?:\\.|[^"\\])*"|'(?:\\[^\n]+?|[^\\'\n])'""", re.S)
ATTRIBUTES = r"((?:#\[[^\]]*\]\s*)*)"
MOD = re.compile(ATTRIBUTES + r"(?:\bpub(?:\([^)]*\))?\s+)?\bmod\s+(\w+)\s*([;{])")
USE = re.compile(ATTRIBUTES + r"(\bpub(?:\([^)]*\))?\s+)?\buse\s+([\w:{*][^;]*);")
PATH = re.compile(r"(?<![\w:.'#])(?<!\(in )[a-z_]\w*(?:\s*::\s*\w+)+")
IS_TEST = re.compile(r"#\[cfg\((all\()?\s*test\b")
ROOTS = ("crate", "super", "self")


def blank(text):
    """Spaces of the same length, with the same line breaks."""
    return re.sub(r"[^\n]", " ", text)


def strip(text):
    """The text without comments, and without comments, strings and characters. Both keep all positions."""
    code, bare, at = "", "", 0
    while found := SKIPPED.search(text, at):
        start, end = found.span()
        depth = int(found[0] == "/*")
        while depth and (edge := re.compile(r"/\*|\*/").search(text, end)):  # block comments nest
            end, depth = edge.end(), depth + (1 if edge[0] == "/*" else -1)
        code += text[at:start] + (blank(text[start:end]) if found[0].startswith("/") else text[start:end])
        bare += text[at:start] + blank(text[start:end])
        at = end
    return code + text[at:], bare + text[at:]


def block_end(bare, start):
    """The end of the block whose brace is at `start`."""
    depth = 0
    for brace in re.compile(r"[{}]").finditer(bare, start):
        depth += 1 if brace[0] == "{" else -1
        if depth == 0:
            return brace.end()
    return len(bare)


def imports(tree, at, prefix=()):
    """Path, name and position of every import in a `use` tree. Globs have the name `*`."""
    depth, start = 0, 0
    for i, char in enumerate(tree + ","):
        depth += (char == "{") - (char == "}")
        if char != "," or depth > 0:
            continue
        head, brace, rest = tree[start:i].partition("{")
        path = prefix + tuple(re.findall(r"\w+(?=\s*::)", head))
        last = re.search(r"(\w+|\*)(?:\s+as\s+(\w+))?\s*$", head)
        if brace:
            yield from imports(rest[: rest.rindex("}")], at + start + len(head) + 1, path)
        elif last:
            path = path if last[1] in ("self", "*") else (*path, last[1])
            yield path, "*" if last[1] == "*" else last[2] or path[-1], at + start + last.start()
        start = i + 1


class File:
    """A file: its text without comments (`code`), strings (`bare`), unit tests and imports (`body`), and its modules."""

    def __init__(self, path, module):
        self.path = path
        self.code, self.bare = strip(path.read_text(encoding="utf-8"))
        for found in MOD.finditer(self.bare):
            if IS_TEST.search(found[1]):
                start, end = found.start(), found.end()
                end = end if found[3] == ";" else block_end(found.string, end - 1)
                self.code, self.bare = (t[:start] + blank(t[start:end]) + t[end:] for t in (self.code, self.bare))
        self.body = USE.sub(lambda found: blank(found[0]), self.bare)
        self.blocks = [(0, len(self.bare), module)]  # outer ones first

    def __str__(self):
        return str(self.path.relative_to(ROOT))

    def module_at(self, at):
        return [module for start, end, module in self.blocks if start <= at < end][-1]

    def line(self, at):
        return self.bare.count("\n", 0, at) + 1


class Crate:
    """The files of a crate, and the lines by which one depends on another."""

    def __init__(self, root):
        self.files, self.modules, self.aliases, self.missing = [], {}, {}, []
        self.add(root, (), root.parent)
        imported = [(file, list(self.imports_of(file))) for file in self.files]
        self.edges = {file: {} for file in self.files}
        for file, found in imported:
            for path, at in [(path, at) for path, _, at in found] + list(self.paths_of(file, found)):
                if (target := self.file_of(path)) is not file:
                    self.edges[file].setdefault(target, set()).add(file.line(at))

    def add(self, path, module, folder):
        """A file, and those of its `mod` items."""
        file = self.modules[module] = File(path, module)
        self.files.append(file)
        for found in MOD.finditer(file.bare):
            inner = (*file.module_at(found.start()), found[2])
            if found[3] == "{":
                self.modules[inner] = file
                file.blocks.append((found.end(), block_end(file.bare, found.end() - 1), inner))
                continue
            below = folder.joinpath(*inner[len(module) :])
            given = re.search(r'path\s*=\s*"([^"]*)"', file.code[found.start(1) : found.end(1)])
            named = [path.parent / given[1]] if given else [below.with_suffix(".rs"), below / "mod.rs"]
            child = next((child.resolve() for child in named if child.is_file()), None)
            if child is None:
                self.missing.append(f"{file}:{file.line(found.start(2))}: module `{found[2]}` has no file")
            else:
                self.add(child, inner, child.parent if given else below)

    def imports_of(self, file):
        """Path, name and position of the imports from this crate. Those that only re-export a child are aliases instead."""
        for found in USE.finditer(file.bare):
            for path, name, at in imports(found[3], found.start(3)):
                module = file.module_at(at)
                path = self.absolute(path, module)
                if path is None or "cfg(doc)" in found[1]:
                    continue
                if found[2] and name != "*" and path[: len(module)] == module and len(path) > len(module) + 1:
                    self.aliases[module, name] = path
                    if not re.search(rf"(?<![\w.])(?<!::){name}\b", file.body):
                        continue
                yield path, name, at

    def paths_of(self, file, imported):
        """The paths in the code of a file that lead into this crate, with their positions."""
        names = {(file.module_at(at), name): path for path, name, at in imported}
        for found in PATH.finditer(file.body):
            path, module = tuple(re.findall(r"\w+", found[0])), file.module_at(found.start())
            target = names[module, path[0]] + path[1:] if (module, path[0]) in names else self.absolute(path, module)
            if target is not None:
                yield target, found.start()

    def absolute(self, path, module):
        """A path as seen from the root of the crate, or None if it leads to another crate."""
        if path and path[0] not in ROOTS:
            return module + path if (*module, path[0]) in self.modules else None
        while path and path[0] in ROOTS:
            module = {"crate": (), "super": module[:-1], "self": module}[path[0]]
            path = path[1:]
        return module + path

    def file_of(self, path):
        """The file of the deepest module on a path. Aliases are followed."""
        module = ()
        for i, name in enumerate(path):
            if (module, name) in self.aliases and (*module, name) not in self.modules:
                return self.file_of(self.aliases[module, name] + path[i + 1 :])
            if (*module, name) not in self.modules:
                break
            module = (*module, name)
        return self.modules[module]

    def cycles(self):
        """The sets of files that all depend on each other."""
        reached = {}
        for file in self.files:
            reached[file], todo = set(), [file]
            while todo:
                fresh = self.edges[todo.pop()].keys() - reached[file]
                reached[file] |= fresh
                todo += fresh
        return {frozenset(b for b in reached[a] if a in reached[b]) for a in self.files if a in reached[a]}


def check_cycles(name):
    """Prints a summary of a crate and the cycles in it. Returns the number of errors."""
    source = ROOT / ("src" if name == CORE else f"crates/{name}/src")
    crate = Crate(next(root for root in (source / "lib.rs", source / "main.rs") if root.is_file()))
    cycles = crate.cycles()
    print(f"{name}: files {len(crate.files)}, dependencies {sum(map(len, crate.edges.values()))}, cycles {len(cycles)}")
    for missing in crate.missing:
        print(f"  error: {missing}")
    for cycle in sorted(cycles, key=len):
        print(f"  error: {len(cycle)} files depend on each other; remove dependencies until no cycle is left:")
        for file in sorted(cycle, key=str):
            for target in sorted(cycle & crate.edges[file].keys(), key=str):
                print(f"    {file}:{','.join(map(str, sorted(crate.edges[file][target])))} uses {target}")
    return len(cycles) + len(crate.missing)


def check_limits():
    """Prints the size of the core. Returns the number of limits that it exceeds."""
    lines = lambda path: len(path.read_text(encoding="utf-8").splitlines())
    # Each optimizer has files of its own, which do not make the core larger.
    shared = lambda path: path.stem in ("mod", "kind") or path.parent.name not in ("base", "correction", "policy")
    files = [file for file in Crate(ROOT / "src/lib.rs").files if shared(file.path)]
    code = sum(bool(line.strip()) for file in files for line in file.code.splitlines())
    shaders = filter(shared, ROOT.glob("shaders/**/*.wgsl"))
    sizes = [(str(path.relative_to(ROOT)), lines(path), FILE_LINES) for path in sorted(ROOT.glob("src/**/*.rs"))]
    longest = max(sizes, key=lambda size: size[1])
    sizes = [size for size in sizes if size[1] > FILE_LINES] or [longest]
    sizes.append(("lines of code in src/, without optimizers, tests, comments and blank lines", code, CODE_LINES))
    sizes.append(("lines in shaders/, without optimizers", sum(map(lines, shaders)), SHADER_LINES))
    for what, size, most in sizes:
        print(f"{'  error: ' if size > most else ''}{what}: {size}, at most {most}")
    return sum(size > most for _, size, most in sizes)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("crates", metavar="CRATE", nargs="*", help=f"crates to check (default: {', '.join(CRATES)})")
    parser.add_argument("--limits", action="store_true", help=f"check the size of {CORE} too")
    arguments = parser.parse_args()
    if unknown := [name for name in arguments.crates if name not in CRATES]:
        parser.error(f"unknown crate `{unknown[0]}`; use {', '.join(CRATES)}")
    errors = sum([check_cycles(name) for name in arguments.crates or CRATES])
    errors += check_limits() if arguments.limits else 0
    sys.exit(1 if errors else 0)


if __name__ == "__main__":
    main()
