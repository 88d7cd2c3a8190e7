//! The engines that run guests, and the key by which code compiled for them is kept.

use std::fmt::Write as _;
use std::hash::{Hash as _, Hasher};

use sha2::{Digest as _, Sha256};
use wasmtime::{Config, Engine, WasmBacktraceDetails, WasmFeatures};

const MAX_WASM_STACK: usize = 512 << 10;
/// Leaves half to host functions: a guest's overflow is a trap, the host's would end the process.
const FIBER_STACK: usize = 1 << 20;
/// The initial data beyond which copying it for each start costs more than two memory mappings.
const LARGE_DATA: usize = 1 << 20;
/// The pieces of data beyond which the code that copies them, one by one, costs more: Go's programs have 30,000, and take
/// fifteen times as long to compile with it.
const MANY_PIECES: usize = 1_000;

/// A program's initial data and that of all it contains.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Data {
    /// Its size.
    pub(crate) bytes: usize,
    /// The segments it is in.
    pub(crate) pieces: usize,
}

/// How a program's initial memory comes about: part of what code is compiled for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Layout {
    /// It is copied at each start: fewest memory mappings, right for little data.
    Copied,
    /// It is mapped from the compiled file, copy-on-write: right for much data.
    Mapped,
}

impl Layout {
    pub(crate) const ALL: [Self; 2] = [Self::Copied, Self::Mapped];

    /// The layout for a program with this initial data.
    pub(crate) fn for_data(data: Data) -> Self {
        if data.bytes > LARGE_DATA || data.pieces > MANY_PIECES { Self::Mapped } else { Self::Copied }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Copied => "copied",
            Self::Mapped => "mapped",
        }
    }

    pub(crate) fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|layout| layout.name() == name)
    }
}

/// An engine for programs of this layout; the same settings compile the code and run it.
pub(crate) fn engine(layout: Layout) -> wasmtime::Result<Engine> {
    let mut config = Config::new();
    config
        .epoch_interruption(true)
        .max_wasm_stack(MAX_WASM_STACK)
        .async_stack_size(FIBER_STACK)
        .memory_init_cow(layout == Layout::Mapped)
        .wasm_backtrace_details(WasmBacktraceDetails::Disable)
        // No limiter is asked when a shared memory grows.
        .wasm_features(WasmFeatures::THREADS, false);
    Engine::new(&config)
}

/// Names everything that code compiled for this engine depends on: wasmtime's full version, the machine's instruction
/// set, the engine's settings.
pub(crate) fn compatibility(engine: &Engine) -> String {
    let mut hasher = StableHasher(Sha256::new());
    engine.precompile_compatibility_hash().hash(&mut hasher);
    hexadecimal(&hasher.0.finalize())
}

/// The bytes as lower-case hexadecimal digits.
pub(crate) fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Unlike the standard library's hashers, gives the same in every build.
struct StableHasher(Sha256);

impl Hasher for StableHasher {
    fn write(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    fn finish(&self) -> u64 {
        let digest = self.0.clone().finalize();
        digest.iter().take(8).fold(0, |number, byte| number << 8 | u64::from(*byte))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_is_stable_and_tells_layouts_apart() {
        let key = |layout| compatibility(&engine(layout).unwrap());
        assert_eq!(key(Layout::Copied), key(Layout::Copied));
        assert_ne!(key(Layout::Copied), key(Layout::Mapped));
        assert_eq!(key(Layout::Copied).len(), 64);
    }

    #[test]
    fn much_data_and_data_in_many_pieces_is_mapped() {
        let layout = |bytes, pieces| Layout::for_data(Data { bytes, pieces });
        assert_eq!(layout(0, 0), Layout::Copied);
        assert_eq!(layout(LARGE_DATA, MANY_PIECES), Layout::Copied);
        assert_eq!(layout(LARGE_DATA + 1, 1), Layout::Mapped);
        assert_eq!(layout(1, MANY_PIECES + 1), Layout::Mapped);
    }

    #[test]
    fn layouts_are_read_as_they_are_written() {
        for layout in Layout::ALL {
            assert_eq!(Layout::parse(layout.name()), Some(layout));
        }
        assert_eq!(Layout::parse("other"), None);
    }
}
