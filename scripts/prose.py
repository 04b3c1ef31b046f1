#!/usr/bin/env python3
"""Checks the prose that readers see: pages, and comments in the documentation.

Searches for patterns that read like a translation, or that have a plainer form, and for links to files and headings that do not exist. A line
that must keep a pattern ends with a reason: `<!-- prose: reason -->` in Markdown, `// prose: reason` in code. Also checks that the README
stays short.

    scripts/prose.py             every file
    scripts/prose.py FILE...     these files

Ends with 1 if something was found.
"""

import argparse
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
README_LINES, README_WORDS = 150, 1300

UNITS = r"(?:bytes?|words?|bits?|ns|ms|seconds?|operations?|dispatch(?:es)?|MiB|KiB|kB|MB|submits?|rounds?|vectors?|rows?)"
THINGS = r"(?:parameter|coordinate|tensor|page|chunk|row|step|second|matrix|candidate|group|workgroup|kernel|lane|pixel|invocation)"

# What to search for, and what to write instead.
PATTERNS = [
    (rf"\b{UNITS} an? {THINGS}\b", "per: `4 bytes per parameter`"),
    (rf"\b(?:one|two|three|\d+) (?!is\b|for\b|where\b)(?:\w+ )?an? {THINGS}\b", "per: `one per row`"),
    (r"\bbehind the\b", "after the"),
    (r"(?<!ere )\b(?:is|are|was|were) no (?!longer\b|more\b|less\b|smaller\b|larger\b|other\b|need\b|way\b|such\b)\w+", "is not a …, or without"),
    (r"(?:^|\. |\*\* |/// |//! )Of (?:a|an|the|these|those|each|what)\b", "subject first: `For matrix bases, the momentum …`"),
    (r"(?:^|\. |/// |//! )What (?!is wrong|to |if |happens|was tested|do |does |are |is it |makes )\w+ (?:is|are|has|have|was|were|holds?)\b[^?]*$", "name the subject"),
    (r"\bas (?:\w+ ){1,3}(?:has|have) (?:it|them)\b", "name the thing"),
    (r"\b(?:so|as) (?:it|they) (?:does|do)\b(?! not\b)(?=[,.;])", "name the thing"),
    (r"\b(?:anew|thereby|likewise|whichever|whence|thereof|hereby)\b", "again, also, any"),
    (r"\b(?:besides|beside)\b", "also, next to, in addition to"),
    (r"\bmend(?:s|ed|ing)?\b", "fix"),
    (r"\bof (?:theirs|yours|ours|its own's)\b", "your, our"),
    (r"\b\w*(?:colour|centre|behaviour|neighbour|favour|honour|catalogue|grey|analyse|optimis(?!ti)|orthogonalis|normalis|initialis|recognis|organis|summaris|realis|synchronis)\w*", "American spelling"),
    (r"\ball the same\b", "still, anyway"),
    (r"\b(?:the more so|as it were|so to speak)\b", "leave it out"),
    (r"\bmay well\b|\bmight well\b", "may"),
    (r"\bbut for\b", "except"),
    (r"\bthere it\b", "name the thing"),
]


def tracked():
    names = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "*.md", "*.rs", "*.d.ts", "*.html"], cwd=ROOT, check=True, capture_output=True, text=True
    )
    return [ROOT / name for name in names.stdout.splitlines() if "node_modules" not in name]


def prose(path):
    """The lines that readers see, with their numbers."""
    lines = path.read_text(encoding="utf-8").splitlines()
    if path.suffix == ".rs":
        documented = "/tests/" not in f"/{path.relative_to(ROOT)}" and "/benches/" not in f"/{path.relative_to(ROOT)}"
        for number, line in enumerate(lines, 1):
            if documented and re.match(r"\s*//[/!]", line):
                yield number, line
    elif path.suffix == ".md":
        fenced = False
        for number, line in enumerate(lines, 1):
            if line.strip().startswith("```"):
                fenced = not fenced
            elif not fenced:
                yield number, line
    else:
        yield from enumerate(lines, 1)


def check(path):
    found = 0
    for number, line in prose(path):
        if "prose: " in line:
            continue
        text = re.sub(r"`[^`]*`|https?://\S+|\]\([^)]*\)", lambda span: " " * len(span[0]), line)
        for pattern, advice in PATTERNS:
            for hit in re.finditer(pattern, text):
                print(f"{path.relative_to(ROOT)}:{number}: `{hit[0].strip()}`: {advice}")
                found += 1
    return found


def anchors(path):
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", path.read_text(encoding="utf-8"), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def check_links(path):
    found = 0
    for number, line in prose(path):
        for target in re.findall(r"\]\(([^)\s]+)\)", line):
            name, _, anchor = target.partition("#")
            if re.match(r"\w+:", target) or path.suffix != ".md":
                continue
            file = (path.parent / name) if name else path
            if not file.exists() or (anchor and file.suffix == ".md" and anchor not in anchors(file)):
                print(f"{path.relative_to(ROOT)}:{number}: `{target}`: there is no such file or heading")
                found += 1
    return found


def check_length():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    lines, words = len(text.splitlines()), len(text.split())
    if lines <= README_LINES and words <= README_WORDS:
        return 0
    print(f"README.md: {lines} lines and {words} words, at most {README_LINES} and {README_WORDS}")
    return 1


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("files", nargs="*", type=Path)
    files = [path.resolve() for path in arguments.parse_args().files] or tracked()
    found = sum(check(path) + check_links(path) for path in files) + check_length()
    if found:
        print(f"{found} places to rewrite", file=sys.stderr)
    sys.exit(found > 0)


if __name__ == "__main__":
    main()
