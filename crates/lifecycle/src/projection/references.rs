use std::borrow::Cow;

use k8s_openapi::api::core::v1::{
    ClusterTrustBundleProjection, ConfigMapProjection, DownwardAPIProjection, Pod, PodCertificateProjection,
    SecretProjection, ServiceAccountTokenProjection, Volume, VolumeProjection,
};

use crate::{ObjectNames, Wish};

/// Every volume of Kubernetes' own content as a projected one: its default mode and its sources.
pub(super) fn sources(volume: &Volume) -> Option<(Option<i32>, Cow<'_, [VolumeProjection]>)> {
    if let Some(source) = &volume.projected {
        return Some((source.default_mode, source.sources.as_deref().unwrap_or_default().into()));
    }
    let (mode, part) = if let Some(source) = &volume.config_map {
        let projection = ConfigMapProjection {
            items: source.items.clone(),
            name: source.name.clone(),
            optional: source.optional,
        };
        let part = VolumeProjection { config_map: Some(projection), ..VolumeProjection::default() };
        (source.default_mode, part)
    } else if let Some(source) = &volume.secret {
        let projection = SecretProjection {
            items: source.items.clone(),
            name: source.secret_name.clone().unwrap_or_default(),
            optional: source.optional,
        };
        (source.default_mode, VolumeProjection { secret: Some(projection), ..VolumeProjection::default() })
    } else {
        let source = volume.downward_api.as_ref()?;
        let projection = DownwardAPIProjection { items: source.items.clone() };
        let part = VolumeProjection { downward_api: Some(projection), ..VolumeProjection::default() };
        (source.default_mode, part)
    };
    Some((mode, vec![part].into()))
}

/// Whether a volume holds Kubernetes' own content, which the node makes and containers only read.
#[must_use]
pub fn is_content(volume: &Volume) -> bool {
    let Volume { projected, config_map, secret, downward_api, .. } = volume;
    projected.is_some() || config_map.is_some() || secret.is_some() || downward_api.is_some()
}

/// The group that a pod names for the files of its volumes.
#[must_use]
pub fn group(pod: &Pod) -> Option<u32> {
    let context = pod.spec.as_ref()?.security_context.as_ref()?;
    u32::try_from(context.fs_group?).ok()
}

fn parts(volume: &Volume) -> Cow<'_, [VolumeProjection]> {
    sources(volume).map(|(_, parts)| parts).unwrap_or_default()
}

/// The config maps and secrets that a volume refers to.
#[must_use]
pub fn object_names(volume: &Volume) -> ObjectNames {
    let mut names = ObjectNames::default();
    for part in parts(volume).iter() {
        names.config_maps.extend(part.config_map.as_ref().map(|wanted| wanted.name.clone()));
        names.secrets.extend(part.secret.as_ref().map(|wanted| wanted.name.clone()));
    }
    names
}

/// The service account tokens that a volume asks for, in order.
#[must_use]
pub fn tokens(volume: &Volume) -> Vec<ServiceAccountTokenProjection> {
    parts(volume).iter().filter_map(|part| part.service_account_token.clone()).collect()
}

/// The trust bundles that a volume asks for, in order.
#[must_use]
pub fn trust_bundles(volume: &Volume) -> Vec<ClusterTrustBundleProjection> {
    parts(volume).iter().filter_map(|part| part.cluster_trust_bundle.clone()).collect()
}

/// The pod certificates that a volume asks for, in order.
#[must_use]
pub fn pod_certificates(volume: &Volume) -> Vec<PodCertificateProjection> {
    parts(volume).iter().filter_map(|part| part.pod_certificate.clone()).collect()
}

/// Whether a volume holds what must not lie on a disk: secrets, tokens and keys.
#[must_use]
pub fn needs_privacy(volume: &Volume) -> bool {
    parts(volume).iter().any(|part| {
        part.secret.is_some() || part.service_account_token.is_some() || part.pod_certificate.is_some()
    })
}

/// Whether a volume of a pod shows something of the pod itself that is different in `after`.
#[must_use]
pub fn shows_change(before: &Pod, after: &Pod) -> bool {
    let shown = |pod: &Pod| {
        let resources = pod.containers().iter().map(|container| container.resources.clone());
        let metadata = &pod.metadata;
        (metadata.labels.clone(), metadata.annotations.clone(), resources.collect::<Vec<_>>())
    };
    let volumes = before.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
    let shows_itself = |volume| parts(volume).iter().any(|part| part.downward_api.is_some());
    volumes.into_iter().any(shows_itself) && shown(before) != shown(after)
}

/// Whether a pod names the group of its files, or the one user that all its containers run as.
pub(super) fn has_owner(pod: &Pod) -> bool {
    let context = pod.spec.as_ref().and_then(|spec| spec.security_context.as_ref());
    let user = context.and_then(|context| context.run_as_user);
    let initial = pod.spec.iter().flat_map(|spec| spec.init_containers.iter().flatten());
    let mut users = initial.chain(pod.containers()).map(|container| {
        container.security_context.as_ref().and_then(|context| context.run_as_user).or(user)
    });
    let first = users.next().flatten();
    context.is_some_and(|context| context.fs_group.is_some())
        || first.is_some() && users.all(|user| user == first)
}
