//! Pulls at the same time: what they share, and what ends with whom.

use std::sync::Arc;

use futures::future::join_all;
use tokio::sync::{Barrier, Semaphore};

use crate::fixture::{CNCF, Fixture, Image, manifest_path};
use crate::server::{ok, stalled, status, with_header};

/// Lets requests for the image's module wait until the semaphore lets them go.
fn gate(fixture: &Fixture, path: &str, image: &Image) -> Arc<Semaphore> {
    let gate = Arc::new(Semaphore::new(0));
    let (waiting, bytes) = (gate.clone(), image.module.clone());
    fixture.server.route(path, move |_| {
        let (waiting, bytes) = (waiting.clone(), bytes.clone());
        async move {
            waiting.acquire().await.unwrap().forget();
            ok(bytes)
        }
    });
    gate
}

#[tokio::test]
async fn twenty_pulls_of_one_image_download_it_once() {
    let fixture = Fixture::start().await;
    let image = Image::new(CNCF, "hello");
    image.push(&fixture.server, "app", "1");
    let path = image.module_path("app");
    let gate = gate(&fixture, &path, &image);
    let pulls = join_all((0..20).map(|_| fixture.pull("app:1")));
    let release = async {
        fixture.server.until_asked(&path).await;
        gate.add_permits(20);
    };
    let (pulled, ()) = futures::join!(pulls, release);
    assert!(pulled.iter().all(|result| result.as_ref().unwrap().digest == image.digest()));
    assert_eq!(fixture.server.count(&path), 1);
    assert_eq!(fixture.server.count(&image.config_path("app")), 1);
    assert_eq!(fixture.server.count(&manifest_path("app", "1")), 1);
}

#[tokio::test]
async fn two_tags_of_one_image_share_its_download() {
    let fixture = Fixture::start().await;
    let image = Image::new(CNCF, "hello");
    image.push(&fixture.server, "app", "1");
    image.push(&fixture.server, "app", "2");
    let path = image.module_path("app");
    let gate = gate(&fixture, &path, &image);
    let release = async {
        for tag in ["1", "2"] {
            fixture.server.until_asked(&manifest_path("app", tag)).await;
        }
        fixture.server.until_asked(&path).await;
        gate.add_permits(2);
    };
    let (one, two, ()) = futures::join!(fixture.pull("app:1"), fixture.pull("app:2"), release);
    assert_eq!(one.unwrap().content, two.unwrap().content);
    assert_eq!(fixture.server.count(&path), 1);
}

#[tokio::test]
async fn different_images_are_pulled_in_parallel() {
    let fixture = Fixture::start().await;
    let barrier = Arc::new(Barrier::new(2));
    for name in ["one", "two"] {
        let image = Image::new(CNCF, name);
        image.push(&fixture.server, name, "1");
        let (barrier, bytes) = (barrier.clone(), image.module.clone());
        fixture.server.route(&image.module_path(name), move |_| {
            let (barrier, bytes) = (barrier.clone(), bytes.clone());
            async move {
                // Neither is answered before both have asked.
                barrier.wait().await;
                ok(bytes)
            }
        });
    }
    let (one, two) = futures::join!(fixture.pull("one:1"), fixture.pull("two:1"));
    assert_ne!(one.unwrap().digest, two.unwrap().digest);
}

#[tokio::test]
async fn a_pull_goes_on_while_somebody_waits_for_it() {
    let fixture = Fixture::start().await;
    let image = Image::new(CNCF, "hello");
    image.push(&fixture.server, "app", "1");
    let path = image.module_path("app");
    let gate = gate(&fixture, &path, &image);
    let mut leaving = Box::pin(fixture.pull("app:1"));
    let mut staying = Box::pin(fixture.pull("app:1"));
    tokio::select! {
        biased;
        _ = &mut leaving => panic!("the gate is shut"),
        _ = &mut staying => panic!("the gate is shut"),
        () = fixture.server.until_asked(&path) => drop(leaving),
    }
    gate.add_permits(1);
    assert_eq!(staying.await.unwrap().digest, image.digest());
    assert_eq!(fixture.server.count(&path), 1);
}

#[tokio::test]
async fn a_pull_that_nobody_waits_for_ends_and_leaves_nothing() {
    let fixture = Fixture::start().await;
    let image = Image::new(CNCF, "hello");
    image.push(&fixture.server, "app", "1");
    let path = image.module_path("app");
    let part = image.module.slice(..4);
    fixture.server.route(&path, move |_| std::future::ready(stalled(part.clone())));
    tokio::select! {
        biased;
        result = fixture.pull("app:1") => panic!("{result:?}"),
        () = fixture.server.until_asked(&path) => (),
    }
    for folder in ["unfinished", "blobs/sha256", "references"] {
        assert_eq!(fixture.files(folder), Vec::<String>::new(), "{folder}");
    }
    image.push(&fixture.server, "app", "1");
    fixture.pull("app:1").await.unwrap();
}

#[tokio::test]
async fn nobody_gets_by_sharing_what_it_could_not_get_alone() {
    let fixture = Fixture::start().await;
    let image = Image::new(CNCF, "hello");
    image.push(&fixture.server, "app", "1");
    let path = image.module_path("app");
    let gate = gate(&fixture, &path, &image);
    fixture.server.guard(|asked| {
        let refusal = || with_header(status(401, ""), "www-authenticate", "Basic realm=\"x\"");
        asked.authorization.is_none().then(refusal)
    });
    let mut mine = Box::pin(fixture.pull_as("app:1", &[("me", "secret")]));
    tokio::select! {
        biased;
        result = &mut mine => panic!("{result:?}"),
        () = fixture.server.until_asked(&path) => (),
    }
    fixture.pull("app:1").await.unwrap_err();
    gate.add_permits(1);
    mine.await.unwrap();
}
