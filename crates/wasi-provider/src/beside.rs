//! Commands that run beside a container's program: more instances over the same files and environment, within the same
//! limits.

use std::sync::Arc;

use coracle_lifecycle::{Container as _, ContainerSpec, ExecError, StartError, Streams};
use futures::future::join3;
use tokio::runtime::Handle;
use tokio_util::task::{AbortOnDropHandle, TaskTracker};

use crate::container::Run;
use crate::end;
use crate::finder::Finder;
use crate::guest::world_beside;
use crate::pipe::{Input, Pipe};
use crate::program::Program;
use crate::room::Room;
use crate::usage::{Allowance, Limiter};

/// By this annotation a pod says that its programs are many in one: what they do depends on the name they are called by.
const MULTI_CALL: &str = "coracle.dev/multi-call";

/// What a shell reports of a command that it does not find, or that is no program.
const NOT_FOUND: i32 = 127;

/// What the commands beside one container's program are made of.
pub(crate) struct Beside {
    pub(crate) finder: Arc<Finder>,
    pub(crate) allowance: Allowance,
    pub(crate) room: Arc<Room>,
    pub(crate) tasks: TaskTracker,
    pub(crate) runtime: Handle,
}

/// A command's streams on their way between the guest and who asked for it.
struct Pipes {
    stdin: Option<Input>,
    stdout: Pipe,
    stderr: Pipe,
}

impl Beside {
    /// Runs a command of `run`'s container to its end and gives its exit code. Dropping the future ends the command.
    ///
    /// # Errors
    /// When its program is a server, there is no room, or the container ends first.
    pub(crate) async fn exec(
        &self,
        run: Arc<Run>,
        command: Vec<String>,
        streams: Streams,
    ) -> Result<i32, ExecError> {
        let Streams { stdin, stdout, stderr } = streams;
        let pipes = Pipes { stdin: stdin.map(Input::new), stdout: Pipe::default(), stderr: Pipe::default() };
        let ending = async {
            let ended = self.to_its_end(run, command, &pipes).await;
            pipes.stdout.close();
            pipes.stderr.close();
            ended
        };
        join3(ending, pipes.stdout.drain(stdout), pipes.stderr.drain(stderr)).await.0
    }

    async fn to_its_end(&self, run: Arc<Run>, command: Vec<String>, pipes: &Pipes) -> Result<i32, ExecError> {
        if run.is_ended() {
            return Err(ExecError::NotRunning);
        }
        let program = match self.finder.program(run.spec(), command.clone()).await {
            Err(StartError::Command(why)) => return Ok(not_found(pipes, &why)),
            found => found.map_err(exec_error)?,
        };
        if program.kind.is_server() {
            let kind = program.kind;
            return Err(ExecError::Unsupported(format!("a {kind} has no entry point for commands")));
        }
        let name = command.first().map_or("", String::as_str);
        if !answers_to(run.spec(), name) {
            return Ok(not_found(pipes, &format!("exec: {name:?}: executable file not found in $PATH")));
        }
        self.run(run, program, command, pipes).await
    }

    async fn run(
        &self,
        run: Arc<Run>,
        program: Arc<Program>,
        command: Vec<String>,
        pipes: &Pipes,
    ) -> Result<i32, ExecError> {
        let place = self.room.take(run.spec().mounts.len(), program.mappings).map_err(exec_error)?;
        let (spec, kind) = (run.spec().clone(), program.kind);
        let room = Arc::clone(&self.room);
        let opened = self.runtime.spawn_blocking(move || world_beside(&spec, kind, &command, &room));
        let mut world = opened.await.map_err(|error| failed(&error))?.map_err(exec_error)?;
        world.context.stdout(pipes.stdout.output()).stderr(pipes.stderr.output());
        if let Some(stdin) = pipes.stdin.clone() {
            world.context.stdin(stdin);
        }
        let limiter = Limiter::within(&self.allowance);
        let work = async move {
            let _place = place;
            let instance = run.turn(Box::pin(async move { program.run(world, limiter).await }));
            tokio::select! {
                biased;
                verdict = instance => verdict,
                _ = run.exited() => None,
            }
        };
        let task = AbortOnDropHandle::new(self.tasks.spawn_on(work, &self.runtime));
        let verdict = task.await.map_err(|error| failed(&error))?.ok_or(ExecError::NotRunning)?;
        let (cause, message) = end::of(verdict);
        if let Some(message) = message {
            pipes.stderr.say(&message);
        }
        Ok(cause.exit_code())
    }
}

fn not_found(pipes: &Pipes, why: &str) -> i32 {
    pipes.stderr.say(why);
    NOT_FOUND
}

fn failed(error: &tokio::task::JoinError) -> ExecError {
    ExecError::Failed(format!("the command failed: {error}"))
}

fn exec_error(error: StartError) -> ExecError {
    match error {
        StartError::Exhausted(why) => ExecError::Exhausted(why),
        StartError::Invalid(why) | StartError::Command(why) | StartError::Failed(why) => {
            ExecError::Failed(why)
        }
    }
}

/// A bare program goes by its own name, and by the one it was started by; by any if its pod says so.
fn answers_to(spec: &ContainerSpec, name: &str) -> bool {
    let Some(program) = spec.image.program() else { return true };
    name == program.name
        || spec.command.first().is_some_and(|own| own == name)
        || !name.is_empty() && spec.annotations.get(MULTI_CALL).is_some_and(|value| value == "true")
}
