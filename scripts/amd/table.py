"""A table of what RADV says about each kernel (RADV_DEBUG=shaders,shaderstats), for scripts/amd-stats.sh: table.py FAMILY <output.

The last column is for products of matrices: the share of multiply-adds among the vector operations of the inner loop."""

import re
import sys

print(f"\n**{sys.argv[1]}**, {{}}\n".format(next(line.strip() for line in sys.stdin if "Null hardware" in line)))
print("| kernel | vector registers | waves per SIMD | spilled | scratch bytes | workgroup bytes | code bytes | multiply-adds |")
print("|---|---|---|---|---|---|---|---|")
found, blocks = {}, [[]]
for line in sys.stdin:
    if line.startswith("disasm:"):
        blocks = [[]]
    if re.match(r"BB\d+:$", line.strip()):
        blocks.append([])
    # Two operations that are issued at once are one line.
    blocks[-1] += re.findall(r"(?:^\t|:: )(v_\w+)", line.split(";")[0])
    if statistic := re.match(r"([A-Za-z ]+): (\d+)", line):
        found[statistic[1]] = int(statistic[2])
    # Only the last kernel before a row is its own.
    if row := re.match(r" *[\d.]+ ms +(\S+) ", line):
        waves = found.get("Subgroups per SIMD", found.get("Max Waves"))
        spilled = found["Spilled SGPRs"] + found["Spilled VGPRs"]
        sizes = [found[name] for name in ("Scratch size", "LDS size", "Code size")]
        adds, operations = max((sum("fma" in name for name in block), len(block)) for block in blocks)
        share = f"{100 * adds / operations:.0f} %" if adds >= 64 else ""
        print("|", " | ".join(map(str, [f"`{row[1]}`", found["VGPRs"], waves, spilled, *sizes, share])), "|")
