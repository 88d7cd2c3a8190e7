//! The end of the machine as systemd's logind tells it, which waits with it for those who hold a lock.
//!
//! <https://systemd.io/INHIBITOR_LOCKS/>

use std::time::Duration;

use futures::StreamExt as _;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};
use zbus::{Connection, OwnedFd, proxy};

/// How long after a lost connection to the system bus the next one is tried, as a kubelet does.
const RECONNECTION: Duration = Duration::from_secs(1);

#[proxy(
    interface = "org.freedesktop.login1.Manager",
    default_service = "org.freedesktop.login1",
    default_path = "/org/freedesktop/login1"
)]
trait Manager {
    fn inhibit(&self, what: &str, who: &str, why: &str, mode: &str) -> zbus::Result<OwnedFd>;

    #[zbus(property(emits_changed_signal = "false"), name = "InhibitDelayMaxUSec")]
    fn longest_delay(&self) -> zbus::Result<u64>;

    #[zbus(property(emits_changed_signal = "false"))]
    fn preparing_for_shutdown(&self) -> zbus::Result<bool>;

    #[zbus(signal)]
    fn prepare_for_shutdown(&self, begins: bool) -> zbus::Result<()>;
}

/// The machine stays up as long as this is held, and for as long as logind lets anybody delay it.
struct Lock {
    _held: OwnedFd,
}

/// Cancels `machine` when the machine is about to go down, and holds it up, for `grace` if logind allows that, until this
/// is dropped. Where there is no logind, nothing is held up, and only signals tell.
pub(crate) async fn obey(machine: CancellationToken, grace: Duration) {
    if let Err(error) = follow(Connection::system, &machine, grace).await {
        info!(%error, "logind cannot be asked to wait: only signals tell that the machine goes down");
    }
}

/// # Errors
/// The first connection fails, or what is there is no logind; a connection that is lost is made anew until one works.
async fn follow<C: Future<Output = zbus::Result<Connection>> + Send>(
    connect: impl Fn() -> C + Send,
    machine: &CancellationToken,
    grace: Duration,
) -> zbus::Result<()> {
    let mut is_known = false;
    loop {
        let held = match connect().await {
            Ok(connection) => until_shutdown(&connection, grace, &mut is_known).await,
            Err(error) if !is_known => return Err(error),
            Err(error) => Err(error),
        };
        match held {
            Ok(_lock) => {
                info!("logind says that the machine goes down");
                machine.cancel();
                return std::future::pending().await;
            }
            Err(error) if is_known || is_lost(&error) => debug!(%error, "the connection to logind was lost"),
            Err(error) => return Err(error),
        }
        is_known = true;
        sleep(RECONNECTION).await;
    }
}

/// Whether nobody has answered any more, rather than somebody who knows nothing of locks.
fn is_lost(error: &zbus::Error) -> bool {
    matches!(error, zbus::Error::InputOutput(_))
}

/// Takes a lock and waits until the machine is about to go down.
async fn until_shutdown(connection: &Connection, grace: Duration, is_known: &mut bool) -> zbus::Result<Lock> {
    let manager = ManagerProxy::new(connection).await?;
    let mut shutdowns = manager.receive_prepare_for_shutdown().await?;
    let why = "Coracle needs time to handle node shutdown";
    let lock = Lock { _held: manager.inhibit("shutdown", "coracle", why, "delay").await? };
    let longest = Duration::from_micros(manager.longest_delay().await?);
    if longest < grace && !*is_known {
        warn!(
            ?longest,
            ?grace,
            "logind waits for less than --shutdown-grace-period: InhibitDelayMaxSec of logind.conf says how long"
        );
    }
    *is_known = true;
    if manager.preparing_for_shutdown().await? {
        return Ok(lock);
    }
    let told = async {
        while let Some(signal) = shutdowns.next().await {
            if signal.args()?.begins {
                return Ok(lock);
            }
        }
        Err(lost())
    };
    tokio::select! {
        told = told => told,
        () = connection.closed() => Err(lost()),
    }
}

fn lost() -> zbus::Error {
    zbus::Error::from(std::io::Error::from(std::io::ErrorKind::ConnectionReset))
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::os::fd::OwnedFd as Descriptor;
    use std::os::unix::net::UnixStream;
    use std::sync::Arc;

    use parking_lot::Mutex;
    use tokio::sync::watch;
    use tokio::task::JoinSet;
    use zbus::connection::Builder;
    use zbus::object_server::SignalEmitter;

    use super::*;

    /// A logind that hands out locks and keeps its own ends of them.
    #[derive(Clone, Default)]
    struct Logind {
        is_preparing: bool,
        longest_delay: u64,
        locks: Arc<watch::Sender<Vec<(String, UnixStream)>>>,
    }

    #[zbus::interface(name = "org.freedesktop.login1.Manager")]
    impl Logind {
        fn inhibit(&self, what: &str, who: &str, why: &str, mode: &str) -> OwnedFd {
            assert!(!who.is_empty() && !why.is_empty());
            let (own, given) = UnixStream::pair().unwrap();
            own.set_nonblocking(true).unwrap();
            self.locks.send_modify(|locks| locks.push((format!("{what} {mode}"), own)));
            Descriptor::from(given).into()
        }

        #[zbus(property, name = "InhibitDelayMaxUSec")]
        fn longest_delay(&self) -> u64 {
            self.longest_delay
        }

        #[zbus(property)]
        fn preparing_for_shutdown(&self) -> bool {
            self.is_preparing
        }

        #[zbus(signal)]
        async fn prepare_for_shutdown(emitter: &SignalEmitter<'_>, begins: bool) -> zbus::Result<()>;
    }

    impl Logind {
        /// Serves one connection, and gives both ends of it.
        async fn connected(&self) -> (Connection, Connection) {
            let (server, client) = UnixStream::pair().unwrap();
            let server = Builder::unix_stream(server)
                .server(zbus::Guid::generate())
                .p2p()
                .serve_at("/org/freedesktop/login1", self.clone())
                .build();
            let (server, client) =
                futures::future::try_join(server, Builder::unix_stream(client).p2p().build()).await.unwrap();
            (server, client)
        }

        async fn locked(&self, count: usize) {
            let mut locks = self.locks.subscribe();
            let locked = locks.wait_for(|locks| locks.len() >= count);
            tokio::time::timeout(Duration::from_mins(1), locked).await.unwrap().unwrap();
        }

        /// Whether the newest lock is held.
        fn is_held(&self) -> bool {
            let locks = self.locks.borrow();
            let (what, lock) = locks.last().unwrap();
            assert_eq!(what, "shutdown delay");
            (&*lock).read(&mut [0]).is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock)
        }
    }

    /// Follows what these connections tell, one after the other.
    fn following(connections: Vec<Connection>) -> (JoinSet<zbus::Result<()>>, CancellationToken) {
        let (machine, connections) = (CancellationToken::new(), Mutex::new(connections.into_iter()));
        let mut tasks = JoinSet::new();
        let told = machine.clone();
        tasks.spawn(async move {
            let next = || {
                let nobody = || zbus::Error::Failure("nobody is there".to_owned());
                std::future::ready(connections.lock().next().ok_or_else(nobody))
            };
            follow(next, &told, Duration::from_secs(30)).await
        });
        (tasks, machine)
    }

    async fn tell(server: &Connection, begins: bool) {
        let emitter = SignalEmitter::new(server, "/org/freedesktop/login1").unwrap();
        Logind::prepare_for_shutdown(&emitter, begins).await.unwrap();
    }

    #[tokio::test]
    async fn the_machine_waits_until_the_agent_lets_go() {
        let logind = Logind::default();
        let (server, client) = logind.connected().await;
        let (mut tasks, machine) = following(vec![client]);
        logind.locked(1).await;
        tell(&server, false).await;
        assert!(!machine.is_cancelled() && logind.is_held());
        tell(&server, true).await;
        machine.cancelled().await;
        assert!(logind.is_held());
        tasks.shutdown().await;
        assert!(!logind.is_held());
    }

    #[tokio::test]
    async fn who_begins_while_the_machine_goes_down_is_told() {
        let logind = Logind { is_preparing: true, ..Logind::default() };
        let (_server, client) = logind.connected().await;
        let (_tasks, machine) = following(vec![client]);
        machine.cancelled().await;
        assert!(logind.is_held());
    }

    #[tokio::test]
    async fn a_lost_connection_is_made_anew() {
        let logind = Logind::default();
        let ((first, client), (second, next)) = (logind.connected().await, logind.connected().await);
        let (_tasks, machine) = following(vec![client, next]);
        logind.locked(1).await;
        first.close().await.unwrap();
        logind.locked(2).await;
        tell(&second, true).await;
        machine.cancelled().await;
        assert!(logind.is_held());
    }

    #[tokio::test]
    async fn a_bus_without_logind_is_left_alone() {
        let (server, client) = UnixStream::pair().unwrap();
        let server = Builder::unix_stream(server).server(zbus::Guid::generate()).p2p().build();
        let client = Builder::unix_stream(client).p2p().build();
        let (server, client) = futures::future::try_join(server, client).await.unwrap();
        let _ = server.object_server().at("/elsewhere", Logind::default()).await.unwrap();
        let (mut tasks, machine) = following(vec![client]);
        assert!(tasks.join_next().await.unwrap().unwrap().is_err());
        assert!(!machine.is_cancelled());
    }

    #[tokio::test]
    async fn without_logind_nobody_is_waited_for() {
        let (mut tasks, machine) = following(Vec::new());
        assert!(tasks.join_next().await.unwrap().unwrap().is_err());
        assert!(!machine.is_cancelled());
    }
}
