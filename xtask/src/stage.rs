//! What demo and benchmark play on: a control plane, a registry with the guests' images, and a Coracle node.

use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use coracle_testing::{Artifact, Cluster, ClusterBuilder, Node, NodeOptions, Registry, tools, workspace};

use crate::progress::{say, step, wait};
use crate::{cargo, guests};

/// The registry that manifests name; images come from the stage's own instead.
pub(crate) const MANIFEST_REGISTRY: &str = "localhost:5000/";

/// The tag that manifests name.
pub(crate) const TAG: &str = "v1";

/// What has to be built before anything is started.
pub(crate) struct Built {
    coracle: PathBuf,
    pub(crate) guests: PathBuf,
}

impl Built {
    /// Builds what is not up to date, and says so.
    pub(crate) fn all() -> anyhow::Result<Self> {
        step("control plane and registry (the first time about 6 minutes)", || Ok(tools::build(say)?))?;
        let guests = step("guest programs", || guests::build(workspace()))?.dir;
        let coracle = step("coracle", || cargo::build_program("coracle"))?;
        Ok(Self { coracle, guests })
    }
}

/// Everything that runs. Dropping it kills all of it; [`Stage::close`] gives the node time to clean up.
pub(crate) struct Stage {
    pub(crate) node: Node,
    pub(crate) registry: Registry,
    pub(crate) cluster: Cluster,
}

impl Stage {
    /// Starts the cluster and the registry, pushes the images, and joins a node of this name.
    pub(crate) async fn start(
        built: &Built,
        cluster: ClusterBuilder,
        name: &str,
        images: &[String],
    ) -> anyhow::Result<Self> {
        let cluster = wait("starting the control plane", cluster.start()).await?;
        let registry = wait("starting the registry", Registry::start()).await?;
        wait("pushing the images", push(&registry, &built.guests, images)).await?;
        let options = NodeOptions {
            name: name.to_owned(),
            binary: built.coracle.clone(),
            insecure_registries: vec![registry.host()],
            ..NodeOptions::default()
        };
        let node = wait("joining the node, until it is Ready", Node::start(&cluster, options)).await?;
        Ok(Self { node, registry, cluster })
    }

    /// Stops the node as an operator would, then takes everything down.
    pub(crate) async fn close(self) -> anyhow::Result<()> {
        let status = wait("stopping the node", self.node.terminate()).await?;
        ensure!(status.success(), "the node ended with {status}; its log:\n{}", self.node.log()?);
        self.cluster.shutdown();
        Ok(())
    }
}

async fn push(registry: &Registry, guests: &Path, images: &[String]) -> anyhow::Result<()> {
    for image in images {
        let path = guests.join(format!("{image}.wasm"));
        let wasm = std::fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
        registry.push(image, TAG, &Artifact::cncf(wasm)).await.with_context(|| format!("image {image}"))?;
    }
    Ok(())
}
