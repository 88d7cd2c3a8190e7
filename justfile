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
