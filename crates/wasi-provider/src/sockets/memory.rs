//! A guest's memory, as the calls of wasip1 use it, and how they refuse.

use std::io::{self, ErrorKind, IoSlice};

use thiserror::Error;
use wasmtime::{Caller, Extern};
use wasmtime_wasi::p1::types::Errno;

use crate::guest::ModuleGuest;

/// The most pieces that one call may name: as many as Linux takes.
const MAX_PIECES: u32 = 1024;

/// Why a call of a guest has failed.
#[derive(Clone, Copy, Debug, Error)]
#[error("{0:?}")]
pub(super) struct Refused(pub(super) Errno);

impl From<&io::Error> for Refused {
    fn from(error: &io::Error) -> Self {
        Self(match error.kind() {
            ErrorKind::WouldBlock => Errno::Again,
            ErrorKind::ConnectionReset => Errno::Connreset,
            ErrorKind::ConnectionAborted => Errno::Connaborted,
            ErrorKind::BrokenPipe => Errno::Pipe,
            ErrorKind::NotConnected => Errno::Notconn,
            ErrorKind::TimedOut => Errno::Timedout,
            ErrorKind::InvalidInput => Errno::Inval,
            _ => Errno::Io,
        })
    }
}

/// What a call answers: nothing went wrong, a number that says what did, or the end of the guest.
pub(super) fn answer(outcome: wasmtime::Result<()>) -> wasmtime::Result<i32> {
    match outcome.map_err(wasmtime::Error::downcast::<Refused>) {
        Ok(()) => Ok(0),
        Err(Ok(Refused(errno))) => Ok(errno as i32),
        Err(Err(error)) => Err(error),
    }
}

/// The memory that a guest names places in.
pub(super) struct Memory<'a>(pub(super) &'a mut [u8]);

impl<'a> Memory<'a> {
    /// That of the caller, and the rest of what it has.
    pub(super) fn of(
        caller: &'a mut Caller<'_, ModuleGuest>,
    ) -> wasmtime::Result<(Self, &'a mut ModuleGuest)> {
        let memory = caller.get_export("memory").and_then(Extern::into_memory);
        let memory = memory.ok_or_else(|| wasmtime::format_err!("missing required memory export"))?;
        let (bytes, guest) = memory.data_and_store_mut(caller);
        Ok((Self(bytes), guest))
    }

    pub(super) fn bytes(&self, at: u32, length: u32) -> Result<&[u8], Refused> {
        let (start, length) = (at as usize, length as usize);
        let end = start.checked_add(length).ok_or(Refused(Errno::Fault))?;
        self.0.get(start..end).ok_or(Refused(Errno::Fault))
    }

    pub(super) fn bytes_mut(&mut self, at: u32, length: u32) -> Result<&mut [u8], Refused> {
        let (start, length) = (at as usize, length as usize);
        let end = start.checked_add(length).ok_or(Refused(Errno::Fault))?;
        self.0.get_mut(start..end).ok_or(Refused(Errno::Fault))
    }

    pub(super) fn read<const N: usize>(&self, at: u32) -> Result<[u8; N], Refused> {
        let length = u32::try_from(N).map_err(|_| Refused(Errno::Fault))?;
        self.bytes(at, length)?.try_into().map_err(|_| Refused(Errno::Fault))
    }

    pub(super) fn write<const N: usize>(&mut self, at: u32, bytes: [u8; N]) -> Result<(), Refused> {
        let length = u32::try_from(N).map_err(|_| Refused(Errno::Fault))?;
        self.bytes_mut(at, length)?.copy_from_slice(&bytes);
        Ok(())
    }

    pub(super) fn read_u32(&self, at: u32) -> Result<u32, Refused> {
        self.read(at).map(u32::from_le_bytes)
    }

    /// The pieces that an array of pointers and lengths names, those without content left out.
    fn pieces(&self, array: u32, count: u32) -> impl Iterator<Item = Result<(u32, u32), Refused>> {
        let piece = move |index: u32| {
            let at = index.checked_mul(8).and_then(|offset| array.checked_add(offset));
            let at = at.ok_or(Refused(Errno::Fault))?;
            let length_at = at.checked_add(4).ok_or(Refused(Errno::Fault))?;
            Ok((self.read_u32(at)?, self.read_u32(length_at)?))
        };
        let too_many = (count > MAX_PIECES).then_some(Err(Refused(Errno::Inval)));
        let pieces = (0..count.min(MAX_PIECES)).map(piece);
        too_many.into_iter().chain(pieces).filter(|piece| !matches!(piece, Ok((_, 0))))
    }

    /// The first place of an array of them that has room; empty when none has.
    pub(super) fn buffer(&mut self, array: u32, count: u32) -> Result<&mut [u8], Refused> {
        let first = self.pieces(array, count).next().transpose()?;
        let (at, length) = first.unwrap_or((0, 0));
        self.bytes_mut(at, length)
    }

    /// What an array of pieces holds.
    pub(super) fn message(&self, array: u32, count: u32) -> Result<Vec<IoSlice<'_>>, Refused> {
        let pieces = self.pieces(array, count);
        pieces.map(|piece| piece.and_then(|(at, length)| self.bytes(at, length).map(IoSlice::new))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two places: four bytes at 32, and none.
    fn bytes() -> Vec<u8> {
        let mut bytes = vec![0; 64];
        bytes[8..12].copy_from_slice(&32_u32.to_le_bytes());
        bytes[12..16].copy_from_slice(&4_u32.to_le_bytes());
        bytes[32..36].copy_from_slice(b"four");
        bytes
    }

    #[test]
    fn places_that_are_empty_are_passed_over() {
        let mut bytes = bytes();
        let mut memory = Memory(&mut bytes);
        assert_eq!(memory.buffer(0, 2).unwrap(), b"four");
        assert_eq!(memory.buffer(0, 1).unwrap(), b"");
        assert_eq!(memory.buffer(0, 0).unwrap(), b"");
        assert_eq!(memory.message(0, 3).unwrap().iter().map(|piece| piece.len()).sum::<usize>(), 4);
    }

    #[test]
    fn what_lies_outside_is_refused() {
        let mut bytes = bytes();
        bytes[16..20].copy_from_slice(&60_u32.to_le_bytes());
        bytes[20..24].copy_from_slice(&5_u32.to_le_bytes());
        let mut memory = Memory(&mut bytes);
        for (array, count) in [(60, 1), (u32::MAX, 1), (u32::MAX - 8, 2), (16, 1), (0, MAX_PIECES + 1)] {
            assert!(memory.buffer(array, count).is_err(), "{array}");
            assert!(memory.message(array, count).is_err(), "{array}");
        }
        assert!(memory.write(62, [0; 4]).is_err());
        assert!(memory.write(60, [0; 4]).is_ok());
    }
}
