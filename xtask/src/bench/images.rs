//! `cargo xtask bench --images`: how fast images with files are on disk, beside `tar` with the same layer; how many
//! cores pulls use; what files cost the start of a container; how much memory a large layer takes.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use coracle_testing::registry::Files;
use coracle_testing::{Artifact, Cluster, Registry};
use serde_json::json;

use super::agent::{Usage, children_cpu, forget_peak, peak_kib};
use super::load::{self, Template};
use super::{IMAGE, NODE, median};
use crate::prerequisites;
use crate::progress::{say, wait};
use crate::stage::{Built, Stage, TAG};

const FILES: usize = 2000;
const FILE_SIZE: usize = 25_000;
/// How often each is done, in turns with what it is compared with.
const ROUNDS: usize = 7;
const AT_ONCE: usize = 20;
const STARTS: usize = 15;

/// Measures all four and prints them.
pub(crate) fn run() -> anyhow::Result<()> {
    prerequisites::for_demo()?;
    let built = Built::all()?;
    let pull = crate::cargo::build_program("coracle-pull")?;
    let runtime = tokio::runtime::Runtime::new()?;
    runtime.block_on(measure(&built, &pull))
}

async fn measure(built: &Built, pull: &Path) -> anyhow::Result<()> {
    let cluster = Cluster::builder().fast_limits();
    let stage = Stage::start(built, cluster, NODE, &[IMAGE.to_owned()]).await?;
    let program = std::fs::read(built.guests.join(format!("{IMAGE}.wasm")))?;
    let image = wait("making an image", async { with_files(&program) }).await?;
    stage.registry.push("files", TAG, &image).await?;
    let folder = target_folder()?;
    beside_tar(&stage.registry, pull, &image, &folder)?;
    at_once(&stage.registry, pull, &folder).await?;
    starts(&stage).await?;
    large_layer(&stage, &program).await?;
    std::fs::remove_dir_all(folder)?;
    stage.close().await
}

/// An image of one layer with the program and many files, each unlike any other and as compressible as text.
fn with_files(program: &[u8]) -> anyhow::Result<Artifact> {
    let mut files = Files::default().file("app.wasm", program);
    let mut state = 1_u32;
    let mut letter = move || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        b"etaoin shrdlucmf"[(state >> 28) as usize]
    };
    for number in 0..FILES {
        let content: Vec<u8> = (0..FILE_SIZE).map(|_| letter()).collect();
        files = files.file(&format!("data/{}/{number}", number % 40), &content);
    }
    Ok(Artifact::image(vec![files], &json!({ "Entrypoint": ["/app.wasm"] }))?)
}

/// A folder on the disk that builds are on: the system's temporary one may be memory.
fn target_folder() -> anyhow::Result<PathBuf> {
    let folder = coracle_testing::target_dir().join("bench-images");
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder)?;
    Ok(folder)
}

/// Pulls images into a folder of their own; how long that took, and what CPU time the process used.
fn pull_into(
    pull: &Path,
    folder: &Path,
    registry: &Registry,
    names: &[String],
) -> anyhow::Result<(f64, f64)> {
    let before = children_cpu()?;
    let mut command = Command::new(pull);
    command.arg(folder).arg(registry.host());
    command.args(names.iter().map(|name| registry.image(&format!("{name}:{TAG}"))));
    let output = command.output().context("running coracle-pull")?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let cpu = children_cpu()?.saturating_sub(before).as_secs_f64();
    let said = String::from_utf8(output.stdout)?;
    let seconds = said.lines().last().context("coracle-pull said nothing")?.parse()?;
    std::fs::remove_dir_all(folder)?;
    Ok((seconds, cpu))
}

fn beside_tar(registry: &Registry, pull: &Path, image: &Artifact, folder: &Path) -> anyhow::Result<()> {
    let archive = folder.join("layer.tar.gz");
    std::fs::write(&archive, &image.layers[0].data)?;
    let (mut ours, mut tars) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        ours.push(pull_into(pull, &folder.join("store"), registry, &["files".to_owned()])?.0);
        let unpacked = folder.join("tar");
        std::fs::create_dir(&unpacked)?;
        let began = Instant::now();
        crate::cargo::run(Command::new("tar").arg("xzf").arg(&archive).arg("-C").arg(&unpacked))?;
        tars.push(began.elapsed().as_secs_f64());
        std::fs::remove_dir_all(unpacked)?;
    }
    let (one, other) = (median(&mut ours), median(&mut tars));
    println!(
        "An image of {FILES} files, {} MB, pulled and unpacked: {one:.2} s; `tar xzf` of its layer: {other:.2} s; \
         {:.2} times that (medians of {ROUNDS}, in turns).",
        FILES * FILE_SIZE / 1_000_000,
        one / other,
    );
    Ok(())
}

async fn at_once(registry: &Registry, pull: &Path, folder: &Path) -> anyhow::Result<()> {
    let names: Vec<String> = (0..AT_ONCE).map(|number| format!("at-once-{number}")).collect();
    for (number, name) in names.iter().enumerate() {
        let files = (0..100).fold(Files::default().file("app.wasm", b"\0asm\x01\0\0\0"), |files, file| {
            let content = format!("{number} {file} ").repeat(6_000);
            files.file(&format!("data/{file}"), content.as_bytes())
        });
        registry
            .push(name, TAG, &Artifact::image(vec![files], &json!({ "Entrypoint": ["/app.wasm"] }))?)
            .await?;
    }
    let (seconds, cpu) = pull_into(pull, &folder.join("store"), registry, &names)?;
    println!("{AT_ONCE} images at once: {seconds:.2} s, {cpu:.2} s of CPU: {:.2} cores.", cpu / seconds);
    Ok(())
}

/// Pulls an image whose one layer has 1 GB, compressed, on the node.
async fn large_layer(stage: &Stage, program: &[u8]) -> anyhow::Result<()> {
    let image = wait("making a layer of 1 GB", async { of_one_gigabyte(program) }).await?;
    wait("pushing it", stage.registry.push("large", TAG, &image)).await?;
    let megabytes = image.layers[0].data.len() / 1_000_000;
    drop(image);
    let agent = stage.node.process_id();
    let before = Usage::of(agent)?.resident_kib;
    forget_peak(agent)?;
    let began = Instant::now();
    load::run(&stage.cluster, &template(stage, "large"), 1).await?;
    println!(
        "An image with a layer of {megabytes} MB: Running after {:.1} s; the agent's memory grew by {:.1} MiB at most.",
        began.elapsed().as_secs_f64(),
        (peak_kib(agent)? - before) / 1024.0,
    );
    Ok(())
}

/// The program and 40 files of 25 MB that cannot be compressed.
fn of_one_gigabyte(program: &[u8]) -> anyhow::Result<Artifact> {
    let mut state = 1_u64;
    let words = std::iter::repeat_with(|| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        u32::try_from(state >> 32).unwrap_or_default()
    });
    let noise: Vec<u8> = words.take(25_000_000 / 4).flat_map(u32::to_le_bytes).collect();
    let files = (0..40).fold(Files::default().file("app.wasm", program), |files, number| {
        files.file(&format!("data/{number}"), &noise)
    });
    Ok(Artifact::image(vec![files], &json!({ "Entrypoint": ["/app.wasm"] }))?)
}

fn template(stage: &Stage, name: &str) -> Template {
    let image = stage.registry.image(&format!("{name}:{TAG}"));
    Template { image, config_maps: None, probed: None }
}

/// Starts a container of a bare program and one of an image with files, in turns, on a node that has both.
async fn starts(stage: &Stage) -> anyhow::Result<()> {
    let templates = [template(stage, IMAGE), template(stage, "files")];
    for template in &templates {
        load::run(&stage.cluster, template, 1).await?;
    }
    let mut delays = [Vec::new(), Vec::new()];
    say(&format!("==> {STARTS} starts of each"));
    for _ in 0..STARTS {
        for (template, delays) in templates.iter().zip(&mut delays) {
            delays.push(load::run(&stage.cluster, template, 1).await?.percentile(50));
        }
    }
    let [bare, files] = delays.map(|delays| {
        let mut millis: Vec<f64> =
            delays.iter().map(|delay: &Duration| delay.as_secs_f64() * 1000.0).collect();
        median(&mut millis)
    });
    println!(
        "Create→Running of one pod: {bare:.1} ms bare, {files:.1} ms with {FILES} files, {:.1} ms more (medians of {STARTS}, in \
         turns).",
        files - bare
    );
    Ok(())
}
