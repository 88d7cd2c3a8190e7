use std::fs;
use std::io::Seek;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use tar::{Builder, EntryType, Header};

use super::*;
use crate::digest::digest_of;

/// A member of an archive made by hand, so that it may be anything.
struct Entry {
    path: &'static str,
    kind: EntryType,
    link: &'static str,
    content: &'static str,
}

fn entry(path: &'static str, kind: EntryType, link: &'static str, content: &'static str) -> Entry {
    Entry { path, kind, link, content }
}

fn file(path: &'static str, content: &'static str) -> Entry {
    entry(path, EntryType::Regular, "", content)
}

fn directory(path: &'static str) -> Entry {
    entry(path, EntryType::Directory, "", "")
}

fn link(path: &'static str, target: &'static str) -> Entry {
    entry(path, EntryType::Symlink, target, "")
}

fn hard_link(path: &'static str, target: &'static str) -> Entry {
    entry(path, EntryType::Link, target, "")
}

fn archive(entries: &[Entry]) -> Vec<u8> {
    let mut builder = Builder::new(Vec::new());
    for Entry { path, kind, link, content } in entries {
        let mut header = Header::new_gnu();
        header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
        header.set_entry_type(*kind);
        header.set_mode(0o6751);
        header.set_mtime(1_000_000);
        header.set_size(content.len() as u64);
        header.set_link_name_literal(link).unwrap();
        header.set_cksum();
        builder.append(&header, content.as_bytes()).unwrap();
    }
    builder.into_inner().unwrap()
}

/// A directory beside which there is something to escape to.
struct Scene {
    folder: tempfile::TempDir,
}

impl Scene {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("root")).unwrap();
        fs::write(folder.path().join("outside"), "outside").unwrap();
        Self { folder }
    }

    fn root(&self) -> std::path::PathBuf {
        self.folder.path().join("root")
    }

    fn unpack(&self, bytes: &[u8]) -> Result<u64, UnpackError> {
        let mut budget = Budget { bytes: 1 << 30, entries: 1000 };
        self.unpack_with(bytes, &digest_of(bytes), &mut budget)
    }

    fn unpack_with(&self, bytes: &[u8], diff: &Digest, budget: &mut Budget) -> Result<u64, UnpackError> {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        file.rewind().unwrap();
        let wanted = Wanted { file, diff, is_awaited: &|| true };
        unpack(wanted, &Tree::open(&self.root()).unwrap(), budget, &mut Sums::default())
    }

    /// Lays these layers one over the other.
    fn layers(layers: &[&[Entry]]) -> Self {
        let scene = Self::new();
        for layer in layers {
            scene.unpack(&archive(layer)).unwrap();
        }
        scene.ensure_nothing_is_outside();
        scene
    }

    fn ensure_nothing_is_outside(&self) {
        assert_eq!(fs::read_dir(self.folder.path()).unwrap().count(), 2);
        assert_eq!(fs::read_to_string(self.folder.path().join("outside")).unwrap(), "outside");
    }

    #[track_caller]
    fn check(&self, path: &str, expected: Option<&str>) {
        assert_eq!(fs::read_to_string(self.root().join(path)).ok().as_deref(), expected, "{path}");
    }

    fn refusal(entries: &[Entry]) -> String {
        let scene = Self::new();
        let error = scene.unpack(&archive(entries)).unwrap_err();
        scene.ensure_nothing_is_outside();
        assert!(matches!(error, UnpackError::Malformed(_)), "{error:?}");
        error.to_string()
    }
}

#[test]
fn files_directories_and_links_are_made_as_they_were() {
    let scene = Scene::layers(&[&[
        directory("bin/"),
        file("bin/tool", "tool"),
        hard_link("bin/hard", "bin/tool"),
        link("bin/soft", "tool"),
        link("absolute", "/bin/tool"),
        file("made/on/the/way", "way"),
        file("/from-the-root", "root"),
    ]]);
    for path in ["bin/tool", "bin/hard", "bin/soft", "absolute"] {
        scene.check(path, Some("tool"));
    }
    scene.check("made/on/the/way", Some("way"));
    scene.check("from-the-root", Some("root"));
    let metadata = fs::metadata(scene.root().join("bin/tool")).unwrap();
    assert_eq!(
        (metadata.permissions().mode() & 0o7777, metadata.mtime(), metadata.nlink()),
        (0o751, 1_000_000, 2)
    );
}

#[test]
fn upper_layers_replace_what_is_below() {
    let scene = Scene::layers(&[
        &[file("a", "old"), file("d/x", "x"), link("l", "a"), file("f", "file")],
        &[
            file("a", "new"),
            file("d", "file now"),
            file("l", "no link now"),
            directory("f"),
            file("f/in", "in"),
        ],
    ]);
    scene.check("a", Some("new"));
    scene.check("d", Some("file now"));
    scene.check("l", Some("no link now"));
    scene.check("f/in", Some("in"));
}

#[test]
fn whiteouts_hide_what_is_below_and_nothing_else() {
    let lower = [file("gone", "x"), file("d/gone", "x"), file("d/kept", "x"), file("tree/deep/x", "x")];
    let scene = Scene::layers(&[
        &lower,
        &[
            file(".wh.gone", ""),
            file("d/.wh.gone", ""),
            file(".wh.tree", ""),
            file(".wh.never-there", ""),
            file("nowhere/.wh.x", ""),
            file("d/.wh..wh.plnk", ""),
        ],
    ]);
    for path in ["gone", "d/gone", "tree", "nowhere", ".wh.gone", "d/.wh..wh.plnk"] {
        assert!(!scene.root().join(path).exists(), "{path}");
    }
    scene.check("d/kept", Some("x"));
    // A whiteout means the layers below, wherever it stands in its own.
    let scene = Scene::layers(&[
        &[file("d/old", "old"), file("d/both", "old")],
        &[file("d/both", "new"), file("d/.wh.both", ""), file("d/e/new", "new"), file(".wh.d", "")],
    ]);
    scene.check("d/old", None);
    scene.check("d/both", Some("new"));
    scene.check("d/e/new", Some("new"));
}

#[test]
fn opaque_directories_hide_all_that_is_below() {
    let lower = [file("d/one", "old"), file("d/e/two", "old"), file("d/f/three", "old"), file("e", "kept")];
    let scene = Scene::layers(&[
        &lower,
        &[directory("d"), file("d/e/new", "new"), file("d/.wh..wh..opq", ""), file("d/later", "new")],
    ]);
    for (path, expected) in [
        ("d/one", None),
        ("d/e/two", None),
        ("d/f/three", None),
        ("d/e/new", Some("new")),
        ("d/later", Some("new")),
        ("e", Some("kept")),
    ] {
        scene.check(path, expected);
    }
    assert!(!scene.root().join("d/f").exists());
    let scene = Scene::layers(&[&lower, &[file(".wh..wh..opq", "")]]);
    assert_eq!(fs::read_dir(scene.root()).unwrap().count(), 0);
}

#[test]
fn nothing_gets_out_by_links() {
    let scene = Scene::layers(&[
        &[link("absolute", "/"), link("up", "../.."), directory("d"), link("d/up", "../../..")],
        &[
            file("absolute/outside", "inside"),
            file("up/one", "one"),
            file("d/up/two", "two"),
            file("absolute/.wh.outside", ""),
            file("up/.wh..wh..opq", ""),
        ],
    ]);
    scene.check("outside", Some("inside"));
    scene.check("one", Some("one"));
    scene.check("two", Some("two"));
}

#[test]
fn a_directory_that_becomes_a_link_leads_nowhere_else() {
    let scene = Scene::layers(&[
        &[file("d/x", "x"), file("other/y", "y")],
        &[link("d", "/other"), file("d/z", "z"), link("e", "/../../../.."), file("e/outside", "in")],
        &[directory("d"), file("d/w", "w")],
    ]);
    scene.check("other/z", Some("z"));
    scene.check("outside", Some("in"));
    assert_eq!(fs::read_dir(scene.root().join("d")).unwrap().count(), 1);
}

#[test]
fn escapes_by_name_are_refused() {
    for entries in [
        [file("../outside", "x")],
        [file("a/../../outside", "x")],
        [file("/../outside", "x")],
        [link("../l", "x")],
        [hard_link("h", "../outside")],
        [hard_link("h", "/../../outside")],
        [file("../.wh.outside", "")],
        [file("../.wh..wh..opq", "")],
        [file("..", "x")],
    ] {
        assert!(Scene::refusal(&entries).contains("leads out of it"), "{}", entries[0].path);
    }
    for path in [".wh.", ".wh..", ".wh...", "d/.wh..."] {
        assert!(Scene::refusal(&[file("d/x", ""), file(path, "")]).contains("hides no file"), "{path}");
    }
    for target in ["nothing", "d", "/", "l/x", "loop/x"] {
        let entries = [directory("d"), link("l", "/outside"), link("loop", "loop"), hard_link("h", target)];
        assert!(Scene::refusal(&entries).contains("cannot be made"), "{target}");
    }
    assert!(Scene::refusal(&[file("f", "x"), file("f/x", "x")]).contains("cannot be made"));
    assert!(
        Scene::refusal(&[link("l", "loop"), link("loop", "l"), file("l/x", "x")]).contains("cannot be made")
    );
}

#[test]
fn directories_do_not_go_deeper_and_deeper() {
    let deep: &'static str = Box::leak("d/".repeat(49).into_boxed_str());
    let below = |link: &str| -> &'static str { Box::leak(format!("{link}/{deep}").into_boxed_str()) };
    // Each link leads as deep again as the one before it.
    let mut entries = vec![file(deep, ""), link("1", deep)];
    for (name, next) in [("1", "2"), ("2", "3"), ("3", "4"), ("4", "5"), ("5", "6")] {
        entries.extend([file(below(name), ""), link(next, below(name))]);
    }
    assert!(Scene::refusal(&entries).contains("cannot be made: File name too long"));
}

#[test]
fn devices_and_pipes_are_not_made() {
    let kinds = [("c", EntryType::Char), ("b", EntryType::Block), ("p", EntryType::Fifo)];
    let entries: Vec<Entry> = kinds.into_iter().map(|(path, kind)| entry(path, kind, "", "")).collect();
    let scene = Scene::layers(&[&[file("c", "below")], &entries]);
    assert_eq!(fs::read_dir(scene.root()).unwrap().count(), 0);
}

#[test]
fn the_content_is_what_was_promised() {
    let scene = Scene::new();
    let bytes = archive(&[file("x", "x")]);
    let mut budget = Budget { bytes: 1 << 30, entries: 10 };
    let error = scene.unpack_with(&bytes, &digest_of(b"other"), &mut budget).unwrap_err();
    assert!(matches!(error, UnpackError::OtherContent { .. }), "{error}");
    // Whatever stands behind the end of the archive is a part of it.
    scene.unpack(&[&bytes[..], &[0; 4096], b"trailer"].concat()).unwrap();
    for bytes in [&bytes[..512], &b"\x1f\x8bxxxxxxxxxx"[..], b"no archive at all", &[b'x'; 2048]] {
        let error = scene.unpack(bytes).unwrap_err();
        assert!(matches!(error, UnpackError::Malformed(_)), "{error:?}");
    }
}

#[test]
fn a_layer_may_be_empty_and_say_things_twice() {
    let scene = Scene::new();
    for bytes in [&[][..], &[0; 1024], &zstd::encode_all(&[][..], 1).unwrap()] {
        let mut budget = Budget { bytes: 1 << 30, entries: 10 };
        let diff = if bytes.starts_with(b"\x28") { digest_of(b"") } else { digest_of(bytes) };
        assert_eq!(scene.unpack_with(bytes, &diff, &mut budget).unwrap(), 0);
    }
    let scene = Scene::layers(&[&[
        file("a", "one"),
        hard_link("b", "a"),
        file("a", "two"),
        directory("d"),
        file("d/x", "x"),
        directory("d/"),
        file("e", "file"),
        directory("e"),
        link("e", "a"),
        directory("./"),
    ]]);
    for (path, expected) in [("a", "two"), ("b", "one"), ("d/x", "x"), ("e", "two")] {
        scene.check(path, Some(expected));
    }
}

#[test]
fn bombs_are_stopped() {
    let scene = Scene::new();
    let bytes = archive(&[file("a", "x"), file("b", "x"), file("c", "x")]);
    for mut budget in [Budget { bytes: 2000, entries: 10 }, Budget { bytes: 1 << 30, entries: 2 }] {
        let error = scene.unpack_with(&bytes, &digest_of(&bytes), &mut budget).unwrap_err();
        assert!(matches!(error, UnpackError::TooLarge(_)), "{error:?}");
    }
    let mut encoder = zstd::Encoder::new(Vec::new(), 1).unwrap();
    encoder.window_log(25).unwrap();
    encoder.write_all(&bytes).unwrap();
    let error = scene.unpack(&encoder.finish().unwrap()).unwrap_err();
    assert_eq!(error.to_string(), "it is compressed with a window of more than 16777216 bytes");
    let zeros = zstd::encode_all(io::repeat(0).take(300 << 20), 1).unwrap();
    let error = scene.unpack_with(&zeros, &digest_of(b""), &mut Budget { bytes: u64::MAX, entries: 1 });
    assert!(matches!(error, Err(UnpackError::TooLarge(_))), "{error:?}");
}

#[test]
fn what_nobody_waits_for_ends() {
    let scene = Scene::new();
    let bytes = archive(&[file("a", "x")]);
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(&bytes).unwrap();
    file.rewind().unwrap();
    let wanted = Wanted { file, diff: &digest_of(&bytes), is_awaited: &|| false };
    let tree = Tree::open(&scene.root()).unwrap();
    let mut budget = Budget { bytes: 1 << 30, entries: 10 };
    let error = unpack(wanted, &tree, &mut budget, &mut Sums::default()).unwrap_err();
    assert!(matches!(error, UnpackError::Abandoned));
    assert!(!Path::new(&scene.root().join("a")).exists());
}
