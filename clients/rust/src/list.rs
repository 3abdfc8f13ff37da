//! Lists that follow `next_page_token`.

use std::{
    fmt,
    future::poll_fn,
    pin::Pin,
    task::{Context, Poll, ready},
    vec,
};

use futures_core::Stream;

use crate::{BoxFuture, GatewayError};

/// The items of all pages of a list.
///
/// Read it with [`try_next`](Self::try_next) or [`try_collect`](Self::try_collect), or as a [`Stream`]. It
/// ends after an error.
#[must_use = "a list does nothing unless it is read"]
pub struct List<T> {
    /// Reads the page with this token.
    read: Box<dyn Fn(String) -> Reading<T> + Send + Sync>,
    items: vec::IntoIter<T>,
    next: Next<T>,
}

type Reading<T> = BoxFuture<Result<Page<T>, GatewayError>>;

/// One page.
pub(crate) struct Page<T> {
    pub(crate) items: Vec<T>,
    pub(crate) next_page_token: String,
}

enum Next<T> {
    Page(String),
    Reading(Reading<T>),
    End,
}

impl<T> List<T> {
    pub(crate) fn new(
        page_token: String,
        read: impl Fn(String) -> Reading<T> + Send + Sync + 'static,
    ) -> Self {
        Self { read: Box::new(read), items: Vec::new().into_iter(), next: Next::Page(page_token) }
    }

    /// Returns the next item, or `None` at the end.
    pub async fn try_next(&mut self) -> Result<Option<T>, GatewayError> {
        poll_fn(|context| self.poll_item(context)).await.transpose()
    }

    /// Returns all items.
    pub async fn try_collect(mut self) -> Result<Vec<T>, GatewayError> {
        let mut items = Vec::new();
        while let Some(item) = self.try_next().await? {
            items.push(item);
        }
        Ok(items)
    }

    fn poll_item(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<T, GatewayError>>> {
        loop {
            if let Some(item) = self.items.next() {
                return Poll::Ready(Some(Ok(item)));
            }
            match &mut self.next {
                Next::Page(token) => self.next = Next::Reading((self.read)(std::mem::take(token))),
                Next::Reading(reading) => match ready!(reading.as_mut().poll(context)) {
                    Ok(page) => {
                        self.items = page.items.into_iter();
                        let token = page.next_page_token;
                        self.next = if token.is_empty() { Next::End } else { Next::Page(token) };
                    }
                    Err(error) => {
                        self.next = Next::End;
                        return Poll::Ready(Some(Err(error)));
                    }
                },
                Next::End => return Poll::Ready(None),
            }
        }
    }
}

impl<T: Unpin> Stream for List<T> {
    type Item = Result<T, GatewayError>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.get_mut().poll_item(context)
    }
}

impl<T> fmt::Debug for List<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("List").finish_non_exhaustive()
    }
}
