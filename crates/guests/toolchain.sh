#!/usr/bin/env bash
# Unpacks into DIR a Rust compiler that has the standard libraries of wasm32-wasip1 and wasm32-wasip2, for machines
# where `rustup target add` is not possible. Leaves DIR/rustc, DIR/wasm-ld and DIR/bin/wasm-component-ld.
#
# The packages are Debian 13's, checked against Debian's own archive key, from the archive this machine's apt already
# uses. Needs no root, installs nothing, and changes nothing outside DIR. A DIR that exists is complete: it is written
# beside and renamed at the end.
set -euo pipefail

usage='usage: toolchain.sh DIR'
suite=trixie
packages=(rustc libstd-rust-dev-wasm32 lld)
component_linker=wasm-component-ld@0.5.31
keyring=/usr/share/keyrings/debian-archive-keyring.gpg

fail() {
    printf 'guest toolchain: %s\n' "$*" >&2
    exit 1
}

say() {
    printf 'guest toolchain: %s (%d s)\n' "$*" "$SECONDS"
}

# apt as if on a machine of its own, with nothing installed and one source.
isolated() {
    local command=$1
    shift
    "$command" -o Dir::State="$apt" -o Dir::State::status="$apt/status" -o Dir::Cache="$apt/cache" \
        -o Dir::Etc="$apt/etc" -o Dir::Etc::sourcelist="$apt/etc/sources.list" -o Dir::Etc::sourceparts=- \
        -o Debug::NoLocking=1 -o APT::Sandbox::User=root -o APT::Update::Error-Mode=any "$@"
}

# Whether the archive at URL $1 is a Debian archive with the suite; its index is loaded afterwards.
archive_has_suite() {
    echo "deb [signed-by=$keyring] $1 $suite main" >"$apt/etc/sources.list"
    isolated apt-get -qq update >>"$work/apt.log" 2>&1
}

load_index() {
    local archive
    mkdir -p "$apt"/{lists/partial,cache/archives/partial} "$apt"/etc/{apt.conf.d,preferences.d,trusted.gpg.d}
    : >"$apt/status" >"$work/apt.log"
    for archive in $(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' | sort -u); do
        archive_has_suite "$archive" && return
    done
    cat "$work/apt.log" >&2
    fail "none of this machine's apt sources has Debian's $suite; use \`rustup target add wasm32-wasip1 wasm32-wasip2\`"
}

# Names the packages and what they load at run time; leaves out what only a native build would need.
closure() {
    isolated apt-cache depends --recurse --no-recommends --no-suggests --no-conflicts --no-breaks --no-replaces \
        --no-enhances "${packages[@]}" | grep '^[a-z]' | sort -u | grep -vE \
        '^(dpkg|perl|debconf|gcc|cpp|binutils|libc6-dev|linux-libc|python|base-|init|sensible|tar$|libcrypt-dev|rpcsvc|libgcc-.*-dev|libstdc.*-dev)'
}

unpack() {
    local package
    mkdir -p "$work/debs" "$work/root"
    mapfile -t wanted < <(closure)
    [ "${#wanted[@]}" -gt 0 ] || fail "the archive does not have ${packages[*]}"
    say "fetching ${#wanted[@]} packages, about 200 MB"
    (cd "$work/debs" && isolated apt-get -qq download "${wanted[@]}")
    say 'unpacking'
    for package in "$work"/debs/*.deb; do
        dpkg -x "$package" "$work/root"
    done
    rm -rf "$work/debs" "$apt"
}

# The unpacked programs need the unpacked libc: each gets a wrapper that starts it by the unpacked loader.
write_wrappers() {
    local loader libraries
    loader=$(cd "$work/root" && find usr -name 'ld-linux*.so.*' -print -quit)
    libraries=$(cd "$work/root" && dirname "$(find usr -name libc.so.6 -print -quit)")
    cat >"$work/rustc" <<WRAPPER
#!/bin/sh
root=\$(dirname "\$(readlink -f "\$0")")/root
exec "\$root/$loader" --library-path "\$root/$libraries:\$root/usr/lib/llvm-19/lib" --argv0 "\$root/usr/bin/rustc" "\$root/usr/bin/rustc" --sysroot "\$root/usr" "\$@"
WRAPPER
    cat >"$work/wasm-ld" <<WRAPPER
#!/bin/sh
[ "\$1" = -flavor ] && shift 2
root=\$(dirname "\$(readlink -f "\$0")")/root
exec "\$root/$loader" --library-path "\$root/$libraries:\$root/usr/lib/llvm-19/lib" "\$root/usr/lib/llvm-19/bin/lld" -flavor wasm "\$@"
WRAPPER
    chmod +x "$work/rustc" "$work/wasm-ld"
    "$work/rustc" --version
}

# The linker of wasm32-wasip2, which Debian does not have.
install_component_linker() {
    say "installing $component_linker"
    # Unoptimised: that takes a minute less, and it links small programs only.
    CARGO_TARGET_DIR=$work/build CARGO_PROFILE_RELEASE_OPT_LEVEL=0 cargo install --quiet --locked --root "$work" "$component_linker"
    rm -rf "$work/build"
}

[ $# -eq 1 ] || fail "$usage"
dir=$1
if [ -e "$dir" ]; then
    say "$dir is complete"
    exit
fi
for program in apt-get apt-cache dpkg cargo; do
    command -v "$program" >/dev/null || fail "$program is not here; use \`rustup target add wasm32-wasip1 wasm32-wasip2\`"
done
[ -e "$keyring" ] || fail "$keyring is not here; install it: apt-get install debian-archive-keyring"

mkdir -p "$(dirname "$dir")"
work=$(mktemp -d "$(cd "$(dirname "$dir")" && pwd)/partial.XXXXXX")
trap 'rm -rf "$work"' EXIT
apt=$work/apt
say "reading the package index of Debian $suite"
load_index
unpack
write_wrappers
install_component_linker
chmod 755 "$work"
mv -T "$work" "$dir" || [ -e "$dir" ] # someone else was quicker
say 'ready'
