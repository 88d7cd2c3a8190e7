//! Which pods may use an image that is here: those that could pull it themselves
//! (<https://kubernetes.io/docs/concepts/containers/images/#ensureimagepullcredentialverification>).

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Write as _};
use std::path::PathBuf;

use coracle_lifecycle::{Credential, Digest};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use tempfile::NamedTempFile;

/// Who has pulled the images that are here.
#[derive(Clone, Debug)]
pub(crate) struct Access {
    directory: PathBuf,
}

/// Who has pulled one image.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Record {
    /// Somebody did without credentials, or with the node's own.
    anybody: bool,
    /// Hashes of the credentials of pods that did.
    users: BTreeSet<String>,
}

impl Access {
    /// The records in a directory, which is made when there is one to be kept.
    pub(crate) fn new(directory: PathBuf) -> Self {
        Self { directory }
    }

    /// Whether a pod that brings these credentials along may use an image. One that was here before the node noted who pulled
    /// is for all. It reads the disk.
    pub(crate) fn allows(&self, image: &Digest, credentials: &[Credential]) -> bool {
        match self.read(image) {
            Ok(None) => true,
            Ok(Some(record)) => {
                record.anybody || credentials.iter().any(|user| record.users.contains(&hash(user)))
            }
            // A record that cannot be read is no permission: the image is pulled again, which makes it anew.
            Err(_) => false,
        }
    }

    /// Notes that an image was pulled: as `user`, or in a way that is open to all pods. It writes to the disk.
    pub(crate) fn note(&self, image: &Digest, user: Option<&Credential>) -> io::Result<()> {
        let before = self.read(image).ok().flatten();
        let mut record = before.unwrap_or_default();
        let is_known = match user {
            None => std::mem::replace(&mut record.anybody, true),
            Some(user) => !record.users.insert(hash(user)),
        };
        if is_known {
            return Ok(());
        }
        fs::create_dir_all(&self.directory)?;
        let mut file = NamedTempFile::new_in(&self.directory)?;
        file.write_all(&serde_json::to_vec(&record)?)?;
        file.persist(self.path(image))?;
        Ok(())
    }

    /// Forgets an image that is not here any more.
    pub(crate) fn forget(&self, image: &Digest) {
        // One that stays is for an image that must be pulled anyway.
        let _ = fs::remove_file(self.path(image));
    }

    fn read(&self, image: &Digest) -> io::Result<Option<Record>> {
        match fs::read(self.path(image)) {
            Ok(bytes) => Ok(Some(serde_json::from_slice(&bytes)?)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn path(&self, image: &Digest) -> PathBuf {
        self.directory.join(format!("{}.json", image.hex()))
    }
}

/// What tells credentials from others; no secret can be read from it.
fn hash(user: &Credential) -> String {
    // Printed as a list of quoted texts: no two different lists look the same.
    let text = format!("{:?}", [&user.registry, &user.username, &user.password]);
    Sha256::digest(text).iter().fold(String::new(), |hex, byte| hex + &format!("{byte:02x}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(name: &str) -> Credential {
        Credential { registry: "r.example".to_owned(), username: name.to_owned(), password: "x".to_owned() }
    }

    fn image() -> Digest {
        Digest::parse(&format!("sha256:{}", "0".repeat(64))).unwrap()
    }

    #[test]
    fn an_image_is_for_those_who_pulled_it() {
        let folder = tempfile::tempdir().unwrap();
        let access = Access::new(folder.path().join("access"));
        assert!(access.allows(&image(), &[]), "it was here before");
        access.note(&image(), Some(&user("ann"))).unwrap();
        assert!(access.allows(&image(), &[user("bob"), user("ann")]));
        assert!(!access.allows(&image(), &[user("bob")]) && !access.allows(&image(), &[]));
        access.note(&image(), Some(&user("bob"))).unwrap();
        assert!(access.allows(&image(), &[user("bob")]) && access.allows(&image(), &[user("ann")]));
        access.note(&image(), None).unwrap();
        assert!(access.allows(&image(), &[]));
        access.forget(&image());
        assert_eq!(access.read(&image()).unwrap(), None);
    }

    #[test]
    fn a_record_that_cannot_be_read_permits_nothing_and_is_made_anew() {
        let folder = tempfile::tempdir().unwrap();
        let access = Access::new(folder.path().to_owned());
        fs::write(access.path(&image()), "{").unwrap();
        assert!(!access.allows(&image(), &[user("ann")]));
        access.note(&image(), Some(&user("ann"))).unwrap();
        assert!(access.allows(&image(), &[user("ann")]));
        assert!(!fs::read_to_string(access.path(&image())).unwrap().contains("ann"));
    }
}
