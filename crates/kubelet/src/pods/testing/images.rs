use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use coracle_lifecycle::{
    BoxFuture, Credential, Digest, ImageContent, ImageError, ImageModule, Images, LocalImage, PulledImage,
};
use tokio::sync::watch;

/// An image store in memory.
#[derive(Clone)]
pub(crate) struct FakeImages {
    pub(crate) state: Arc<watch::Sender<Store>>,
}

/// What the store holds and has seen.
#[derive(Default)]
pub(crate) struct Store {
    /// References that are here.
    pub(crate) present: BTreeSet<String>,
    /// What a pull of a reference comes to; it succeeds for those that are not named.
    pub(crate) failures: BTreeMap<String, ImageError>,
    /// No pull ends while this is set.
    pub(crate) hang: bool,
    /// The references that were asked for with the user names that came along.
    pub(crate) pulls: Vec<(String, Vec<String>)>,
    /// How many pulls were given up.
    pub(crate) given_up: usize,
}

impl FakeImages {
    pub(crate) fn new() -> Self {
        Self { state: Arc::new(watch::Sender::new(Store::default())) }
    }

    /// Puts an image here.
    pub(crate) fn add(&self, reference: &str) {
        self.change(|store| store.present.extend([reference.to_owned()]));
    }

    /// Makes all pulls of a reference fail.
    pub(crate) fn fail(&self, reference: &str, failure: ImageError) {
        self.change(|store| store.failures.extend([(reference.to_owned(), failure)]));
    }

    pub(crate) fn change(&self, change: impl FnOnce(&mut Store)) {
        self.state.send_modify(change);
    }
}

/// An image that is known by this reference.
pub(crate) fn image(reference: &str) -> LocalImage {
    let digest = Digest::parse(&format!("sha256:{}", "ab".repeat(32))).unwrap();
    LocalImage {
        digest: digest.clone(),
        reference: reference.to_owned(),
        repo_digest: format!("{reference}@{digest}"),
        content: ImageContent::Program(ImageModule {
            digest,
            path: "/nowhere".into(),
            name: "program".to_owned(),
        }),
        size: 1,
    }
}

/// Counts a pull that is dropped before its end.
struct Pull<'a>(&'a FakeImages, bool);

impl Drop for Pull<'_> {
    fn drop(&mut self) {
        if !self.1 {
            self.0.change(|store| store.given_up += 1);
        }
    }
}

impl Images for FakeImages {
    fn find<'a>(&'a self, reference: &'a str) -> BoxFuture<'a, Result<Option<LocalImage>, ImageError>> {
        let found = self.state.borrow().present.contains(reference).then(|| image(reference));
        Box::pin(async { Ok(found) })
    }

    fn pull<'a>(
        &'a self,
        reference: &'a str,
        credentials: &'a [Credential],
    ) -> BoxFuture<'a, Result<PulledImage, ImageError>> {
        Box::pin(async move {
            let users = credentials.iter().map(|credential| credential.username.clone()).collect();
            self.change(|store| store.pulls.push((reference.to_owned(), users)));
            let mut pull = Pull(self, false);
            self.state.subscribe().wait_for(|store| !store.hang).await.unwrap();
            pull.1 = true;
            match self.state.borrow().failures.get(reference) {
                Some(failure) => Err(failure.clone()),
                None => Ok(PulledImage { image: image(reference), user: credentials.first().cloned() }),
            }
        })
    }

    fn list(&self) -> BoxFuture<'_, Result<Vec<LocalImage>, ImageError>> {
        Box::pin(async { Ok(Vec::new()) })
    }

    fn remove<'a>(&'a self, _: &'a Digest) -> BoxFuture<'a, Result<(), ImageError>> {
        Box::pin(async { Ok(()) })
    }

    fn root_file_system<'a>(
        &'a self,
        _: &'a LocalImage,
        directory: &'a Path,
    ) -> BoxFuture<'a, Result<(), ImageError>> {
        let is_empty = directory.read_dir().is_ok_and(|mut entries| entries.next().is_none());
        assert!(is_empty, "{} is no empty directory", directory.display());
        Box::pin(async { Ok(()) })
    }
}
