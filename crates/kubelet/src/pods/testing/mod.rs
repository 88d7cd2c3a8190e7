//! A node's surroundings for tests: an API server, a runtime and an image store that hold what they are told, and a
//! scene that runs the dispatcher among them in paused time.

mod api;
mod images;
mod objects;
mod runtime;
mod scene;

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::timeout;

pub(super) use api::FakeApi;
pub(crate) use images::FakeImages;
pub(super) use images::image;
pub(crate) use objects::{Fault, State};
pub(super) use runtime::FakeRuntime;
pub(super) use scene::{CONFIG_MAP, SECRET, Scene, conditions, container, pod};

/// How long, in virtual time, a test waits for something before it fails.
const PATIENCE: Duration = Duration::from_hours(2);

/// Waits until the state shows something, and gives that.
pub(crate) async fn shown<S, T>(state: &watch::Sender<S>, what: &str, look: impl Fn(&S) -> Option<T>) -> T {
    let mut state = state.subscribe();
    let seen = timeout(PATIENCE, state.wait_for(|state| look(state).is_some())).await;
    let seen = seen.unwrap_or_else(|_| panic!("never seen: {what}")).unwrap();
    look(&seen).unwrap()
}
