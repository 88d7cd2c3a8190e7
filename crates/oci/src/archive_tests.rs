use tar::Builder;

use super::*;

fn read(bytes: &[u8]) -> Result<Vec<(Member, Vec<u8>)>, ArchiveError> {
    let mut members = Vec::new();
    for_each(bytes, |member, content| {
        let mut all = Vec::new();
        content.read_to_end(&mut all).map_err(ArchiveError::Read)?;
        members.push((member, all));
        Ok::<_, ArchiveError>(())
    })?;
    Ok(members)
}

/// An archive of one member, whose header is made by hand so that it may hold anything.
fn one(path: &[u8], change: impl FnOnce(&mut Header), content: &[u8]) -> Vec<u8> {
    let mut header = Header::new_gnu();
    header.as_old_mut().name[..path.len()].copy_from_slice(path);
    header.set_size(content.len() as u64);
    header.set_mode(0o4755);
    header.set_mtime(7);
    header.set_entry_type(EntryType::Regular);
    change(&mut header);
    header.set_cksum();
    let mut builder = Builder::new(Vec::new());
    builder.append(&header, content).unwrap();
    builder.into_inner().unwrap()
}

fn refusal(bytes: &[u8]) -> String {
    read(bytes).unwrap_err().to_string()
}

#[test]
fn members_are_read_with_their_content() {
    let archive = one(b"./a//b/./c", |_| (), b"content");
    let expected = Member {
        path: ["a", "b", "c"].map(str::to_owned).to_vec(),
        kind: Kind::File(7),
        mode: 0o755,
        modified: 7,
    };
    assert_eq!(read(&archive).unwrap(), [(expected, b"content".to_vec())]);
    for (kind, expected) in [
        (EntryType::Directory, Kind::Directory),
        (EntryType::Char, Kind::Special),
        (EntryType::Block, Kind::Special),
        (EntryType::Fifo, Kind::Special),
        (EntryType::Symlink, Kind::SymbolicLink("/../x".to_owned())),
    ] {
        let change = |header: &mut Header| {
            header.set_entry_type(kind);
            header.set_link_name_literal("/../x").unwrap();
        };
        assert_eq!(read(&one(b"/x", change, b"")).unwrap()[0].0.kind, expected);
    }
    assert_eq!(read(&one(b"x/", |_| (), b"")).unwrap()[0].0.kind, Kind::Directory);
    assert!(read(&one(b"./", |_| (), b"")).unwrap()[0].0.path.is_empty());
}

#[test]
fn long_names_are_read_in_both_forms() {
    let long = format!("{}/{}", "d".repeat(200), "f".repeat(200));
    let mut builder = Builder::new(Vec::new());
    let mut header = Header::new_gnu();
    header.set_size(1);
    builder.append_data(&mut header, &long, &b"x"[..]).unwrap();
    let mut link = Header::new_gnu();
    link.set_entry_type(EntryType::Symlink);
    link.set_size(0);
    builder.append_link(&mut link, "l", &long).unwrap();
    builder
        .append_pax_extensions([("path", long.as_bytes()), ("mtime", b"12.5"), ("SCHILY.x", b"y\n\n")])
        .unwrap();
    let mut header = Header::new_ustar();
    header.set_path("short").unwrap();
    header.set_size(1);
    header.set_cksum();
    builder.append(&header, &b"y"[..]).unwrap();
    let members = read(&builder.into_inner().unwrap()).unwrap();
    assert_eq!(members[0].0.path.join("/"), long);
    assert_eq!(members[1].0.kind, Kind::SymbolicLink(long.clone()));
    assert_eq!((members[2].0.path.join("/"), members[2].0.modified), (long, 12));
}

#[test]
fn what_could_not_be_is_refused_by_name() {
    for path in [&b"../x"[..], b"a/../../x", b"a/..", b"/../x"] {
        assert!(refusal(&one(path, |_| (), b"")).contains("leads out of it"), "{path:?}");
    }
    assert!(refusal(&one(b"a\xff", |_| (), b"")).contains(r#""a\xff" is not UTF-8"#));
    let mut builder = Builder::new(Vec::new());
    let mut header = Header::new_gnu();
    header.set_size(0);
    builder.append_data(&mut header, "d/".repeat(257), &b""[..]).unwrap();
    assert!(refusal(&builder.into_inner().unwrap()).contains("is too deep"));
    let link = |header: &mut Header| {
        header.set_entry_type(EntryType::Link);
        header.set_link_name_literal("../../etc/passwd").unwrap();
    };
    assert!(refusal(&one(b"x", link, b"")).contains("leads out of it"));
    let nothing = |header: &mut Header| header.set_entry_type(EntryType::Symlink);
    assert!(refusal(&one(b"x", nothing, b"")).contains("a link to nothing"));
    let sparse = |header: &mut Header| header.set_entry_type(EntryType::GNUSparse);
    assert!(refusal(&one(b"x", sparse, b"")).contains("sparse"));
    assert!(refusal(&[b'x'; 1024]).contains("damaged"));
    let whole = one(b"x", |_| (), &[b'x'; 2000]);
    assert!(read(&whole[..1000]).is_err() || read(&whole[..1000]).unwrap()[0].1.len() < 2000);
}

#[test]
fn extensions_do_not_fill_the_memory() {
    for kind in [EntryType::GNULongName, EntryType::GNULongLink, EntryType::XHeader] {
        let change = |header: &mut Header| header.set_entry_type(kind);
        let archive = one(b"x", change, &vec![b'x'; 2 << 20]);
        assert!(refusal(&archive).contains("longer than"), "{kind:?}");
    }
    let mut builder = Builder::new(Vec::new());
    builder.append_pax_extensions([("GNU.sparse.major", &b"1"[..])]).unwrap();
    assert!(refusal(&builder.into_inner().unwrap()).contains("sparse"));
    for header in [&b"x"[..], b"5 a", b"99 a=b\n", b"2 a=b\n", b"6 ab\n\n", b"7 a=bcd"] {
        let change = |header: &mut Header| header.set_entry_type(EntryType::XHeader);
        assert!(refusal(&one(b"x", change, header)).contains("PAX header is damaged"), "{header:?}");
    }
    let mut builder = Builder::new(Vec::new());
    builder.append_pax_extensions([("path", &b"a\0b"[..])]).unwrap();
    let mut archive = builder.into_inner().unwrap();
    archive.truncate(archive.len() - 1024);
    archive.extend(one(b"x", |_| (), b""));
    assert!(refusal(&archive).contains("is no path"));
}
