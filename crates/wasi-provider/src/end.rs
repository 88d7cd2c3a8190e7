//! How a guest's run ended, in the words of the port.

use std::any::Any;

use coracle_lifecycle::Cause;
use wasmtime::{Error, Trap, WasmBacktrace};
use wasmtime_wasi::I32Exit;

use crate::usage::MemoryExceeded;

/// What a shell reports of a program that aborted (128 + SIGABRT).
const ABORTED: i32 = 134;
/// What a shell reports of a program that used memory which is not its own (128 + SIGSEGV).
const MEMORY_FAULT: i32 = 139;
/// Longer messages are cut: Kubernetes keeps 4 KiB of a container's message, and 12 KiB of all in a pod.
const MAX_MESSAGE: usize = 2 << 10;

/// What a run came to: the program's own verdict, or an error that ended it.
pub(crate) type Verdict = wasmtime::Result<Result<(), ()>>;

/// The end that a program reached by itself.
pub(crate) fn of(verdict: Verdict) -> (Cause, Option<String>) {
    match verdict {
        Ok(Ok(())) => (Cause::Exited(0), None),
        Ok(Err(())) => (Cause::Exited(1), None),
        Err(error) => of_error(&error),
    }
}

fn of_error(error: &Error) -> (Cause, Option<String>) {
    if let Some(I32Exit(code)) = error.downcast_ref() {
        // As a process' exit code has it: the lowest eight bits.
        return (Cause::Exited(code & 0xff), None);
    }
    let cause = if error.is::<MemoryExceeded>() {
        Cause::OutOfMemory
    } else {
        match error.downcast_ref() {
            Some(Trap::MemoryOutOfBounds | Trap::StackOverflow) => Cause::Trapped(MEMORY_FAULT),
            _ => Cause::Trapped(ABORTED),
        }
    };
    (cause, Some(message(error)))
}

/// The end of a run in which a host function panicked.
pub(crate) fn of_panic(panic: &(dyn Any + Send)) -> (Cause, Option<String>) {
    let text =
        panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    let message = format!("the runtime failed: {}", text.unwrap_or("for an unknown reason"));
    (Cause::Trapped(ABORTED), Some(cut(message)))
}

/// The innermost cause, then the functions that were running.
pub(crate) fn message(error: &Error) -> String {
    let cause = error.root_cause();
    cut(match error.downcast_ref::<WasmBacktrace>() {
        Some(backtrace) if !backtrace.frames().is_empty() => format!("{cause}\n{backtrace}"),
        _ => cause.to_string(),
    })
}

fn cut(mut message: String) -> String {
    if message.len() > MAX_MESSAGE {
        message.truncate(message.floor_char_boundary(MAX_MESSAGE - "…".len()));
        message.push('…');
    }
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_ends_by_itself_has_its_own_code() {
        assert_eq!(of(Ok(Ok(()))), (Cause::Exited(0), None));
        assert_eq!(of(Ok(Err(()))), (Cause::Exited(1), None));
        for (code, shown) in [(0, 0), (7, 7), (200, 200), (255, 255), (256, 0), (-1, 255)] {
            assert_eq!(of(Err(I32Exit(code).into())), (Cause::Exited(shown), None), "{code}");
        }
    }

    #[test]
    fn a_failure_has_the_code_a_shell_would_show() {
        for (trap, code) in [
            (Trap::UnreachableCodeReached, 134),
            (Trap::IntegerDivisionByZero, 134),
            (Trap::MemoryOutOfBounds, 139),
            (Trap::StackOverflow, 139),
        ] {
            let (cause, message) = of(Err(trap.into()));
            assert_eq!(cause, Cause::Trapped(code), "{trap}");
            assert_eq!(message, Some(trap.to_string()));
        }
        assert_eq!(of_panic(&"broken").1.unwrap(), "the runtime failed: broken");
    }

    #[test]
    fn messages_are_bounded() {
        let message = cut("ä".repeat(2000));
        assert!(message.len() <= MAX_MESSAGE && message.ends_with("ä…"), "{}", message.len());
    }
}
