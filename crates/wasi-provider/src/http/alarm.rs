//! A time to wake up at, which is seldom needed.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use parking_lot::Mutex;
use tokio::time::{Instant, Sleep, sleep_until};

/// A timer that is made when it is first needed. It is set for an earlier time at once, and for a later one when it has
/// gone off: who shares one, one after the other, seldom has to set it.
#[derive(Clone, Default)]
pub(super) struct Alarm(Arc<Mutex<Option<Pin<Box<Sleep>>>>>);

impl Alarm {
    /// Ready when that time has come.
    pub(super) fn poll(&self, at: Instant, context: &mut Context<'_>) -> Poll<()> {
        let mut sleep = self.0.lock();
        let sleep = sleep.get_or_insert_with(|| Box::pin(sleep_until(at)));
        if sleep.deadline() > at {
            sleep.as_mut().reset(at);
        }
        loop {
            ready!(sleep.as_mut().poll(context));
            if sleep.deadline() >= at {
                return Poll::Ready(());
            }
            sleep.as_mut().reset(at);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::time::Duration;

    use futures::FutureExt as _;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_goes_off_at_the_time_that_was_last_asked_for() {
        let (alarm, began) = (Alarm::default(), Instant::now());
        let seconds = Duration::from_secs;
        let at = |after| poll_fn(move |_| Poll::Ready(began + seconds(after)));
        let wait = async |after| {
            let time = at(after).await;
            poll_fn(|context| alarm.poll(time, context)).await;
            began.elapsed()
        };
        assert!(wait(5).now_or_never().is_none());
        assert_eq!(wait(10).await, seconds(10));
        assert!(wait(30).now_or_never().is_none());
        assert_eq!(wait(20).await, seconds(20));
        assert_eq!(wait(1).await, seconds(20));
    }
}
