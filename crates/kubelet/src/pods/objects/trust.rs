//! The cluster's trust bundles. A pod may ask for all those of a signer, so all are watched, once for all pods that ask for
//! any and for as long as one does.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};

use coracle_lifecycle::projection::TrustBundle;
use futures::StreamExt;
use kube::api::{ApiResource, DynamicObject};
use kube::core::GroupVersionKind;
use kube::runtime::watcher::{Config, Event};
use kube::{Api, ResourceExt};
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::sleep;
use tracing::debug;

use super::news::News;
use super::source::waits;
use crate::pods::PodApi;
use crate::watching;

const GROUP: &str = "certificates.k8s.io";
const PLURAL: &str = "clustertrustbundles";
/// The versions of the API, the newest first.
const VERSIONS: [&str; 3] = ["v1", "v1beta1", "v1alpha1"];

pub(super) type Bundles = BTreeMap<String, TrustBundle>;

/// The trust bundles of the cluster, while somebody holds them.
#[derive(Clone)]
pub(super) struct TrustBundles {
    api: PodApi,
    watched: Arc<Mutex<Weak<Watched>>>,
}

impl TrustBundles {
    pub(super) fn new(api: PodApi) -> Self {
        Self { api, watched: Arc::default() }
    }

    /// The bundles, watched until this is dropped; `changed` hears of their changes.
    pub(super) fn hold(&self, changed: &Arc<Notify>) -> Arc<Watched> {
        let mut watched = self.watched.lock();
        let held = watched.upgrade().unwrap_or_else(|| {
            let news = Arc::new(News::default());
            let mut task = JoinSet::new();
            task.spawn(follow(self.api.clone(), Arc::clone(&news)));
            let held = Arc::new(Watched { news, _task: task });
            *watched = Arc::downgrade(&held);
            held
        });
        held.news.add_listener(changed);
        held
    }
}

/// Trust bundles that somebody holds.
pub(super) struct Watched {
    news: Arc<News<Arc<Bundles>>>,
    _task: JoinSet<()>,
}

impl Watched {
    /// The bundles by their names, once they are known.
    ///
    /// # Errors
    /// When the API server does not tell: why.
    pub(super) async fn get(&self) -> Result<Arc<Bundles>, String> {
        self.news.heard().await
    }
}

/// Watches all bundles for as long as this is polled.
async fn follow(api: PodApi, news: Arc<News<Arc<Bundles>>>) {
    let mut waits = waits();
    let resource = loop {
        match served(&api).await {
            Ok(Some(resource)) => break resource,
            Ok(None) => news.tell(Err(format!("the API server serves no {PLURAL}.{GROUP}"))),
            Err(why) => news.tell(Err(why)),
        }
        sleep(waits.next()).await;
    };
    let objects = Api::<DynamicObject>::all_with(api.client(), &resource);
    let mut events = Box::pin(watching::follow(objects, Config::default()));
    let (mut bundles, mut listed) = (Bundles::new(), Bundles::new());
    while let Some(event) = events.next().await {
        match event {
            Ok(Event::Init) => continue,
            Ok(Event::InitApply(object)) => {
                listed.insert(object.name_any(), bundle(&object));
                continue;
            }
            Ok(Event::InitDone) => bundles = std::mem::take(&mut listed),
            Ok(Event::Apply(object)) => drop(bundles.insert(object.name_any(), bundle(&object))),
            Ok(Event::Delete(object)) => drop(bundles.remove(&object.name_any())),
            Err(error) => {
                debug!(%error, "the watch of trust bundles was interrupted");
                listed.clear();
                if news.is_awaited() {
                    news.tell(Err(error.to_string()));
                }
                continue;
            }
        }
        news.tell(Ok(Arc::new(bundles.clone())));
    }
}

/// The kind in the newest version that the API server serves.
async fn served(api: &PodApi) -> Result<Option<ApiResource>, String> {
    let versions = VERSIONS.map(|version| GroupVersionKind::gvk(GROUP, version, "ClusterTrustBundle"));
    api.served(&versions, PLURAL).await.map_err(|error| error.to_string())
}

fn bundle(object: &DynamicObject) -> TrustBundle {
    let field = |name: &str| object.data["spec"][name].as_str().map(str::to_owned);
    TrustBundle {
        signer: field("signerName").unwrap_or_default(),
        labels: object.labels().clone(),
        certificates: field("trustBundle").unwrap_or_default(),
    }
}
