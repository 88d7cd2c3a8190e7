use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;

use coracle_lifecycle::{
    ContainerId, ImageConfig, ImageContent, ImageFiles, Limits, LocalImage, LogFile, Mount, Network,
    PodIdentity, PodUid,
};

use super::*;

struct Scene {
    folder: tempfile::TempDir,
    spec: ContainerSpec,
}

impl Scene {
    /// An image with programs in it, a file beside it that is none of its, and a volume at `/data`.
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let at = |path: &str| folder.path().join(path);
        for path in ["image/bin", "image/usr/bin", "image/srv", "volume/tools"] {
            fs::create_dir_all(at(path)).unwrap();
        }
        for path in
            ["secret", "image/app.wasm", "image/bin/tool", "image/usr/bin/other", "volume/tools/mounted"]
        {
            fs::write(at(path), path).unwrap();
        }
        for (target, link) in [
            ("tool", "image/bin/alias"),
            ("../usr/bin/other", "image/bin/other"),
            ("/usr/bin", "image/absolute"),
            ("../../secret", "image/out"),
            ("loop", "image/loop"),
            ("../data/tools/mounted", "image/bin/from-volume"),
            ("../../secret", "volume/out"),
            ("/app.wasm", "volume/back"),
        ] {
            symlink(target, at(link)).unwrap();
        }
        let spec = spec(&folder);
        Self { folder, spec }
    }

    fn find(&self, command: &str) -> Result<String, String> {
        let files = self.folder.path().join("image");
        let found = Commands::default().find(&self.spec, &files, &[command.to_owned()]);
        let found = found.map_err(|error| error.to_string())?;
        let content = fs::read_to_string(&found.path).unwrap();
        assert_eq!(found.digest.hex(), hexadecimal(&Sha256::digest(&content)), "{command}");
        assert_eq!(found.name, command);
        Ok(content)
    }

    #[track_caller]
    fn check(&self, command: &str, expected: &str) {
        assert_eq!(self.find(command).as_deref(), Ok(expected), "{command}");
    }

    #[track_caller]
    fn refused(&self, command: &str, why: &str) {
        assert_eq!(self.find(command), Err(format!("exec: {command:?}: {why}")));
    }
}

fn spec(folder: &tempfile::TempDir) -> ContainerSpec {
    let uid = PodUid::new("u");
    let digest = Digest::parse(&format!("sha256:{}", "0".repeat(64))).unwrap();
    let files = ImageFiles {
        chain: digest.clone(),
        directory: folder.path().join("image"),
        config: ImageConfig { working_directory: Some("/srv".to_owned()), ..ImageConfig::default() },
    };
    ContainerSpec {
        id: ContainerId::of(&uid, "c", 0),
        pod: PodIdentity { namespace: "n".to_owned(), name: "p".to_owned(), uid },
        name: "c".to_owned(),
        annotations: BTreeMap::new(),
        network: Network::default(),
        image: LocalImage {
            repo_digest: String::new(),
            digest,
            reference: String::new(),
            content: ImageContent::Files(files),
            size: 1,
        },
        root: folder.path().to_owned(),
        read_only_root: false,
        command: Vec::new(),
        args: Vec::new(),
        env: Vec::new(),
        mounts: vec![Mount {
            source: folder.path().join("volume"),
            target: "/data".to_owned(),
            read_only: false,
        }],
        ports: Vec::new(),
        limits: Limits::default(),
        pod_limits: Limits::default(),
        log: LogFile { path: folder.path().join("log"), max_size: 1, max_files: 1 },
        working_directory: None,
        stdin: false,
        tty: false,
        runtime_handler: None,
    }
}

#[test]
fn a_path_is_a_path_and_a_name_is_looked_for() {
    let mut scene = Scene::new();
    scene.check("/app.wasm", "image/app.wasm");
    scene.check("/./bin//tool", "image/bin/tool");
    scene.check("../app.wasm", "image/app.wasm");
    scene.check("./../bin/tool", "image/bin/tool");
    scene.check("tool", "image/bin/tool");
    scene.check("other", "image/usr/bin/other");
    scene.refused("app.wasm", "executable file not found in $PATH");
    scene.refused("", "executable file not found in $PATH");
    scene.refused("/nothing", "stat /nothing: no such file or directory");
    scene.refused("/app.wasm/x", "stat /app.wasm/x: no such file or directory");
    scene.refused("/bin", "is a directory");
    scene.spec.env = vec![("PATH".to_owned(), "relative::/nowhere:/".to_owned())];
    scene.check("app.wasm", "image/app.wasm");
    scene.refused("tool", "executable file not found in $PATH");
}

#[test]
fn links_are_followed_within_the_container_only() {
    let scene = Scene::new();
    scene.check("/bin/alias", "image/bin/tool");
    scene.check("/bin/other", "image/usr/bin/other");
    scene.check("/absolute/other", "image/usr/bin/other");
    scene.check("/../../app.wasm", "image/app.wasm");
    scene.refused("/out", "stat /out: no such file or directory");
    scene.refused("/data/out", "stat /data/out: no such file or directory");
    scene.refused("/loop", "too many levels of symbolic links");
}

#[test]
fn programs_may_lie_in_volumes() {
    let scene = Scene::new();
    scene.check("/data/tools/mounted", "volume/tools/mounted");
    scene.check("/bin/from-volume", "volume/tools/mounted");
    scene.check("/data/back", "image/app.wasm");
}

#[test]
fn a_digest_is_of_what_is_in_the_file_now() {
    let scene = Scene::new();
    let (commands, files) = (Commands::default(), scene.folder.path().join("image"));
    let find = || commands.find(&scene.spec, &files, &["/data/tools/mounted".to_owned()]).unwrap().digest;
    let before = find();
    assert_eq!(find(), before);
    fs::write(scene.folder.path().join("volume/tools/mounted"), "another").unwrap();
    assert_eq!(find().hex(), hexadecimal(&Sha256::digest("another")));
}

#[test]
fn no_command_is_told() {
    let scene = Scene::new();
    let error = Commands::default().find(&scene.spec, scene.folder.path(), &[]).unwrap_err();
    assert_eq!(error, StartError::Invalid("no command specified".to_owned()));
}
