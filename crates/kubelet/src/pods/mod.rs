mod directory;

pub use directory::{PodDirectory, PodView};
