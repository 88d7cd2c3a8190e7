//! The programs that are ready to start, by digest.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read as _};
use std::sync::Arc;
use std::time::{Duration, Instant};

use coracle_lifecycle::{BoxFuture, Digest, ImageModule, PrepareError};
use futures::future::{FutureExt as _, Shared};
use parking_lot::Mutex;
use sha2::{Digest as _, Sha256};
use tokio::runtime::Handle;
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};

use crate::cache::Cache;
use crate::compile::{Compiler, Job};
use crate::engine::{Layout, hexadecimal};
use crate::inspect::{Inspected, inspect};
use crate::program::{Host, Program};

/// Larger programs are refused unread.
const MAX_PROGRAM: u64 = 512 << 20;

/// How long a program that was too expensive to compile is not compiled again, however often its containers restart.
const TOO_EXPENSIVE: Duration = Duration::from_mins(30);

/// A program being loaded, or loaded, or refused: whoever waits gets the same.
type Loading = Shared<BoxFuture<'static, Result<Arc<Program>, PrepareError>>>;

/// A program that was asked for.
struct Known {
    since: Instant,
    loading: Loading,
}

/// Every program is loaded once, however many ask for it at a time.
pub(crate) struct Programs {
    loader: Arc<Loader>,
    known: Mutex<HashMap<Digest, Known>>,
    tasks: TaskTracker,
    runtime: Handle,
}

impl Programs {
    pub(crate) fn new(loader: Loader, tasks: TaskTracker, runtime: Handle) -> Self {
        Self { loader: Arc::new(loader), known: Mutex::default(), tasks, runtime }
    }

    /// The program in this file; compiled unless it was before, loaded unless it is.
    pub(crate) fn load(&self, module: &ImageModule) -> Loading {
        let mut known = self.known.lock();
        if let Some(known) = known.get(&module.digest).filter(|known| !known.may_be_tried_again()) {
            return known.loading.clone();
        }
        let (loader, wanted) = (Arc::clone(&self.loader), module.clone());
        let task = self.tasks.spawn_on(async move { loader.load(&wanted).await }, &self.runtime);
        let failed = |error| Err(PrepareError::Failed(format!("loading the program failed: {error}")));
        let loading = task.map(move |done| done.unwrap_or_else(failed)).boxed().shared();
        let asked = Known { since: Instant::now(), loading: loading.clone() };
        known.insert(module.digest.clone(), asked);
        loading
    }

    /// The program that was asked for before.
    pub(crate) fn find(&self, module: &Digest) -> Option<Loading> {
        self.known.lock().get(module).map(|known| known.loading.clone())
    }

    pub(crate) fn forget(&self, module: &Digest) {
        self.known.lock().remove(module);
        for (_, cache) in &self.loader.targets {
            cache.forget(module);
        }
    }

    pub(crate) fn compiled(&self) -> u64 {
        self.loader.compiler.compiled()
    }
}

impl Known {
    /// A verdict on the program's bytes stands for ever; a failure of this node may pass, and what was too expensive may be
    /// less so on a machine that has more to spare by then.
    fn may_be_tried_again(&self) -> bool {
        match self.loading.peek() {
            Some(Err(PrepareError::Failed(_))) => true,
            Some(Err(PrepareError::TooExpensive(_))) => self.since.elapsed() > TOO_EXPENSIVE,
            _ => false,
        }
    }
}

/// Makes programs ready.
pub(crate) struct Loader {
    pub(crate) compiler: Compiler,
    /// By layout, in the order of [`Layout::ALL`].
    pub(crate) targets: [(Host, Cache); 2],
}

impl Loader {
    async fn load(self: &Arc<Self>, module: &ImageModule) -> Result<Arc<Program>, PrepareError> {
        let inspected = blocking({
            let module = module.clone();
            move || inspect(&read(&module)?)
        })
        .await?;
        if let Some(program) = self.load_compiled(module, inspected).await? {
            return Ok(program);
        }
        self.compile(module, inspected).await?;
        let loaded = self.load_compiled(module, inspected).await?;
        loaded.ok_or_else(|| PrepareError::Failed("the code just compiled cannot be loaded".to_owned()))
    }

    fn target(&self, inspected: Inspected) -> &(Host, Cache) {
        &self.targets[Layout::for_data(inspected.data) as usize]
    }

    /// Loads and links what is in the cache; throws it away when it is damaged.
    async fn load_compiled(
        self: &Arc<Self>,
        module: &ImageModule,
        inspected: Inspected,
    ) -> Result<Option<Arc<Program>>, PrepareError> {
        let (loader, digest) = (Arc::clone(self), module.digest.clone());
        blocking(move || {
            let (host, cache) = loader.target(inspected);
            let Some(path) = cache.find(&digest).map_err(storage)? else { return Ok(None) };
            match host.load(inspected.kind, &path) {
                Ok(code) => host.link(inspected, &code).map(Arc::new).map(Some),
                Err(error) => {
                    warn!(path = %path.display(), %error, "compiled code cannot be loaded and is thrown away");
                    cache.forget(&digest);
                    Ok(None)
                }
            }
        })
        .await
    }

    async fn compile(&self, module: &ImageModule, inspected: Inspected) -> Result<(), PrepareError> {
        let (_, cache) = self.target(inspected);
        let draft = cache.draft().map_err(storage)?;
        let layout = Layout::for_data(inspected.data);
        debug!(digest = %module.digest, kind = %inspected.kind, layout = layout.name(), "compiling");
        let job = Job { module: &module.path, digest: &module.digest, layout, output: &draft };
        self.compiler.compile(&job).await?;
        cache.keep(draft, &module.digest).map_err(storage)
    }
}

fn storage(error: impl Into<io::Error>) -> PrepareError {
    PrepareError::Failed(format!("compiled code cannot be stored: {}", error.into()))
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, PrepareError> + Send + 'static,
) -> Result<T, PrepareError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|error| Err(PrepareError::Failed(format!("loading the program failed: {error}"))))
}

/// The bytes of a program. One that lies in a volume may be another file by now.
fn read(ImageModule { path, digest, .. }: &ImageModule) -> Result<Vec<u8>, PrepareError> {
    let failed =
        |error: io::Error| PrepareError::Failed(format!("{} cannot be read: {error}", path.display()));
    let file = File::open(path).map_err(failed)?;
    let mut bytes = Vec::new();
    file.take(MAX_PROGRAM + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > MAX_PROGRAM {
        let limit = MAX_PROGRAM >> 20;
        return Err(PrepareError::Unsupported(format!("the program is larger than {limit} MiB")));
    }
    if hexadecimal(&Sha256::digest(&bytes)) != digest.hex() {
        return Err(PrepareError::Failed(format!(
            "{} does not have the digest {digest} any more",
            path.display()
        )));
    }
    Ok(bytes)
}
