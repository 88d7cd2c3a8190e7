use std::time::Duration;

use coracle_lifecycle::environment::{Variables, service_variables};
use futures::{Stream, StreamExt};
use k8s_openapi::api::core::v1::{Service, ServiceSpec};
use kube::runtime::reflector::{Store, reflector, store};
use kube::runtime::watcher::{Config, Error, Event};
use kube::{Api, Client};
use thiserror::Error as ThisError;
use tokio::time::timeout;
use tracing::warn;

use crate::answers::chain;
use crate::watching;

/// How long a container waits for the first list of services.
const PATIENCE: Duration = Duration::from_secs(10);

/// The services were never heard of. In the kubelet's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ThisError)]
#[error("services have not yet been read at least once, cannot construct envs")]
pub(super) struct ServicesUnknown;

/// The cluster's services as they are now: what pods find them by as variables.
#[derive(Clone)]
pub(crate) struct Services {
    store: Store<Service>,
}

impl Services {
    /// The services that `client` can see, and what has to run so that they are known.
    pub(crate) fn watch(client: Client) -> (Self, impl Future<Output = ()> + Send + use<>) {
        let (store, writer) = store();
        let events = watching::follow(Api::all(client), Config::default()).map(|event| event.map(slim));
        (Self { store }, run(reflector(writer, events)))
    }

    /// The variables of a pod that is about to start.
    ///
    /// # Errors
    /// When the services were never listed.
    pub(super) async fn variables(&self, namespace: &str, links: bool) -> Result<Variables, ServicesUnknown> {
        let listed = timeout(PATIENCE, self.store.wait_until_ready()).await;
        listed.map_err(|_| ServicesUnknown)?.map_err(|_| ServicesUnknown)?;
        let services = self.store.state();
        Ok(service_variables(services.iter().map(AsRef::as_ref), namespace, links))
    }
}

async fn run(events: impl Stream<Item = Result<Event<Service>, Error>> + Send) {
    let mut events = Box::pin(events);
    while let Some(event) = events.next().await {
        if let Err(error) = event {
            warn!(cause = chain(&error), "the watch of services was interrupted");
        }
    }
}

/// A service without what no variable shows: a cluster may have thousands.
fn slim(event: Event<Service>) -> Event<Service> {
    let slim = |mut service: Service| {
        let metadata = std::mem::take(&mut service.metadata);
        service.metadata.name = metadata.name;
        service.metadata.namespace = metadata.namespace;
        service.status = None;
        service.spec = service.spec.map(|spec| ServiceSpec {
            cluster_ip: spec.cluster_ip,
            ports: spec.ports,
            ..ServiceSpec::default()
        });
        service
    };
    match event {
        Event::Apply(service) => Event::Apply(slim(service)),
        Event::Delete(service) => Event::Delete(slim(service)),
        Event::InitApply(service) => Event::InitApply(slim(service)),
        Event::Init => Event::Init,
        Event::InitDone => Event::InitDone,
    }
}
