use std::io;
use std::time::Duration;

use coracle_kubelet::Stop;
use tokio::process::Command;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::timeout;
use tracing::info;

/// The signals that ask the node to stop.
pub(crate) struct Signals {
    terminate: Signal,
    interrupt: Signal,
    power: Signal,
}

impl Signals {
    /// Takes the signals over from the system, which would end the process at once.
    pub(crate) fn listen() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            power: signal(power_failure())?,
        })
    }

    /// Stops the node on the first signal, and ends the process on the second as the signal itself would have.
    ///
    /// When pods are given time before the machine goes down, SIGPWR says that it does, and so does SIGTERM while the
    /// system stops. The system may send its SIGTERM after that: it is no second signal.
    pub(crate) async fn obey(mut self, stop: Stop, grace: Duration) {
        let first = self.next().await;
        if !grace.is_zero() && (first == power_failure() || is_system_stopping().await) {
            info!("the machine goes down: pods have {grace:?}");
            stop.machine.cancel();
            if first == power_failure() {
                self.next().await;
            }
        } else {
            info!("the node stops; a second signal ends it at once");
            stop.agent.cancel();
        }
        let number = self.next().await.as_raw_value();
        std::process::exit(128 + number);
    }

    async fn next(&mut self) -> SignalKind {
        tokio::select! {
            _ = self.terminate.recv() => SignalKind::terminate(),
            _ = self.interrupt.recv() => SignalKind::interrupt(),
            _ = self.power.recv() => power_failure(),
        }
    }
}

/// SIGPWR: the power is about to fail.
fn power_failure() -> SignalKind {
    SignalKind::from_raw(rustix::process::Signal::POWER.as_raw())
}

/// How long systemd may take to say how the system is.
const PATIENCE: Duration = Duration::from_secs(2);

/// Whether systemd is about to end the whole system. Where there is no systemd, nobody says so.
async fn is_system_stopping() -> bool {
    let asked = Command::new("systemctl").arg("is-system-running").kill_on_drop(true).output();
    let answer = timeout(PATIENCE, asked).await;
    answer.is_ok_and(|answer| answer.is_ok_and(|output| output.stdout.trim_ascii() == b"stopping"))
}
