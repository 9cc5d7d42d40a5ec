//! The channels of a session: as many at once as do good, and as the server allows.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use russh::Channel;
use russh::client::Msg;
use tokio::sync::{Semaphore, SemaphorePermit};

use super::session::{Session, Stage};
use crate::outcome::{Class, Failure};

/// sshd's MaxSessions is 10.
pub const AT_ONCE: usize = 8;
/// Until a server that has refused the only channel is asked for it again.
const PAUSE: Duration = Duration::from_millis(20);

pub struct Channels<'s> {
    session: &'s Session,
    free: Semaphore,
    most: AtomicUsize,
    /// Whether there ever was one.
    opened: AtomicBool,
}

impl<'s> Channels<'s> {
    pub fn new(session: &'s Session) -> Self {
        let (free, most) = (Semaphore::new(AT_ONCE), AtomicUsize::new(AT_ONCE));
        Channels { session, free, most, opened: AtomicBool::new(false) }
    }

    /// The next channel, and what is to be held until the server has noticed its end. None when the server
    /// takes longer than `timeout`, the time that others need not counted.
    pub async fn open(
        &self,
        stage: &Stage,
        timeout: Duration,
    ) -> Result<Option<(SemaphorePermit<'_>, Channel<Msg>)>, Failure> {
        loop {
            let permit = self.free.acquire().await.map_err(|e| Failure::new(Class::Bug, e.to_string()))?;
            stage.enter("opening a channel");
            let Ok(asked) = tokio::time::timeout(timeout, self.ask(timeout)).await else { return Ok(None) };
            if let Some(channel) = asked? {
                self.opened.store(true, Ordering::Relaxed);
                return Ok(Some((permit, channel)));
            }
            if self.most.load(Ordering::Relaxed) == 1 {
                return Err(self.session.no_channel());
            }
            // It has not as many as we want, or has not noticed yet that one is over: one fewer will do.
            self.most.fetch_sub(1, Ordering::Relaxed);
            permit.forget();
        }
    }

    /// Asks once; but where this is the only one, and there were others before, until the last of those is over.
    async fn ask(&self, timeout: Duration) -> Result<Option<Channel<Msg>>, Failure> {
        let end = Instant::now() + timeout;
        loop {
            let channel = self.session.channel().await?;
            let (is_only, were_others) = (self.most.load(Ordering::Relaxed) == 1, self.opened.load(Ordering::Relaxed));
            if channel.is_some() || !is_only || !were_others || Instant::now() > end {
                return Ok(channel);
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
}
