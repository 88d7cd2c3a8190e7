# Thin names for the commands of the README; see `cargo xtask --help`.

# Shows Coracle at work on a real control plane, until Ctrl-C.
demo *arguments:
    cargo xtask demo {{arguments}}

# Every check and test, as CI runs them.
test:
    cargo xtask test

# Format, lints and licences only.
check:
    cargo xtask check

# How fast pods start, and what they cost.
bench *arguments:
    cargo xtask bench {{arguments}}

# Feeds a reader of images with made-up bytes: crates/oci/fuzz says which there are. Needs cargo-fuzz.
fuzz target seconds="3600":
    mkdir -p crates/oci/fuzz/found/{{target}}
    cd crates/oci && cargo fuzz run -s none {{target}} fuzz/found/{{target}} fuzz/corpus/{{target}} -- \
        -max_total_time={{seconds}} -timeout=10 -rss_limit_mb=1024 -max_len=16384
