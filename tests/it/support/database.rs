//! A PostgreSQL server whose data and log may contain no planted text.

use std::{ops::Deref, thread};

use thingspace_postgres_server::{Options, Server};

use super::secrets::{assert_no_planted_text, assert_no_planted_text_below};

/// A server. Its files and its log are searched when it is dropped.
pub struct SearchedServer(Server);

impl SearchedServer {
    pub async fn start_new(options: Options) -> Self {
        Server::start_new(options).await.expect("a server").into()
    }
}

impl From<Server> for SearchedServer {
    fn from(server: Server) -> Self {
        Self(server)
    }
}

impl Deref for SearchedServer {
    type Target = Server;

    fn deref(&self) -> &Server {
        &self.0
    }
}

impl Drop for SearchedServer {
    fn drop(&mut self) {
        if !thread::panicking() {
            assert_no_planted_text("the log of PostgreSQL", self.0.log().as_bytes());
            assert_no_planted_text_below(&self.0.data_dir());
        }
    }
}
