use std::fs;

use coracle_lifecycle::{Network, PodIdentity, PodUid};

use super::*;

fn reach() -> Reach {
    let identity = PodIdentity { namespace: "n".into(), name: "p".into(), uid: PodUid::new("u") };
    Reach::of(&identity, &Network { host: true, ..Network::default() })
}

#[tokio::test]
async fn the_hosts_file_of_the_container_comes_first() {
    let root = tempfile::tempdir().unwrap();
    let names = Names::new(&Dns::default(), &reach(), root.path());
    let look_up = async |name| names.look_up(name).await;
    let list = |text: &str| vec![text.parse::<IpAddr>().unwrap()];
    assert_eq!(look_up("localhost").await.unwrap().len(), 2);
    fs::create_dir(root.path().join("etc")).unwrap();
    let text = "# a comment\n127.0.0.1\tlocalhost\n10.1.2.3\tweb.example web # other\nbroken web\n";
    fs::write(root.path().join("etc/hosts"), text).unwrap();
    assert_eq!(look_up("WEB").await, Ok(list("10.1.2.3")));
    assert_eq!(look_up("web.example.").await, Ok(list("10.1.2.3")));
    assert_eq!(look_up("localhost").await, Ok(list("127.0.0.1")));
    assert_eq!(look_up("other").await, Err(LookupError::Permanent));
}

#[tokio::test]
async fn a_hosts_file_that_is_none_is_not_read() {
    let (root, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    fs::write(outside.path().join("hosts"), "10.1.2.3 secret\n").unwrap();
    let etc = root.path().join("etc");
    fs::create_dir(&etc).unwrap();
    let names = Names::new(&Dns::default(), &reach(), root.path());
    std::os::unix::fs::symlink(outside.path().join("hosts"), etc.join("hosts")).unwrap();
    assert_eq!(names.look_up("secret").await, Err(LookupError::Permanent));
    fs::remove_file(etc.join("hosts")).unwrap();
    rustix::fs::mknodat(CWD, etc.join("hosts"), rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
    assert_eq!(names.look_up("secret").await, Err(LookupError::Permanent));
}

#[tokio::test]
async fn addresses_are_their_own_names_and_nonsense_is_none() {
    let names = Names::new(&Dns::default(), &reach(), Path::new("/nowhere"));
    for text in ["192.0.2.1", "2001:db8::1", "[2001:db8::1]"] {
        let bare = text.trim_matches(['[', ']']);
        assert_eq!(names.look_up(text).await, Ok(vec![bare.parse().unwrap()]));
    }
    let long = "a".repeat(300);
    for text in ["", ".", "a..b", long.as_str()] {
        assert_eq!(names.look_up(text).await, Err(LookupError::Invalid), "{text:?}");
    }
}
