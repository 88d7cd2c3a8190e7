use crate::{Digest, ImageFiles, ImageModule};

use super::*;

fn texts(all: &[&str]) -> Vec<String> {
    all.iter().map(|text| (*text).to_owned()).collect()
}

fn pairs(all: &[(&str, &str)]) -> Vec<(String, String)> {
    all.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn with(content: ImageContent) -> ContainerSpec {
    let digest = Digest::parse(&format!("sha256:{}", "0".repeat(64))).unwrap();
    let uid = PodUid::new("u");
    ContainerSpec {
        id: ContainerId::of(&uid, "c", 0),
        pod: PodIdentity { namespace: "n".to_owned(), name: "p".to_owned(), uid },
        name: "c".to_owned(),
        annotations: BTreeMap::new(),
        network: Network::default(),
        image: LocalImage {
            digest: digest.clone(),
            reference: "r/a:1".to_owned(),
            repo_digest: format!("r/a@{digest}"),
            content,
            size: 1,
        },
        root: "/".into(),
        read_only_root: false,
        command: Vec::new(),
        args: Vec::new(),
        env: Vec::new(),
        mounts: Vec::new(),
        ports: Vec::new(),
        limits: Limits::default(),
        pod_limits: Limits::default(),
        log: LogFile { path: "/log".into(), max_size: 1, max_files: 1 },
        working_directory: None,
        stdin: false,
        tty: false,
        runtime_handler: None,
    }
}

fn bare() -> ContainerSpec {
    let digest = Digest::parse(&format!("sha256:{}", "0".repeat(64))).unwrap();
    with(ImageContent::Program(ImageModule { digest, path: "/m".into(), name: "app".to_owned() }))
}

fn with_files(config: ImageConfig) -> ContainerSpec {
    let chain = Digest::parse(&format!("sha256:{}", "0".repeat(64))).unwrap();
    with(ImageContent::Files(ImageFiles { chain, directory: "/tree".into(), config }))
}

#[test]
fn command_and_args_go_over_entrypoint_and_cmd() {
    let check = |entrypoint: &[&str], cmd: &[&str], command: &[&str], args: &[&str], expected: &[&str]| {
        let config =
            ImageConfig { entrypoint: texts(entrypoint), command: texts(cmd), ..ImageConfig::default() };
        let spec = ContainerSpec { command: texts(command), args: texts(args), ..with_files(config) };
        assert_eq!(spec.command_line(), texts(expected), "{entrypoint:?} {cmd:?} {command:?} {args:?}");
    };
    // The table of the Kubernetes documentation.
    check(&["/ep-1"], &["foo", "bar"], &[], &[], &["/ep-1", "foo", "bar"]);
    check(&["/ep-1"], &["foo", "bar"], &["/ep-2"], &[], &["/ep-2"]);
    check(&["/ep-1"], &["foo", "bar"], &[], &["zoo", "boo"], &["/ep-1", "zoo", "boo"]);
    check(&["/ep-1"], &["foo", "bar"], &["/ep-2"], &["zoo", "boo"], &["/ep-2", "zoo", "boo"]);
    check(&[], &["/cmd", "x"], &[], &[], &["/cmd", "x"]);
    check(&[], &[], &[], &["a"], &["a"]);
    check(&[], &[], &[], &[], &[]);
}

#[test]
fn a_bare_artifact_is_its_own_entry_point() {
    let check = |command: &[&str], args: &[&str], expected: &[&str]| {
        let spec = ContainerSpec { command: texts(command), args: texts(args), ..bare() };
        assert_eq!(spec.command_line(), texts(expected));
    };
    check(&[], &[], &["app"]);
    check(&[], &["x"], &["app", "x"]);
    check(&["/bin/ls", "-l"], &["x"], &["/bin/ls", "-l", "x"]);
}

#[test]
fn the_pods_variables_go_over_the_images() {
    let config = ImageConfig { env: pairs(&[("A", "image"), ("B", "image")]), ..ImageConfig::default() };
    let spec = ContainerSpec { env: pairs(&[("B", "pod"), ("C", "pod")]), ..with_files(config) };
    let expected = [("PATH", SEARCH_PATH), ("A", "image"), ("B", "pod"), ("C", "pod")];
    assert_eq!(spec.environment(), pairs(&expected));
    let config = ImageConfig { env: pairs(&[("PATH", "/bin")]), ..ImageConfig::default() };
    assert_eq!(with_files(config).environment(), pairs(&[("PATH", "/bin")]));
    assert_eq!(bare().environment(), []);
}

#[test]
fn the_working_directory_is_the_pods_or_the_images() {
    let config = ImageConfig { working_directory: Some("/srv".to_owned()), ..ImageConfig::default() };
    assert_eq!(with_files(config.clone()).directory(), "/srv");
    let spec = ContainerSpec { working_directory: Some("/tmp".to_owned()), ..with_files(config) };
    assert_eq!(spec.directory(), "/tmp");
    assert_eq!(bare().directory(), "/");
}
