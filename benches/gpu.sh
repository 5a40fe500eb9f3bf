#!/usr/bin/env bash
# Verifies and measures this program on a GPU machine, beside PyTorch, in one command:
#
#     benches/gpu.sh [ROUNDS] [BATCH ...]        default: 3 rounds, batches 128 and 1024
#
# Needs an NVIDIA driver and cuBLAS; cargo and nvcc, or BIN, a binary built elsewhere; PyTorch where PYTHON (default
# python3) has it. Needs no network, changes no setting of the card and installs nothing. Everything is kept in
# benches/results/DATE-CARD/; the last thing printed is the table of ratios. PRECISIONS (default "f32 tf32 bf16 f16")
# and STEPS (default: as many as fit in 12 seconds) make it shorter.
set -u -o pipefail
start=$PWD
bin=${BIN:-}
[[ -z $bin || $bin == /* ]] || bin=$start/$bin
cd "$(dirname "$0")/.." || exit 1
rounds=${1:-3}
[[ $rounds =~ ^[1-9][0-9]*$ ]] || { echo "gpu.sh: $rounds is no number of rounds"; exit 2; }
shift $(($# > 0 ? 1 : 0))
batches=("$@")
((${#batches[@]})) || batches=(128 1024)
read -ra precisions <<<"${PRECISIONS:-f32 tf32 bf16 f16}"
steps=()
[[ -z ${STEPS:-} ]] || steps=(--steps "$STEPS")
python=${PYTHON:-python3}

if [[ -z $bin ]]; then
    command -v cargo >/dev/null || { echo "gpu.sh: there is no cargo here: name a binary built elsewhere in BIN"; exit 2; }
    cargo build --release || exit 1
    bin=target/release/alexnet-mp
fi
[[ -x $bin ]] || { echo "gpu.sh: BIN: $bin is no program"; exit 2; }

# PyTorch's wheels bring a cuBLAS that the loader does not find by itself; where there is no other, ours uses it too.
cublas=$("$python" - <<'PY' 2>/dev/null
import ctypes, glob, os, site, sys
for name in ("libcublas.so", "libcublas.so.13", "libcublas.so.12"):
    try:
        ctypes.CDLL(name)
        sys.exit()
    except OSError:
        pass
parents = [*site.getsitepackages(), site.getusersitepackages()]
folders = [os.path.join(parent, "nvidia", part, "lib") for parent in parents for part in ("cu13", "cublas")]
print(":".join(folder for folder in folders if glob.glob(os.path.join(folder, "libcublas.so.*"))))
PY
)
ours=("$bin")
[[ -z $cublas ]] || ours=(env LD_LIBRARY_PATH="${LD_LIBRARY_PATH:+$LD_LIBRARY_PATH:}$cublas" "$bin")
# At PyTorch's learning rate: thousands of steps on one batch of noise must not diverge.
bench=("${ours[@]}" bench --set train.learning_rate=0.001)

query() { nvidia-smi --query-gpu="$1" --format=csv,noheader 2>/dev/null; }
# As the program sees them: CUDA_VISIBLE_DEVICES hides and orders GPUs, of which nvidia-smi knows nothing.
gpus=$("${ours[@]}" devices --json 2>/dev/null | grep -c '"capability":')
card=$("${ours[@]}" devices --json 2>/dev/null | sed -n 's/^ *"name": "\(.*\)",*$/\1/p' | head -n 1 | tr -cs 'A-Za-z0-9\n' '-' | sed 's/-*$//')
out=benches/results/$(date -u +%Y-%m-%dT%H%M%SZ)-${card:-unnamed-card}
mkdir -p "$out" || exit 1
commit=$(git rev-parse HEAD 2>/dev/null || echo unknown)
git diff --quiet HEAD 2>/dev/null || commit+=" (modified, or no git here)"

# run NAME COMMAND...: keeps a command's output as NAME and its messages as NAME.log; shows both where it fails.
failures=0
run() {
    local name=$1 code
    shift
    echo "== $*"
    "$@" </dev/null >"$out/$name" 2>"$out/$name.log"
    code=$?
    if ((code != 0)); then
        failures=$((failures + 1))
        echo "gpu.sh: $name ended with code $code:"
        tail -n 5 "$out/$name" "$out/$name.log"
    fi
    return "$code"
}

torch=$("$python" -c 'import torch; print(torch.__version__, "CUDA", torch.version.cuda)' 2>/dev/null)
{
    date -u +"date: %Y-%m-%d %H:%M:%S UTC"
    echo "commit: $commit"
    echo "program: $("${ours[@]}" --version)"
    echo "cards: $(query name,driver_version,memory.total,clocks.max.sm,clocks.max.mem,power.limit | tr '\n' ';')"
    echo "kernel: $(uname -srm)"
    echo "nvcc: $(nvcc --version 2>/dev/null | grep release)"
    echo "torch: ${torch:-none}"
    echo "cuBLAS: ${cublas:-found without help, or not at all}"
    echo "CUDA_VISIBLE_DEVICES: ${CUDA_VISIBLE_DEVICES-not set}"
} | tee "$out/machine.txt"
[[ -n $torch ]] || echo "gpu.sh: $python has no PyTorch: measuring without the comparison"
run devices.txt "${ours[@]}" devices && cat "$out/devices.txt"

ways=(0 0,0)
((gpus > 1)) && ways=(0 0,1)
wgmma=$("${ours[@]}" devices --json 2>/dev/null | grep -c '"capability": "9.0"')

# ways_of PRECISION: how it is measured, a line each: GPUs, the name in files, and whether products are by wgmma, which
# compute capability 9.0 has for 16 bits.
ways_of() {
    local way
    for way in "${ways[@]}"; do echo "$way gpus-${way/,/-} 0"; done
    case $1 in bf16 | f16) ((wgmma == 0)) || echo "0 gpus-0-wgmma 1" ;; esac
}
for precision in "${precisions[@]}"; do
    while read -r list name by_wgmma; do
        run "verify_${precision}_$name.txt" \
            env ALEXNET_MP_WGMMA="$by_wgmma" "${ours[@]}" verify --gpus "$list" --precision "$precision"
    done < <(ways_of "$precision")
done
# In turn, so that a card that warms up or is shared does so under all.
for ((round = 1; round <= rounds; round++)); do
    for batch in "${batches[@]}"; do
        for precision in "${precisions[@]}"; do
            while read -r list name by_wgmma; do
                run "bench_${precision}_${batch}_${name}_${round}.json" env ALEXNET_MP_WGMMA="$by_wgmma" \
                    "${bench[@]}" --gpus "$list" --batch "$batch" --precision "$precision" "${steps[@]}" --json
            done < <(ways_of "$precision")
        done
        [[ -z $torch ]] || run "pytorch_${batch}_${round}.jsonl" "$python" benches/pytorch_gpu.py --batch "$batch" \
            "${steps[@]}"
    done
    query temperature.gpu,clocks.sm,clocks.mem,power.draw,utilization.gpu >>"$out/machine.txt"
done
# What graphs bring, and where the time goes.
for precision in "${precisions[@]}"; do
    for batch in "${batches[@]}"; do
        run "no-graph_${precision}_${batch}.json" \
            "${bench[@]}" --gpus "${ways[0]}" --batch "$batch" --precision "$precision" "${steps[@]}" --no-graph --json
        while read -r list name by_wgmma; do
            [[ $list == 0 ]] || continue
            run "roofline_${precision}_${batch}_$name.txt" env ALEXNET_MP_WGMMA="$by_wgmma" \
                "${bench[@]}" --gpus "$list" --batch "$batch" --precision "$precision" "${steps[@]}" --roofline
        done < <(ways_of "$precision")
    done
done
"$python" benches/ratios.py "$out" | tee "$out/ratios.txt" || echo "gpu.sh: no table of ratios: $python did not run"
echo "gpu.sh: $failures failure(s); everything is in $out"
exit $((failures > 0))
