//! The calls of `wasi_snapshot_preview1` that know sockets. What concerns none of ours is wasmtime's.

use std::future::poll_fn;
use std::io;

use rustix::net::{RecvFlags, Shutdown, recv, shutdown};
use tokio::io::Interest;
use wasmtime::{AsContextMut as _, Caller, Linker};
use wasmtime_wasi::p1::WasiP1Ctx;
use wasmtime_wasi::p1::types::{Errno, Filetype};
use wasmtime_wasi::p1::wasi_snapshot_preview1::{self as wasi, WasiSnapshotPreview1 as _};
use wiggle::GuestMemory;

use super::memory::{Memory, Refused, answer};
use super::{Socket, poll};
use crate::guest::ModuleGuest;
use crate::network::Connection;

/// The interface under the only version that it ever had.
const INTERFACE: &str = "wasi_snapshot_preview1";
/// The flag of a descriptor whose calls never wait.
const NONBLOCK: u8 = 4;
/// The flag of a read that leaves what it reads.
const PEEK: i32 = 1;
/// What may be done with a socket: read, set flags, write, stat, poll, shut down, accept.
const RIGHTS: u64 = 1 << 1 | 1 << 3 | 1 << 6 | 1 << 21 | 1 << 27 | 1 << 28 | 1 << 29;
/// The kind of a preopened descriptor that is no directory: libraries that look for directories go on behind it.
const NO_DIRECTORY: u8 = 1;

pub(super) type Call<'a> = Caller<'a, ModuleGuest>;

/// A call whose first argument is a descriptor: of a socket of ours it is answered here, of any other by wasmtime.
macro_rules! call {
    ($linker:ident, $name:ident($($argument:ident),*), $ours:ident$(.$our_wait:ident)?, wasi$(.$wait:ident)?) => {
        $linker.func_wrap_async(
            INTERFACE,
            stringify!($name),
            |mut caller: Call<'_>, (fd, $($argument),*): (i32, $(call!(@i32 $argument)),*)| {
                Box::new(async move {
                    if let Some(socket) = caller.data().world.sockets.find(fd).cloned() {
                        return answer($ours(&mut caller, &socket, fd, [$($argument),*])$(.$our_wait)?);
                    }
                    let (mut memory, wasi) = of_wasmtime(&mut caller)?;
                    wasi::$name(wasi, &mut memory, fd, $($argument),*)$(.$wait)?
                })
            },
        )?;
    };
    (@i32 $argument:ident) => { i32 };
}

/// Puts the calls in the place of what wasmtime offers.
///
/// # Errors
/// When they are defined already and may not be shadowed.
pub(crate) fn add_to_linker(linker: &mut Linker<ModuleGuest>) -> wasmtime::Result<()> {
    linker.allow_shadowing(true);
    call!(linker, fd_close(), close.await, wasi.await);
    call!(linker, fd_fdstat_get(at), status, wasi.await);
    call!(linker, fd_fdstat_set_flags(flags), set_flags, wasi);
    call!(linker, fd_filestat_get(at), file_status, wasi.await);
    call!(linker, fd_prestat_get(at), preopened, wasi);
    call!(linker, fd_prestat_dir_name(path, length), no_name, wasi);
    call!(linker, fd_read(array, count, at), read.await, wasi.await);
    call!(linker, fd_write(array, count, at), write.await, wasi.await);
    call!(linker, fd_renumber(to), renumber, wasi.await);
    linker.func_wrap_async(
        INTERFACE,
        "sock_accept",
        |mut caller: Call<'_>, (fd, flags, at): (i32, i32, i32)| {
            Box::new(async move { answer(accept(&mut caller, fd, flags, at).await) })
        },
    )?;
    linker.func_wrap_async(
        INTERFACE,
        "sock_recv",
        |mut caller: Call<'_>, (fd, array, count, flags, read, told): (i32, i32, i32, i32, i32, i32)| {
            Box::new(async move { answer(receive(&mut caller, fd, [array, count, flags, read, told]).await) })
        },
    )?;
    linker.func_wrap_async(
        INTERFACE,
        "sock_send",
        |mut caller: Call<'_>, (fd, array, count, _flags, written): (i32, i32, i32, i32, i32)| {
            Box::new(async move {
                let outcome = match ours(&mut caller, fd).await {
                    Ok(socket) => write(&mut caller, &socket, fd, [array, count, written]).await,
                    Err(error) => Err(error),
                };
                answer(outcome)
            })
        },
    )?;
    linker.func_wrap_async(INTERFACE, "sock_shutdown", |mut caller: Call<'_>, (fd, how): (i32, i32)| {
        Box::new(async move { answer(shut_down(&mut caller, fd, how).await) })
    })?;
    poll::add_to_linker(linker, INTERFACE)?;
    linker.allow_shadowing(false);
    Ok(())
}

/// What wasmtime's own calls work on.
pub(super) fn of_wasmtime<'a>(
    caller: &'a mut Call<'_>,
) -> wasmtime::Result<(GuestMemory<'a>, &'a mut WasiP1Ctx)> {
    let fuel = caller.as_context_mut().hostcall_fuel();
    let (Memory(bytes), guest) = Memory::of(caller)?;
    guest.world.wasi.set_hostcall_fuel(fuel);
    Ok((GuestMemory::Unshared(bytes), &mut guest.world.wasi))
}

/// The socket of this descriptor.
async fn ours(caller: &mut Call<'_>, fd: i32) -> wasmtime::Result<Socket> {
    if let Some(socket) = caller.data().world.sockets.find(fd) {
        return Ok(socket.clone());
    }
    let mut status = [0; 24];
    let mut memory = GuestMemory::Unshared(&mut status);
    let known = wasi::fd_fdstat_get(&mut caller.data_mut().world.wasi, &mut memory, fd, 0).await?;
    Err(Refused(if known == 0 { Errno::Notsock } else { Errno::Badf }).into())
}

fn memory<'a>(caller: &'a mut Call<'_>) -> wasmtime::Result<Memory<'a>> {
    Memory::of(caller).map(|(memory, _)| memory)
}

/// Arguments that are places or lengths.
fn places<const N: usize>(arguments: [i32; N]) -> [u32; N] {
    arguments.map(i32::cast_unsigned)
}

async fn close(caller: &mut Call<'_>, _: &Socket, fd: i32, []: [i32; 0]) -> wasmtime::Result<()> {
    let guest = caller.data_mut();
    guest.world.sockets.close(fd);
    // The place that was kept for it, where there is one.
    wasi::fd_close(&mut guest.world.wasi, &mut GuestMemory::Unshared(&mut []), fd).await.map(drop)
}

fn status(caller: &mut Call<'_>, socket: &Socket, _: i32, [at]: [i32; 1]) -> wasmtime::Result<()> {
    let mut status = [0; 24];
    status[0] = Filetype::SocketStream as u8;
    status[2] = if socket.is_nonblocking { NONBLOCK } else { 0 };
    status[8..16].copy_from_slice(&RIGHTS.to_le_bytes());
    status[16..24].copy_from_slice(&RIGHTS.to_le_bytes());
    Ok(memory(caller)?.write(at.cast_unsigned(), status)?)
}

fn set_flags(caller: &mut Call<'_>, _: &Socket, fd: i32, [flags]: [i32; 1]) -> wasmtime::Result<()> {
    if flags & !i32::from(NONBLOCK) != 0 {
        return Err(Refused(Errno::Inval).into());
    }
    if let Some(socket) = caller.data_mut().world.sockets.find_mut(fd) {
        socket.is_nonblocking = flags != 0;
    }
    Ok(())
}

fn file_status(caller: &mut Call<'_>, _: &Socket, _: i32, [at]: [i32; 1]) -> wasmtime::Result<()> {
    let mut status = [0; 64];
    status[16] = Filetype::SocketStream as u8;
    Ok(memory(caller)?.write(at.cast_unsigned(), status)?)
}

/// A listening socket was open before the guest began; a connection was not.
fn preopened(caller: &mut Call<'_>, socket: &Socket, _: i32, [at]: [i32; 1]) -> wasmtime::Result<()> {
    socket.listener().map_err(|_| Refused(Errno::Badf))?;
    Ok(memory(caller)?.write(at.cast_unsigned(), [NO_DIRECTORY, 0, 0, 0, 0, 0, 0, 0])?)
}

fn no_name(_: &mut Call<'_>, _: &Socket, _: i32, _: [i32; 2]) -> wasmtime::Result<()> {
    Err(Refused(Errno::Notdir).into())
}

fn renumber(caller: &mut Call<'_>, _: &Socket, fd: i32, [to]: [i32; 1]) -> wasmtime::Result<()> {
    let guest = caller.data_mut();
    if fd == to {
        return Ok(());
    }
    if guest.world.sockets.find(to).is_none() {
        // A file's place is wasmtime's.
        return Err(Refused(Errno::Notsup).into());
    }
    guest.world.sockets.rename(fd, to);
    Ok(())
}

async fn accept(caller: &mut Call<'_>, fd: i32, flags: i32, at: i32) -> wasmtime::Result<()> {
    let socket = ours(caller, fd).await?;
    let listener = socket.listener()?;
    let connection = loop {
        let arrived = poll_fn(|context| {
            let arrived = listener.poll_arrived(context);
            if arrived.is_pending() && socket.is_nonblocking {
                return io::Result::Err(io::ErrorKind::WouldBlock.into()).into();
            }
            arrived
        });
        arrived.await.map_err(|error| Refused::from(&error))?;
        if let Some(connection) = listener.take() {
            break connection;
        }
    };
    let (mut memory, guest) = Memory::of(caller)?;
    memory.bytes(at.cast_unsigned(), 4)?;
    let descriptor = guest.world.sockets.add(connection, flags & i32::from(NONBLOCK) != 0);
    Ok(memory.write(at.cast_unsigned(), descriptor.to_le_bytes())?)
}

async fn receive(caller: &mut Call<'_>, fd: i32, arguments: [i32; 5]) -> wasmtime::Result<()> {
    let [array, count, flags, at, told] = arguments;
    if flags & !PEEK != 0 {
        return Err(Refused(Errno::Notsup).into());
    }
    let socket = ours(caller, fd).await?;
    let take = if flags & PEEK == 0 { try_read } else { try_peek };
    let number = received(caller, &socket, places([array, count]), take).await?;
    let mut memory = memory(caller)?;
    memory.write(told.cast_unsigned(), [0; 2])?;
    Ok(memory.write(at.cast_unsigned(), number.to_le_bytes())?)
}

async fn read(
    caller: &mut Call<'_>,
    socket: &Socket,
    _: i32,
    [array, count, at]: [i32; 3],
) -> wasmtime::Result<()> {
    let number = received(caller, socket, places([array, count]), try_read).await?;
    Ok(memory(caller)?.write(at.cast_unsigned(), number.to_le_bytes())?)
}

type Take = fn(&Connection, &mut [u8]) -> io::Result<usize>;

fn try_read(connection: &Connection, buffer: &mut [u8]) -> io::Result<usize> {
    connection.stream.try_read(buffer)
}

fn try_peek(connection: &Connection, buffer: &mut [u8]) -> io::Result<usize> {
    let stream = &connection.stream;
    let peeked = stream.try_io(Interest::READABLE, || Ok(recv(stream, &mut *buffer, RecvFlags::PEEK)?));
    peeked.map(|(length, _)| length)
}

/// Fills the guest's first buffer that has room, as soon as something has come.
async fn received(
    caller: &mut Call<'_>,
    socket: &Socket,
    [array, count]: [u32; 2],
    take: Take,
) -> wasmtime::Result<u32> {
    let connection = socket.connection()?;
    loop {
        let mut memory = memory(caller)?;
        let buffer = memory.buffer(array, count)?;
        if buffer.is_empty() {
            return Ok(0);
        }
        match take(connection, buffer) {
            Ok(length) => return Ok(u32::try_from(length)?),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && !socket.is_nonblocking => {}
            Err(error) => return Err(Refused::from(&error).into()),
        }
        connection.stream.readable().await.map_err(|error| Refused::from(&error))?;
    }
}

async fn write(
    caller: &mut Call<'_>,
    socket: &Socket,
    _: i32,
    [array, count, at]: [i32; 3],
) -> wasmtime::Result<()> {
    let connection = socket.connection()?;
    let [array, count] = places([array, count]);
    let number = loop {
        let memory = memory(caller)?;
        match connection.stream.try_write_vectored(&memory.message(array, count)?) {
            Ok(length) => break u32::try_from(length)?,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && !socket.is_nonblocking => {}
            Err(error) => return Err(Refused::from(&error).into()),
        }
        connection.stream.writable().await.map_err(|error| Refused::from(&error))?;
    };
    Ok(memory(caller)?.write(at.cast_unsigned(), number.to_le_bytes())?)
}

async fn shut_down(caller: &mut Call<'_>, fd: i32, how: i32) -> wasmtime::Result<()> {
    let socket = ours(caller, fd).await?;
    let how = match how {
        1 => Shutdown::Read,
        2 => Shutdown::Write,
        3 => Shutdown::Both,
        _ => return Err(Refused(Errno::Inval).into()),
    };
    let done = shutdown(&socket.connection()?.stream, how);
    Ok(done.map_err(|error| Refused::from(&io::Error::from(error)))?)
}
