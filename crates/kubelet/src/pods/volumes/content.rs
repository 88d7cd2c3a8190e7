//! Volumes of Kubernetes' own content: objects, tokens, certificates and what a pod shows of itself, as files.

use coracle_lifecycle::Wish;
use coracle_lifecycle::downward::Facts;
use coracle_lifecycle::projection::{self, Fetched};
use k8s_openapi::api::core::v1::{Pod, Volume};

use super::writer::Writer;
use super::{Cause, Directory, Work, plugin};
use crate::pods::Context;
use crate::pods::certificates::Request;
use crate::pods::supplies::Supply;

/// Asks for what a volume shows, and gives the work that writes its files as they have to be now.
pub(super) async fn work(context: &Context, pod: &Pod, volume: &Volume) -> Result<Work, Cause> {
    let supply = context.supplies.of(&pod.identity());
    let fetched = fetch(context, &supply, pod, volume).await?;
    let node = context.node.borrow().clone();
    let status = node.as_ref().and_then(|node| node.status.as_ref());
    let facts = Facts {
        pod,
        addresses: &[],
        host_addresses: &context.host.addresses,
        allocatable: status.and_then(|status| status.allocatable.as_ref()),
    };
    let files = projection::files(&facts, volume, &fetched);
    let files = files.ok_or_else(|| Cause::UnsupportedKind(plugin(volume).into_owned()))??;
    let (uid, is_private) = (pod.identity().uid, projection::needs_privacy(volume));
    let directory = Directory::of(&context.layout, &uid, volume, is_private);
    let group = projection::group(pod);
    Ok(Box::new(move || Ok(Writer::new(directory.make()?, group).write(&files)?)))
}

async fn fetch(context: &Context, supply: &Supply, pod: &Pod, volume: &Volume) -> Result<Fetched, Cause> {
    let objects = supply.objects.get(&projection::object_names(volume)).await?;
    let trust_bundles = supply.objects.trust_anchors(&projection::trust_bundles(volume)).await?;
    let mut fetched = Fetched { objects, trust_bundles, ..Fetched::default() };
    let account = pod.spec.as_ref().and_then(|spec| spec.service_account_name.as_deref());
    let account = account.unwrap_or("default");
    for wanted in projection::tokens(volume) {
        fetched.tokens.push(supply.tokens.get(account, &wanted).await?);
    }
    for (position, wanted) in projection::pod_certificates(volume).into_iter().enumerate() {
        let request = || Request {
            api: context.api.clone(),
            pod: pod.identity(),
            account: account.to_owned(),
            node: context.node.clone(),
            wanted,
            directory: context.directory.clone(),
            recorder: context.recorder.clone(),
        };
        fetched.certificates.push(supply.certificates.get(&volume.name, position, request).await?);
    }
    Ok(fetched)
}
