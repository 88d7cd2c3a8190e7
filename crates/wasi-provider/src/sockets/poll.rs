//! `poll_oneoff` where sockets are among what a guest waits for.

use std::future::poll_fn;
use std::pin::pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};
use wasmtime::Linker;
use wasmtime_wasi::p1::types::Errno;
use wasmtime_wasi::p1::wasi_snapshot_preview1 as wasi;
use wiggle::GuestMemory;

use super::calls::{Call, of_wasmtime};
use super::memory::{Memory, Refused, answer};
use super::{Socket, SocketKind};
use crate::guest::ModuleGuest;

/// The sizes of a subscription and of an event in memory.
const SUBSCRIPTION: usize = 48;
const EVENT: usize = 32;
/// More of them at a time are refused.
const MAX_SUBSCRIPTIONS: u32 = 16_384;
/// The kinds of what can be waited for.
const CLOCK: u8 = 0;
const READ: u8 = 1;
const WRITE: u8 = 2;
/// The flag of a clock's time that is a point of it.
const ABSOLUTE: u16 = 1;

type Subscription = [u8; SUBSCRIPTION];

/// What a guest waits for.
enum Wait {
    /// A time.
    Until(Instant),
    /// Something to read, or room to write.
    Socket(Socket),
    /// Anything of wasmtime's: what it says now is what counts.
    Known(Option<[u8; EVENT]>),
}

struct Waiting {
    subscription: Subscription,
    wait: Wait,
}

pub(super) fn add_to_linker(linker: &mut Linker<ModuleGuest>, interface: &str) -> wasmtime::Result<()> {
    linker.func_wrap_async(
        interface,
        "poll_oneoff",
        |mut caller: Call<'_>, (from, to, count, told): (i32, i32, i32, i32)| {
            Box::new(async move {
                if let Ok(Some(found)) = subscriptions(&mut caller, from, count) {
                    return answer(poll(&mut caller, found, to, told).await);
                }
                // Without sockets, or with what is wrong anyway.
                let (mut memory, wasi) = of_wasmtime(&mut caller)?;
                wasi::poll_oneoff(wasi, &mut memory, from, to, count, told).await
            })
        },
    )?;
    Ok(())
}

/// All that the guest waits for; `None` when there is no socket among it.
fn subscriptions(
    caller: &mut Call<'_>,
    from: i32,
    count: i32,
) -> wasmtime::Result<Option<Vec<Subscription>>> {
    let (memory, guest) = Memory::of(caller)?;
    let count = count.cast_unsigned();
    if count > MAX_SUBSCRIPTIONS {
        return Ok(None);
    }
    let bytes = memory.bytes(from.cast_unsigned(), u32::try_from(count as usize * SUBSCRIPTION)?)?;
    let (all, _) = bytes.as_chunks::<SUBSCRIPTION>();
    let is_ours = |one: &Subscription| one[8] != CLOCK && guest.world.sockets.find(descriptor(one)).is_some();
    Ok(all.iter().any(is_ours).then(|| all.to_vec()))
}

fn descriptor(subscription: &Subscription) -> i32 {
    i32::from_le_bytes(field(subscription, 16))
}

fn field<const N: usize>(subscription: &Subscription, at: usize) -> [u8; N] {
    let mut field = [0; N];
    field.copy_from_slice(&subscription[at..at + N]);
    field
}

async fn poll(
    caller: &mut Call<'_>,
    subscriptions: Vec<Subscription>,
    to: i32,
    told: i32,
) -> wasmtime::Result<()> {
    let mut waiting = Vec::with_capacity(subscriptions.len());
    for subscription in subscriptions {
        let wait = wait(caller, &subscription).await?;
        waiting.push(Waiting { subscription, wait });
    }
    let first = waiting.iter().filter_map(Waiting::time).min();
    let mut alarm = pin!(sleep_until(first.unwrap_or_else(never)));
    let events = poll_fn(|context| {
        let is_time = alarm.as_mut().poll(context).is_ready();
        let events: Vec<_> = waiting.iter().filter_map(|one| one.event(is_time, context)).collect();
        if events.is_empty() { Poll::Pending } else { Poll::Ready(events) }
    })
    .await;
    let (mut memory, _) = Memory::of(caller)?;
    let (to, count) = (to.cast_unsigned(), u32::try_from(events.len())?);
    let events = events.as_flattened();
    memory.bytes_mut(to, u32::try_from(events.len())?)?.copy_from_slice(events);
    Ok(memory.write(told.cast_unsigned(), count.to_le_bytes())?)
}

async fn wait(caller: &mut Call<'_>, subscription: &Subscription) -> wasmtime::Result<Wait> {
    if subscription[8] == CLOCK {
        return until(caller, subscription).map(Wait::Until);
    }
    if let Some(socket) = caller.data().world.sockets.find(descriptor(subscription)) {
        return Ok(Wait::Socket(socket.clone()));
    }
    known(caller, subscription).await.map(Wait::Known)
}

/// When a clock's time is there.
fn until(caller: &mut Call<'_>, subscription: &Subscription) -> wasmtime::Result<Instant> {
    let time = Duration::from_nanos(u64::from_le_bytes(field(subscription, 24)));
    let passed = if u16::from_le_bytes(field(subscription, 40)) & ABSOLUTE == 0 {
        Duration::ZERO
    } else {
        let clock = i32::from_le_bytes(field(subscription, 16));
        let mut now = [0; 8];
        let mut memory = GuestMemory::Unshared(&mut now);
        let wrong = wasi::clock_time_get(&mut caller.data_mut().world.wasi, &mut memory, clock, 0, 0)?;
        if wrong != 0 {
            return Err(Refused(Errno::Inval).into());
        }
        Duration::from_nanos(u64::from_le_bytes(now))
    };
    let wait = time.saturating_sub(passed);
    Ok(Instant::now().checked_add(wait).map_or_else(never, |time| time.min(never())))
}

/// As far away as makes no difference.
fn never() -> Instant {
    Instant::now() + Duration::from_hours(24 * 365 * 10)
}

/// What wasmtime says of this now: it is asked for it and for a time that is over, so that it does not wait.
async fn known(caller: &mut Call<'_>, subscription: &Subscription) -> wasmtime::Result<Option<[u8; EVENT]>> {
    const EVENTS: usize = 2 * SUBSCRIPTION;
    const COUNT: usize = EVENTS + 2 * EVENT;
    let mut scratch = [0; COUNT + 4];
    scratch[..SUBSCRIPTION].copy_from_slice(subscription);
    // A relative time of no length, by the monotonic clock.
    scratch[SUBSCRIPTION + 16] = 1;
    let mut memory = GuestMemory::Unshared(&mut scratch);
    let wasi = &mut caller.data_mut().world.wasi;
    let (events, count) = (i32::try_from(EVENTS)?, i32::try_from(COUNT)?);
    let wrong = wasi::poll_oneoff(wasi, &mut memory, 0, events, 2, count).await?;
    if wrong != 0 {
        return Ok(Some(event(subscription, u16::try_from(wrong)?, 0)));
    }
    let (events, _) = scratch[EVENTS..COUNT].as_chunks::<EVENT>();
    Ok(events[..usize::from(scratch[COUNT]).min(2)].iter().find(|event| event[10] != CLOCK).copied())
}

/// What is told of something that has happened.
fn event(subscription: &Subscription, wrong: u16, bytes: u64) -> [u8; EVENT] {
    let mut event = [0; EVENT];
    event[..8].copy_from_slice(&subscription[..8]);
    event[8..10].copy_from_slice(&wrong.to_le_bytes());
    event[10] = subscription[8];
    event[16..24].copy_from_slice(&bytes.to_le_bytes());
    event
}

impl Waiting {
    fn time(&self) -> Option<Instant> {
        match self.wait {
            Wait::Until(time) => Some(time),
            Wait::Socket(_) | Wait::Known(_) => None,
        }
    }

    /// What there is to tell by now.
    fn event(&self, is_time: bool, context: &mut Context<'_>) -> Option<[u8; EVENT]> {
        match &self.wait {
            Wait::Until(time) => {
                (is_time && *time <= Instant::now()).then(|| event(&self.subscription, 0, 0))
            }
            Wait::Known(known) => *known,
            Wait::Socket(socket) => match ready(socket, self.subscription[8], context) {
                Poll::Ready(wrong) => Some(event(&self.subscription, wrong, 1)),
                Poll::Pending => None,
            },
        }
    }
}

/// Whether a call on this socket would not wait; a socket that has failed is ready to say so.
fn ready(socket: &Socket, kind: u8, context: &mut Context<'_>) -> Poll<u16> {
    let is_ready = match (&socket.kind, kind) {
        (SocketKind::Listener(listener), READ) => listener.poll_arrived(context).is_ready(),
        (SocketKind::Connection(connection), READ) => connection.stream.poll_read_ready(context).is_ready(),
        (SocketKind::Connection(connection), WRITE) => connection.stream.poll_write_ready(context).is_ready(),
        _ => return Poll::Ready(Errno::Inval as u16),
    };
    if is_ready { Poll::Ready(0) } else { Poll::Pending }
}
