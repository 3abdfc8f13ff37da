//! How many calls a minute may have.

use std::time::Duration;

use tokio::time::Instant;

const MINUTE: Duration = Duration::from_secs(60);

/// Counts the calls of a minute, as WSO2's limiter does: by whole windows.
pub(super) struct Limiter {
    most: u32,
    began: Instant,
    count: u32,
}

impl Limiter {
    /// `most` calls a minute, or any number with 0.
    pub(super) fn new(most: u32) -> Self {
        Self {
            most,
            began: Instant::now(),
            count: 0,
        }
    }

    /// Lets a call pass, or says after how many seconds another may come.
    pub(super) fn take(&mut self) -> Result<(), u64> {
        if self.most == 0 {
            return Ok(());
        }
        let now = Instant::now();
        if now.duration_since(self.began) >= MINUTE {
            self.began = now;
            self.count = 0;
        }
        if self.count < self.most {
            self.count += 1;
            return Ok(());
        }
        let left = MINUTE.saturating_sub(now.duration_since(self.began));
        Err(left.as_secs() + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn beyond_the_limit_it_says_when_the_minute_is_over() {
        let mut limiter = Limiter::new(2);
        assert_eq!((limiter.take(), limiter.take()), (Ok(()), Ok(())));
        tokio::time::advance(Duration::from_millis(10_500)).await;
        assert_eq!(limiter.take(), Err(50));
        tokio::time::advance(Duration::from_secs(50)).await;
        assert_eq!(limiter.take(), Ok(()));
    }

    #[tokio::test]
    async fn no_limit_is_none() {
        let mut limiter = Limiter::new(0);
        assert!((0..10_000).all(|_| limiter.take().is_ok()));
    }
}
