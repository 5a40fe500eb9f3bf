"""The table of ratios that `benches/gpu.sh` ends with, from the files of one of its folders.

    python3 benches/ratios.py benches/results/FOLDER

Medians over the rounds. PyTorch's side is the best of its variants of the same precision (f16 is compared with bf16).
"""

import json
import statistics
import sys
from collections import defaultdict
from pathlib import Path

# What is wanted, against the best of PyTorch's variants.
WANTED = {"f32": 1.2, "tf32": 1.2, "bf16": 1.5, "f16": 1.5}


def read(folder):
    """Images a second by what was measured: ours by (precision, batch, GPUs), PyTorch's by (variant, batch)."""
    ours, theirs, alone = defaultdict(list), defaultdict(list), {}
    for path in sorted(folder.glob("*.json*")):
        words = path.name.split(".")[0].split("_")
        try:
            found = [json.loads(path.read_text())] if path.suffix == ".json" else [
                json.loads(line) for line in path.read_text().splitlines() if line.startswith("{")]
        except ValueError:
            print(f"{path.name}: no result", file=sys.stderr)
            continue
        for one in found:
            if words[0] == "bench":
                # A card without tensor cores falls back to f32, and says so.
                if one["precision"] == words[1]:
                    ours[one["precision"], one["batch"], words[3]].append(one["images_per_second"])
            elif words[0] == "no-graph":
                alone[one["precision"], one["batch"]] = one["images_per_second"]
            elif words[0] == "pytorch" and "error" not in one:
                theirs[one["variant"], one["batch"]].append(one["images_per_second"])
            elif words[0] == "pytorch":
                print(f"PyTorch, {one['variant']}: {one['error']}", file=sys.stderr)
    median = lambda all: {key: statistics.median(values) for key, values in all.items()}
    return median(ours), median(theirs), alone


def main():
    if len(sys.argv) != 2 or not Path(sys.argv[1]).is_dir():
        sys.exit(__doc__)
    ours, theirs, alone = read(Path(sys.argv[1]))
    if not ours:
        sys.exit("ratios.py: no measurement of this program in that folder")
    rows = [("precision", "batch", "GPUs", "images/s", "graphs bring", "PyTorch's best", "images/s", "ratio", "wanted")]
    for (precision, batch, way), rate in sorted(ours.items(), key=lambda item: (item[0][1], item[0][0], item[0][2])):
        other = "bf16" if precision == "f16" else precision
        rivals = [(r, v) for (v, b), r in theirs.items() if b == batch and v.split("+")[0] == other]
        best, variant = max(rivals, default=(None, "not measured"))
        one_by_one = alone.get((precision, batch)) if way == "gpus-0" else None
        rows.append((precision, str(batch), way.removeprefix("gpus-").replace("-", ","), f"{rate:,.0f}",
                     f"{rate / one_by_one:.2f} x" if one_by_one else "", variant,
                     f"{best:,.0f}" if best else "", f"{rate / best:.2f} x" if best else "",
                     f"{WANTED[precision]} x" if way == "gpus-0" else ""))
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip())


if __name__ == "__main__":
    main()
