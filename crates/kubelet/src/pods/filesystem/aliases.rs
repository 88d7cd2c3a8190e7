//! Mounts at paths that lead through links of the image, such as `/var/run/x` where `/var/run` is a link to `/run`.

use std::path::Path;

use coracle_lifecycle::Mount;

use super::beneath::Beneath;
use super::relative;

/// The same mounts once more, by the paths that their own lead to: a program gets to its files by both. A runtime knows
/// mounts by their paths alone.
pub(super) fn aliases(root: &Beneath, mounts: &[Mount]) -> Vec<Mount> {
    let is_outermost =
        |mount: &&Mount| !mounts.iter().any(|outer| below(&mount.target, &outer.target).is_some());
    let led =
        mounts.iter().filter(is_outermost).filter_map(|mount| Some((mount, real(root, &mount.target)?)));
    let moved = led.flat_map(|(outer, real)| {
        let inner = mounts.iter().filter_map(move |mount| {
            let rest = if mount == outer { "" } else { below(&mount.target, &outer.target)? };
            Some(Mount { target: format!("{real}{rest}"), ..mount.clone() })
        });
        inner.collect::<Vec<_>>()
    });
    moved.filter(|alias| !mounts.iter().any(|mount| mount.target == alias.target)).collect()
}

/// Where a path leads to, when that is another one, and not the root itself.
fn real(root: &Beneath, target: &str) -> Option<String> {
    let place = |path: &Path| root.find(path).and_then(|found| found.path()).ok();
    let inside = place(relative(target))?.strip_prefix(place(Path::new(""))?).ok()?.to_str()?.to_owned();
    Some(format!("/{inside}")).filter(|real| real != target && !inside.is_empty())
}

/// What of a path is below another one, with the separator before it.
fn below<'p>(path: &'p str, outer: &str) -> Option<&'p str> {
    path.strip_prefix(outer).filter(|rest| rest.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn what_is_mounted_behind_a_link_is_found_by_both_paths() {
        let folder = tempfile::tempdir().unwrap();
        for directory in ["run/x", "plain", "target", "other"] {
            fs::create_dir_all(folder.path().join(directory)).unwrap();
        }
        fs::create_dir(folder.path().join("var")).unwrap();
        let links =
            [("/run", "var/run"), ("/target", "linked"), ("../../..", "top"), ("nowhere", "dangling")];
        for (target, link) in links.into_iter().chain([("other", "taken")]) {
            symlink(target, folder.path().join(link)).unwrap();
        }
        let targets =
            ["/var/run/x", "/var/run/x/deep", "/plain", "/linked", "/top", "/dangling", "/taken", "/other"];
        let mount =
            |target: &&str| Mount { source: target.into(), target: (*target).to_owned(), read_only: true };
        let mounts: Vec<_> = targets.iter().map(mount).collect();
        let root = Beneath::root(&folder.path().canonicalize().unwrap()).unwrap();
        let found = aliases(&root, &mounts);
        let found: Vec<_> =
            found.iter().map(|alias| (alias.source.to_str().unwrap(), alias.target.as_str())).collect();
        let expected = [("/var/run/x", "/run/x"), ("/var/run/x/deep", "/run/x/deep"), ("/linked", "/target")];
        assert_eq!(found, expected);
    }
}
