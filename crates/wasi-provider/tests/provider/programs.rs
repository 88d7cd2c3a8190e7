//! What becomes of a program before it starts: refused by name, compiled once, kept.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::machine::{self, guest, image, provider, settings};
use coracle_lifecycle::{LocalImage, PrepareError, Provider};
use coracle_wasi_provider::{Settings, WasiProvider};

async fn refusal(provider: &WasiProvider, image: &LocalImage) -> PrepareError {
    provider.prepare(image).await.unwrap_err()
}

#[tokio::test]
async fn what_a_program_is_comes_from_its_content() {
    let folder = tempfile::tempdir().unwrap();
    let provider = provider(folder.path());
    for (image, kind) in [
        (guest(folder.path(), "hello"), "wasip1 module"),
        (machine::component(folder.path(), "hello"), "wasi:cli/command@0.2 component"),
        (guest(folder.path(), "component-exit-code"), "wasi:cli/command@0.2 component"),
    ] {
        assert_eq!(provider.prepare(&image).await.unwrap().0, kind);
    }
}

#[tokio::test]
async fn a_program_that_cannot_run_is_refused_with_the_cause() {
    let folder = tempfile::tempdir().unwrap();
    let provider = provider(folder.path());
    for (name, words) in [
        ("unknown-import", ["unknown import", "`"]),
        ("no-start", ["_start", "exports"]),
        ("component-no-run", ["exports nothing", "wasi:cli/run"]),
        ("component-unknown-import", ["example:nowhere/kettle", "not found"]),
    ] {
        let refused = refusal(&provider, &guest(folder.path(), name)).await;
        assert!(matches!(refused, PrepareError::Unsupported(_)), "{name}: {refused:?}");
        assert!(words.iter().all(|word| refused.to_string().contains(word)), "{name}: {refused}");
    }
    let hello = machine::bytes("hello");
    let truncated = refusal(&provider, &image(folder.path(), "cut", &hello[..hello.len() / 2])).await;
    assert!(matches!(&truncated, PrepareError::Invalid(text) if text.contains("truncated")), "{truncated:?}");
}

/// Sound in its outline, so that only the compiler can tell: the body adds numbers that are not there.
#[tokio::test]
async fn what_the_compiler_refuses_is_told_in_its_words() {
    let folder = tempfile::tempdir().unwrap();
    let provider = provider(folder.path());
    let bytes = wat::parse_str(r#"(module (func (export "_start") (drop (i32.add))))"#).unwrap();
    let refused = refusal(&provider, &image(folder.path(), "unsound", &bytes)).await;
    assert!(matches!(&refused, PrepareError::Invalid(text) if text.contains("type mismatch")), "{refused:?}");
}

#[tokio::test]
async fn a_start_function_of_another_type_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let provider = provider(folder.path());
    let bytes = wat::parse_str(r#"(module (func (export "_start") (param i32)))"#).unwrap();
    let refused = refusal(&provider, &image(folder.path(), "typed", &bytes)).await;
    assert!(matches!(&refused, PrepareError::Unsupported(text) if text.contains("_start")), "{refused:?}");
}

#[tokio::test]
async fn a_program_is_compiled_once_however_many_ask_and_not_again_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let image = guest(folder.path(), "hello");
    let first = provider(folder.path());
    futures::future::try_join_all((0..8).map(|_| first.prepare(&image))).await.unwrap();
    first.prepare(&image).await.unwrap();
    assert_eq!(first.compiled(), 1);
    drop(first);
    let second = provider(folder.path());
    second.prepare(&image).await.unwrap();
    assert_eq!(second.compiled(), 0);
    second.forget(&image.program().unwrap().digest);
    assert_eq!(compiled_files(folder.path()), Vec::<PathBuf>::new());
    second.prepare(&image).await.unwrap();
    assert_eq!(second.compiled(), 1);
}

#[tokio::test]
async fn damaged_compiled_code_is_thrown_away_and_made_again() {
    let folder = tempfile::tempdir().unwrap();
    let image = guest(folder.path(), "hello");
    provider(folder.path()).prepare(&image).await.unwrap();
    let is_code = |file: &PathBuf| file.extension().is_some_and(|extension| extension == "cwasm");
    let file = compiled_files(folder.path()).into_iter().find(is_code).unwrap();
    let whole = fs::read(&file).unwrap();
    let mut changed = whole.clone();
    let middle = changed.len() / 2;
    changed[middle] ^= 1;
    for damaged in [&whole[..whole.len() / 2], b"", &changed] {
        // A file that may be mapped is never changed in place.
        fs::remove_file(&file).unwrap();
        fs::write(&file, damaged).unwrap();
        let provider = provider(folder.path());
        provider.prepare(&image).await.unwrap();
        assert_eq!(provider.compiled(), 1);
        assert_eq!(fs::read(&file).unwrap(), whole);
    }
}

#[tokio::test]
async fn a_file_that_is_not_what_its_digest_says_is_not_compiled() {
    let folder = tempfile::tempdir().unwrap();
    let provider = provider(folder.path());
    let image = guest(folder.path(), "hello");
    fs::write(&image.program().unwrap().path, machine::bytes("spin")).unwrap();
    let refused = refusal(&provider, &image).await;
    assert!(matches!(&refused, PrepareError::Failed(text) if text.contains("digest")), "{refused:?}");
    fs::write(&image.program().unwrap().path, machine::bytes("hello")).unwrap();
    provider.prepare(&image).await.expect("a failure that passed is not remembered");
}

#[tokio::test]
async fn a_compiler_that_takes_too_much_memory_is_ended() {
    let folder = tempfile::tempdir().unwrap();
    let mut settings = settings(folder.path());
    settings.compile_limits.memory = 16 << 20;
    let large = image(folder.path(), "large", &padded(&machine::bytes("hello")));
    ensure_too_expensive(settings, folder.path(), &large, "memory").await;
}

#[tokio::test]
async fn a_compiler_that_takes_too_long_is_ended() {
    let folder = tempfile::tempdir().unwrap();
    let mut settings = settings(folder.path());
    settings.compiler = folder.path().join("never-done");
    fs::write(&settings.compiler, "#!/bin/sh\nexec /bin/sleep 1000\n").unwrap();
    fs::set_permissions(&settings.compiler, fs::Permissions::from_mode(0o700)).unwrap();
    settings.compile_limits.time = Duration::from_millis(50);
    let hello = guest(folder.path(), "hello");
    ensure_too_expensive(settings, folder.path(), &hello, "more than 0.05 s").await;
}

/// The module with a custom section of 32 MiB: its size in LEB128, then an empty name and zeros.
fn padded(module: &[u8]) -> Vec<u8> {
    let mut padded = [module, &[0, 0x80, 0x80, 0x80, 0x10]].concat();
    padded.resize(padded.len() + (32 << 20), 0);
    padded
}

async fn ensure_too_expensive(settings: Settings, folder: &Path, image: &LocalImage, words: &str) {
    let provider = WasiProvider::new(settings).unwrap();
    let refused = refusal(&provider, image).await;
    assert!(matches!(&refused, PrepareError::TooExpensive(text) if text.contains(words)), "{refused:?}");
    fs::write(&image.program().unwrap().path, "something else").unwrap();
    assert_eq!(refusal(&provider, image).await, refused, "it is not compiled again and again");
    assert_eq!(compiled_files(folder), Vec::<PathBuf>::new());
}

/// All files in the cache of compiled code, whatever they are.
fn compiled_files(folder: &Path) -> Vec<PathBuf> {
    let entries =
        |folder: &Path| fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect::<Vec<_>>();
    entries(&folder.join("compiled")).iter().flat_map(|engine| entries(engine)).collect()
}
