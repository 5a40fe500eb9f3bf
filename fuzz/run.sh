#!/bin/sh
# Runs fuzz targets one after another, each for so many seconds on one core, and says for each how
# many processor minutes it had, how many inputs were tried, what they covered, and what was found.
#   fuzz/run.sh SECONDS [TARGET…]      all targets of fuzz/Cargo.toml where none is named
# What a target has learned stays in fuzz/corpus/TARGET, findings in fuzz/artifacts/TARGET; git
# ignores both. Exit status 1 where something was found.
set -eu
cd "$(dirname "$0")"
seconds=${1:?"usage: fuzz/run.sh SECONDS [TARGET...]"}
shift
export RUSTC_BOOTSTRAP=1
[ $# -gt 0 ] || set -- $(sed -n '/^\[\[bin\]\]/,/^$/s/^name = "\(.*\)"/\1/p' Cargo.toml)
# Targets that need files write them here, in memory where the system has such a folder.
scratch=$(mktemp -d -p "$([ -d /dev/shm ] && echo /dev/shm || echo /tmp)" fuzz-XXXXXX)
trap 'rm -rf "$scratch"' EXIT
# Built first and run without cargo, so that sources may be edited meanwhile.
built=target/$(rustc -vV | sed -n 's/^host: //p')/release
for target; do
    cargo fuzz build --fuzz-dir . "$target" > "$scratch/log" 2>&1 || { cat "$scratch/log"; exit 2; }
done
found=0
for target; do
    mkdir -p "corpus/$target" "artifacts/$target"
    log=$scratch/log
    # An input that takes over 30 s or 2.5 GiB is a finding too: 100 megapixels are 300 MB, and as
    # much again in a decoder, times what the sanitizer adds.
    (
        TMPDIR=$scratch "$built/$target" "corpus/$target" "seeds/$target" \
            -artifact_prefix="artifacts/$target/" -max_total_time="$seconds" -timeout=30 \
            -rss_limit_mb=2560 -max_len=16384 -print_final_stats=1 > "$log" 2>&1
        outcome=$?
        times > "$scratch/times"
        exit $outcome
    ) || found=1
    # The second line: user and system time of what ran in there, as 12m34.5s.
    minutes=$(awk 'NR == 2 { split($1, u, "[ms]"); split($2, s, "[ms]")
        printf "%.1f", u[1] + s[1] + (u[2] + s[2]) / 60 }' "$scratch/times")
    tried=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
    covered=$(sed -n 's/.* cov: \([0-9]*\) .*/\1/p' "$log" | tail -n 1)
    finding=$(sed -n 's/.*Test unit written to //p' "$log" | tail -n 1)
    echo "$(date -u +%FT%TZ) $target: $minutes min, ${tried:-no} inputs, ${covered:-0} edges covered; ${finding:+found }${finding:-nothing found}"
    [ -z "$finding" ] || grep -a -m 3 'panicked at\|ERROR\|SUMMARY' -A 1 "$log" || true
done
exit $found
