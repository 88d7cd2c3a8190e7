use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::info;

/// The two signals that ask the node to stop.
pub(crate) struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// Takes the signals over from the system, which would end the process at once.
    pub(crate) fn listen() -> io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    /// Cancels `shutdown` on the first signal, and ends the process on the second as the signal itself would have.
    pub(crate) async fn obey(mut self, shutdown: CancellationToken) {
        self.next().await;
        info!("the node stops; a second signal ends it at once");
        shutdown.cancel();
        let number = self.next().await;
        std::process::exit(128 + number);
    }

    async fn next(&mut self) -> i32 {
        let kind = tokio::select! {
            _ = self.terminate.recv() => SignalKind::terminate(),
            _ = self.interrupt.recv() => SignalKind::interrupt(),
        };
        kind.as_raw_value()
    }
}
