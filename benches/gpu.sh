#!/usr/bin/env bash
# Verifies and measures this program on a GPU machine, beside PyTorch, in one command:
#
#     benches/gpu.sh [ROUNDS] [BATCH ...]        default: 3 rounds, batches 128 and 1024
#
# Needs an NVIDIA driver, cargo and nvcc; PyTorch where PYTHON (default python3) has it. Changes no setting of the card
# and installs nothing. Raw output goes to benches/results/, named by date, commit and card. AMP names another binary.
set -u -o pipefail
cd "$(dirname "$0")/.."
rounds=${1:-3}
shift $(($# > 0 ? 1 : 0))
batches=("$@")
((${#batches[@]})) || batches=(128 1024)
python=${PYTHON:-python3}
amp=${AMP:-target/release/alexnet-mp}

if [[ -z ${AMP:-} ]]; then
    cargo build --release || exit 1
fi
query() { nvidia-smi --query-gpu="$1" --format=csv,noheader 2>/dev/null; }
card=$(query name | head -n 1 | tr -cs 'A-Za-z0-9\n' '-')
commit=$(git rev-parse --short HEAD 2>/dev/null || echo unknown)
git diff --quiet HEAD 2>/dev/null || commit+=-modified
out=benches/results/$(date -u +%Y-%m-%dT%H%M%SZ)_${commit}_${card:-no-card}
mkdir -p "$out"

# run NAME COMMAND...: shows the command's output and keeps it, with its exit code.
failures=0
run() {
    local name=$1 code
    shift
    echo "== $*" | tee -a "$out/$name.txt"
    "$@" 2>&1 | tee -a "$out/$name.txt"
    code=$?
    echo "== exit $code" >>"$out/$name.txt"
    ((code == 0)) || { failures=$((failures + 1)); echo "gpu.sh: $name ended with code $code"; }
}

{
    date -u +"date: %Y-%m-%d %H:%M:%S UTC"
    echo "commit: $commit"
    echo "cards: $(query name,driver_version,memory.total | tr '\n' ';')"
    echo "kernel: $(uname -srm)"
    echo "nvcc: $(nvcc --version 2>/dev/null | grep release)"
    echo "torch: $($python -c 'import torch; print(torch.__version__, torch.version.cuda)' 2>/dev/null || echo none)"
} | tee "$out/machine.txt"

ways=(0 0,0)
(($(query name | wc -l) > 1)) && ways+=(0,1)
run devices "$amp" devices
for way in "${ways[@]}"; do
    run "verify_${way/,/-}" "$amp" verify --gpus "$way"
done
# Interleaved, so that a card that warms up or is shared does so under both.
for ((round = 1; round <= rounds; round++)); do
    for batch in "${batches[@]}"; do
        for way in "${ways[@]}"; do
            run "bench_${batch}_${way/,/-}" "$amp" bench --gpus "$way" --batch "$batch" --json
        done
        if $python -c 'import torch' 2>/dev/null; then
            run "pytorch_${batch}" "$python" benches/pytorch_gpu.py --batch "$batch"
        fi
    done
    query temperature.gpu,clocks.sm,clocks.mem,power.draw,utilization.gpu | tee -a "$out/machine.txt"
done
run layers "$amp" bench --gpus 0 --layers
run inference "$amp" bench --gpus 0 --inference --batch "${batches[0]}" --json
echo "gpu.sh: $failures failure(s); raw output in $out"
exit $((failures > 0))
