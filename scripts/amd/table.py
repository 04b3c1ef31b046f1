"""A table of what RADV says about each kernel (RADV_DEBUG=shaderstats), for scripts/amd-stats.sh: table.py FAMILY <output."""

import re
import sys

print(f"\n**{sys.argv[1]}**, {{}}\n".format(next(line.strip() for line in sys.stdin if "Null hardware" in line)))
print("| kernel | vector registers | waves per SIMD | spilled | scratch bytes | workgroup bytes | code bytes |")
print("|---|---|---|---|---|---|---|")
found = {}
for line in sys.stdin:
    if statistic := re.match(r"([A-Za-z ]+): (\d+)", line):
        found[statistic[1]] = int(statistic[2])
    # Only the last kernel before a row is its own.
    if row := re.match(r" *[\d.]+ ms +(\S+) ", line):
        waves = found.get("Subgroups per SIMD", found.get("Max Waves"))
        spilled = found["Spilled SGPRs"] + found["Spilled VGPRs"]
        sizes = [found[name] for name in ("Scratch size", "LDS size", "Code size")]
        print("|", " | ".join(map(str, [f"`{row[1]}`", found["VGPRs"], waves, spilled, *sizes])), "|")
