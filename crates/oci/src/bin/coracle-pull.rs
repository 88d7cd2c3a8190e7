//! Pulls images, all at once, into a directory: `coracle-pull DIRECTORY INSECURE-REGISTRY REFERENCE…`. It prints where
//! the content of each lies, and at the end how many seconds that took. The tests kill it, the benchmark times it.

use std::error::Error;
use std::time::Instant;

use coracle_lifecycle::{ImageContent, Images as _};
use coracle_oci::{Settings, Store};
use futures::future::try_join_all;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(directory), Some(registry)) = (arguments.next(), arguments.next()) else {
        return Err("what is wanted is: DIRECTORY INSECURE-REGISTRY REFERENCE…".into());
    };
    if rustls::crypto::ring::default_provider().install_default().is_err() {
        return Err("another provider of cryptography is installed".into());
    }
    let store = Store::open(Settings { insecure_registries: vec![registry], ..Settings::new(directory) })?;
    let began = Instant::now();
    let references: Vec<String> = arguments.collect();
    let pulls = references.iter().map(|reference| store.pull(reference, &[]));
    for pulled in try_join_all(pulls).await? {
        match &pulled.image.content {
            ImageContent::Program(module) => println!("{} {}", pulled.image.digest, module.path.display()),
            ImageContent::Files(files) => println!("{} {}", pulled.image.digest, files.directory.display()),
        }
    }
    println!("{}", began.elapsed().as_secs_f64());
    Ok(())
}
