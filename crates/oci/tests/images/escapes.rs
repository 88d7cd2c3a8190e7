//! Images that were made to get out of their directory, or to fill the disk. Each is refused or does nothing outside, and
//! nothing of it is left.

use std::fs;

use bytes::Bytes;
use coracle_lifecycle::{ImageError, Images};
use tar::EntryType;

use crate::fixture::Fixture;
use crate::layers::{Layer, Layered};

/// Pulls an image of these layers. Whatever comes of it, the store holds nothing but its own.
async fn pull(layers: impl IntoIterator<Item = Layer>) -> Result<(), ImageError> {
    let fixture = Fixture::with(|settings| settings.files_limit = 64 << 20).await;
    let outside = fixture.directory.path().join("outside");
    fs::write(&outside, "outside").unwrap();
    Layered::new(layers).push(&fixture.server, "app", "1");
    let result = fixture.pull("app:1").await;
    assert_eq!(fs::read_to_string(&outside).unwrap(), "outside");
    let mut names = fixture.files("");
    names.sort();
    assert_eq!(names, ["blobs", "outside", "references", "trees", "unfinished"]);
    match &result {
        Ok(image) => fixture.store.remove(&image.digest).await.unwrap(),
        Err(_) => assert_eq!(fixture.find("app:1").await, None),
    }
    for folder in ["unfinished", "blobs/sha256", "references", "trees"] {
        assert_eq!(fixture.files(folder), Vec::<String>::new(), "{folder}");
    }
    result.map(drop)
}

async fn check_refused(layers: impl IntoIterator<Item = Layer>, why: &str) {
    let error = pull(layers).await.unwrap_err();
    assert!(matches!(error, ImageError::Corrupt(_) | ImageError::Unsupported(_)), "{error:?}");
    assert!(error.to_string().contains(why), "{error}");
}

fn file(path: &str) -> Layer {
    Layer::new(&[(path, b"inside")])
}

#[tokio::test]
async fn paths_that_lead_out() {
    for path in ["../outside", "../../../../outside", "a/../../../../outside", "/../../../outside"] {
        check_refused([file(path)], "leads out of it").await;
        check_refused([Layer::member("link", EntryType::Link, path)], "leads out of it").await;
    }
    pull([file("/etc/outside"), file("//etc//outside")]).await.unwrap();
}

#[tokio::test]
async fn links_that_lead_out_and_what_is_written_through_them() {
    for target in ["/", "..", "../../../..", "/proc/self/cwd", "/proc/self/root", "./../../../../../../.."] {
        let link = || Layer::member("link", EntryType::Symlink, target);
        pull([link()]).await.unwrap();
        // It may be refused, when what it leads to inside is not there.
        let _ = pull([link(), file("link/outside")]).await;
        let _ = pull([link(), file("link/.wh.outside"), file("link/.wh..wh..opq")]).await;
        let _ =
            pull([link(), Layer::member("link/l", EntryType::Symlink, "/"), file("link/l/outside")]).await;
        let _ = pull([link(), Layer::member("hard", EntryType::Link, "link/outside")]).await;
    }
    pull([file("d/x"), Layer::member("d", EntryType::Symlink, "/.."), file("d/outside")]).await.unwrap();
}

#[tokio::test]
async fn hard_links_to_what_is_not_there() {
    for target in ["outside", "/etc/passwd", "link"] {
        check_refused([Layer::member("link", EntryType::Link, target)], "cannot be made").await;
    }
}

#[tokio::test]
async fn whiteouts_of_parents() {
    for path in [".wh.", ".wh..", ".wh...", "a/.wh..."] {
        check_refused([file("a/x"), file(path)], "hides no file").await;
    }
    check_refused([file("../.wh.outside")], "leads out of it").await;
}

#[tokio::test]
async fn devices_and_pipes() {
    for kind in [EntryType::Char, EntryType::Block, EntryType::Fifo] {
        pull([Layer::member("dev/thing", kind, "")]).await.unwrap();
    }
}

#[tokio::test]
async fn names_that_no_guest_could_read() {
    let mut archive = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.as_old_mut().name[..3].copy_from_slice(b"a\xff\xfe");
    header.set_size(0);
    header.set_cksum();
    archive.append(&header, &b""[..]).unwrap();
    check_refused([Layer::gzip(&archive.into_inner().unwrap())], r#""a\xff\xfe" is not UTF-8"#).await;
}

#[tokio::test]
async fn bombs() {
    let zeros = vec![0; 65 << 20];
    check_refused([Layer::new(&[("zeros", &zeros)])], "unpacks to more than 67108864 bytes").await;
}

#[tokio::test]
async fn archives_that_are_none() {
    let whole = file("x");
    for bytes in [
        Bytes::from_static(b""),
        Bytes::from_static(b"no archive"),
        Bytes::from_static(b"\x1f\x8b\x08\0\0\0\0\0"),
        whole.bytes.slice(..whole.bytes.len() / 2),
        Bytes::from(vec![b'x'; 4096]),
    ] {
        check_refused([Layer { bytes, diff: whole.diff.clone() }], "cannot be unpacked").await;
    }
}
