use std::collections::BTreeMap;
use std::path::PathBuf;

use coracle_lifecycle::downward::Facts;
use coracle_lifecycle::environment::{self, Given, Variables};
use coracle_lifecycle::{Network, Wish};
use k8s_openapi::api::core::v1::{Container, Pod};

use super::filesystem::MountsError;
use super::filesystem::beneath::Beneath;
use super::spec::ConfigError;
use super::{Context, disk, volumes};

/// What is read of a file of variables, in bytes.
const LONGEST_FILE: u64 = 1 << 20;

/// The variables of a container that is about to start, but for `HOSTNAME`.
///
/// # Errors
/// When something mandatory is missing or the API server does not tell.
pub(super) async fn variables(
    context: &Context,
    pod: &Pod,
    declared: &Container,
    network: &Network,
) -> Result<Variables, ConfigError> {
    let identity = pod.identity();
    let links = pod.spec.as_ref().and_then(|spec| spec.enable_service_links).unwrap_or(true);
    let services = context.services.variables(&identity.namespace, links).await?;
    let supply = context.supplies.of(&identity);
    let objects = supply.objects.get(&environment::object_names(declared)).await?;
    let given = Given { objects, services, files: files(context, pod, declared).await? };
    let node = context.node.borrow().clone();
    let status = node.as_ref().and_then(|node| node.status.as_ref());
    let facts = Facts {
        pod,
        addresses: &network.addresses,
        host_addresses: &context.host.addresses,
        allocatable: status.and_then(|status| status.allocatable.as_ref()),
    };
    Ok(environment::variables(&facts, declared, &given)?)
}

/// The files of variables that a container refers to, as far as they are there.
async fn files(
    context: &Context,
    pod: &Pod,
    declared: &Container,
) -> Result<BTreeMap<(String, String), Vec<u8>>, ConfigError> {
    let mut files = BTreeMap::new();
    for (volume, path) in environment::file_references(declared) {
        let (_, place) = volumes::find(context, pod, &volume).map_err(MountsError::from)?;
        let wanted = PathBuf::from(&path);
        let read = disk::off_thread(move || Beneath::volume(&place)?.read(&wanted, LONGEST_FILE));
        if let Ok(content) = read.await {
            files.insert((volume, path), content);
        }
    }
    Ok(files)
}
