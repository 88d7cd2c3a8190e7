//! Which program runs in a container: found by its command, and made ready.

use std::sync::Arc;

use coracle_lifecycle::{ContainerSpec, ImageContent, ImageModule, PrepareError, StartError};
use tokio::runtime::Handle;

use crate::command::Commands;
use crate::program::Program;
use crate::programs::Programs;

/// Finds programs, for containers and for the commands that run beside them.
pub(crate) struct Finder {
    pub(crate) programs: Programs,
    commands: Arc<Commands>,
    runtime: Handle,
}

impl Finder {
    pub(crate) fn new(programs: Programs, runtime: Handle) -> Self {
        Self { programs, commands: Arc::default(), runtime }
    }

    /// The program that this command line begins in a container: its only one where the image is a bare artifact.
    ///
    /// # Errors
    /// There is no such program, or none that can run.
    pub(crate) async fn program(
        &self,
        spec: &ContainerSpec,
        command_line: Vec<String>,
    ) -> Result<Arc<Program>, StartError> {
        let loading = match &spec.image.content {
            ImageContent::Program(module) => self.programs.find(&module.digest).ok_or_else(|| {
                StartError::Failed(format!("the program {} was not prepared", module.digest))
            })?,
            ImageContent::Files(_) => {
                let module = self.command(spec, command_line).await?;
                let name = module.name.clone();
                let loaded = self.programs.load(&module).await;
                return loaded.map_err(|error| cannot_run(&name, &error));
            }
        };
        loading.await.map_err(|error| StartError::Failed(error.to_string()))
    }

    /// The program that the command line names, in the image's files and the volumes over them.
    async fn command(
        &self,
        spec: &ContainerSpec,
        command_line: Vec<String>,
    ) -> Result<ImageModule, StartError> {
        let (commands, spec) = (Arc::clone(&self.commands), spec.clone());
        let found = self.runtime.spawn_blocking(move || {
            let directory = spec.image.files().map_or(&*spec.root, |files| &*files.directory);
            commands.find(&spec, directory, &command_line)
        });
        found
            .await
            .unwrap_or_else(|error| Err(StartError::Failed(format!("finding its program failed: {error}"))))
    }
}

/// A command that was found and is no program that can run, told as Linux runtimes tell it.
fn cannot_run(command: &str, error: &PrepareError) -> StartError {
    match error {
        PrepareError::Invalid(why) | PrepareError::Unsupported(why) => {
            StartError::Command(format!("exec: {command:?}: exec format error: {why}"))
        }
        PrepareError::TooExpensive(why) => StartError::Command(format!("exec: {command:?}: {why}")),
        PrepareError::Failed(why) => StartError::Failed(format!("exec: {command:?}: {why}")),
    }
}
