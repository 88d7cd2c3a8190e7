//! Pulls an image into a directory and prints where what it holds lies: `coracle-pull DIRECTORY REFERENCE
//! [INSECURE-REGISTRY…]`. The tests kill it; people can look with it what a node would make of an image.

use std::error::Error;

use coracle_lifecycle::{ImageContent, Images as _};
use coracle_oci::{Settings, Store};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(directory), Some(reference)) = (arguments.next(), arguments.next()) else {
        return Err("what is wanted is: DIRECTORY REFERENCE [INSECURE-REGISTRY…]".into());
    };
    if rustls::crypto::ring::default_provider().install_default().is_err() {
        return Err("another provider of cryptography is installed".into());
    }
    let store =
        Store::open(Settings { insecure_registries: arguments.collect(), ..Settings::new(directory) })?;
    let image = store.pull(&reference, &[]).await?.image;
    match &image.content {
        ImageContent::Program(module) => println!("{} {}", image.digest, module.path.display()),
        ImageContent::Files(files) => println!("{} {}", image.digest, files.directory.display()),
    }
    Ok(())
}
