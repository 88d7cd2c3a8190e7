#!/usr/bin/env bash
# Unpacks into DIR a compiler for WebAssembly. `rust` is one that has the standard libraries of wasm32-wasip1 and
# wasm32-wasip2, for machines where `rustup target add` is not possible: DIR/rustc, DIR/wasm-ld and
# DIR/bin/wasm-component-ld. `c` is clang with wasi-libc: DIR/clang and DIR/wasm-ld.
#
# The packages are Debian 13's, checked against Debian's own archive key, from the archive this machine's apt already
# uses. Needs no root, installs nothing, and changes nothing outside DIR. A DIR that exists is complete: it is written
# beside and renamed at the end.
set -euo pipefail

usage='usage: toolchain.sh rust|c DIR'
suite=trixie
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
    fail "none of this machine's apt sources has Debian's $suite; $instead"
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
    say "fetching ${#wanted[@]} packages, about $size"
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
    cat >"$work/clang" <<WRAPPER
#!/bin/sh
self=\$(readlink -f "\$0")
root=\$(dirname "\$self")/root
# It starts itself again for each part of its work, by the name it was called by.
[ "\$1" = -cc1 ] || set -- -no-canonical-prefixes --target=wasm32-wasi --sysroot="\$root/usr" -resource-dir "\$root/usr/lib/llvm-19/lib/clang/19" -fuse-ld="\$root/../wasm-ld" "\$@"
exec "\$root/$loader" --library-path "\$root/$libraries:\$root/usr/lib/llvm-19/lib" --argv0 "\$self" "\$root/usr/lib/llvm-19/bin/clang" "\$@"
WRAPPER
    cat >"$work/wasm-ld" <<WRAPPER
#!/bin/sh
[ "\$1" = -flavor ] && shift 2
root=\$(dirname "\$(readlink -f "\$0")")/root
exec "\$root/$loader" --library-path "\$root/$libraries:\$root/usr/lib/llvm-19/lib" "\$root/usr/lib/llvm-19/bin/lld" -flavor wasm "\$@"
WRAPPER
    chmod +x "$work"/{clang,rustc,wasm-ld}
    [ "$language" = rust ] && rm "$work/clang" || rm "$work/rustc"
    "$work/$compiler" --version
}

# The linker of wasm32-wasip2, which Debian does not have.
install_component_linker() {
    say "installing $component_linker"
    # Unoptimised: that takes a minute less, and it links small programs only.
    CARGO_TARGET_DIR=$work/build CARGO_PROFILE_RELEASE_OPT_LEVEL=0 cargo install --quiet --locked --root "$work" "$component_linker"
    rm -rf "$work/build"
}

[ $# -eq 2 ] || fail "$usage"
language=$1
dir=$2
case $language in
rust)
    compiler=rustc size='200 MB' packages=(rustc libstd-rust-dev-wasm32 lld)
    instead='use `rustup target add wasm32-wasip1 wasm32-wasip2`'
    ;;
c)
    compiler=clang size='150 MB' packages=(clang-19 lld-19 wasi-libc libclang-rt-19-dev-wasm32)
    instead='use the wasi-sdk'
    ;;
*) fail "$usage" ;;
esac
if [ -e "$dir" ]; then
    say "$dir is complete"
    exit
fi
for program in apt-get apt-cache dpkg cargo; do
    command -v "$program" >/dev/null || fail "$program is not here; $instead"
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
[ "$language" = c ] || install_component_linker
chmod 755 "$work"
mv -T "$work" "$dir" || [ -e "$dir" ] # someone else was quicker
say 'ready'
